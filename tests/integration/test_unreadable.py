"""Records that cannot be read: each reader says so, a cancel ends them, and nobody waits for them for ever."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from pyoco_server.model.access import Role
from pyoco_server.model.job import Job
from pyoco_server.model.run import EndReason, RunRecord, RunStatus, claim
from pyoco_server.settings.environment import Settings
from pyoco_server.store.runs import RunStore
from pyoco_server.worker.claims import Claims
from pyoco_server.worker.embedding import PyocoNatsWorker
from pyoco_server.worker.recorder import Recorder

from .callers import tenants_at
from .test_gateway import Running, running, until
from .test_reconciler import claimed, eventually, lose_job, make, quick, rounds, status  # noqa: F401 - a fixture
from .test_worker import RESOLVER

pytestmark = pytest.mark.anyio

WHOLE: dict[str, Any] = json.loads(
    RunRecord(
        run_id="r", flow_name="f", status=RunStatus.RUNNING, tag="cpu", tags=["cpu"], params={"x": 1},
        tasks={"t": "RUNNING"}, task_records={"t": {"state": "RUNNING", "started_at": 5.0, "output": "HERE"}},
        submitted_at=1.0, start_time=2.0, updated_at=3.0, worker_id="w",
    ).to_json()
)  # fmt: skip
RAW = json.dumps(WHOLE).encode()


def deep(levels: int, status: str = "COMPLETED") -> bytes:
    ended = {**WHOLE, "status": status, "end_reason": "completed" if status == "COMPLETED" else None}
    return json.dumps(ended).encode().replace(b'"HERE"', b"[" * levels + b"]" * levels)


BROKEN: dict[str, bytes] = {
    **{f"deep-{levels}": deep(levels) for levels in (199, 200, 201, 250, 5000)},
    "deep-running": deep(300, "RUNNING"),
    "cut-early": RAW[:30],
    "cut-late": RAW[:-3],
    "empty": b"",
    "object": b"{}",
    "nul": b"\0" * 20,
    "nul-inside": RAW.replace(b"HERE", b"a\0b"),
    "latin-1": RAW.replace(b"HERE", b"caf\xe9"),
    "utf-16": json.dumps(WHOLE).encode("utf-16"),
    "list": b"[" + RAW + b"]",
    "text": b'"x"',
    "number": b"1e999",
    "digits": RAW.replace(b'"HERE"', b"1" + b"0" * 10_000),
    "surrogate": RAW.replace(b'"f"', b'"\\ud800"').replace(b'"RUNNING"', b'"DREAMING"', 1),
    "foreign": b'{"id": 5, "state": "done"}',
    **{
        f"field-{name}": json.dumps({**WHOLE, name: odd}).encode()
        for name in ("flow_name", "status", "params", "tag", "tags", "tasks", "task_records", "attempt", "updated_at")
        for odd in ({"a": [1]},)
    },
}
BROKEN.pop("field-params")  # an object is what it should be
BROKEN["field-params"] = json.dumps({**WHOLE, "params": ["x"]}).encode()
UNTOUCHED = {"reconcile_interval_sec": 3600.0}
CONTRACT = {"run_id", "flow_name", "status", "params", "tag", "tags", "tasks", "attempt", "error", "unreadable"}


@pytest.fixture
async def here(quick: Settings) -> AsyncIterator[Running]:  # noqa: F811
    async with running(quick) as server:
        yield server


async def test_each_reader_shows_what_it_can(settings: Settings) -> None:
    async with running(settings.model_copy(update=UNTOUCHED)) as here:
        for key, raw in BROKEN.items():
            await here.store(key, raw)
        listed = {item["run_id"]: item for item in (await here.http.get("/runs?limit=200")).json()}
        assert listed.keys() == BROKEN.keys()
        assert all(item["unreadable"] for item in listed.values())
        assert len((await here.http.get("/runs?limit=200&include=full")).json()) == len(BROKEN)
        for key in BROKEN:
            run = (await here.http.get(f"/runs/{key}", params={"include": "records"})).json()
            assert run["run_id"] == key and run["unreadable"] and CONTRACT | {"task_records"} <= run.keys()
            assert run["status"] == listed[key]["status"]
            if key.startswith(("deep", "cut-late", "digits", "latin-1", "nul-inside")):
                assert (run["flow_name"], run["tag"], run["params"]) == ("f", "cpu", {"x": 1}), key
                assert run["status"] == ("COMPLETED" if key[5:].isdigit() else "RUNNING")
            why = (await here.http.get(f"/runs/{key}/why")).json()
            assert why["code"] == "unreadable" and "cannot be read" in why["message"], why
            assert f"pyoco-client cancel --run-id {key}" in why["hint"]
            japanese = (await here.http.get(f"/runs/{key}/why?lang=ja")).json()
            assert "読み取れません" in japanese["message"]
            for path, expected in {"tasks": 200, "logs": 200, "graph": 200, "yaml": 404}.items():
                answer = await here.http.get(f"/runs/{key}/{path}")
                assert answer.status_code == expected, (key, path, answer.text)
                assert path != "yaml" or answer.json()["code"] == "flow_not_stored"
            rerun = await here.http.post(f"/runs/{key}/rerun")
            assert (rerun.status_code, rerun.json()["code"]) == (409, "not_replayable"), rerun.text
            assert "cannot be read" in rerun.json()["detail"]
        codes = {finding["code"]: finding for finding in (await here.http.get("/doctor")).json()["findings"]}
        assert str(len(BROKEN)) in codes["records_unreadable"]["message"]


async def test_a_cancel_puts_a_record_in_its_place_that_can_be_read(settings: Settings) -> None:
    async with running(settings.model_copy(update=UNTOUCHED)) as here:
        for key, raw in BROKEN.items():
            await here.store(key, raw)
        for key in BROKEN:
            before = (await here.http.get(f"/runs/{key}")).json()
            answer = await here.http.post(f"/runs/{key}/cancel", json={"reason": "x"})
            run = (await here.http.get(f"/runs/{key}", params={"include": "records"})).json()
            assert answer.status_code == 200 and answer.json()["status"] == run["status"], (key, answer.text)
            assert (run["run_id"], run["unreadable"]) == (key, None)
            if before["status"] == "COMPLETED":  # it had ended: what can be read of its end stands
                assert (run["status"], run["end_reason"]) == ("COMPLETED", "completed")
                assert run["task_records"]["t"]["output"]["truncated"] is True
            else:
                assert (run["status"], run["end_reason"]) == ("CANCELLED", "record_unreadable"), run
                assert before["unreadable"] in run["error"]
            assert set(run["tasks"].values()) <= {"CANCELLED", "SUCCEEDED", "FAILED", "RUNNING"}
            why = (await here.http.get(f"/runs/{key}/why")).json()
            assert why["code"] in ("record_unreadable", "completed")
            again = await here.http.post(f"/runs/{key}/cancel")
            assert again.status_code == 200 and again.json()["updated_at"] == run["updated_at"]
        await until(lambda: here.gateway.index.unreadable() == 0)
        # And it goes as others do.
        here.gateway.retention._settings = here.gateway.settings.model_copy(update={"run_retention_max_runs": 1})

        async def are_gone() -> bool:
            ended = here.gateway.index.roll.first_ended(float("inf"), 1000)
            await here.gateway.retention._remove(ended)
            return here.gateway.index.count() == 0

        await eventually(are_gone)


async def test_watch_and_log_end_when_it_is_replaced(settings: Settings) -> None:
    async with running(settings) as here:
        await here.store("r", deep(300, "RUNNING"))
        async with here.watch("r") as stream:
            first = (await anext(stream))["data"]["snapshot"]
            assert first["unreadable"] and first["status"] == "RUNNING"
            await here.http.post("/runs/r/cancel")
            rest = [event["data"]["snapshot"]["status"] async for event in stream if event["event"] == "snapshot"]
        assert rest == ["CANCELLED"]


async def test_what_was_known_of_its_owner_decides_who_sees_it(settings: Settings) -> None:
    async with tenants_at(settings) as tenants:
        here = tenants.here
        alpha, beta = await tenants.client("alpha"), await tenants.client("beta")
        operator = await tenants.client("beta", Role.OPERATOR)
        run_id = (await alpha.post("/runs", json={"flow_name": "f"})).json()["run_id"]
        for raw in (b"\xff", b"", deep(300), b'{"run_id":"x","tenant_id":"beta","params":{"x":['):
            await here.store(run_id, raw)
            await here.store("nobodys", raw if raw in (b"\xff", b"") else deep(300))
            assert (await alpha.get(f"/runs/{run_id}")).json()["unreadable"]
            assert [item["run_id"] for item in (await alpha.get("/runs")).json()] == [run_id]
            for path in ("", "/why", "/tasks", "/logs", "/graph", "/watch?timeout_sec=1"):
                assert (await beta.get(f"/runs/{run_id}{path}")).status_code == 404
                assert (await operator.get(f"/runs/{run_id}{path}")).status_code == 404
                assert (await alpha.get(f"/runs/nobodys{path}")).status_code == 404
            assert (await beta.post(f"/runs/{run_id}/cancel")).status_code == 404
            assert (await beta.post(f"/runs/{run_id}/rerun")).status_code == 404
            assert (await alpha.post("/runs/nobodys/cancel")).status_code == 404
            assert (await operator.get("/runs/nobodys")).json()["unreadable"]
        cancelled = (await alpha.post(f"/runs/{run_id}/cancel")).json()
        assert (cancelled["tenant_id"], cancelled["flow_name"]) == ("alpha", "f")
        assert (await alpha.get(f"/runs/{run_id}")).json()["status"] == "CANCELLED"
        assert (await operator.post("/runs/nobodys/cancel")).status_code == 200


@pytest.mark.parametrize(
    "raw", [b"\xff", b"{}", RAW[:60], deep(300, "PENDING")], ids=["bytes", "object", "cut", "deep"]
)
async def test_a_worker_that_gets_its_job_ends_it(settings: Settings, tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "flows.py").write_text(RESOLVER)
    async with running(settings) as here:
        run_id = await here.submit()
        await here.store(run_id, raw)
        worker = await PyocoNatsWorker.connect(
            config=settings, flow_resolver=f"{tmp_path}/flows.py:resolve", tags=["default"]
        )
        try:
            assert await worker.run_once(timeout=2) is None
            run = (await here.http.get(f"/runs/{run_id}")).json()
            assert (run["status"], run["end_reason"]) == ("FAILED", "record_unreadable")
            [letter] = (await here.http.get("/dlq")).json()
            assert (letter["run_id"], letter["reason"]) == (run_id, "invalid_job")
            next_one = await here.submit()
            assert await worker.run_once(timeout=10) == next_one
        finally:
            await worker.close()


async def test_one_that_has_ended_is_left_as_it_is_by_a_late_job(settings: Settings) -> None:
    async with running(settings) as here:
        await here.store("r", deep(300))
        revision = (await here.gateway.runs.get_raw("r") or (b"", 0))[1]
        stored = await here.gateway.runs.get("r", salvaged=True)
        assert stored is not None and stored.unreadable is not None and stored.unreadable.has_ended
        acked: list[str] = []

        class Late:
            tag, data, subject, seq, num_delivered = "cpu", Job(run_id="r", flow_name="f").to_json(), "s", 1, 2

            async def ack(self) -> None:
                acked.append("ack")

        claims = Claims(settings, here.gateway.runs, here.gateway.letters, None, worker_id="w", instance_id="i")  # type: ignore[arg-type]
        assert await claims.take(Late()) is None  # type: ignore[arg-type]
        assert acked == ["ack"]
        assert (await here.gateway.runs.get_raw("r") or (b"", 0))[1] == revision


async def test_nobody_waits_for_it_for_ever(here: Running) -> None:
    seq = await claimed(here, "running", worker_id="gone", tag="cpu")
    await lose_job(here, seq)
    await make(here, "waiting")
    await until(lambda: here.gateway.index.count() == 2)
    with capture_logs() as logged:
        await here.store("running", b"\xff")
        await here.store("waiting", b"\xff")
        for run_id in ("running", "waiting"):

            async def has_failed(run_id: str = run_id) -> bool:
                run = (await here.http.get(f"/runs/{run_id}")).json()
                return bool((run["status"], run["end_reason"]) == ("FAILED", "record_unreadable"))

            await eventually(has_failed)
    said = [line["run_id"] for line in logged if line["event"] == "a run's record cannot be read"]
    assert sorted(said) == ["running", "waiting"]


async def test_the_same_is_not_told_over_and_over(here: Running) -> None:
    await here.store("ended", deep(300))
    await here.store("foreign", b'{"status": "RUNNING", "worker_id": "w", "job_seq": 10}')
    with capture_logs() as logged:
        await rounds(here, 10)
        for _ in range(3):
            await here.http.get("/runs/ended")
            await here.gateway.runs.get("ended")
    assert len([line for line in logged if line.get("run_id") == "ended"]) <= 1, logged
    assert here.gateway.runs.complaints.seen >= 3


async def test_a_worker_heals_the_record_of_its_own_run(settings: Settings) -> None:
    async with running(settings) as here:
        run_id = await here.submit()
        runs: RunStore = here.gateway.runs
        ours = await runs.change(run_id, lambda it: claim(it, worker_id="w", instance_id="i", job_seq=1))
        assert ours is not None
        lost: list[str] = []
        recorder = Recorder(runs, ours, interval=0.01, on_cancel=lambda: None, on_lost=lambda: lost.append("lost"))
        await here.store(run_id, b"\xff")
        await recorder.refresh()
        last = await recorder.settle(RunStatus.COMPLETED, EndReason.COMPLETED, None)
        assert last is not None and not lost
        assert await status(here, run_id) is RunStatus.COMPLETED
        # What can be read may say that another attempt has it.
        again = await here.submit()
        ours = await runs.change(again, lambda it: claim(it, worker_id="w", instance_id="i", job_seq=1))
        assert ours is not None
        recorder = Recorder(runs, ours, interval=0.01, on_cancel=lambda: None, on_lost=lambda: lost.append("lost"))
        other = ours.record.evolve(instance_id="other", task_records={"t": {"output": "HERE"}}).to_json()
        await here.store(again, other.replace(b'"HERE"', b"[" * 300 + b"]" * 300))
        await recorder.refresh()
        assert lost == ["lost"]


async def test_a_key_finds_the_run_whose_record_cannot_be_read(settings: Settings) -> None:
    async with running(settings) as here:
        body = {"flow_name": "f", "idempotency_key": "k", "params": {"x": 1}}
        run_id = (await here.http.post("/runs", json=body)).json()["run_id"]
        raw, _ = await here.gateway.runs.get_raw(run_id) or (b"", 0)
        await here.store(run_id, raw.replace(b'"x":1', b'"x":' + b"[" * 300 + b"]" * 300))
        again = await here.http.post("/runs", json=body)
        assert (again.status_code, again.json()["run_id"], again.json()["created"]) == (200, run_id, False)
        await here.store(run_id, b"\xff")
        assert (await here.http.post("/runs", json=body)).status_code == 409
