"""Streams of another program, which take no direct reads: the flag is turned on, or they are read without."""

import asyncio
import contextlib
import io
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from nats.js import api

from pyoco_server import PyocoNatsWorker, ensure_resources
from pyoco_server.errors import StoreUnavailable
from pyoco_server.settings.environment import Settings
from pyoco_server.store import topology
from pyoco_server.store.backup.presence import who_is_there
from pyoco_server.store.nats import direct
from pyoco_server.store.nats.bucket import Bucket
from pyoco_server.store.nats.connection import Connection, connected
from pyoco_server.store.nats.direct import DirectReader
from pyoco_server.store.nats.objects import ObjectStore
from pyoco_server.store.workers import WorkerStore
from tests.nats_with_users import NatsWith

from .test_gateway import Running, running

pytestmark = pytest.mark.anyio

UPDATE, READ, DIRECT = "$JS.API.STREAM.UPDATE.>", "$JS.API.STREAM.MSG.GET.>", "$JS.API.DIRECT.GET.>"


async def make_as_others_do(connection: Connection) -> None:
    """Make the streams as the existing system does, by nats-py's own means."""
    js, settings = connection.js, connection.settings
    await js.add_stream(
        api.StreamConfig(
            name=settings.work_stream,
            subjects=[f"{settings.work_subject_prefix}.>"],
            retention=api.RetentionPolicy.WORK_QUEUE,
        )
    )
    await js.add_stream(api.StreamConfig(name=settings.dlq_stream, subjects=[f"{settings.dlq_subject_prefix}.>"]))
    for bucket in (settings.runs_kv_bucket, settings.workers_kv_bucket, settings.wheel_history_kv_bucket):
        await js.create_key_value(api.KeyValueConfig(bucket=bucket, history=1))
    await js.create_object_store(bucket=settings.wheel_object_store_bucket)
    objects = f"OBJ_{settings.wheel_object_store_bucket}"
    await js.update_stream((await js.stream_info(objects)).config.evolve(allow_direct=False))


async def raw_config(connection: Connection, stream: str) -> dict[str, Any]:
    answer = await connection.request(f"$JS.API.STREAM.INFO.{stream}", what="looking")
    return dict(json.loads(answer.data)["config"])


def names_of(settings: Settings) -> list[str]:
    buckets = (settings.runs_kv_bucket, settings.workers_kv_bucket, settings.wheel_history_kv_bucket)
    streams = [settings.work_stream, settings.dlq_stream, f"OBJ_{settings.wheel_object_store_bucket}"]
    return [*streams, *(f"KV_{bucket}" for bucket in buckets)]


@pytest.fixture
async def theirs(settings: Settings) -> AsyncIterator[Connection]:
    """A connection to what another program made."""
    async with connected(settings, "test", 10) as connection:
        await make_as_others_do(connection)
        yield connection


@contextlib.asynccontextmanager
async def guarded(folder: Path, *denied: str) -> AsyncIterator[Settings]:
    """A nats-server with such streams, whose user may not do what is named."""
    permissions = {"publish": {"deny": list(denied)}}
    users = [
        {"user": "all", "password": "p"},
        {"user": "some", "password": "p", "permissions": permissions},
    ]
    async with NatsWith(folder / "nats", authorization={"users": users}) as nats:
        settings = Settings(
            _env_file=None, nats_url=nats.url, nats_user="all", nats_password="p", state_dir=folder / "state"
        )
        async with connected(settings, "test", 10) as connection:
            await topology.ensure(connection)
            for name in names_of(settings):
                await connection.js.delete_stream(name)
            await make_as_others_do(connection)
        yield settings.model_copy(update={"nats_user": "some"})


# Turning it on


async def test_a_start_turns_direct_reads_on_and_changes_nothing_else(
    theirs: Connection, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    names = names_of(settings)
    work = await raw_config(theirs, settings.work_stream)
    told = {**work, "description": "mine", "metadata": {"who": "me"}, "max_consumers": 77}
    await theirs.request(f"$JS.API.STREAM.UPDATE.{settings.work_stream}", json.dumps(told).encode(), what="changing")
    before = {name: await raw_config(theirs, name) for name in names}
    assert not any(config["allow_direct"] for config in before.values())
    await topology.ensure(theirs)
    for name in names:
        assert await raw_config(theirs, name) == {**before[name], "allow_direct": True}
    assert capsys.readouterr().out.count("turned on, and nothing else of it was changed") == len(names)
    await topology.ensure(theirs)
    assert "turned on" not in capsys.readouterr().out


async def test_many_may_start_at_once(theirs: Connection, settings: Settings) -> None:
    async with contextlib.AsyncExitStack() as stack:
        others = [await stack.enter_async_context(connected(settings, f"{n}", 10)) for n in range(5)]
        await asyncio.gather(*(topology.ensure(other) for other in others))
        for other in others:
            assert await Bucket(other, settings.runs_kv_bucket).get("none") is None
            assert not other.direct_reads.told
    assert all([(await raw_config(theirs, name))["allow_direct"] for name in names_of(settings)])


async def test_so_does_a_program_with_a_connection_of_its_own(theirs: Connection, settings: Settings) -> None:
    await ensure_resources(theirs.js, settings)
    assert all([(await raw_config(theirs, name))["allow_direct"] for name in names_of(settings)])


async def test_where_it_may_not_be_turned_on_that_is_told_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with guarded(tmp_path, UPDATE) as settings, connected(settings, "test", 10) as connection:
        capsys.readouterr()
        for _ in range(5):
            await topology.ensure(connection)
        told = capsys.readouterr().out
        assert told.count("direct reads of a stream are off, and stay so") == len(names_of(settings))
        assert "pyoco-server check --mend" in told


# Reading without


async def fill(connection: Connection, name: str) -> None:
    for number in range(40):
        await connection.js.publish(f"{name}.{'ab'[number % 2]}", b"%d" % number, headers={"Number": str(number)})
    for seq in (1, 2, 7, 20, 21, 22, 23, 24, 25, 40):
        await connection.js.delete_msg(name, seq)


@pytest.mark.parametrize("how", ["off", pytest.param("denied", marks=pytest.mark.slow)])
async def test_what_is_read_is_the_same(how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(direct, "_BATCH", 7)
    denied = [UPDATE, DIRECT] if how == "denied" else [UPDATE]
    async with guarded(tmp_path, *denied) as settings, contextlib.AsyncExitStack() as stack:
        all_rights = settings.model_copy(update={"nats_user": "all"})
        free = await stack.enter_async_context(connected(all_rights, "free", 10))
        mine = await stack.enter_async_context(connected(settings, "mine", 10))
        await free.js.add_stream(name="S", subjects=["S.>"], allow_direct=True)
        await fill(free, "S")
        reader, slow = DirectReader(free, "S"), DirectReader(mine, "S")
        ways: list[dict[str, Any]] = [
            {"start": start, "subject": subject, "limit": limit}
            for start in (1, 8, 22, 39, 41, 99)
            for subject in ("S.>", "S.a", "S.none")
            for limit in (1, 7, 100)
        ]
        middle = (await reader.read(start=15, subject=">", limit=1))[0].stored_at
        ways.append({"start": middle, "subject": "S.>", "limit": 5})
        wanted = [await reader.read(**way) for way in ways]
        turns = [
            (before, subject, limit)
            for before in (None, 1, 9, 30)
            for subject in ("S.>", "S.b")
            for limit in (1, 6, 50)
        ]
        newest = [await reader.newest(before=before, subject=subject, limit=limit) for before, subject, limit in turns]
        if how == "off":
            await free.js.update_stream((await free.js.stream_info("S")).config.evolve(allow_direct=False))
        for way, want in zip(ways, wanted, strict=True):
            found = await slow.read(**way)
            assert [(one.seq, one.subject, one.data, one.stored_at, one.headers["Number"]) for one in found] == [
                (one.seq, one.subject, one.data, one.stored_at, one.headers["Number"]) for one in want
            ]
            assert [bool(one.pending) for one in found] == [bool(one.pending) for one in want]
        for (before, subject, limit), want in zip(turns, newest, strict=True):
            found = await slow.newest(before=before, subject=subject, limit=limit)
            assert [one.seq for one in found] == [one.seq for one in want]
        with pytest.raises(StoreUnavailable, match="stream not found"):
            await DirectReader(mine, "NONE").read(start=1, subject=">", limit=1)


async def test_keys_objects_and_workers_are_read(tmp_path: Path) -> None:
    async with guarded(tmp_path, UPDATE) as settings, connected(settings, "test", 10) as connection:
        await topology.ensure(connection)
        bucket = Bucket(connection, settings.runs_kv_bucket)
        await bucket.create("a", b"1")
        entry = await bucket.get("a", perhaps_late=True)
        assert entry is not None and (entry.value, await bucket.get("b")) == (b"1", None)
        assert entry.stored_at is not None and abs(entry.stored_at.timestamp() - time.time()) < 60
        await bucket.purge("a", entry.revision)
        assert await bucket.get("a") is None
        store = ObjectStore(connection, settings.wheel_object_store_bucket)
        content = bytes(range(256)) * 8192
        chunks = await store.write(io.BytesIO(content))
        await store.put_meta("x", {"name": "x", "nuid": chunks.nuid, "size": chunks.size})
        meta = await store.meta("x")
        assert meta is not None and [one.name for one in (await store.metas()).items] == ["x"]
        assert b"".join([piece async for piece in store.read(meta.nuid)]) == content
        await connection.js.publish(f"$KV.{settings.workers_kv_bucket}.w", b"no record")
        assert await WorkerStore(connection).get("w") is None and await who_is_there(connection) is None
        with pytest.raises(StoreUnavailable, match="no such stream"):
            await Bucket(connection, "none").get("a", perhaps_late=True)


async def test_they_are_used_again_once_they_are_on(theirs: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyoco_server.store.nats.direct_reads._AGAIN_SEC", 0.0)
    stream = f"KV_{theirs.settings.workers_kv_bucket}"
    reader = DirectReader(theirs, stream)
    assert await reader.read(start=1, subject=">", limit=1) == []
    await topology.ensure(theirs)
    asked: list[str] = []
    monkeypatch.setattr(theirs, "request", lambda subject, *_, **__: asked.append(subject))
    assert await reader.read(start=1, subject=">", limit=1) == [] and not asked


# Where nothing can be read


async def test_the_gateway_says_whether_and_how_it_reads(tmp_path: Path) -> None:
    async with guarded(tmp_path, UPDATE) as settings, running(settings) as here:
        ready = await until_ready(here)
        assert ready["status"] == "ready" and not ready["streams"][settings.work_stream]["direct_reads"]
        assert "direct reads are off" in ready["warnings"][0] and "pyoco-server check --mend" in ready["warnings"][0]
        found = {one["code"] for one in (await here.http.get("/doctor")).json()["findings"]}
        assert "reads_slow" in found and "reads_fail" not in found


@pytest.mark.slow
async def test_a_gateway_that_cannot_read_is_not_ready(tmp_path: Path) -> None:
    async with guarded(tmp_path, UPDATE, READ) as settings, running(settings) as here:
        ready = await until_ready(here)
        assert ready["status"] == "not ready" and ready["warnings"] == []
        told = next(problem for problem in ready["problems"] if "cannot be read" in problem)
        assert f"KV_{settings.runs_kv_bucket}" in told and "$js.api.stream.msg.get." in told
        assert "pyoco-server check --mend" in told and "nats stream" not in told
        found = {one["code"]: one for one in (await here.http.get("/doctor")).json()["findings"]}
        assert found["reads_fail"]["severity"] == "error" and "nats_slow" not in found


async def until_ready(here: Running) -> dict[str, Any]:
    """Ask until the index of runs is there: what is told then stays."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        answer: httpx2.Response = await here.http.get("/ready")
        told: dict[str, Any] = answer.json()
        if not any("missing" in problem or "index" in problem for problem in told["problems"]):
            return told
        await asyncio.sleep(0.05)
    raise AssertionError(told)


@pytest.mark.slow
async def test_a_worker_that_cannot_start_says_so_in_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with guarded(tmp_path, UPDATE, READ) as settings:
        with pytest.raises(StoreUnavailable, match=r"could not start within 0\.1 s: reading w from pyoco_workers"):
            await PyocoNatsWorker.connect(config=settings, worker_id="w", timeout=0.1)
        assert capsys.readouterr().out.count("direct reads of a stream are off, and stay so") == 4
