"""The one door to NATS: only this package imports its client."""
