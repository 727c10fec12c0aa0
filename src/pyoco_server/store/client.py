"""For programs that speak to NATS themselves, as the existing system lets them."""

import time
from typing import Any

from nats.aio.client import Client
from typing_extensions import Self

from pyoco_server.config import NatsBackendConfig, settings_of
from pyoco_server.model.record.snapshot import with_unstarted
from pyoco_server.model.run import RunRecord, new_run_id
from pyoco_server.model.tags import check_tag
from pyoco_server.settings.environment import Settings
from pyoco_server.store import topology
from pyoco_server.store.flows import FlowStore
from pyoco_server.store.nats.adopted import AdoptedConnection
from pyoco_server.store.nats.connection import Connection
from pyoco_server.store.queue.job_maker import JobMaker
from pyoco_server.store.queue.job_queue import JobQueue
from pyoco_server.store.runs import RunStore
from pyoco_server.store.submissions import Submissions

Config = Settings | NatsBackendConfig | None


class PyocoNatsClient:
    """Submits runs and reads them without the gateway.

    Args:
        nc: A connection of the program's own that is up; ``close`` closes it. ``connect`` makes one.
        config: Where everything lies; read from the environment when not given.
    """

    def __init__(self, nc: Client | Connection, config: Config = None) -> None:
        self._connection = (
            nc if isinstance(nc, Connection) else AdoptedConnection(nc, settings_of(config), "pyoco-nats-client")
        )
        self._runs = RunStore(self._connection)
        jobs = JobMaker(JobQueue(self._connection), FlowStore(self._connection))
        self._submissions = Submissions(self._runs, jobs)
        self._begun = self._ready = False

    @classmethod
    async def connect(cls, config: Config = None, *, timeout: float = 10.0) -> Self:
        """Connect, and create what is missing.

        Raises:
            StoreUnavailable: NATS cannot be reached within ``timeout`` seconds.
            StoreRefused: it does not let us in.
        """
        client = cls(Connection(settings_of(config), "pyoco-nats-client"))
        try:
            await client._init(timeout)
        except BaseException:
            await client.close()
            raise
        return client

    async def _init(self, timeout: float = 10.0) -> None:
        """Create what is missing; programs that bring a connection may call it, or leave that to the first call."""
        if not self._ready:
            if not self._begun:
                self._begun = True
                await self._connection.start()
            await self._connection.wait_up(timeout)
            await topology.ensure(self._connection)
            self._ready = True

    async def close(self) -> None:
        """Close the connection."""
        await self._connection.close()

    async def submit_run(
        self,
        flow_name: str,
        params: dict[str, Any] | None = None,
        *,
        tag: str | None = None,
        tags: list[str] | None = None,
    ) -> str:
        """Submit a run of a flow that the workers' resolver knows; its run_id is the answer."""
        await self._init()
        tag = check_tag(tag or self._connection.settings.default_tag)
        now = time.time()
        record = RunRecord(
            run_id=new_run_id(), flow_name=flow_name, params=params or {}, tag=tag, tags=tags or [tag],
            submitted_at=now, heartbeat_at=now, updated_at=now,
        )  # fmt: skip
        await self._submissions.submit(record)
        return record.run_id

    async def get_run(self, run_id: str) -> dict[str, Any]:
        """Read a run's snapshot.

        Raises:
            KeyError: there is no such run.
        """
        await self._init()
        stored = await self._runs.get(run_id)
        if stored is None:
            raise KeyError(run_id)
        return with_unstarted(stored.record.model_dump(mode="json"))
