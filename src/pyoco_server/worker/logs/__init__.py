"""The log of a run on its way to NATS."""
