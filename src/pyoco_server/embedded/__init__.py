"""The whole system in one command: an embedded NATS, the gateway, workers, and the demo."""
