"""A run's states: every allowed move, and the moves that are refused."""

import json

from hypothesis import given
from hypothesis import strategies as st

from pyoco_server.model.record.snapshot import fit, public, summary
from pyoco_server.model.run import (
    EndReason,
    RunRecord,
    RunStatus,
    TaskStatus,
    cancelled,
    claim,
    hand_back,
    request_cancel,
    requeue,
    settle,
    undeliverable,
)  # fmt: skip
from pyoco_server.model.text.clean import clean_text
from pyoco_server.model.values import clean_value

PENDING = RunRecord(run_id="r", flow_name="main", submitted_at=1.0, tasks={"a": "PENDING", "b": "PENDING"})
CLAIM = {"worker_id": "w", "instance_id": "i", "job_seq": 7}


def test_claim_counts_the_attempt_and_keeps_the_first_wait():
    first = claim(PENDING, **CLAIM)
    assert (first.status, first.attempt, first.worker_id, first.job_seq) == (RunStatus.RUNNING, 1, "w", 7)
    second = claim(first, worker_id="x", instance_id="j", job_seq=7)
    assert (second.attempt, second.worker_id, second.queue_wait_ms) == (2, "x", first.queue_wait_ms)


def test_settle_keeps_worker_and_attempt_and_ends_the_tasks():
    running = claim(PENDING, **CLAIM).evolve(tasks={"a": TaskStatus.SUCCEEDED, "b": TaskStatus.RUNNING})
    failed = settle(running, RunStatus.FAILED, EndReason.TASK_FAILED, "task 'b' failed")
    assert (failed.worker_id, failed.attempt, failed.end_reason) == ("w", 1, EndReason.TASK_FAILED)
    assert failed.tasks == {"a": TaskStatus.SUCCEEDED, "b": TaskStatus.FAILED}
    assert failed.run_ms is not None


def test_a_branch_not_taken_is_told_as_skipped():
    running = claim(PENDING, **CLAIM).evolve(tasks={"a": TaskStatus.SUCCEEDED, "b": TaskStatus.PENDING})
    done = settle(running, RunStatus.COMPLETED, EndReason.COMPLETED, None)
    assert (done.tasks["b"], done.skipped_tasks) == (TaskStatus.PENDING, ["b"])


def test_a_waiting_run_is_cancelled_at_once_and_a_running_one_asked():
    assert request_cancel(PENDING, by=None, reason="no").status is RunStatus.CANCELLED
    asked = request_cancel(claim(PENDING, **CLAIM), by="me", reason="no")
    assert (asked.status, asked.cancel_requested_by) == (RunStatus.CANCELLING, "me")
    assert request_cancel(asked, by="you", reason=None) is asked
    done = cancelled(asked)
    assert (done.status, done.error) == (RunStatus.CANCELLED, "no")
    assert request_cancel(done, by=None, reason=None) is done


def test_a_requeued_run_waits_with_its_lost_attempt_counted():
    lost = claim(claim(PENDING, **CLAIM), worker_id="x", instance_id="j", job_seq=7)
    waiting = requeue(lost)
    assert (waiting.status, waiting.attempt, waiting.worker_id, waiting.job_seq) == (RunStatus.PENDING, 2, None, None)
    assert requeue(request_cancel(lost, by=None, reason=None)).status is RunStatus.CANCELLED


def test_the_cancel_that_was_written_first_stands():
    asked = request_cancel(claim(PENDING, **CLAIM), by=None, reason=None)
    assert settle(asked, RunStatus.COMPLETED, EndReason.COMPLETED, None).status is RunStatus.CANCELLED


def test_handing_back_costs_no_attempt():
    back = hand_back(claim(PENDING, **CLAIM))
    assert (back.status, back.attempt, back.worker_id) == (RunStatus.PENDING, 0, None)
    assert hand_back(request_cancel(back.evolve(status=RunStatus.RUNNING), by=None, reason=None)).status.is_terminal


def test_unknown_fields_survive():
    raw = json.dumps({**json.loads(PENDING.to_json()), "from_tomorrow": 1}).encode()
    assert json.loads(RunRecord.from_json(raw).evolve(status=RunStatus.RUNNING).to_json())["from_tomorrow"] == 1


def test_cutting_keeps_small_records_and_the_essentials():
    records = {
        "big": {"state": "SUCCEEDED", "output": "x" * 50_000},
        "small": {"state": "SUCCEEDED", "output": 7},
    }
    cut = fit(PENDING.evolve(task_records=records, error="why"), 8192)
    assert len(cut.to_json()) <= 8192
    assert cut.task_records_truncated
    assert cut.task_records["small"]["output"] == 7
    assert cut.task_records["big"]["output"]["truncated"] is True
    many = {f"t{n}": {"state": "SUCCEEDED", "output": "y" * 300} for n in range(200)}
    bare = fit(PENDING.evolve(task_records=many, error="why"), 8192)
    assert (bare.task_records, bare.error, bare.tasks) == ({}, "why", PENDING.tasks)


def test_what_readers_get():
    raw = claim(PENDING, **CLAIM).evolve(task_records={"a": {}}).to_json()
    assert "task_records" not in public(json.loads(raw), records=False)
    assert "instance_id" not in public(json.loads(raw), records=True)
    assert summary(json.loads(raw))["run_id"] == "r"


def test_text_that_json_cannot_carry():
    assert clean_text("a\ud800b") == "a?b"
    assert len(clean_text("x" * 100_000, 1000)) < 1100
    assert clean_value({"k\ud800": ["\ud800", float("nan"), {1, 2}, b"x", object]}, 10_000)["k?"][0] == "?"
    assert clean_value("x" * 1000, 100)["truncated"] is True


@given(st.recursive(st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text()), lambda inner: (
    st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)), max_leaves=8))  # fmt: skip
def test_every_value_becomes_json(value):
    json.dumps(clean_value(value, 1_000_000), allow_nan=False).encode()


def test_a_task_that_was_running_gets_the_runs_error_and_one_that_failed_keeps_its_own():
    records = {
        "a": {"state": "FAILED", "started_at": 1.0, "ended_at": 2.0, "error": "ValueError: own"},
        "b": {"state": "RUNNING", "started_at": 1.0, "retry_at": 9.0, "error": "try 1", "exception": {"class": "E"}},
    }
    running = claim(PENDING, **CLAIM).evolve(
        tasks={"a": TaskStatus.FAILED, "b": TaskStatus.RUNNING}, task_records=records
    )
    failed = settle(running, RunStatus.FAILED, EndReason.CHILD_KILLED_BY_SIGNAL, "the process was killed")
    assert failed.task_records["a"]["error"] == "ValueError: own"
    ended = failed.task_records["b"]
    assert (ended["state"], ended["error"], ended["exception"]) == ("FAILED", "the process was killed", None)
    assert (ended["retry_at"], ended["ended_at"]) == (None, failed.end_time)


def test_long_errors_are_cut_before_a_record_is_dropped():
    long = "x" * 8_000
    task = {"state": "RUNNING", "error": long, "last_error": long, "exception": {"class": "E", "message": long}}
    record = PENDING.evolve(task_records={"a": task, "b": dict(task)})
    small = fit(record, 20_000)
    assert len(small.to_json()) <= 20_000
    assert small.task_records["a"]["exception"]["class"] == "E"
    assert "characters cut" in small.task_records["b"]["exception"]["message"]


def test_a_lost_worker_without_a_name_is_not_named():
    lost = claim(PENDING, **CLAIM).evolve(worker_id=None)
    assert undeliverable(lost, 1).error == "its worker was lost in attempt 1 of 1"
