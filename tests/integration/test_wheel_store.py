"""The registry of wheels in a real NATS."""

import asyncio
import contextlib
import io
import json
import tracemalloc
from collections.abc import AsyncIterator
from typing import BinaryIO, cast

import pytest
from nats.js import api
from nats.js.object_store import ObjectStore as ForeignStore

from pyoco_server.errors import StoreUnavailable, WheelDamaged, WheelNotFound, WheelVersionConflict
from pyoco_server.settings.environment import Settings
from pyoco_server.store import topology
from pyoco_server.store.nats.connection import Connection
from pyoco_server.store.nats.objects import CHUNK
from pyoco_server.store.wheels import CLAIMS, WheelStore

pytestmark = pytest.mark.anyio

BIG = bytes(range(256)) * 4 * 1024 + b"end"  # 1 MiB and a bit: more than one block


@contextlib.asynccontextmanager
async def connected(settings: Settings) -> AsyncIterator[Connection]:
    connection = await Connection(settings, "test").start()
    try:
        assert await connection.wait_up(10)
        await topology.ensure(connection)
        yield connection
    finally:
        await connection.close()


@pytest.fixture
async def connection(settings: Settings) -> AsyncIterator[Connection]:
    async with connected(settings) as connection:
        yield connection


@pytest.fixture
def store(connection: Connection) -> WheelStore:
    return WheelStore(connection)


async def foreign(connection: Connection) -> ForeignStore:
    """The bucket as another program sees it."""
    return await connection.js.object_store(connection.settings.wheel_object_store_bucket)


async def subjects(connection: Connection) -> list[str]:
    """What lies in the bucket: ``C.<nuid>`` for bytes, ``M.<name>`` for objects."""
    bucket = connection.settings.wheel_object_store_bucket
    info = await connection.js.stream_info(f"OBJ_{bucket}", subjects_filter=">")
    return sorted(subject.removeprefix(f"$O.{bucket}.") for subject in info.state.subjects or {})


async def test_a_fresh_registry_is_empty(store: WheelStore) -> None:
    assert await store.list() == []
    for act in (store.get, store.remove, store.pin, store.unpin):
        for name in ("a-1-py3-none-any.whl", "", "ä/..", "x" * 3000):
            with pytest.raises(WheelNotFound):
                await act(name)


async def test_without_a_bucket_there_are_no_wheels(store: WheelStore, connection: Connection) -> None:
    await connection.js.delete_stream(f"OBJ_{connection.settings.wheel_object_store_bucket}")
    assert await store.list() == []
    with pytest.raises(WheelNotFound):
        await store.get("a-1-py3-none-any.whl")
    with pytest.raises(StoreUnavailable):
        await store.put("a-1-py3-none-any.whl", io.BytesIO(b"x"))


async def test_a_wheel_comes_back_as_it_went_in(store: WheelStore, connection: Connection) -> None:
    put = await store.put("b_c-1.0-py3-none-any.whl", io.BytesIO(BIG), ["cpu", "gpu"], requires_python=">=3.10")
    await store.put("a-1-py3-none-any.whl", io.BytesIO(b"small"))
    small, big = await store.list()
    assert big == put == await store.get(put.name)
    assert (big.package, big.version, big.tags, big.pinned_at) == ("b-c", "1.0", ["cpu", "gpu"], None)
    assert (big.size_bytes, big.requires_python, small.tags) == (len(BIG), ">=3.10", [])
    for entry, content in ((big, BIG), (small, b"small")):
        file = io.BytesIO()
        await store.read_to(entry, file)
        assert file.getvalue() == content
    info = await connection.js.stream_info(f"OBJ_{connection.settings.wheel_object_store_bucket}")
    assert info.state.consumer_count == 0


async def test_other_programs_read_ours_and_we_read_theirs(store: WheelStore, connection: Connection) -> None:
    ours = await store.put("a-1-py3-none-any.whl", io.BytesIO(BIG), ["cpu"])
    bucket = await foreign(connection)
    assert (await bucket.get("a-1-py3-none-any.whl")).data == BIG
    info = await bucket.get_info("a-1-py3-none-any.whl")
    assert (info.headers, info.size, info.digest) == ({"x-pyoco-wheel-tags": "cpu"}, len(BIG), ours.digest)
    meta = api.ObjectMeta(headers={"x-pyoco-wheel-tags": "cpu, gpu"})
    await bucket.put("b-1-py3-none-any.whl", b"theirs", meta)
    await bucket.put("not a wheel", b"theirs")
    await bucket.put("gone-1-py3-none-any.whl", b"theirs")
    await bucket.delete("gone-1-py3-none-any.whl")
    _, theirs, odd = await store.list()
    assert (theirs.tags, theirs.package, odd.package, odd.version) == (["cpu", "gpu"], "b", None, None)
    file = io.BytesIO()
    await store.read_to(theirs, file)
    assert file.getvalue() == b"theirs"
    with pytest.raises(WheelVersionConflict):
        await store.put("B-1.0-py3-none-any.whl", io.BytesIO(b"x"))
    assert (await store.pin("b-1-py3-none-any.whl")).tags == ["cpu", "gpu"]
    assert (await bucket.get("b-1-py3-none-any.whl")).data == b"theirs"
    await store.remove("not a wheel")
    assert [entry.package for entry in await store.list()] == ["a", "b"]
    assert len(await bucket.list(ignore_deletes=True)) == 2


async def test_headers_and_times_as_go_writes_them(store: WheelStore, connection: Connection) -> None:
    await store.put("a-1-py3-none-any.whl", io.BytesIO(b"x"))
    bucket = await foreign(connection)
    body = (await bucket.get_info("a-1-py3-none-any.whl")).as_dict()
    body |= {"headers": {"X-Pyoco-Wheel-Tags": ["cpu"]}, "mtime": "0001-01-01T00:00:00Z"}
    meta = (await store._find("a-1-py3-none-any.whl"))[0]
    await store._objects.put_meta("a-1-py3-none-any.whl", body, seq=meta.seq)
    entry = await store.get("a-1-py3-none-any.whl")
    assert entry.tags == ["cpu"] and entry.modified > 1_700_000_000
    pinned = await store.pin(entry.name)
    assert (pinned.tags, pinned.modified) == (["cpu"], entry.modified)
    assert all(isinstance(value, list) for value in (await bucket.get_info(entry.name)).headers.values())


async def test_deleting_leaves_nothing_and_the_version_may_come_again(
    store: WheelStore, connection: Connection
) -> None:
    for content in (b"one", b"two"):
        await store.put("a-1-py3-none-any.whl", io.BytesIO(content))
        assert (await store.remove("a-1-py3-none-any.whl")).size_bytes == 3
        assert await subjects(connection) == []
    with pytest.raises(WheelNotFound):
        await store.remove("a-1-py3-none-any.whl")


async def test_a_pin_stays_with_its_wheel_and_comes_off(store: WheelStore) -> None:
    entry = await store.put("a-1-py3-none-any.whl", io.BytesIO(BIG), ["cpu"])
    pinned = await store.pin(entry.name)
    assert pinned.pinned_at and pinned == entry.model_copy(update={"pinned_at": pinned.pinned_at})
    assert await store.list() == [pinned]
    await store.read_to(pinned, io.BytesIO())
    assert await store.unpin(entry.name) == await store.unpin(entry.name) == entry == await store.get(entry.name)


@pytest.mark.parametrize("names", ["same", "versions", "builds"])
async def test_of_uploads_that_race_only_newer_ones_get_in(
    settings: Settings, connection: Connection, names: str
) -> None:
    async with connected(settings) as other:
        stores = [WheelStore(connection), WheelStore(other)]
        wanted = {
            "same": ["a-1-py3-none-any.whl"] * 10,
            "versions": [f"a-{version}-py3-none-any.whl" for version in range(10, 0, -1)],
            "builds": [f"a-1-{build}-py3-none-any.whl" for build in range(10)],
        }[names]
        answers = await asyncio.gather(
            *(stores[n % 2].put(name, io.BytesIO(b"%d" % n * CHUNK)) for n, name in enumerate(wanted)),
            *(stores[n % 2].put(f"other{n}-1-py3-none-any.whl", io.BytesIO(b"x")) for n in range(4)),
            return_exceptions=True,
        )
    refused = [answer for answer in answers if isinstance(answer, BaseException)]
    assert all(isinstance(error, WheelVersionConflict) for error in refused), refused
    stored = await stores[0].list()
    versions = [entry.version for entry in stored if entry.package == "a"]
    assert len(versions) == len(wanted) - len(refused) and len(stored) == 4 + len(versions)
    if names != "versions":
        assert len(versions) == 1
    # Nothing of the others stays.
    assert len(await subjects(connection)) == 2 * len(stored)
    for entry in stored:
        await stores[0].read_to(entry, io.BytesIO())


async def test_an_older_version_cannot_overtake(store: WheelStore) -> None:
    """A newer one gets in between the check and the write of an older one."""
    put_meta, entered = store._objects.put_meta, asyncio.Event()

    async def slow(name: str, body: dict[str, object], *, last: int | None = None, seq: int = 0) -> int:
        if name.startswith("a-1"):
            await entered.wait()
        return await put_meta(name, body, last=last, seq=seq)

    store._objects.put_meta = slow  # type: ignore[method-assign]
    older = asyncio.create_task(store.put("a-1-py3-none-any.whl", io.BytesIO(b"1")))
    await store.put("a-2-py3-none-any.whl", io.BytesIO(b"2"))
    entered.set()
    with pytest.raises(WheelVersionConflict, match="not newer than 2"):
        await older
    assert [entry.version for entry in await store.list()] == ["2"]


@pytest.mark.parametrize("harm", ["changed", "cut", "longer"])
async def test_bytes_that_were_tampered_with_are_refused(store: WheelStore, connection: Connection, harm: str) -> None:
    entry = await store.put("a-1-py3-none-any.whl", io.BytesIO(BIG))
    stream, subject = f"OBJ_{entry.bucket}", f"$O.{entry.bucket}.C.{entry.nuid}"
    if harm != "longer":
        last = await connection.js.get_last_msg(stream, subject)
        await connection.js.delete_msg(stream, cast(int, last.seq))
    if harm != "cut":
        await connection.js.publish(subject, b"END")
    with pytest.raises(WheelDamaged, match="a-1-py3-none-any"):
        await store.read_to(entry, io.BytesIO())


async def test_an_upload_that_breaks_off_leaves_nothing(store: WheelStore, connection: Connection) -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            data = super().read(size)
            if not data:
                raise OSError("the disk is gone")
            return data

    with pytest.raises(OSError, match="gone"):
        await store.put("a-1-py3-none-any.whl", Broken(BIG))
    assert await subjects(connection) == []
    # A caller that is cancelled in the middle.
    published = asyncio.Event()
    publish = store._objects._publish

    async def tell(subject: str, pieces: list[bytes]) -> None:
        await publish(subject, pieces)
        published.set()
        await asyncio.Event().wait()

    store._objects._publish = tell  # type: ignore[method-assign]
    upload = asyncio.create_task(store.put("a-1-py3-none-any.whl", io.BytesIO(BIG)))
    await published.wait()
    assert len(await subjects(connection)) == 1
    upload.cancel()
    with pytest.raises(asyncio.CancelledError):
        await upload
    assert await subjects(connection) == []


async def test_an_answer_that_got_lost_is_looked_for(store: WheelStore, monkeypatch: pytest.MonkeyPatch) -> None:
    put_meta, lost = store._objects.put_meta, []

    async def written_but_not_told(*arguments: object, **options: object) -> int:
        await put_meta(*arguments, **options)  # type: ignore[arg-type]
        if not lost:
            lost.append(1)
            raise StoreUnavailable("no answer")
        raise AssertionError("written twice")

    monkeypatch.setattr(store._objects, "put_meta", written_but_not_told)
    entry = await store.put("a-1-py3-none-any.whl", io.BytesIO(b"x"))
    assert await store.list() == [entry]
    await store.read_to(entry, io.BytesIO())


async def test_bytes_of_a_dead_writer_are_swept_later(
    store: WheelStore, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = await store.put("a-1-py3-none-any.whl", io.BytesIO(BIG))
    await store._objects.write(io.BytesIO(BIG))
    assert await store.sweep() == 0  # it may be on its way
    monkeypatch.setattr("pyoco_server.store.wheels._ABANDONED_SEC", -60.0)
    assert await store.sweep() == 1
    assert len(await subjects(connection)) == 2
    await store.read_to(entry, io.BytesIO())


async def test_every_change_is_told(store: WheelStore, connection: Connection, settings: Settings) -> None:
    told = asyncio.Event()

    async def tell() -> None:
        told.set()

    async with connected(settings) as other:
        await WheelStore(other).changed(tell)
        await other.client.flush()
        bucket = await foreign(connection)
        for change in (
            lambda: store.put("a-1-py3-none-any.whl", io.BytesIO(b"x")),
            lambda: store.pin("a-1-py3-none-any.whl"),
            lambda: store.unpin("a-1-py3-none-any.whl"),
            lambda: store.remove("a-1-py3-none-any.whl"),
            lambda: bucket.put("b-1-py3-none-any.whl", b"theirs"),
        ):
            told.clear()
            await change()
            await asyncio.wait_for(told.wait(), 5)


async def test_what_is_no_object_is_left_out(store: WheelStore, connection: Connection) -> None:
    await store.put("a-1-py3-none-any.whl", io.BytesIO(b"x"))
    prefix = f"$O.{connection.settings.wheel_object_store_bucket}.M."
    good = {"name": "d-1-py3-none-any.whl", "nuid": "n", "size": 1}
    deep = "[" * 100_000
    for n, body in enumerate(
        [b"", b"{", b"[]", b"{}", deep.encode(),
         # A worker names a directory by the digest.
         json.dumps({**good, "digest": "SHA-256="}).encode(), json.dumps({**good, "digest": "SHA-256=Li4="}).encode(),
         json.dumps({**good, "digest": f"SHA-256={'A' * 43}=", "headers": {CLAIMS: deep}}).encode(),
         json.dumps({"name": "b", "nuid": "n", "size": 1, "digest": "MD5=x"}).encode(),
         json.dumps({"name": "c", "nuid": "n", "size": 1, "options": {"link": {"bucket": "x"}}}).encode()]
    ):  # fmt: skip
        await connection.js.publish(f"{prefix}{n}", body)
    assert [entry.name for entry in await store.list()] == ["a-1-py3-none-any.whl"]


class Endless:
    """A file of so many bytes that takes no room."""

    def __init__(self, size: int) -> None:
        self._left = size
        self.written = 0

    def read(self, size: int) -> bytes:
        size = min(size, self._left)
        self._left -= size
        return b"\0" * size

    def write(self, data: bytes) -> int:
        self.written += len(data)
        return len(data)


async def test_a_large_wheel_does_not_pass_through_memory(store: WheelStore) -> None:
    size = 96 << 20
    tracemalloc.start()
    try:
        entry = await store.put("a-1-py3-none-any.whl", cast(BinaryIO, Endless(size)))
        file = Endless(0)
        await store.read_to(entry, cast(BinaryIO, file))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert file.written == size
    assert peak < 24 << 20
    assert await store.list() == [entry]
    await store.remove(entry.name)


async def test_a_new_version_has_had_its_modules_since_the_first_one_that_had_them(store: WheelStore) -> None:
    first = await store.put("a-1-py3-none-any.whl", io.BytesIO(b"1"), claims=["a"])
    foreign = await store.put("old-1-py3-none-any.whl", io.BytesIO(b"1"))  # as a gateway did that knew no claims
    second = await store.put("a-2-py3-none-any.whl", io.BytesIO(b"2"), claims=["a", "b"])
    await store.remove("a-1-py3-none-any.whl")
    third = await store.put("a-3-py3-none-any.whl", io.BytesIO(b"3"), claims=["a", "b", "c"])
    assert third.claims["a"] == second.claims["a"] == first.claims["a"]
    assert third.claims["b"] == second.claims["b"] > first.claims["a"]
    assert third.claims["c"] > third.claims["b"]
    newer = await store.put("old-2-py3-none-any.whl", io.BytesIO(b"2"), claims=["anything"])
    assert newer.claims == {"anything": foreign.modified}
    assert (await store.pin("a-3-py3-none-any.whl")).claims == third.claims
    assert "claims" not in third.model_dump()
