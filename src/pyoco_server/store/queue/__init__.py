"""The queue of jobs: what waits, who fetches it, and what NATS gave up."""
