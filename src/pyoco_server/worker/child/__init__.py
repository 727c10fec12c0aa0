"""The process of a run: what forks it, what it runs, what it reports, and how it is ended."""
