"""Dead letters in a real stream, and the routes that show and replay them."""

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest

from pyoco_server.errors import StoreUnavailable
from pyoco_server.model.deadletter import (
    DeadLetter,
    DeadLetterReason,
    key_of_run,
    letter_of_job,
    letter_of_run,
    letter_reason,
)
from pyoco_server.model.job import Job
from pyoco_server.model.run import EndReason, RunRecord, RunStatus, claim, settle
from pyoco_server.process.waiting import first_event
from pyoco_server.settings.environment import Settings
from pyoco_server.store import topology
from pyoco_server.store.deadletters import DeadLetterStore
from pyoco_server.store.nats.connection import Connection
from pyoco_server.store.queue.tag_puller import TagPuller
from pyoco_server.worker.claims import Claims
from pyoco_server.worker.owners import Owners
from pyoco_server.worker.registration import Registration
from tests.integration.test_gateway import DEADLINE, FLOW, Running, running

pytestmark = pytest.mark.anyio


@pytest.fixture
async def letters(settings: Settings) -> AsyncIterator[DeadLetterStore]:
    connection = await Connection(settings, "test").start()
    assert await connection.wait_up(10)
    await topology.ensure(connection)
    yield DeadLetterStore(connection)
    await connection.close()


@pytest.fixture
async def here(settings: Settings) -> AsyncIterator[Running]:
    async with running(settings) as server:
        yield server


def letter(n: int, tag: str = "a", **fields: Any) -> DeadLetter:
    return DeadLetter(reason=DeadLetterReason.EXECUTION_ERROR, tag=tag, run_id=f"r{n}", **fields)


async def publish(letters: DeadLetterStore, count: int, tag: str = "a") -> list[int]:
    return [await letters.publish(letter(n, tag), f"{tag}:{n}") for n in range(count)]


async def test_a_second_letter_of_one_cause_is_the_first(letters: DeadLetterStore) -> None:
    first = await letters.publish(letter(1), "r1:1:execution_error")
    assert await letters.publish(letter(1), "r1:1:execution_error") == first
    assert [stored.id for stored in await letters.list(tag=None, before=None, limit=10)] == [first]


@pytest.mark.parametrize("tag", [None, "a"])
async def test_pages_are_newest_first_over_other_tags_and_holes(letters: DeadLetterStore, tag: str | None) -> None:
    assert await letters.list(tag=tag, before=None, limit=5) == []
    ids: dict[str, list[int]] = {"a": [], "b": []}
    for n in range(150):
        name = "a" if n % 3 else "b"
        ids[name].append(await letters.publish(letter(n, name), str(n)))
    gone = set(range(5, 60)) | {100, 101, 149, 150}
    for letter_id in gone:
        assert await letters.remove(letter_id) is True
    wanted = sorted(set(ids["a"] + (ids["b"] if tag is None else [])) - gone, reverse=True)
    for limit in (1, 7, 64, 500):
        seen: list[int] = []
        before = None
        while page := await letters.list(tag=tag, before=before, limit=limit):
            assert len(page) == min(limit, len(wanted) - len(seen))
            seen += [stored.id for stored in page]
            before = seen[-1]
        assert seen == wanted
    assert await letters.list(tag=tag, before=1, limit=5) == []
    assert [stored.id for stored in await letters.list(tag=tag, before=10**15, limit=2)] == wanted[:2]


async def test_what_is_not_there(letters: DeadLetterStore) -> None:
    [letter_id, other] = await publish(letters, 2)
    assert (await letters.remove(letter_id), await letters.remove(letter_id)) == (True, False)
    assert await letters.remove(99) is False
    assert (await letters.get(letter_id), await letters.get(99)) == (None, None)
    found = await letters.get(other)
    assert found is not None and (found.tag, found.key) == ("a", "a:1")


async def test_a_stream_that_is_missing_is_told(letters: DeadLetterStore, settings: Settings) -> None:
    await letters._connection.js.delete_stream(settings.dlq_stream)
    with pytest.raises(StoreUnavailable):
        await letters.list(tag=None, before=None, limit=5)


async def bury(here: Running, run_id: str = "", **fields: Any) -> tuple[RunRecord, int]:
    """Let a submitted run fail, as its worker would."""
    run_id = run_id or await here.submit(**fields)
    stored = await here.gateway.runs.get(run_id)
    assert stored is not None
    running_record = claim(stored.record, worker_id="w", instance_id="i", job_seq=1)
    ended = settle(running_record, RunStatus.FAILED, EndReason.TASK_FAILED, "no")
    await here.gateway.runs.update(ended, stored.revision)
    reason = letter_reason(ended, execution_errors=True)
    assert reason is not None
    body = letter_of_run(ended, reason, tag=ended.tag, num_delivered=1, subject="s")
    return ended, await here.gateway.letters.publish(body, key_of_run(ended, reason))


async def test_a_letter_is_shown_replayed_and_gone(here: Running) -> None:
    old, letter_id = await bury(here, params={"x": [1]}, tag="cpu", tags=["l"], timeout_sec=5, max_attempts=2)
    [shown] = (await here.http.get("/dlq", params={"tag": "cpu"})).json()
    assert (shown["id"], shown["reason"], shown["run_id"], shown["error"]) == (
        letter_id,
        "execution_error",
        old.run_id,
        "no",
    )
    assert "params" not in shown and (await here.http.get("/dlq?tag=other")).json() == []
    assert (await here.http.get(f"/dlq/{letter_id}")).json()["params"] == {"x": [1]}
    answer = (await here.http.post(f"/dlq/{letter_id}/replay")).json()
    assert (answer["status"], answer["rerun_of"]) == ("PENDING", old.run_id)
    run = (await here.http.get(f"/runs/{answer['run_id']}")).json()
    same = ("flow_name", "params", "tag", "tags", "timeout_sec", "max_attempts")
    assert {name: run[name] for name in same} == {name: getattr(old, name) for name in same}
    assert (run["attempt"], run["error"], run["rerun_of"]) == (0, None, old.run_id)
    assert (await here.http.get("/dlq")).json() == []
    gone = await here.http.post(f"/dlq/{letter_id}/replay")
    assert (gone.status_code, gone.json()["code"]) == (404, "dead_letter_not_found")
    streams = (await here.http.get("/ready")).json()["streams"]
    assert streams[here.gateway.settings.work_stream]["messages"] == 2


async def test_letters_of_a_reason_and_of_a_run(here: Running) -> None:
    foreign = DeadLetter(reason=DeadLetterReason.INVALID_JOB, tag="cpu", run_id="r")
    ids = []
    for n in range(4):
        ids.append((await bury(here, tag="cpu"))[1])
        await here.gateway.letters.publish(foreign, f"foreign:{n}")
    runs = {item["id"]: item["run_id"] for item in (await here.http.get("/dlq", params={"tag": "cpu"})).json()}
    asked = {"tag": "cpu", "reason": "execution_error", "limit": 3, "cursor": ""}
    first = (await here.http.get("/dlq", params=asked)).json()
    rest = (await here.http.get("/dlq", params={**asked, "cursor": first["next_cursor"]})).json()
    assert [item["id"] for item in first["items"] + rest["items"]] == ids[::-1] and rest["next_cursor"] is None
    for letter_id in ids:
        [found] = (await here.http.get("/dlq", params={"run_id": runs[letter_id]})).json()
        assert found["id"] == letter_id and "params" not in found
    await here.http.delete(f"/dlq/{ids[0]}")
    for run_id in (runs[ids[0]], "r", "no id: *", await here.submit()):
        assert (await here.http.get("/dlq", params={"run_id": run_id, "cursor": ""})).json()["items"] == []
    assert (await here.http.get("/dlq", params={"reason": "bad luck"})).status_code == 422


async def test_replays_at_once_and_of_a_second_letter_make_one_run(here: Running) -> None:
    old, letter_id = await bury(here)
    answers = await asyncio.gather(*(here.http.post(f"/dlq/{letter_id}/replay") for _ in range(10)))
    ids = {answer.json()["run_id"] for answer in answers if answer.status_code == 200}
    assert len(ids) == 1 and {answer.status_code for answer in answers} <= {200, 404}
    js = here.gateway.connection.js
    settings = here.gateway.settings
    # The same cause once more, as after the end of the stream's window for repeats.
    subject = f"{settings.dlq_subject_prefix}.default"
    key = key_of_run(old, DeadLetterReason.EXECUTION_ERROR)
    await js.purge_stream(settings.dlq_stream)
    await js.delete_stream(settings.dlq_stream)
    await topology.ensure(here.gateway.connection)
    again = await js.publish(subject, letter(1, flow_name="f", params={}).to_json(), headers={"Nats-Msg-Id": key})
    answer = await here.http.post(f"/dlq/{again.seq}/replay")
    assert answer.json()["run_id"] in ids, answer.text
    assert (await here.http.get("/dlq")).json() == []
    streams = (await here.http.get("/ready")).json()["streams"]
    assert streams[settings.work_stream]["messages"] == 2


async def test_a_replay_that_died_between_its_steps_is_finished_by_the_next(
    here: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, letter_id = await bury(here)

    async def refuse(*_: Any, **__: Any) -> int:
        raise StoreUnavailable("no")

    with monkeypatch.context() as patch:
        patch.setattr(here.gateway.queue, "publish", refuse)
        assert (await here.http.post(f"/dlq/{letter_id}/replay")).status_code == 503
    [first, _] = (await here.http.get("/runs")).json()
    assert first["rerun_of"] == old.run_id
    answer = await here.http.post(f"/dlq/{letter_id}/replay")
    assert (answer.status_code, answer.json()["run_id"]) == (200, first["run_id"])
    streams = (await here.http.get("/ready")).json()["streams"]
    assert streams[here.gateway.settings.work_stream]["messages"] == 2
    assert (await here.http.get("/dlq")).json() == []


async def test_without_a_record_the_letter_must_hold_enough(here: Running) -> None:
    raw = Job(run_id="lost", flow_name="f", tag="cpu", params={"x": 1}).to_json()
    store = here.gateway.letters
    whole = await store.publish(letter_of_job(raw, "no record", tag="cpu", job=Job.from_json(raw)), "1")
    unreadable = await store.publish(letter_of_job(b"rubbish", "not a job", tag="cpu"), "2")
    large = await store.publish(letter(3, params={"x": "y" * 300_000}, flow_name="f"), "3")
    assert (await here.http.get(f"/dlq/{large}")).json()["omitted"] == ["params"]
    answer = (await here.http.post(f"/dlq/{whole}/replay")).json()
    run = (await here.http.get(f"/runs/{answer['run_id']}")).json()
    assert (run["params"], run["tag"], run["rerun_of"]) == ({"x": 1}, "cpu", "lost")
    for letter_id, missing in ((unreadable, "flow_name and no params"), (large, "no params")):
        refused = await here.http.post(f"/dlq/{letter_id}/replay")
        assert (refused.status_code, refused.json()["code"]) == (409, "not_replayable")
        assert missing in refused.json()["detail"] and refused.json()["hint"]
        assert (await here.http.get(f"/dlq/{letter_id}")).status_code == 200


async def test_a_flow_that_came_with_its_job_is_kept_for_the_replay(here: Running) -> None:
    raw = Job(run_id="foreign", flow_name="f", params={}, workflow_yaml=FLOW).to_json()
    letter_id = await here.gateway.letters.publish(letter_of_job(raw, "e", tag="cpu", job=Job.from_json(raw)), "1")
    answer = (await here.http.post(f"/dlq/{letter_id}/replay")).json()
    run = (await here.http.get(f"/runs/{answer['run_id']}")).json()
    assert await here.gateway.flows.get(run["workflow_yaml_sha256"]) == FLOW.encode()


async def test_letters_of_other_programs_break_no_list(here: Running) -> None:
    settings = here.gateway.settings
    for raw in (
        b"\xff", b"[]", b'{"tags":1}', b'{"reason":"of tomorrow","run_id":7,"params":"\\ud800","omitted":3}',
        b'{"flow_name":"f","params":{},"workflow_yaml":7}', b'{"flow_name":"f","params":{},"timeout_sec":"x"}',
    ):  # fmt: skip
        ack = await here.gateway.connection.js.publish(f"{settings.dlq_subject_prefix}.odd", raw)
        [shown] = (await here.http.get("/dlq")).json()
        assert (shown["id"], shown["tag"]) == (ack.seq, "odd")
        assert (await here.http.get(f"/dlq/{ack.seq}")).status_code == 200
        assert (await here.http.post(f"/dlq/{ack.seq}/replay")).status_code == 409, raw
        assert (await here.http.delete(f"/dlq/{ack.seq}")).json() == {"id": ack.seq, "deleted": True}
        assert (await here.http.delete(f"/dlq/{ack.seq}")).status_code == 404


REFUSALS = [
    ("GET", "/dlq?limit=0", 422, "invalid_input"),
    ("GET", "/dlq?limit=501", 422, "invalid_input"),
    ("GET", "/dlq?tag=a.b", 422, "invalid_input"),
    ("GET", "/dlq?before=0", 422, "invalid_input"),
    ("GET", "/dlq/x", 422, "invalid_input"),
    ("GET", "/dlq/99999999999999999999", 422, "invalid_input"),
    ("GET", "/dlq/9", 404, "dead_letter_not_found"),
    ("DELETE", "/dlq/9", 404, "dead_letter_not_found"),
    ("POST", "/dlq/9/replay", 404, "dead_letter_not_found"),
    ("POST", "/runs/unknown/rerun", 404, "run_not_found"),
    ("POST", "/runs/a.b/rerun", 404, "run_not_found"),
]


async def test_refusals(here: Running) -> None:
    for method, path, status, code in REFUSALS:
        answer = await here.http.request(method, path)
        assert (answer.status_code, answer.json()["code"]) == (status, code), path
        assert answer.json()["hint"]


async def test_a_rerun_is_a_new_run_of_the_same(here: Running) -> None:
    form = {"data": {"flow_name": "f", "params": '{"x": 5}'}, "files": {"workflow": ("f", FLOW.encode())}}
    old_id = (await here.http.post("/runs/yaml", **form)).json()["run_id"]
    answers = [(await here.http.post(f"/runs/{old_id}/rerun")).json() for _ in range(2)]
    assert len({old_id, *(answer["run_id"] for answer in answers)}) == 3
    assert answers[0] == {"run_id": answers[0]["run_id"], "status": "PENDING", "rerun_of": old_id, "created": True}
    old, new = [(await here.http.get(f"/runs/{run_id}")).json() for run_id in (old_id, answers[0]["run_id"])]
    assert {**new, "run_id": 0, "rerun_of": 0} == {
        **old, "run_id": 0, "rerun_of": 0,
        **{name: new[name] for name in ("submitted_at", "updated_at", "heartbeat_at")},
    }  # fmt: skip
    listed = (await here.http.get("/runs")).json()
    assert [item["rerun_of"] for item in listed] == [old_id, old_id, None]
    key = {"Idempotency-Key": "once"}
    keyed = [(await here.http.post(f"/runs/{old_id}/rerun", headers=key)).json() for _ in range(2)]
    assert keyed[0]["run_id"] == keyed[1]["run_id"] and [answer["created"] for answer in keyed] == [True, False]
    reused = await here.http.post(f"/runs/{keyed[0]['run_id']}/rerun", headers=key)
    assert (reused.status_code, reused.json()["code"]) == (409, "idempotency_key_reused")


async def test_a_rerun_without_its_flow_text_is_refused(here: Running) -> None:
    record = RunRecord(run_id=str(uuid.uuid4()), flow_name="f", workflow_yaml_sha256="0" * 64)
    await here.store(record.run_id, record.to_json())
    answer = await here.http.post(f"/runs/{record.run_id}/rerun")
    assert (answer.status_code, answer.json()["code"]) == (409, "not_replayable")
    assert "000000000000" in answer.json()["detail"]
    assert json.loads(record.to_json())["status"] == "PENDING"


async def test_a_job_redelivered_after_its_runs_failure_brings_the_missing_letter(here: Running) -> None:
    """Its worker died after the terminal write and before the letter, or before the acknowledgement."""
    gateway = here.gateway
    run_id = await here.submit(tag="cpu")
    stored = await gateway.runs.get(run_id)
    assert stored is not None
    ended = settle(
        claim(stored.record, worker_id="dead", instance_id="i", job_seq=1), RunStatus.FAILED, EndReason.TASK_FAILED, "e"
    )
    await gateway.runs.update(ended, stored.revision)
    owners = Owners(gateway.connection, gateway.workers, Registration(gateway.settings, gateway.workers, "w", [], 1))
    claims = Claims(gateway.settings, gateway.runs, gateway.letters, owners, worker_id="w", instance_id="j")
    puller = TagPuller(gateway.queue, ["cpu"])
    delivery = await puller.next(DEADLINE, asyncio.Event())
    assert delivery is not None
    for _ in range(2):
        assert await claims.take(delivery) is None
    await puller.close()
    [letter] = (await here.http.get("/dlq")).json()
    assert (letter["run_id"], letter["worker_id"], letter["reason"]) == (run_id, "dead", "execution_error")
    streams = (await here.http.get("/ready")).json()["streams"]
    assert streams[gateway.settings.work_stream]["messages"] == 0


async def test_an_invalid_job_leaves_one_letter_though_the_server_tells_of_it_too(here: Running) -> None:
    gateway = here.gateway
    await gateway.connection.js.publish(f"{gateway.settings.work_subject_prefix}.cpu", b"rubbish")
    owners = Owners(gateway.connection, gateway.workers, Registration(gateway.settings, gateway.workers, "w", [], 1))
    claims = Claims(gateway.settings, gateway.runs, gateway.letters, owners, worker_id="w", instance_id="j")
    puller = TagPuller(gateway.queue, ["cpu"])
    delivery = await puller.next(DEADLINE, asyncio.Event())
    assert delivery is not None
    for _ in range(2):  # as if the first had died before it took the job off
        assert await claims.take(delivery) is None
    await puller.close()
    stream, deadline = gateway.settings.advisory_stream, time.monotonic() + DEADLINE
    while (state := (await gateway.connection.js.stream_info(stream)).state).messages or not state.last_seq:
        assert time.monotonic() < deadline
        await first_event(0.01, asyncio.Event())
    [letter] = (await here.http.get("/dlq")).json()
    assert letter["reason"] == "invalid_job" and "payload" not in letter
    assert (await here.http.get(f"/dlq/{letter['id']}")).json()["payload"] == "rubbish"


def spoil(patch: pytest.MonkeyPatch, store: Any, method: str, *, executed: bool) -> list[str]:
    """Let a call fail once, before or after it was executed; what was called is noted."""
    real, called = getattr(store, method), []

    async def fail(*args: Any, **options: Any) -> Any:
        if called:
            return await real(*args, **options)
        called.append(method)
        if executed:
            await real(*args, **options)
        raise StoreUnavailable("no answer")

    patch.setattr(store, method, fail)
    return called


async def test_whichever_call_of_a_replay_fails_the_next_one_completes_it(here: Running) -> None:
    gateway, job_count = here.gateway, 0
    calls = [
        (gateway.letters, "get"),
        (gateway.runs, "get"),
        (gateway.flows, "keep"),
        (gateway.runs, "create"),
        (gateway.queue, "publish"),
        (gateway.letters, "remove"),
    ]
    form = {"data": {"flow_name": "f"}, "files": {"workflow": ("f", FLOW.encode())}}
    for store, method in calls:
        for executed in (False, True):
            old, letter_id = await bury(here, (await here.http.post("/runs/yaml", **form)).json()["run_id"])
            with pytest.MonkeyPatch.context() as patch:
                called = spoil(patch, store, method, executed=executed)
                first = await here.http.post(f"/dlq/{letter_id}/replay")
            assert called and first.status_code == (200 if method == "publish" else 503), first.text
            again = await here.http.post(f"/dlq/{letter_id}/replay")
            assert again.status_code == (404 if first.is_success or (method == "remove" and executed) else 200)
            job_count += 2  # the old run's, which no worker has taken here, and the new one's
            streams = (await here.http.get("/ready")).json()["streams"]
            assert streams[gateway.settings.work_stream]["messages"] == job_count, (method, executed)
            runs = (await here.http.get("/runs?limit=200")).json()
            assert [run["rerun_of"] for run in runs].count(old.run_id) == 1, (method, executed)
            assert (await here.http.get("/dlq")).json() == []
