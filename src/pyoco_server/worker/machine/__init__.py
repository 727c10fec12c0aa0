"""The worker's machine: what it has, and whether it can begin runs."""
