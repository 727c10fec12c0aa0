"""The HTTP client: light, without the gateway's and the worker's dependencies."""

import importlib
from typing import Any


def __getattr__(name: str) -> Any:
    """Load what existing programs import from here, on first use."""
    if name == "PyocoNatsClient":
        return getattr(importlib.import_module("pyoco_server.store.client"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
