"""The HTTP client: light, without the gateway's and the worker's dependencies."""
