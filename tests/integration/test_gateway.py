"""The gateway in a real uvicorn, with a real NATS behind it and the store beside it."""

import asyncio
import contextlib
import json
import re
import sqlite3
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sse_starlette.sse import AppStatus

from pyoco_server.embedded.listener import Listener, bind
from pyoco_server.gateway.gateway import Gateway
from pyoco_server.model.run import EndReason as End
from pyoco_server.model.run import RunRecord, RunStatus, claim, settle
from pyoco_server.model.worker import WorkerRecord
from pyoco_server.process.waiting import first_event
from pyoco_server.settings.environment import Settings

pytestmark = pytest.mark.anyio

FLOW = """\
version: 1
flow:
  graph: add_one >> to_text
  defaults: {x: 1}
tasks:
  add_one: {callable: "pyoco_server._workflow_test_tasks:add_one"}
  to_text: {callable: "pyoco_server._workflow_test_tasks:to_text"}
"""
JSON = {"content-type": "application/json"}
DEADLINE = 10.0


@dataclass
class Running:
    """A gateway that serves."""

    http: httpx2.AsyncClient
    gateway: Gateway
    listener: Listener

    async def submit(self, **fields: Any) -> str:
        answer = await self.http.post("/runs", json={"flow_name": "f", **fields})
        assert answer.status_code == 200, answer.text
        return str(answer.json()["run_id"])

    async def store(self, key: str, value: bytes) -> None:
        """Write a record as a foreign program would, and wait until the index has seen it."""
        revision = await self.gateway.runs._bucket.put(key, value)
        await until(lambda: self.gateway.run_feed.revision >= revision)

    @contextlib.asynccontextmanager
    async def watch(self, run_id: str, last: str = "", **query: Any) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
        headers = {"Last-Event-ID": last} if last else {}
        async with self.http.stream("GET", f"/runs/{run_id}/watch", params=query, headers=headers) as answer:
            assert answer.status_code == 200
            yield events(answer)


async def events(answer: httpx2.Response) -> AsyncIterator[dict[str, Any]]:
    """Give the events of a stream, read as the plainest client would."""
    current: dict[str, Any] = {}
    async for line in answer.aiter_lines():
        name, _, value = line.partition(": ")
        if line:
            current[name] = json.loads(value) if name == "data" else value
        else:
            yield current
            current = {}


async def until(holds: Any, timeout: float = DEADLINE) -> None:
    """Wait for something of the same event loop that offers no event."""
    deadline = time.monotonic() + timeout
    while not holds():
        assert time.monotonic() < deadline, "it never came true"
        await first_event(0.005, asyncio.Event())


@contextlib.asynccontextmanager
async def running(settings: Settings, *, store: bool = True) -> AsyncIterator[Running]:
    """Serve on a free port."""
    listener = Listener(settings, bind("127.0.0.1", 0))
    serving = asyncio.create_task(listener.serve())
    try:
        assert await listener.wait_ready(DEADLINE, store=store)
        async with httpx2.AsyncClient(base_url=listener.url, timeout=DEADLINE) as http:
            yield Running(http, listener._app.state.gateway, listener)
    finally:
        listener.stop()
        await asyncio.wait_for(serving, DEADLINE)
        AppStatus.should_exit = False  # sse-starlette's word for "this process stops"; here only one server did


@pytest.fixture
async def here(settings: Settings) -> AsyncIterator[Running]:
    async with running(settings) as server:
        yield server


async def test_a_fresh_store_is_empty_and_ready(here: Running) -> None:
    for path, empty in {"/runs": [], "/runs?cursor=": {"items": [], "next_cursor": None}, "/workers": []}.items():
        answer = await here.http.get(path)
        assert (answer.status_code, answer.json()) == (200, empty)
    ready = (await here.http.get("/ready")).json()
    assert ready["nats"]["connected"] is True and ready["nats"]["down_since"] is None
    assert ready["durability"]["replicas"] == 1
    assert None not in ready["streams"].values() and len(ready["streams"]) == 10
    assert ready["index"] == {"caught_up": True, "revision": 0, "runs": 0}


async def test_what_it_answers_first_it_answers_with_its_buckets_there(settings: Settings) -> None:
    """Programs of the existing system ask for ``/health``, and open the buckets then."""
    async with running(settings, store=False) as here:
        assert here.gateway.streams.made.is_set()
        assert (await here.http.get("/health")).status_code == 200
        assert await here.gateway.connection.js.key_value(settings.runs_kv_bucket)


async def test_a_nats_without_room_is_told_of(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    greedy = settings.model_copy(update={"logs_max_bytes": 1 << 60})
    listener = Listener(greedy, bind("127.0.0.1", 0))
    serving = asyncio.create_task(listener.serve())
    said, deadline = "", time.monotonic() + DEADLINE
    while "a stream cannot be made" not in said:
        assert time.monotonic() < deadline, said
        assert not await listener.wait_ready(0.1, store=True)
        said += capsys.readouterr().out
    assert not await listener.wait_ready(1.5, store=True)  # tried again since, and told once
    listener.stop()
    await asyncio.wait_for(serving, DEADLINE)
    AppStatus.should_exit = False
    said += capsys.readouterr().out
    assert f"{settings.logs_stream}: NATS has no room left to set {1 << 60} bytes aside" in said
    assert "PYOCO_LOGS_MAX_BYTES" in said
    assert said.count("a stream cannot be made") == 1


async def test_a_submission_is_record_job_and_list_item_at_once(here: Running) -> None:
    run_id = await here.submit(params={"a": [1]}, tags=["x", "y"], timeout_sec=5, max_attempts=2, unknown=1)
    assert [item["run_id"] for item in (await here.http.get("/runs")).json()] == [run_id]
    stored = await here.gateway.runs.get(run_id)
    assert stored is not None
    record = stored.record
    assert (record.params, record.tags, record.tag) == ({"a": [1]}, ["x", "y"], "default")
    assert (record.timeout_sec, record.max_attempts, record.status) == (5, 2, RunStatus.PENDING)
    streams = (await here.http.get("/ready")).json()["streams"]
    assert streams[here.gateway.settings.work_stream]["messages"] == 1


async def test_a_flow_file_is_stored_once_and_its_run_knows_it(here: Running) -> None:
    ids = []
    for params in ('{"x": 5}', " ", None):
        data = {"flow_name": " main ", "tag": " ", **({"params": params} if params is not None else {})}
        answer = await here.http.post("/runs/yaml", data=data, files={"workflow": ("f.yaml", FLOW.encode())})
        ids.append(answer.json()["run_id"])
    runs = [(await here.http.get(f"/runs/{run_id}")).json() for run_id in ids]
    assert [run["params"] for run in runs] == [{"x": 5}, {"x": 1}, {"x": 1}]
    assert runs[0]["tasks"] == {"add_one": "PENDING", "to_text": "PENDING"}
    assert (runs[0]["flow_name"], runs[0]["tag"], runs[0]["workflow_yaml_bytes"]) == ("main", "default", len(FLOW))
    assert await here.gateway.flows.get(runs[0]["workflow_yaml_sha256"]) == FLOW.encode()
    assert (await here.http.get("/ready")).json()["streams"][f"KV_{here.gateway.settings.flows_kv_bucket}"][
        "messages"
    ] == 1


@pytest.mark.parametrize(
    ("data", "text", "status", "said"),
    [
        ({"flow_name": " "}, FLOW, 422, "flow_name"),
        ({}, FLOW, 422, "flow_name"),
        ({"flow_name": "f", "tag": "a.b"}, FLOW, 422, "invalid tag"),
        ({"flow_name": "f", "params": "{"}, FLOW, 422, "params is not JSON"),
        ({"flow_name": "f", "params": "[1]"}, FLOW, 422, "not an object"),
        ({"flow_name": "f", "timeout_sec": "0"}, FLOW, 422, "timeout_sec"),
        ({"flow_name": "f"}, FLOW.replace("to_text\n", "nobody\n"), 422, "nobody"),
        ({"flow_name": "f"}, FLOW + "#" * 300_000, 413, "262144"),
        ({"flow_name": "f"}, FLOW + "# large\n" * 4000, 200, "PENDING"),
    ],
)
async def test_flow_files_are_checked(here: Running, data: dict[str, str], text: str, status: int, said: str) -> None:
    answer = await here.http.post("/runs/yaml", data=data, files={"workflow": ("f", text.encode())})
    assert (answer.status_code, said in answer.text) == (status, True), answer.text
    assert status == 200 or answer.json()["hint"]


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"{", 422),
        (b'{"flow_name":"\xff"}', 422),
        (b"[]", 422),
        (b'{"flow_name":"\\ud800"}', 422),
        (b'{"flow_name":"f","params":"\\ud800","max_attempts":1e999}', 422),
        (b'{"flow_name":"f","params":null}', 422),
        (b'{"flow_name":"f","tag":""}', 422),
        (b'{"flow_name":"f","timeout_sec":NaN}', 422),
        (b'{"flow_name":"f","params":{"a":' + b"[" * 5000 + b"]" * 5000 + b"}}", 422),
        (b'{"flow_name":"f","params":{"a":' + b"[" * 200 + b"]" * 200 + b"}}", 422),
        (b'{"flow_name":"f","params":{"a":"' + b"x" * 140_000 + b'"}}', 413),
        (b'{"flow_name":"f","tags":["' + b'","'.join([b"x"] * 65) + b'"]}', 422),
        (b'{"flow_name":"f","params":{"n":NaN}}', 422),
        (b'{"flow_name":"f","params":{"n":1,"n":2}}', 422),
        (b'{"flow_name":"f","params":{"n":' + b"9" * 5000 + b"}}", 422),
        (b'{"flow_name":"f","params":{"n":' + b"9" * 4000 + b"}}", 200),
        (b'{"flow_name":"f","params":{"\\ud800":"\\ud800"},"tags":["\\udfff"]}', 200),
        (b'{"flow_name":"f","params":{"a":' + b"[" * 100 + b"]" * 100 + b"}}", 200),
    ],
)
async def test_bodies_are_checked_and_what_is_taken_can_be_read(here: Running, raw: bytes, status: int) -> None:
    answer = await here.http.post("/runs", content=raw, headers=JSON)
    assert answer.status_code == status, answer.text
    if status != 200:
        assert {"detail", "code", "hint"} <= set(answer.json())
        assert (await here.http.get("/runs")).json() == []
        return
    run_id = answer.json()["run_id"]
    for path in (f"/runs/{run_id}", f"/runs/{run_id}/tasks", "/runs", "/runs?include=full"):
        assert (await here.http.get(path)).status_code == 200


@pytest.mark.parametrize("path", ["/runs", "/runs/yaml"])
async def test_a_body_without_end_is_too_large(here: Running, path: str) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="workflow"; filename="f"\r\n\r\n'
        for _ in range(200):
            yield b"x" * 65536

    headers = {"content-type": "multipart/form-data; boundary=b"} if path.endswith("yaml") else JSON
    answer = await here.http.post(path, content=body(), headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")


async def test_params_that_nats_would_not_take_are_too_large(settings: Settings) -> None:
    roomy = settings.model_copy(update={"max_run_snapshot_bytes": 8 << 20, "workflow_yaml_max_bytes": 8 << 20})
    async with running(roomy) as here:
        answer = await here.http.post("/runs", json={"flow_name": "f", "params": {"a": "x" * (2 << 20)}})
        assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
        form = {"data": {"flow_name": "f"}, "files": {"workflow": ("f", FLOW.encode() + b"#" * (2 << 20))}}
        assert (await here.http.post("/runs/yaml", **form)).status_code == 413


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nothing", 404, "not_found"),
        ("DELETE", "/runs", 405, "method_not_allowed"),
        ("GET", "/runs/a.b", 404, "run_not_found"),
        ("GET", "/runs/unknown/tasks", 404, "run_not_found"),
        ("GET", "/runs/unknown/watch", 404, "run_not_found"),
        ("POST", "/runs/unknown/cancel", 404, "run_not_found"),
        ("POST", "/runs/*/cancel", 404, "run_not_found"),
        ("GET", "/runs/a/watch?timeout_sec=0", 422, "invalid_input"),
        ("GET", "/runs?updated_after=inf", 422, "invalid_input"),
        ("GET", "/runs?limit=201", 422, "invalid_input"),
        ("GET", "/runs?cursor=eyJ1IjoxLCJyIjoiXHVkODAwIn0", 422, "invalid_input"),
        ("GET", "/workers?scope=some", 422, "invalid_input"),
        ("GET", "/workers?state=BUSY", 422, "invalid_input"),
        ("GET", "/workers?limit=501", 422, "invalid_input"),
        ("PATCH", "/workers/w", 422, "invalid_input"),
    ],
)
async def test_errors_have_one_shape(here: Running, method: str, path: str, status: int, code: str) -> None:
    answer = await here.http.request(method, path)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.json()["detail"] and answer.json()["hint"]


async def test_what_nobody_expected_is_a_500_with_a_trace(here: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(here.gateway.index, "listing", None)
    answer = await here.http.get("/runs")
    assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
    assert len(answer.json()["trace_id"]) == 32
    assert "NoneType" not in answer.text


async def test_pages_over_many_runs_have_no_gap_and_no_double(here: Running) -> None:
    records = [
        RunRecord(run_id=f"r{n:03}", flow_name="f", tag="even" if n % 2 == 0 else "odd", updated_at=float(n // 7))
        for n in range(500)
    ]
    revisions = await asyncio.gather(*(here.gateway.runs.create(record) for record in records))
    await until(lambda: here.gateway.run_feed.revision >= max(revisions))
    wanted = sorted(records, key=lambda record: (record.updated_at, record.run_id), reverse=True)
    for tag in (None, "odd"):
        seen: list[str] = []
        cursor = ""
        while cursor is not None:
            query = {"limit": 33, "cursor": cursor, **({"tag": tag} if tag else {})}
            page = (await here.http.get("/runs", params=query)).json()
            seen += [item["run_id"] for item in page["items"]]
            cursor = page["next_cursor"]
        assert seen == [record.run_id for record in wanted if tag in (None, record.tag)]
    assert len((await here.http.get("/runs")).json()) == 50
    newer = (await here.http.get("/runs?updated_after=70")).json()
    assert sorted(item["run_id"] for item in newer["items"]) == [f"r{n:03}" for n in range(497, 500)]
    whole = (await here.http.get("/runs?include=all&limit=200")).json()
    assert len(whole) == 200 and "params" in whole[0] and "task_records" in whole[0]
    assert "instance_id" not in whole[0]


FOREIGN = {
    "surrogate": b'{"flow_name":"f","error":"\\ud800","updated_at":5}',
    "numbers": b'{"heartbeat_at":NaN,"updated_at":1' + b"0" * 400 + b',"params":{"a":Infinity}}',
    "types": b'{"worker_id":["w"],"status":"RUNNING","updated_at":"x","heartbeat_at":"y"}',
    "empty": b"{}",
    "text": b'"x"',
    "bytes": b"\xff{",
}


async def test_foreign_records_break_no_answer(here: Running) -> None:
    for key, value in FOREIGN.items():
        await here.store(key, value)
    listed = (await here.http.get("/runs")).json()
    assert {item["run_id"]: item["unreadable"] is None for item in listed} == dict.fromkeys(FOREIGN, False)
    assert len((await here.http.get("/runs?include=full")).json()) == len(FOREIGN)
    for key in FOREIGN:
        for path in ("", "/tasks", "/why"):
            assert (await here.http.get(f"/runs/{key}{path}")).status_code == 200
        async with here.watch(key) as stream:
            assert (await anext(stream))["data"]["snapshot"]["unreadable"]
        assert (await here.http.post(f"/runs/{key}/cancel")).status_code == 200


async def test_cancel(here: Running) -> None:
    waiting = await here.submit()
    told: list[str] = []
    got = asyncio.Event()

    async def on_run(run_id: str) -> None:
        told.append(run_id)
        got.set()

    await here.gateway.control.listen(on_run)
    answer = (await here.http.post(f"/runs/{waiting}/cancel", json={"reason": "no need"})).json()
    assert (answer["status"], answer["error"]) == ("CANCELLED", "no need")
    assert (await here.http.post(f"/runs/{waiting}/cancel")).json()["updated_at"] == answer["updated_at"]
    busy = await here.submit()
    await here.gateway.runs.change(busy, lambda record: claim(record, worker_id="w", instance_id="i", job_seq=1))
    for _ in (1, 2):
        assert (await here.http.post(f"/runs/{busy}/cancel")).json()["status"] == "CANCELLING"
    await asyncio.wait_for(got.wait(), DEADLINE)
    assert set(told) == {busy}
    assert (await here.http.post(f"/runs/{busy}/cancel", content=b"{", headers=JSON)).status_code == 422


def worker(worker_id: str, **fields: Any) -> WorkerRecord:
    now = time.time()
    return WorkerRecord(worker_id=worker_id, **{"last_seen_at": now, "last_heartbeat_at": now, **fields})


async def put_workers(here: Running, *records: WorkerRecord) -> None:
    revisions = [await here.gateway.workers.put(record) for record in records]
    await until(lambda: here.gateway.worker_feed.revision >= max(revisions))


async def test_workers(here: Running) -> None:
    now = time.time()
    await put_workers(
        here,
        worker("idle", last_seen_at=now - 1),
        worker("busy", state="RUNNING", tags=["cpu"]),
        worker("lost", state="RUNNING", last_seen_at=now - 100),
        worker("gone", state="STOPPED_GRACEFUL", last_seen_at=now - 200),
        worker("shy", hidden=True),
    )

    async def ids(query: str = "") -> list[str]:
        return [item["worker_id"] for item in (await here.http.get(f"/workers{query}")).json()]

    assert await ids() == ["busy", "idle"]
    assert await ids("?scope=all") == ["busy", "idle", "lost", "gone"]
    assert await ids("?scope=all&state=DISCONNECTED") == ["lost"]
    assert await ids("?scope=all&state=STOPPED_GRACEFUL") == ["gone"]
    assert "shy" in await ids("?include_hidden=true")
    assert await ids("?limit=1") == ["busy"]
    answer = await here.http.patch("/workers/idle", json={"hidden": True})
    assert answer.json() == {"worker_id": "idle", "hidden": True, "updated_at": answer.json()["updated_at"]}
    revision = (await here.gateway.workers.get("idle")).revision  # type: ignore[union-attr]
    await until(lambda: here.gateway.worker_feed.revision >= revision)
    assert await ids() == ["busy"]
    for path, body, status in (("nobody", {"hidden": True}, 404), ("a b", {"hidden": True}, 404), ("idle", {}, 422)):
        assert (await here.http.patch(f"/workers/{path}", json=body)).status_code == status
    assert (await here.http.patch("/workers/idle", json={"hidden": "maybe"})).status_code == 422


async def test_a_run_tells_of_its_worker(here: Running) -> None:
    run_id = await here.submit()
    fields = ("worker_alive", "worker_state", "worker_heartbeat_at", "worker_hidden", "worker_tags")

    async def told() -> dict[str, Any]:
        return dict((await here.http.get(f"/runs/{run_id}")).json())

    assert [(await told())[name] for name in fields] == [None] * 5
    await here.gateway.runs.change(run_id, lambda record: claim(record, worker_id="w", instance_id="i", job_seq=1))
    assert [(await told())[name] for name in fields[:2]] == [False, "DISCONNECTED"]
    beat = time.time() + 5
    await put_workers(here, worker("w", state="RUNNING", tags=["t"], current_run_ids=[run_id], last_heartbeat_at=beat))
    run = await told()
    assert [run[name] for name in fields] == [True, "RUNNING", beat, False, ["t"]]
    assert run["heartbeat_at"] == beat
    await put_workers(here, worker("w", state="RUNNING", current_run_ids=["other"], last_heartbeat_at=beat))
    assert (await told())["heartbeat_at"] < beat  # it is another run's sign of life


async def test_a_watch_follows_a_run_to_its_end(here: Running) -> None:
    run_id = await here.submit()
    async with here.watch(run_id, include="records") as stream:
        first = await anext(stream)
        assert (first["event"], first["data"]["snapshot"]["status"]) == ("snapshot", "PENDING")
        assert set(first["data"]) == {"run_id", "snapshot", "ts"} and "task_records" in first["data"]["snapshot"]
        changed = await here.gateway.runs.change(run_id, lambda r: claim(r, worker_id="w", instance_id="i", job_seq=1))
        second = await anext(stream)
        assert changed is not None
        assert (second["id"], second["data"]["snapshot"]["status"]) == (str(changed.revision), "RUNNING")
        await here.gateway.runs.change(run_id, lambda r: settle(r, RunStatus.COMPLETED, End.COMPLETED, None))
        rest = [event async for event in stream]
    assert [event["data"]["snapshot"]["status"] for event in rest] == ["COMPLETED"]
    async with here.watch(run_id) as stream:
        again = [event async for event in stream]
    assert [event["event"] for event in again] == ["snapshot"]
    assert "task_records" not in again[0]["data"]["snapshot"]
    for known in ({"last": again[0]["id"]}, {"since": again[0]["data"]["snapshot"]["updated_at"]}):
        async with here.watch(run_id, **known) as stream:
            assert [event["event"] async for event in stream] == ["heartbeat"]
    await until(lambda: not here.gateway.index._mailboxes)


async def test_a_watch_is_never_silent_and_resumes(here: Running) -> None:
    run_id = await here.submit()
    async with here.watch(run_id) as stream:
        first = await anext(stream)
    await until(lambda: not here.gateway.index._mailboxes)  # a client that went away leaves nothing behind
    async with here.watch(run_id, last=first["id"], timeout_sec=3) as stream:
        started = time.monotonic()
        assert (await anext(stream))["event"] == "heartbeat"
        assert time.monotonic() - started < 2  # it does not wait until one is due
        gaps = []
        async for event in stream:
            assert event["event"] == "heartbeat"
            gaps.append(time.monotonic() - started)
        assert gaps[0] < 3 and 2.5 < gaps[-1] < DEADLINE
    async with here.watch(run_id, last="999999999", timeout_sec=1) as stream:  # an id of a bucket that is no more
        assert (await anext(stream))["event"] == "snapshot"


async def test_open_watches_end_when_the_server_stops(settings: Settings) -> None:
    async with running(settings) as here:
        run_id = await here.submit()
        async with here.watch(run_id, timeout_sec=600) as stream:
            await anext(stream)
            here.listener.stop()
            started = time.monotonic()
            assert [event async for event in stream] == []
            assert time.monotonic() - started < DEADLINE  # and not after the ten minutes that it was to last


async def test_the_index_goes_on_in_the_next_process(settings: Settings) -> None:
    async with running(settings) as here:
        run_id = await here.submit()
        await until(lambda: here.gateway.run_feed.revision > 0)
    async with running(settings) as here:
        assert here.gateway.index.revision > 0
        assert [item["run_id"] for item in (await here.http.get("/runs")).json()] == [run_id]
        async with running(settings) as second:  # in the same directory: with an index of its own
            assert [item["run_id"] for item in (await second.http.get("/runs")).json()] == [run_id]


async def test_lists_come_back_after_the_index_failed(here: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    broken, apply = asyncio.Event(), here.gateway.index.apply

    def fail(changes: Any, identity: str | None = None, **options: Any) -> Any:
        if identity is not None and not broken.is_set():
            broken.set()
            raise OSError("disk full")
        return apply(changes, identity, **options)

    monkeypatch.setattr(here.gateway.index, "apply", fail)
    await here.gateway.runs.create(RunRecord(run_id="seen", flow_name="f"))
    await asyncio.wait_for(broken.wait(), DEADLINE)
    assert [item["run_id"] for item in (await here.http.get("/runs")).json()] == ["seen"]


async def test_the_page(here: Running, settings: Settings, tmp_path: Path) -> None:
    page = await here.http.get("/", headers={"accept-language": "fr, ja;q=0.9, en;q=0.8"})
    assert 'lang="ja"' in page.text and "<script>" not in page.text
    assert "script-src 'self'" in page.headers["content-security-policy"]
    assert 'lang="en"' in (await here.http.get("/")).text
    for name in ("app.js", "style/base.css"):
        loose = await here.http.get(f"/static/{name}")
        assert (loose.status_code, loose.headers["cache-control"]) == (200, "no-cache")
    path = re.search(r'src="([^"]+/app.js)"', page.text).group(1)  # type: ignore[union-attr]
    kept = await here.http.get(path)
    assert "immutable" in kept.headers["cache-control"] and kept.text == (await here.http.get("/static/app.js")).text
    again = await here.http.get(path, headers={"if-none-match": kept.headers["etag"]})
    assert again.status_code == 304
    assert (await here.http.get(path.replace("static/", "static/0"))).status_code == 404  # of another version
    fixed = settings.model_copy(update={"dashboard_lang": "ja", "state_dir": tmp_path / "other"})
    async with running(fixed) as japanese:
        assert 'lang="ja"' in (await japanese.http.get("/", headers={"accept-language": "en"})).text


async def test_a_run_whose_index_cannot_be_written_is_answered_all_the_same(
    here: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(here.gateway.index, "apply", full)
        run_id = await here.submit()
    assert (await here.http.get(f"/runs/{run_id}")).json()["status"] == "PENDING"
