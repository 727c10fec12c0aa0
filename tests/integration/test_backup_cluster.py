"""Backup and restore where there are three NATS servers: leaders, replicas that are behind, another number of them."""

import asyncio
import contextlib
import io
import time
from pathlib import Path

import pytest
from nats.js import api

from pyoco_server.errors import CommandFailed
from pyoco_server.settings.environment import Settings
from pyoco_server.store.flows import FlowStore
from pyoco_server.store.nats.connection import Connection, connected
from pyoco_server.store.queue.job_maker import JobMaker
from pyoco_server.store.queue.job_queue import JobQueue
from pyoco_server.store.runs import RunStore
from pyoco_server.store.submissions import Submissions
from pyoco_server.store.wheels import WheelStore
from tests.nats_cluster import NatsCluster

from .backups import WHEEL, everything, put_back, record, taken
from .test_wheels_cluster import DEADLINE, _made

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


async def test_three_servers_and_one(settings: Settings, tmp_path: Path) -> None:
    stream = f"KV_{settings.runs_kv_bucket}"
    with NatsCluster(tmp_path / "nats").running() as servers:
        mine = settings.model_copy(update={"nats_url": ",".join(servers.urls), "nats_replicas": 3})
        async with connected(mine, "test", DEADLINE) as there, connected(settings, "test", DEADLINE) as alone:
            await _made(there)
            queue = JobQueue(there)
            await queue.ensure_consumer("cpu")
            submissions = Submissions(RunStore(there), JobMaker(queue, FlowStore(there)))
            for number in range(30):
                await submissions.submit(record(f"r{number}"))
            await WheelStore(there).put("a-1-py3-none-any.whl", io.BytesIO(WHEEL), ["cpu"])
            async with writing(there):
                raw = await taken(there)
            await put_back(there, raw, replace=True, while_running=True)
            assert await look(there, stream) == (3, 30, 30)
            with pytest.raises(CommandFailed, match="trying to keep 5 replicas: NATS answered no suitable peers"):
                await put_back(there, raw, replace=True, replicas=5)
            with pytest.raises(CommandFailed, match="trying to keep 3 replicas"):
                await put_back(alone, raw)
            await put_back(alone, raw, replicas=1)
            assert await look(alone, stream) == (1, 30, 30)
            await put_back(there, await taken(alone), replace=True, replicas=3)
            assert await look(there, stream) == (3, 30, 30)
            await in_step(there, f"OBJ_{settings.wheel_object_store_bucket}")  # any replica answers those who read
            (wheel,) = await WheelStore(there).list()
            copy = io.BytesIO()
            await WheelStore(there).read_to(wheel, copy)
            assert copy.getvalue() == WHEEL


@contextlib.asynccontextmanager
async def writing(connection: Connection):  # type: ignore[no-untyped-def]
    """Write records again and again while the block lasts."""

    over = False

    async def go_on() -> None:
        number = 0
        while not over:  # a cancellation that meets an answer is lost before Python 3.12
            number += 1
            await connection.js.publish(f"$KV.{connection.settings.runs_kv_bucket}.r{number % 30}", b"%d" % number)

    task = asyncio.create_task(go_on())
    try:
        yield
    finally:
        over = True
        await task


async def in_step(connection: Connection, stream: str) -> None:
    """Wait until all replicas have what the leader has."""
    deadline = time.monotonic() + DEADLINE
    while True:
        cluster = (await connection.js.stream_info(stream)).cluster
        replicas = (cluster and cluster.replicas) or []
        if len(replicas) == 2 and all(replica.current and not replica.lag for replica in replicas):
            return
        assert time.monotonic() < deadline, replicas
        await asyncio.sleep(0.05)


async def look(connection: Connection, stream: str) -> tuple[int | None, int, int | None]:
    """Replicas of the records, how many there are, and how many jobs wait."""
    info: api.StreamInfo = await connection.js.stream_info(stream)
    queue = await connection.js.consumer_info(
        connection.settings.work_stream, JobQueue(connection).consumer_name("cpu")
    )
    return info.config.num_replicas, len(await everything(connection, stream)), queue.num_pending
