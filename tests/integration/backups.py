"""What the tests of backup and restore share: a store with something in it, and the ways into an archive and back."""

import contextlib
import io
import json
import os
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from nats.js.errors import NotFoundError

from pyoco_server.model.run import RunRecord
from pyoco_server.settings.environment import Settings
from pyoco_server.store import topology
from pyoco_server.store.backup.archive import Archive
from pyoco_server.store.backup.restoring import Restore
from pyoco_server.store.backup.taking import back_up, streams_in_order
from pyoco_server.store.flows import FlowStore
from pyoco_server.store.keys import KeyStore
from pyoco_server.store.nats.connection import Connection, connected
from pyoco_server.store.queue.job_maker import JobMaker
from pyoco_server.store.queue.job_queue import JobQueue
from pyoco_server.store.runs import RunStore
from pyoco_server.store.submissions import Submissions
from pyoco_server.store.wheels import WheelStore

WHEEL = os.urandom(300_000)


@pytest.fixture
async def connection(settings: Settings) -> AsyncIterator[Connection]:
    async with connected(settings, "test", 10) as connection:
        await topology.ensure(connection)
        await KeyStore(connection).ensure()
        yield connection
        await wipe(connection)


@pytest.fixture
async def filled(connection: Connection) -> Connection:
    """A store with something in every stream that matters."""
    runs = RunStore(connection)
    submissions = Submissions(runs, JobMaker(JobQueue(connection), FlowStore(connection)))
    await FlowStore(connection).put(b"version: 1\n", "ab" * 32)
    for number in range(20):
        await submissions.submit(record(f"r{number}"))
    await WheelStore(connection).put("a-1-py3-none-any.whl", io.BytesIO(WHEEL), ["cpu"])
    await connection.js.publish(f"{connection.settings.logs_subject_prefix}.r1", b"line")
    await connection.js.publish(f"{connection.settings.dlq_subject_prefix}.cpu", b"{}", headers={"Nats-Msg-Id": "x"})
    return connection


def record(run_id: str) -> RunRecord:
    return RunRecord(run_id=run_id, flow_name="f", tag="cpu", tags=["cpu"], submitted_at=1.0, updated_at=1.0)


async def wipe(connection: Connection) -> None:
    for stream in streams_in_order(connection):
        with contextlib.suppress(NotFoundError):
            await connection.js.delete_stream(stream.name)


async def messages(connection: Connection) -> dict[str, list[dict[str, Any]]]:
    """All that is stored, by stream, as NATS describes it."""
    return {stream.name: await everything(connection, stream.name) for stream in streams_in_order(connection)}


async def everything(connection: Connection, stream: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    while True:
        wish = {"seq": found[-1]["seq"] + 1 if found else 1, "next_by_subj": ">"}
        answer = await connection.client.request(
            f"$JS.API.STREAM.MSG.GET.{stream}", json.dumps(wish).encode(), timeout=5
        )
        told = json.loads(answer.data)
        if "error" in told:
            assert told["error"]["err_code"] == 10037, told
            return found
        found.append(told["message"])


async def configurations(connection: Connection) -> dict[str, dict[str, Any]]:
    found = {}
    for stream in streams_in_order(connection):
        config = (await connection.js.stream_info(stream.name)).config.as_dict()
        found[stream.name] = {key: value for key, value in config.items() if key != "metadata"}
    return found


async def taken(connection: Connection, out: io.BytesIO | None = None) -> bytes:
    out = out or io.BytesIO()
    await back_up(streams_in_order(connection), out, lambda _: None)
    return out.getvalue()


async def put_back(
    connection: Connection,
    raw: bytes,
    *,
    replace: bool = False,
    while_running: bool = False,
    replicas: int | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> list[str]:
    with Archive(io.BytesIO(raw)) as archive:
        archive.verify()
        restore = Restore(archive, streams_in_order(connection), replicas=replicas, tell=tell)
        await restore.check(replace=replace, while_running=while_running)
        return await restore.run()
