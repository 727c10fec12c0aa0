"""The registry of wheels over HTTP."""

import asyncio
import io
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx2
import pytest

from pyoco_server.gateway.wheels import upload as wheel_upload
from pyoco_server.settings.environment import Settings
from tests.wheels import make_wheel, wheel_members, write_wheel

from .test_gateway import Running, running, until

pytestmark = pytest.mark.anyio

CONTRACT = "name size_bytes digest sha256_b64 sha256_hex mtime modified bucket nuid tags".split()


@pytest.fixture
async def here(settings: Settings) -> AsyncIterator[Running]:
    async with running(settings) as server:
        yield server


async def upload(http: httpx2.AsyncClient, path: Path, name: str | None = None, **data: str) -> httpx2.Response:
    with path.open("rb") as file:
        return await http.post("/wheels", files={"wheel": (name or path.name, file)}, data=data)


async def nothing_is_left(here: Running, stored: int = 0) -> bool:
    """Tell whether neither a file nor bytes of a refused upload are left."""
    settings = here.gateway.settings
    info = await here.gateway.connection.js.stream_info(
        f"OBJ_{settings.wheel_object_store_bucket}", subjects_filter=">"
    )
    files = list((settings.state_dir / "uploads").glob("*"))
    return not files and len(info.state.subjects or {}) == 2 * stored


async def test_a_wheel_goes_up_is_listed_comes_down_and_goes_away(here: Running, tmp_path: Path) -> None:
    assert (await here.http.get("/wheels")).json() == (await here.http.get("/wheels/history")).json() == []
    path = make_wheel(tmp_path, "task-cpu", "0.1.0", metadata=["Requires-Python: >=3.10"])
    answer = await upload(here.http, path, tags=" cpu, gpu,cpu ")
    assert answer.status_code == 200, answer.text
    entry = answer.json()
    assert list(entry)[: len(CONTRACT)] == CONTRACT
    assert (entry["name"], entry["tags"], entry["size_bytes"]) == (path.name, ["cpu", "gpu"], path.stat().st_size)
    assert (entry["package"], entry["version"], entry["requires_python"]) == ("task-cpu", "0.1.0", ">=3.10")
    other = await upload(here.http, make_wheel(tmp_path, "a", "1"))
    assert (await here.http.get("/wheels")).json() == [other.json(), entry]
    down = await here.http.get(f"/wheels/{path.name}")
    assert down.content == path.read_bytes()
    assert down.headers["content-disposition"] == f'attachment; filename="{path.name}"'
    assert (await here.http.delete(f"/wheels/{path.name}")).json() == {"name": path.name, "deleted": True}
    for method in ("GET", "DELETE"):
        answer = await here.http.request(method, f"/wheels/{path.name}")
        assert (answer.status_code, answer.json()["code"]) == (404, "wheel_not_found")
    assert await nothing_is_left(here, stored=1)


async def test_history_tells_who_did_what(here: Running, tmp_path: Path) -> None:
    one, two = make_wheel(tmp_path, "a", "1"), make_wheel(tmp_path, "b", "1")
    await upload(here.http, one, tags="cpu", replace="false")
    await upload(here.http, two)
    headers = {"x-forwarded-for": "10.0.0.1", "x-real-ip": "10.0.0.2", "user-agent": "ä" * 2000}
    await here.http.delete(f"/wheels/{one.name}", headers={key: value.encode() for key, value in headers.items()})
    events = (await here.http.get("/wheels/history")).json()
    assert [(event["action"], event["wheel_name"]) for event in events] == [
        ("delete", one.name), ("upload", two.name), ("upload", one.name),
    ]  # fmt: skip
    assert list(events[0]) == (
        "event_id occurred_at action wheel_name tags size_bytes sha256_hex replace actor source tenant_id".split()
    )
    assert [event["replace"] for event in events] == [None, True, False]
    assert events[0]["tags"] == ["cpu"] and events[0]["actor"] == {"tenant_id": None, "api_key_id": None}
    source = events[0]["source"]
    assert list(source) == "remote_addr x_forwarded_for x_real_ip user_agent host scheme".split()
    assert (source["x_forwarded_for"], source["x_real_ip"], source["scheme"]) == ("10.0.0.1", "10.0.0.2", "http")
    assert events[1]["source"]["remote_addr"] == "127.0.0.1"
    assert len(source["user_agent"]) < 600
    for query, expected in {
        f"wheel_name={one.name}": ["delete", "upload"],
        "action=upload": ["upload", "upload"],
        f"wheel_name={one.name}&action=upload": ["upload"],
        "limit=2": ["delete", "upload"],
        "wheel_name=nobody.whl": [],
        "wheel_name=": ["delete", "upload", "upload"],
    }.items():
        found = (await here.http.get(f"/wheels/history?{query}")).json()
        assert [event["action"] for event in found] == expected
    for query in ("limit=0", "limit=501", "action=steal", "wheel_name=" + "x" * 301):
        assert (await here.http.get(f"/wheels/history?{query}")).status_code == 422


async def test_the_same_or_an_older_version_is_a_conflict_that_names_the_newest(here: Running, tmp_path: Path) -> None:
    assert (await upload(here.http, make_wheel(tmp_path, "a", "1.10"), tags="cpu")).status_code == 200
    for version in ("1.10", "1.9", "1.10.0"):
        for replace in ("true", "false"):
            answer = await upload(here.http, make_wheel(tmp_path, "a", version), tags="gpu", replace=replace)
            assert (answer.status_code, answer.json()["code"]) == (409, "wheel_version_conflict")
            assert "1.10" in answer.json()["detail"] and answer.json()["hint"]
    assert (await upload(here.http, make_wheel(tmp_path, "a", "1.11"))).status_code == 200
    assert len((await here.http.get("/wheels/history")).json()) == 2
    assert await nothing_is_left(here, stored=2)


async def test_of_uploads_to_two_gateways_at_once_one_wins(here: Running, settings: Settings, tmp_path: Path) -> None:
    paths = [make_wheel(tmp_path, "a", "1", tag=f"py3{n}-none-any") for n in range(8)]
    async with running(settings) as there:
        https = (here.http, there.http)
        answers = await asyncio.gather(*(upload(https[n % 2], path) for n, path in enumerate(paths)))
    assert sorted(answer.status_code for answer in answers) == [200] + [409] * 7
    assert len((await here.http.get("/wheels")).json()) == 1
    assert await nothing_is_left(here, stored=1)


def bomb(path: Path) -> Path:
    return write_wheel(path, {**wheel_members("a", "1"), "a/zeros": bytes(64 << 20)})


def renamed_text(path: Path) -> Path:
    path.write_text("not a wheel")
    return path


@pytest.mark.parametrize(
    ("make", "name", "data", "said"),
    [
        (renamed_text, "a-1-py3-none-any.whl", {}, "no zip archive"),
        (bomb, "a-1-py3-none-any.whl", {}, "a zip bomb"),
        (lambda path: write_wheel(path, {**wheel_members("a", "1"), "../x": "x"}), "a-1-py3-none-any.whl", {}, "../x"),
        (lambda path: write_wheel(path, wheel_members("a", "1")), "a/b-1-py3-none-any.whl", {}, "not the name"),
        (lambda path: write_wheel(path, wheel_members("a", "1")), "a-1.zip", {}, "not the name"),
        (lambda path: write_wheel(path, wheel_members("a", "1")), "a-2-py3-none-any.whl", {}, "does not agree"),
        (lambda path: write_wheel(path, wheel_members("a", "1")), "a-1-py3-none-any.whl", {"tags": "a.b"}, "tag"),
        (lambda path: write_wheel(path, wheel_members("a", "1")), "a-1-py3-none-any.whl", {"replace": "x"}, "replace"),
    ],
)
async def test_what_is_refused_is_told_why_and_leaves_nothing(
    here: Running, tmp_path: Path, make: Callable[[Path], Path], name: str, data: dict[str, str], said: str
) -> None:
    answer = await upload(here.http, make(tmp_path / "file"), name, **data)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_input"), answer.text
    assert said in answer.json()["detail"]
    assert (await here.http.get("/wheels")).json() == (await here.http.get("/wheels/history")).json() == []
    assert await nothing_is_left(here)


BOUNDARY = {"content-type": "multipart/form-data; boundary=b"}
PART = b'--b\r\nContent-Disposition: form-data; name="wheel"; filename="a-1-py3-none-any.whl"\r\n\r\n'


@pytest.mark.parametrize(
    ("headers", "body", "said"),
    [
        ({"content-type": "application/json"}, b"{}", "multipart"),
        ({"content-type": "multipart/form-data"}, b"", "multipart"),
        ({"content-type": "multipart/form-data; boundary=" + "b" * 300}, b"", "no form"),
        (BOUNDARY, b"nonsense", "no form"),
        (BOUNDARY, b"", "no file"),
        (BOUNDARY, b'--b\r\nContent-Disposition: form-data; name="tags"\r\n\r\ncpu\r\n--b--\r\n', "no file"),
        (BOUNDARY, b'--b\r\nContent-Disposition: form-data; name="wheel"\r\n\r\nx\r\n--b--\r\n', "is no file"),
        (BOUNDARY, PART + b"x\r\n" + PART + b"x\r\n--b--\r\n", "more than one"),
        (BOUNDARY, PART + b"PK", "breaks off"),
        (BOUNDARY, (b'--b\r\nContent-Disposition: form-data; name="x"\r\n\r\nx\r\n' * 20) + b"--b--\r\n", "parts"),
    ],
)
async def test_odd_forms_are_refused(here: Running, headers: dict[str, str], body: bytes, said: str) -> None:
    answer = await here.http.post("/wheels", content=body, headers=headers)
    assert (answer.status_code, said in answer.json()["detail"]) == (422, True), answer.text
    assert await nothing_is_left(here)


async def test_a_field_without_end_is_too_large(here: Running) -> None:
    body = b'--b\r\nContent-Disposition: form-data; name="tags"\r\n\r\n' + b"x" * 100_000 + b"\r\n--b--\r\n"
    answer = await here.http.post("/wheels", content=body, headers=BOUNDARY)
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")


async def test_a_client_that_hangs_up_leaves_nothing(here: Running) -> None:
    free = here.gateway.uploads.room.bytes_left, here.gateway.uploads.room.files_left
    _, writer = await asyncio.open_connection("127.0.0.1", httpx2.URL(here.listener.url).port)
    head = "POST /wheels HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9000000\r\n"
    writer.write(head.encode() + b"Content-Type: multipart/form-data; boundary=b\r\n\r\n" + PART + b"x" * (4 << 20))
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    uploads = here.gateway.uploads
    await until(lambda: (uploads.room.bytes_left, uploads.room.files_left) == free)  # all room is given back
    assert uploads.checks._free._value == 4
    assert await nothing_is_left(here)


async def test_too_large_with_and_without_a_length(settings: Settings) -> None:
    async with running(settings.model_copy(update={"wheel_max_bytes": 1 << 20})) as here:

        async def body(blocks: int) -> AsyncIterator[bytes]:
            yield PART
            for _ in range(blocks):
                yield b"x" * 65536

        for blocks in (20, 200):  # found by the form, and by the limit of any body
            answer = await here.http.post("/wheels", content=body(blocks), headers=BOUNDARY)
            assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
            assert "1048576" in answer.json()["detail"] and "PYOCO_WHEEL_MAX_BYTES" in answer.json()["hint"]
        file = io.BytesIO(bytes(3 << 20))
        answer = await here.http.post("/wheels", files={"wheel": ("a-1-py3-none-any.whl", file)})
        assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
        # Other paths keep their own limit.
        assert (await here.http.post("/runs", content=b"x" * (2 << 20))).status_code == 413
        assert await nothing_is_left(here)


async def test_damaged_bytes_are_not_handed_out(here: Running, tmp_path: Path) -> None:
    small = make_wheel(tmp_path, "small", "1")
    large = make_wheel(tmp_path, "large", "1", {"large/__init__.py": "", "large/data": _noise(3 << 20)})
    for path in (small, large):
        entry = (await upload(here.http, path)).json()
        assert (await here.http.get(f"/wheels/{path.name}")).content == path.read_bytes()
        subject = f"$O.{entry['bucket']}.C.{entry['nuid']}"
        js = here.gateway.connection.js
        last = await js.get_last_msg(f"OBJ_{entry['bucket']}", subject)
        await js.delete_msg(f"OBJ_{entry['bucket']}", int(last.seq or 0))
        await js.publish(subject, b"?" * len(last.data or b""))
    answer = await here.http.get(f"/wheels/{small.name}")
    assert (answer.status_code, answer.json()["code"]) == (500, "wheel_damaged")
    with pytest.raises(httpx2.RemoteProtocolError):
        await here.http.get(f"/wheels/{large.name}")


async def test_a_pin_chooses_an_older_version_and_comes_off(here: Running, tmp_path: Path) -> None:
    for version, tags in (("1", "cpu"), ("2", "cpu"), ("3", "gpu"), ("4", "")):
        await upload(here.http, make_wheel(tmp_path, "Task_A", version), tags=tags)

    async def pinned() -> list[str]:
        return [item["version"] for item in (await here.http.get("/wheels")).json() if item["pinned_at"]]

    answer = await here.http.post("/wheels/task-a==2.0/pin")
    name = "Task_A-2-py3-none-any.whl"
    assert answer.json() == {"package": "task-a", "version": "2", "pinned": [name], "unpinned": []}
    # A pin for the same workers takes its place, one for others does not.
    assert (await here.http.post("/wheels/Task.A==1/pin")).json()["unpinned"] == [name]
    assert (await here.http.post("/wheels/Task_A-3-py3-none-any.whl/pin")).json()["unpinned"] == []
    assert await pinned() == ["1", "3"]
    assert len((await here.http.post("/wheels/task-a==4/pin")).json()["unpinned"]) == 2
    assert (await here.http.delete("/wheels/TASK-A/pin")).json() == {
        "package": "task-a", "unpinned": ["Task_A-4-py3-none-any.whl"],
    }  # fmt: skip
    assert await pinned() == (await here.http.delete("/wheels/task-a/pin")).json()["unpinned"] == []
    # The rule for uploads stays.
    assert (await here.http.post("/wheels/task-a==1/pin")).status_code == 200
    assert (await upload(here.http, make_wheel(tmp_path, "Task_A", "3.5"))).status_code == 409
    actions = [event["action"] for event in (await here.http.get("/wheels/history?limit=3")).json()]
    assert actions == ["pin", "unpin", "unpin"] or actions[0] == "pin"
    for method, what, status, said in (
        ("POST", "task-a==9", 404, "task-a==4"), ("POST", "task-a", 422, "NAME==VERSION"),
        ("POST", "b==1", 404, "b==1"),
        ("DELETE", "b", 404, "'b'"), ("DELETE", "ä", 422, "package"), ("POST", "x.whl", 404, "x.whl"),
    ):  # fmt: skip
        answer = await here.http.request(method, f"/wheels/{what}/pin")
        assert (answer.status_code, said in answer.text) == (status, True), answer.text


async def test_a_pin_of_several_files_of_a_version_is_one_pin(here: Running) -> None:
    bucket = await here.gateway.connection.js.object_store(here.gateway.settings.wheel_object_store_bucket)
    for tag in ("py3-none-any", "cp311-cp311-linux_x86_64"):
        await bucket.put(f"a-1-{tag}.whl", b"x")
    assert len((await here.http.post("/wheels/a==1/pin")).json()["pinned"]) == 2
    assert len({item["pinned_at"] for item in (await here.http.get("/wheels")).json()}) == 1


async def test_a_foreign_name_is_quoted(here: Running) -> None:
    bucket = await here.gateway.connection.js.object_store(here.gateway.settings.wheel_object_store_bucket)
    await bucket.put('ä "x".whl', b"x")
    answer = await here.http.get('/wheels/ä "x".whl')
    assert answer.headers["content-disposition"] == "attachment; filename*=UTF-8''%C3%A4%20%22x%22.whl"
    assert (await here.http.delete('/wheels/ä "x".whl')).status_code == 200


def _noise(size: int) -> bytes:
    import random

    return random.Random(1).randbytes(size)


SILENT_UPLOADS = {
    "nothing": b"",
    "the begin of a form": PART[:30],
    "a part of the file": PART + b"x" * 1000,
}


@pytest.mark.parametrize("kind", SILENT_UPLOADS)
async def test_uploads_that_stand_still_keep_nobody_out(here: Running, tmp_path: Path, kind: str) -> None:
    port = httpx2.URL(here.listener.url).port
    head = b"POST /wheels HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9000000\r\n"
    silent = []
    for _ in range(70):  # more than there may be files
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head + b"Content-Type: multipart/form-data; boundary=b\r\n\r\n" + SILENT_UPLOADS[kind])
        silent.append(writer)
    await until(lambda: here.gateway.connections.open >= 70)
    assert (await upload(here.http, make_wheel(tmp_path, "a", "1"))).status_code == 200
    for writer in silent:
        writer.close()
    await until(lambda: here.gateway.connections.open <= 1)
    assert await nothing_is_left(here, stored=1)


async def test_an_upload_waits_for_room_and_gets_in(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wheel_upload, "_WRITE", 1000)
    async with running(settings) as here:
        room = here.gateway.uploads.room
        port = httpx2.URL(here.listener.url).port
        holders = []
        while room.files_left:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            head = b"POST /wheels HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9000000\r\n"
            writer.write(head + b"Content-Type: multipart/form-data; boundary=b\r\n\r\n" + PART + b"x" * 2000)
            holders.append(writer)
            await until(lambda: room.files_left == 64 - len(holders))
        waiting = asyncio.create_task(upload(here.http, make_wheel(tmp_path, "a", "1")))
        await until(lambda: len(room._changed._waiters) == 1)
        holders[0].transport.abort()
        assert (await asyncio.wait_for(waiting, 10)).status_code == 200
        for writer in holders:
            writer.transport.abort()
        await until(lambda: room.files_left == 64 and room.bytes_left == 4 * settings.wheel_max_bytes)
