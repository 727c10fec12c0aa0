"""The worker inside somebody else's program."""

import sys
from collections.abc import Callable
from typing import Any

from typing_extensions import Self

from pyoco_server.errors import CommandFailed
from pyoco_server.settings import Settings
from pyoco_server.worker.worker import Worker


class PyocoNatsWorker(Worker):
    """The worker as existing programs embed it: ``connect``, ``run_once`` in a loop, ``close``."""

    @classmethod
    async def connect(
        cls,
        *,
        config: Settings | None = None,
        flow_resolver: Callable[[str], Any] | str | None = None,
        worker_id: str = "worker",
        tags: list[str] | None = None,
    ) -> Self:
        """Start a worker with one slot.

        Args:
            flow_resolver: A function of a module (or its spec). It runs in a child process, so it must be importable.

        Raises:
            CommandFailed: the resolver cannot be imported, or the name is taken.
        """
        resolver = flow_resolver if flow_resolver is None or isinstance(flow_resolver, str) else _spec(flow_resolver)
        worker = cls(config or Settings.from_env(), worker_id=worker_id, tags=tags, resolver=resolver)
        await worker.start()
        return worker


def _spec(function: Callable[[str], Any]) -> str:
    """Name a function so that a child process can import it."""
    module = sys.modules.get(function.__module__)
    if "<" in function.__qualname__ or "." in function.__qualname__:
        raise CommandFailed(
            f"the flow resolver {function.__qualname__} cannot be imported by the process that runs flows",
            hint="Define it at the top level of a module.",
        )
    file = getattr(module, "__file__", None)
    return f"{file}:{function.__name__}" if file else f"{function.__module__}:{function.__name__}"
