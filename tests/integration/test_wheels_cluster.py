"""The version rule on three NATS servers, whose replicas may be behind."""

import asyncio
import contextlib
import io
import time
from pathlib import Path

import pytest

from pyoco_server.errors import StoreUnavailable, WheelVersionConflict
from pyoco_server.settings.environment import Settings
from pyoco_server.store import topology
from pyoco_server.store.nats.connection import Connection
from pyoco_server.store.wheels import WheelStore
from tests.nats_cluster import NatsCluster

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

DEADLINE = 60.0


async def test_racing_uploads_on_three_servers(settings: Settings, tmp_path: Path) -> None:
    async with contextlib.AsyncExitStack() as stack:
        servers = stack.enter_context(NatsCluster(tmp_path / "nats").running())
        connections = []
        for url in servers.urls:
            mine = settings.model_copy(update={"nats_url": url, "nats_replicas": 3})
            connection = await Connection(mine, "test").start()
            stack.push_async_callback(connection.close)
            assert await connection.wait_up(DEADLINE)
            connections.append(connection)
        for connection in connections:  # each server hears of the streams in its own time
            await _made(connection)
        stores = [WheelStore(connection) for connection in connections]
        for version in range(1, 4):
            answers = await asyncio.gather(
                *(stores[n % 3].put(f"a-{version}-{n}-py3-none-any.whl", io.BytesIO(b"%d" % n)) for n in range(9)),
                return_exceptions=True,
            )
            refused = [answer for answer in answers if isinstance(answer, BaseException)]
            assert len(refused) == 8 and all(isinstance(error, WheelVersionConflict) for error in refused), refused
        # Those of different packages do not stand in each other's way.
        await asyncio.gather(*(stores[n % 3].put(f"b{n}-1-py3-none-any.whl", io.BytesIO(b"x")) for n in range(12)))
        stream = f"OBJ_{settings.wheel_object_store_bucket}"
        info = await connections[0].js.stream_info(stream, subjects_filter=">")
        assert len(info.state.subjects or {}) == 2 * 15


async def _made(connection: Connection) -> None:
    deadline = time.monotonic() + DEADLINE
    while True:
        try:
            return await topology.ensure(connection)
        except StoreUnavailable:  # they have not chosen a leader yet
            assert time.monotonic() < deadline
            await asyncio.sleep(0.2)
