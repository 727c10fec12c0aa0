"""For programs that speak to NATS themselves, as the existing system lets them."""

import time
from typing import Any

from typing_extensions import Self

from pyoco_server.model.run import RunRecord, new_run_id
from pyoco_server.model.tags import check_tag
from pyoco_server.settings import Settings
from pyoco_server.store import topology
from pyoco_server.store.connection import Connection
from pyoco_server.store.flows import FlowStore
from pyoco_server.store.job_maker import JobMaker
from pyoco_server.store.queue import JobQueue
from pyoco_server.store.runs import RunStore
from pyoco_server.store.submissions import Submissions


class PyocoNatsClient:
    """Submits runs and reads them without the gateway."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._runs = RunStore(connection)
        self._submissions = Submissions(self._runs, JobMaker(JobQueue(connection), FlowStore(connection)))

    @classmethod
    async def connect(cls, config: Settings | None = None, *, timeout: float = 10.0) -> Self:
        """Connect, and create what is missing.

        Raises:
            StoreUnavailable: NATS cannot be reached within ``timeout`` seconds.
            StoreRefused: it does not let us in.
        """
        connection = await Connection(config or Settings.from_env(), "pyoco-nats-client").start()
        try:
            await connection.wait_up(timeout)
            await topology.ensure(connection)
        except BaseException:
            await connection.close()
            raise
        return cls(connection)

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
        stored = await self._runs.get(run_id)
        if stored is None:
            raise KeyError(run_id)
        return stored.record.model_dump(mode="json")
