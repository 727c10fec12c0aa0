"""pyoco-server: runs pyoco workflows on a handful of machines.

The names below are loaded on first use, so that a client does not pay for the gateway,
and a task's process does not pay for either.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyoco_server.client.async_http import AsyncPyocoHttpClient
    from pyoco_server.client.http import PyocoHttpClient
    from pyoco_server.config import NatsBackendConfig
    from pyoco_server.process.logs import configure_logging
    from pyoco_server.store.client import PyocoNatsClient
    from pyoco_server.store.topology import ensure_resources
    from pyoco_server.worker.embedding import PyocoNatsWorker

__version__ = "0.1.0"

_HOMES = {
    "NatsBackendConfig": "pyoco_server.config",
    "ensure_resources": "pyoco_server.store.topology",
    "PyocoNatsClient": "pyoco_server.store.client",
    "PyocoHttpClient": "pyoco_server.client.http",
    "AsyncPyocoHttpClient": "pyoco_server.client.async_http",
    "PyocoNatsWorker": "pyoco_server.worker.embedding",
    "configure_logging": "pyoco_server.process.logs",
}

__all__ = [
    "AsyncPyocoHttpClient",
    "NatsBackendConfig",
    "PyocoHttpClient",
    "PyocoNatsClient",
    "PyocoNatsWorker",
    "configure_logging",
    "ensure_resources",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
