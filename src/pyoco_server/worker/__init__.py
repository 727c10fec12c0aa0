"""The worker: one asyncio process that takes jobs, and child processes that run them."""

import importlib
from typing import Any


def __getattr__(name: str) -> Any:
    """Load what existing programs import from here, on first use."""
    if name == "PyocoNatsWorker":
        return getattr(importlib.import_module("pyoco_server.worker.embedding"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
