"""The worker inside somebody else's program."""

from collections.abc import Callable
from typing import Any

from typing_extensions import Self

from pyoco_server.errors import CommandFailed
from pyoco_server.settings import Settings
from pyoco_server.worker.resolvers import resolver_of
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
            flow_resolver: Gives flows by name, in the process of each run: a function, or its ``module:function`` or
                ``path/file.py:function``. One at the top level of a module is imported there. Any other (a closure, a
                method, a lambda, a partial, a function of the script itself) is copied there when a run begins, with
                what it refers to: it sees its variables as they are then, and what it does to them stays there.

        Raises:
            CommandFailed: the resolver cannot be imported or copied, or the name is taken.
        """
        settings = config or Settings.from_env()
        worker = cls(settings, worker_id=worker_id, tags=tags, resolver=resolver_of(flow_resolver))
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
