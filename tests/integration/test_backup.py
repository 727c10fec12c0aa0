"""A backup against a real NATS: every stream, every message, also what changes while it is taken."""

import asyncio
import base64
import contextlib
import io
import json
import os
import threading
from collections.abc import Callable
from typing import Any

import pytest
from anyio.from_thread import start_blocking_portal

from pyoco_server.errors import StoreUnavailable
from pyoco_server.store.backup import snapshot_changes
from pyoco_server.store.backup.archive import Archive
from pyoco_server.store.backup.snapshot_changes import changes_after
from pyoco_server.store.nats.connection import Connection, connected
from pyoco_server.store.status.stream_state import read_streams
from pyoco_server.store.wheels import WheelStore

from .backups import WHEEL, configurations, connection, everything, filled, messages, put_back, taken, wipe

__all__ = ["connection", "filled"]  # fixtures
pytestmark = pytest.mark.anyio


async def test_everything_comes_back(filled: Connection) -> None:
    before = await messages(filled)
    config = await configurations(filled)
    assert sum(map(bool, before.values())) == 6
    raw = await taken(filled)
    await wipe(filled)
    assert await put_back(filled, raw) == []
    assert await messages(filled) == before  # with their sequences and times
    assert await configurations(filled) == config
    (wheel,) = await WheelStore(filled).list()
    copy = io.BytesIO()
    await WheelStore(filled).read_to(wheel, copy)
    assert copy.getvalue() == WHEEL
    states = await read_streams(filled)
    assert all(state and not state.restoring for state in states.values())


class Meddler(io.BytesIO):
    """An archive whose first piece of a stream is an occasion to change that stream."""

    def __init__(self, after: int, act: Callable[[], None]) -> None:
        super().__init__()
        self._after = after
        self._act = act
        self.done = False

    def write(self, data: Any, /) -> int:
        written = super().write(data)
        if self.tell() > self._after and not self.done:
            self.done = True
            self._act()
        return written


async def test_what_changes_while_its_snapshot_is_taken_is_in_the_backup(connection: Connection) -> None:
    """NATS reads from the first message to the last: what is rewritten before it was read would be in neither place."""
    bucket = f"$KV.{connection.settings.runs_kv_bucket}"
    for number in range(160):  # more than may be on its way to us
        await connection.js.publish(f"{bucket}.old{number}", os.urandom(130_000))
    for key in ("kept", "changed", "expired", "removed"):
        await connection.js.publish(f"{bucket}.{key}", b"before")

    async def meddle() -> None:
        async with connected(connection.settings, "meddler", 10) as other:
            await other.js.publish(
                f"{bucket}.changed", b"after", headers={"Nats-Expected-Last-Subject-Sequence": "162"}
            )
            await other.js.publish(f"{bucket}.new", b"after")
            await other.js.publish(f"{bucket}.expired", b"after", headers={"Nats-TTL": "60"})
            mark = {"KV-Operation": "PURGE", "Nats-Rollup": "sub"}
            await other.js.publish(f"{bucket}.removed", b"", headers=mark)

    with start_blocking_portal("asyncio") as elsewhere:
        out = Meddler(1_000_000, lambda: elsewhere.call(meddle))
        raw = await taken(connection, out)
    assert out.done
    with Archive(io.BytesIO(raw)) as archive:
        (runs,) = [stream for stream in archive.manifest.streams if stream.name == f"KV_{bucket[4:]}"]
    assert runs.state["messages"] == 164  # it began before
    assert runs.changes and runs.changes.size
    before = await messages(connection)
    await wipe(connection)
    await put_back(connection, raw)
    after = await messages(connection)

    def values(found: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
        return {one["subject"].rpartition(".")[2]: one.get("data") for one in found[runs.name]}

    assert values(after) == values(before)
    assert {key: values(after)[key] for key in ("kept", "changed", "new", "removed")} == {
        "kept": b64(b"before"), "changed": b64(b"after"), "new": b64(b"after"), "removed": None,
    }  # fmt: skip
    headers = {one["subject"].rpartition(".")[2]: base64.b64decode(one.get("hdrs", "")) for one in after[runs.name]}
    assert b"Nats-TTL: 60" in headers["expired"]
    assert b"KV-Operation: PURGE" in headers["removed"]


async def test_nothing_is_lost_where_writing_never_pauses(connection: Connection) -> None:
    stream = f"KV_{connection.settings.runs_kv_bucket}"
    subjects = {f"$KV.{connection.settings.runs_kv_bucket}.run{number}" for number in range(40)}
    for number in range(120):
        await connection.js.publish(f"$KV.{connection.settings.runs_kv_bucket}.old{number}", os.urandom(130_000))
    for subject in subjects:
        await connection.js.publish(subject, b"0")

    over = threading.Event()

    async def write() -> None:
        async with connected(connection.settings, "writer", 10) as other:

            async def go_on(mine: list[str]) -> None:
                number = 0
                while not over.is_set():  # a cancellation that meets an answer is lost before Python 3.12
                    number += 1
                    await other.js.publish(mine[number % len(mine)], b"%d" % number)

            await asyncio.gather(*(go_on(sorted(subjects)[part::4]) for part in range(4)))

    with start_blocking_portal("asyncio") as elsewhere:
        writing = elsewhere.start_task_soon(write)
        raw = await taken(connection)
        over.set()
        with contextlib.suppress(Exception):
            writing.result(60)
    await wipe(connection)
    await put_back(connection, raw)
    found = [one["subject"] for one in await everything(connection, stream)]
    assert len(found) == 160 and subjects <= set(found)


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


async def test_a_stream_that_changes_faster_than_it_can_be_read(
    filled: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot_changes, "_CATCH_UP_SEC", -1.0)
    monkeypatch.setattr(snapshot_changes, "_AT_ONCE", 1)
    stream = f"KV_{filled.settings.runs_kv_bucket}"
    with pytest.raises(StoreUnavailable, match="changes faster"):
        assert [line async for line in changes_after(filled, stream, 0)]


@pytest.mark.parametrize("direct", [True, False])
async def test_changes_are_read_as_they_are_stored(filled: Connection, direct: bool) -> None:
    bucket = filled.settings.runs_kv_bucket
    await filled.js.publish(f"$KV.{bucket}.r3", b"\x00\xff", headers={"Nats-TTL": "90", "Some": "thing"})
    stored = await everything(filled, f"KV_{bucket}")
    await filled.js.update_stream((await filled.js.stream_info(f"KV_{bucket}")).config.evolve(allow_direct=direct))
    lines = [json.loads(line) async for line in changes_after(filled, f"KV_{bucket}", stored[3]["seq"])]
    assert [(line["seq"], line["subject"], line["data"]) for line in lines] == [
        (one["seq"], one["subject"], one.get("data", "")) for one in stored[4:]
    ]
    assert lines[-1]["headers"] == {"Nats-TTL": "90", "Some": "thing"}
    assert lines[0]["headers"] == {"Nats-Expected-Last-Subject-Sequence": "0"}
