"""A restore against a real NATS: when it is refused, when it dies, and what it leaves."""

import io
from collections.abc import Callable
from typing import Any

import pytest
from anyio.from_thread import start_blocking_portal
from nats.js import api

from pyoco_server import __version__
from pyoco_server.errors import CommandFailed, DamagedBackup
from pyoco_server.model.worker import WorkerRecord
from pyoco_server.settings.environment import Settings
from pyoco_server.store import topology
from pyoco_server.store.backup import stream_snapshots
from pyoco_server.store.backup import taking as module
from pyoco_server.store.backup.archive import Archive, Manifest
from pyoco_server.store.backup.taking import streams_in_order
from pyoco_server.store.nats.connection import Connection, connected
from pyoco_server.store.nats.feed import BucketFeed, Change
from pyoco_server.store.runs import RunStore
from pyoco_server.store.status.stream_state import read_streams
from pyoco_server.store.workers import WorkerStore

from .backups import connection, filled, messages, put_back, record, taken, wipe

__all__ = ["connection", "filled"]  # fixtures
pytestmark = pytest.mark.anyio


async def test_jobs_are_delivered_anew(filled: Connection) -> None:
    """Also those that a worker which is no more had, and those that NATS had given up."""
    js, settings = filled.js, filled.settings
    config = api.ConsumerConfig(
        durable_name=f"{settings.consumer_prefix}_cpu", filter_subject=f"{settings.work_subject_prefix}.cpu",
        ack_policy=api.AckPolicy.EXPLICIT, ack_wait=300, max_deliver=1, max_ack_pending=77,
    )  # fmt: skip
    await js.add_consumer(settings.work_stream, config)
    pulling = await js.pull_subscribe_bind(config.durable_name, settings.work_stream)
    first = await pulling.fetch(5)
    await first[0].ack_sync()
    raw = await taken(filled)
    await wipe(filled)
    await put_back(filled, raw)
    info = await js.consumer_info(settings.work_stream, str(config.durable_name))
    assert (info.config.max_ack_pending, info.config.ack_wait, info.num_pending) == (77, 300, 19)
    again = await (await js.pull_subscribe_bind(config.durable_name, settings.work_stream)).fetch(19)
    assert {message.metadata.num_delivered for message in again} == {1}
    assert first[0].data not in {message.data for message in again}


async def test_what_is_there_is_not_touched_without_a_word(filled: Connection) -> None:
    raw = await taken(filled)
    await RunStore(filled).create(record("later"))
    before = await messages(filled)
    with pytest.raises(CommandFailed, match=r"something already: .*runs_") as refused:
        await put_back(filled, raw)
    assert "--replace" in refused.value.hint
    assert await messages(filled) == before
    told: list[str] = []
    removed = await put_back(filled, raw, replace=True, tell=told.append)
    runs = f"KV_{filled.settings.runs_kv_bucket}"
    assert runs in removed and f"{runs}: removed, with 21 messages" in told
    assert await RunStore(filled).get("later") is None
    assert await RunStore(filled).get("r7") is not None


async def test_a_damaged_archive_changes_nothing(filled: Connection) -> None:
    raw = bytearray(await taken(filled))
    before = await messages(filled)
    raw[len(raw) // 2] ^= 0x01
    with pytest.raises(DamagedBackup, match=r"wheels_.*/snapshot is damaged"):
        await put_back(filled, bytes(raw), replace=True)
    assert await messages(filled) == before


async def test_a_restore_that_died_half_way_is_repeated(filled: Connection) -> None:
    before = await messages(filled)
    raw = await taken(filled)
    await wipe(filled)
    names = [stream.name for stream in streams_in_order(filled)]
    assert names[0] == f"KV_{filled.settings.auth_kv_bucket}"
    for at in [*reversed(names), "configure"]:

        def die(line: str, at: str = at) -> None:
            if line.startswith(f"{at}: ") and "restored" in line:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt), pytest.MonkeyPatch.context() as patch:
            if at == "configure":
                patch.setattr(stream_snapshots, "configure", dies_the_third_time(stream_snapshots.configure))
            await put_back(filled, raw, tell=die)
        states = await read_streams(filled)
        assert any(state and state.restoring for state in states.values())
        if at == names[1]:
            with pytest.raises(CommandFailed, match="has not ended"):
                await taken(filled)
    assert await put_back(filled, raw) != []
    assert await messages(filled) == before
    with pytest.raises(CommandFailed, match="something already"):
        await put_back(filled, raw)


def dies_the_third_time(configure: Callable[..., Any]) -> Callable[..., Any]:
    calls = 0

    async def dying(*arguments: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        await configure(*arguments)

    return dying


async def test_a_stream_that_a_gateway_makes_meanwhile(filled: Connection) -> None:
    before = await messages(filled)
    raw = await taken(filled)

    with start_blocking_portal("asyncio") as elsewhere:

        async def make() -> None:
            async with connected(filled.settings, "gateway", 10) as other:
                await topology.ensure(other)

        def tell(line: str) -> None:
            if "restored" in line and line.startswith("OBJ_"):
                elsewhere.call(make)

        await put_back(filled, raw, replace=True, tell=tell)
    assert await messages(filled) == before


async def test_nobody_may_be_there(filled: Connection) -> None:
    raw = await taken(filled)
    settings = filled.settings
    feed = BucketFeed(filled, settings.runs_kv_bucket, on_changes=lambda _: None, on_reset=lambda: None)
    with start_blocking_portal("asyncio") as elsewhere:
        following = elsewhere.start_task_soon(follow, settings)
        seen = ""
        while not seen:
            try:
                await put_back(filled, raw, replace=True)
            except CommandFailed as refused:
                seen = refused.message
        assert "a gateway (it pulls from " in seen
        assert await put_back(filled, raw, replace=True, while_running=True)
        following.cancel()
    feed.stop()


async def follow(settings: Settings) -> None:
    async with connected(settings, "gateway", 10) as connection:
        changes: list[Change] = []
        feed = BucketFeed(connection, settings.runs_kv_bucket, on_changes=changes.extend, on_reset=changes.clear)
        try:
            await feed.run()
        finally:
            feed.stop()


async def test_no_worker_may_be_there(filled: Connection) -> None:
    raw = await taken(filled)
    workers = WorkerStore(filled)
    beating = WorkerRecord(worker_id="w1", tags=["cpu"]).seen(["r1"], None)
    await workers.put(beating)
    with pytest.raises(CommandFailed, match=r"the worker w1 \(its last heartbeat came \d s ago\) is using"):
        await put_back(filled, raw, replace=True)
    await workers.put(beating.evolve(last_seen_at=beating.last_seen_at - 60))
    await put_back(filled, raw, replace=True)
    await workers.put(beating)
    await put_back(filled, await taken(filled), replace=True, while_running=True)
    await put_back(filled, raw, replace=True)  # the heartbeat was that of the backup


async def test_other_settings_are_refused(filled: Connection) -> None:
    raw = await taken(filled)
    other = filled.settings.model_copy(update={"runs_kv_bucket": "elsewhere"})
    async with connected(other, "test", 10) as connection:
        with pytest.raises(CommandFailed, match=f"name no stream KV_{filled.settings.runs_kv_bucket}"):
            await put_back(connection, raw)


async def test_what_is_not_there_is_told(filled: Connection, settings: Settings) -> None:
    name = f"KV_{settings.wheel_history_kv_bucket}"
    await filled.js.delete_stream(name)
    with Archive(io.BytesIO(await taken(filled))) as archive:
        assert archive.manifest.missing == [name]
    await wipe(filled)
    with pytest.raises(CommandFailed, match="nothing to back up at nats://127"):
        await taken(filled)


async def test_more_replicas_than_servers_are_refused_before_anything_is_removed(filled: Connection) -> None:
    raw = await taken(filled)
    before = await messages(filled)
    with pytest.raises(CommandFailed, match=r"trying to keep 3 replicas: .*not supported") as refused:
        await put_back(filled, raw, replace=True, replicas=3)
    assert "PYOCO_NATS_REPLICAS=1" in refused.value.hint
    assert await messages(filled) == before


@pytest.mark.parametrize(
    ("field", "version", "told"),
    [("nats_server", "99.0.0", "nats-server 99.0.0, and this one is older"), ("pyoco_server", "99.0", "warning: ")],
)
async def test_versions(
    filled: Connection, monkeypatch: pytest.MonkeyPatch, field: str, version: str, told: str
) -> None:
    monkeypatch.setattr(module, "Manifest", lambda **fields: Manifest(**{**fields, field: version}))
    raw = await taken(filled)
    lines: list[str] = []
    if field == "nats_server":
        with pytest.raises(CommandFailed, match=told):
            await put_back(filled, raw, replace=True)
    else:
        await put_back(filled, raw, replace=True, tell=lines.append)
        assert lines[0].startswith(told) and "99.0" in lines[0] and __version__ in lines[0]


async def test_a_restored_bucket_is_another_one(filled: Connection) -> None:
    """NATS up to 2.14 restores the time of creation too; an index must not take the two for one."""
    stream = filled.settings.work_stream
    before = await filled.js.stream_info(stream)
    raw = await taken(filled)
    await put_back(filled, raw, replace=True)
    after = await filled.js.stream_info(stream)
    after.created = before.created
    assert topology.identity(after) != topology.identity(before) == str(before.created)
    second = await taken(filled)  # of what was restored
    await put_back(filled, second, replace=True)
    third = await filled.js.stream_info(stream)
    third.created = before.created
    assert topology.identity(third) not in (topology.identity(before), topology.identity(after))
