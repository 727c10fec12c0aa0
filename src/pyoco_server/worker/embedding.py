"""The worker inside somebody else's program."""

import sys
from collections.abc import Callable
from typing import Any

from typing_extensions import Self

from pyoco_server.errors import CommandFailed
from pyoco_server.settings import Settings
from pyoco_server.worker.worker import DEFAULT_DRAIN_SEC, DEFAULT_POLL_SEC, Worker


class PyocoNatsWorker(Worker):
    """The worker as existing programs embed it: ``connect``, ``run_once`` in a loop, ``close``.

    Asked to drain (``POST /workers/{id}/drain``) it sets ``stopping``: a run that it has may still end within
    ``run_once``'s ``drain_sec``, and the next ``run_once`` raises, so that the loop ends and ``close`` says goodbye.
    Its figures of memory and CPU are those of the whole program.
    """

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

    async def run_once(self, timeout: float = DEFAULT_POLL_SEC, drain_sec: float = DEFAULT_DRAIN_SEC) -> str | None:
        """Run one job if there is one; its run_id is the answer.

        Args:
            timeout: Seconds to wait for a job.
            drain_sec: Seconds that it gets to finish once ``stopping`` is set.

        Raises:
            CommandFailed: it takes no more runs: somebody asked it to drain, or ``stopping`` was set.
            PyocoError: something without which the worker is of no use has failed.
        """
        if self.stopping.is_set():
            raise CommandFailed(
                f"the worker {self.worker_id} takes no more runs: it is {self.stop_reason or 'stopping'}",
                hint="End the loop when stopping is set, and close the worker.",
            )
        return await super().run_once(timeout, drain_sec)


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
