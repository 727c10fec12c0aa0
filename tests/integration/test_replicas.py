"""What reads, writes and workers do while three NATS servers have no leader."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from pyoco_server.errors import StoreUnavailable
from pyoco_server.model.run import RunRecord, new_run_id
from pyoco_server.settings.environment import Settings
from pyoco_server.store import topology
from pyoco_server.store.flows import FlowStore
from pyoco_server.store.nats.bucket import Bucket
from pyoco_server.store.nats.connection import Connection
from pyoco_server.store.queue.job_maker import JobMaker
from pyoco_server.store.queue.job_queue import JobQueue
from pyoco_server.store.runs import RunStore
from pyoco_server.store.submissions import Submissions
from pyoco_server.worker.worker import Worker
from tests.nats_cluster import REPLICAS, NatsCluster

pytestmark = [pytest.mark.anyio, pytest.mark.slow, pytest.mark.timeout(240)]

DEADLINE = 60.0


async def until(holds: Callable[[], Awaitable[Any]], what: str) -> Any:
    deadline = time.monotonic() + DEADLINE
    while True:
        with contextlib.suppress(StoreUnavailable):
            if found := await holds():
                return found
        assert time.monotonic() < deadline, f"not within {DEADLINE:g} s: {what}"
        await asyncio.sleep(0.1)


@pytest.fixture
def servers(tmp_path: Path) -> Any:
    with NatsCluster(tmp_path / "nats").running() as running:
        yield running


@pytest.fixture
async def connection(settings: Settings, servers: NatsCluster) -> AsyncIterator[Connection]:
    mine = settings.model_copy(update={"nats_url": ",".join(servers.urls), "nats_replicas": REPLICAS})
    connection = await Connection(mine, "test").start()
    assert await connection.wait_up(DEADLINE)

    async def made() -> bool:
        await topology.ensure(connection)
        return True

    await until(made, "the streams are made")
    try:
        yield connection
    finally:
        await connection.close()


async def leader_of(connection: Connection, stream: str) -> str:
    async def look() -> str | None:
        with connection.errors("looking for a leader"):
            cluster = (await connection.js.stream_info(stream)).cluster
        return cluster.leader if cluster else None

    return str(await until(look, f"{stream} has a leader"))


async def silent_for(connection: Connection, seconds: float) -> bool:
    return connection.cluster.silent_for > seconds


async def test_a_write_and_a_read_wait_for_the_next_leader(connection: Connection, servers: NatsCluster) -> None:
    name = connection.settings.runs_kv_bucket
    patient, hasty = Bucket(connection, name, patient=True), Bucket(connection, name)
    revision = await patient.create("before", b"x")
    servers.kill(await leader_of(connection, patient.stream))
    with pytest.raises(StoreUnavailable):
        await hasty.update("before", b"y", revision)
    # Any replica answers this one, also now.
    entry = await until(lambda: hasty.get("before", perhaps_late=True), "a replica answers")
    assert entry.value == b"x"
    written, read = await asyncio.gather(patient.create("after", b"y"), patient.get("before"), return_exceptions=True)
    if isinstance(written, BaseException) or isinstance(read, BaseException):  # a slow election: 4 to 9 s are usual
        written = await until(lambda: patient.put("after", b"y"), "it can be written")
    assert await patient.get("after") is not None and written


async def test_replicas_are_known_from_the_server_and_not_from_the_settings(
    connection: Connection, servers: NatsCluster
) -> None:
    # A worker whose environment does not name the replicas must not read a replica that is behind either.
    other = await Connection(connection.settings.model_copy(update={"nats_replicas": 1}), "other").start()
    try:
        assert await other.wait_up(DEADLINE)
        await topology.ensure(other)
        assert RunStore(other).may_be_late
    finally:
        await other.close()


async def test_a_worker_outlives_the_loss_of_a_majority(
    connection: Connection, servers: NatsCluster, tmp_path: Path
) -> None:
    module = tmp_path / "flows.py"
    module.write_text(
        "from pyoco.dsl.syntax import task\nfrom pyoco import Flow\n\n@task\ndef t():\n    return 1\n\n"
        "def resolve(name):\n    return Flow(name) >> t\n"
    )
    worker = Worker(connection.settings, worker_id="w", tags=["default"], resolver=f"{module}:resolve")
    await worker.start()
    serving = asyncio.create_task(worker.run(drain_sec=1))
    runs = RunStore(connection)
    submissions = Submissions(runs, JobMaker(JobQueue(connection), FlowStore(connection)))

    async def run_one() -> bool:
        record = RunRecord(
            run_id=new_run_id(), flow_name="f", tag="default", tags=["default"], submitted_at=time.time()
        )
        made = await submissions.submit(record)

        async def ended() -> bool:
            stored = await runs.get(made.stored.record.run_id)
            return stored is not None and stored.record.status.is_terminal

        return bool(await until(ended, "the run ends"))

    try:
        assert await run_one()
        for name in servers.names[:2]:
            servers.kill(name)
        # Longer than a worker bears requests for jobs that are not answered where it is the one that is deaf. A leader
        # that is left alone answers for a while.
        await until(lambda: silent_for(connection, 14), "nobody answers")
        assert connection.up_since is None
        began = time.monotonic()
        with pytest.raises(StoreUnavailable):  # where there has been no leader for long, nobody is kept waiting
            await runs.create(RunRecord(run_id=new_run_id(), flow_name="f"))
        assert time.monotonic() - began < 8
        for name in servers.names[:2]:
            servers.start(name)
        assert await until(run_one, "runs are run again")
        assert not worker.stopping.is_set() and not serving.done()
    finally:
        worker.stopping.set()
        await serving
        await worker.close()
