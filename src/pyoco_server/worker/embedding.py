"""The worker inside somebody else's program."""

from collections.abc import Callable
from typing import Any

from typing_extensions import Self

from pyoco_server.config import NatsBackendConfig, settings_of
from pyoco_server.errors import CommandFailed
from pyoco_server.settings.environment import Settings
from pyoco_server.store.nats.adopted import AdoptedConnection, NatsClient
from pyoco_server.worker.resolver_spec import check_spec
from pyoco_server.worker.resolvers import resolver_of
from pyoco_server.worker.worker import DEFAULT_DRAIN_SEC, DEFAULT_POLL_SEC, Worker

Config = Settings | NatsBackendConfig | None
_CONNECT_SEC = 30.0


class PyocoNatsWorker(Worker):
    """The worker as existing programs embed it: ``connect``, ``run_once`` in a loop, ``close``.

    Asked to drain (``POST /workers/{id}/drain``) it sets ``stopping``: a run that it has may still end within
    ``run_once``'s ``drain_sec``, and the next ``run_once`` raises, so that the loop ends and ``close`` says goodbye.
    Its figures of memory and CPU are those of the whole program.

    Args:
        nc: A connection of the program's own that is up; ``close`` closes it. ``None``: one is made.
        config: Its settings; read from the environment when not given.
        flow_resolver: As for ``connect``.
        worker_id: Its name.
        tags: What it serves.
    """

    def __init__(
        self,
        nc: NatsClient | None = None,
        *,
        config: Config = None,
        flow_resolver: Callable[[str], Any] | str | None = None,
        worker_id: str = "worker",
        tags: list[str] | None = None,
    ) -> None:
        if isinstance(flow_resolver, str):
            check_spec(flow_resolver)
        settings = settings_of(config)
        own = None if nc is None else AdoptedConnection(nc, settings, f"pyoco-worker:{worker_id}")
        super().__init__(settings, worker_id=worker_id, tags=tags, resolver=resolver_of(flow_resolver), connection=own)
        self.begin_within = _CONNECT_SEC
        self._started = False

    @classmethod
    async def connect(
        cls,
        *,
        config: Config = None,
        flow_resolver: Callable[[str], Any] | str | None = None,
        worker_id: str = "worker",
        tags: list[str] | None = None,
        timeout: float = _CONNECT_SEC,
    ) -> Self:
        """Start a worker with one slot.

        Args:
            flow_resolver: Gives flows by name, in the process of each run: a function, or its ``module:function`` or
                ``path/file.py:function``. One at the top level of a module is imported there. Any other (a closure, a
                method, a lambda, a partial, a function of the script itself) is copied there when a run begins, with
                what it refers to: it sees its variables as they are then, and what it does to them stays there.
            timeout: Seconds after which it gives up.

        Raises:
            CommandFailed: the resolver cannot be imported or copied, or the name is taken.
            StoreUnavailable: NATS could not be reached, or did not do what the start needs, within ``timeout`` seconds.
            StoreRefused: it does not let us in.
        """
        worker = cls(config=config, flow_resolver=flow_resolver, worker_id=worker_id, tags=tags)
        worker.begin_within = timeout
        try:
            await worker.start()
        except BaseException:
            await worker.close("it did not start")
            raise
        return worker

    async def start(self) -> None:
        """Start, once: programs that bring a connection may call it, or leave that to the first ``run_once``."""
        if not self._started:
            self._started = True
            await super().start()

    _init = start
    """What existing programs call it."""

    async def run_once(self, timeout: float = DEFAULT_POLL_SEC, drain_sec: float = DEFAULT_DRAIN_SEC) -> str | None:
        """Run one job if there is one; its run_id is the answer.

        Args:
            timeout: Seconds to wait for a job.
            drain_sec: Seconds that it gets to finish once ``stopping`` is set.

        Raises:
            CommandFailed: it takes no more runs: somebody asked it to drain, or ``stopping`` was set.
            StoreRefused: the program's own connection is closed for good.
            PyocoError: something without which the worker is of no use has failed.
        """
        if self.stopping.is_set():
            raise CommandFailed(
                f"the worker {self.worker_id} takes no more runs: it is {self.stop_reason or 'stopping'}",
                hint="End the loop when stopping is set, and close the worker.",
            )
        await self.start()
        if isinstance(self._connection, AdoptedConnection) and self._connection.is_turned_away:
            _ = self._connection.client  # it is closed for good, and says so
        return await super().run_once(timeout, drain_sec)
