"""Which letter a run leaves, what is in it, and what a new run takes over from an old one."""

import json

import pytest

from pyoco_server.model.deadletter import (
    DeadLetter,
    DeadLetterReason,
    key_of_job,
    key_of_run,
    letter_of_job,
    letter_of_run,
    letter_reason,
)
from pyoco_server.model.job import Job
from pyoco_server.model.run import (
    EndReason,
    RunRecord,
    RunStatus,
    TaskStatus,
    again,
    claim,
    request_cancel,
    settle,
    undeliverable,
)

PENDING = RunRecord(
    run_id="r", flow_name="f", tag="cpu", tags=["l"], params={"x": 1}, submitted_at=1.0, tasks={"t": "PENDING"},
    max_attempts=2, timeout_sec=5.0, tenant_id="t", api_key_id="k", workflow_yaml_sha256="0" * 64,
    workflow_yaml_bytes=9, idempotency_key="once", submission_digest="d", schedule_id="s",
)  # fmt: skip
RUNNING = claim(PENDING, worker_id="w", instance_id="i", job_seq=7)


def failed(reason: EndReason) -> RunRecord:
    return settle(RUNNING, RunStatus.FAILED, reason, "why")


@pytest.mark.parametrize(
    ("end", "switched_on", "switched_off"),
    [
        (EndReason.FLOW_NOT_FOUND, "flow_not_found", "flow_not_found"),
        (EndReason.WORKER_LOST, "attempts_exhausted", "attempts_exhausted"),
        (EndReason.INVALID_JOB, "invalid_job", "invalid_job"),
        (EndReason.TASK_FAILED, "execution_error", None),
        (EndReason.RUN_TIMEOUT, "execution_error", None),
        (EndReason.OUT_OF_MEMORY, "execution_error", None),
    ],
)
def test_each_failure_has_its_letter(end: EndReason, switched_on: str, switched_off: str | None) -> None:
    for wanted, switch in ((switched_on, True), (switched_off, False)):
        reason = letter_reason(failed(end), execution_errors=switch)
        assert (reason.value if reason else None) == wanted


def test_what_did_not_fail_leaves_none() -> None:
    completed = settle(RUNNING, RunStatus.COMPLETED, EndReason.COMPLETED, None)
    cancelled = request_cancel(PENDING, by=None, reason=None)
    for record in (PENDING, RUNNING, completed, cancelled):
        assert letter_reason(record, execution_errors=True) is None


def test_a_letter_tells_what_a_replay_needs() -> None:
    record = failed(EndReason.TASK_FAILED)
    job = Job(run_id="r", flow_name="f", workflow_yaml="text")
    letter = letter_of_run(
        record,
        DeadLetterReason.EXECUTION_ERROR,
        tag="cpu",
        job=job,
        worker_id="other",
        num_delivered=3,
        subject="s.cpu",
    )
    body = json.loads(letter.to_json())
    assert body.pop("timestamp") > 1.7e9
    assert body == {
        "reason": "execution_error", "error": "why", "run_id": "r", "flow_name": "f", "tag": "cpu", "tags": ["l"],
        "worker_id": "w", "num_delivered": 3, "subject": "s.cpu", "params": {"x": 1}, "workflow_yaml": "text",
        "workflow_yaml_sha256": "0" * 64, "workflow_yaml_bytes": 9, "end_reason": "task_failed", "attempt": 1,
        "max_attempts": 2, "timeout_sec": 5.0, "submitted_at": 1.0, "tenant_id": "t", "api_key_id": "k", "omitted": [],
    }  # fmt: skip


def test_a_letter_of_a_job_has_all_that_the_job_had() -> None:
    raw = b'{"run_id":"r","flow_name":"f","params":{"x":1},"tags":["l"],"workflow_yaml":"text"}'
    letter = letter_of_job(raw, "no record", tag="cpu", job=Job.from_json(raw))
    assert (letter.run_id, letter.params, letter.tags, letter.workflow_yaml) == ("r", {"x": 1}, ["l"], "text")
    unreadable = letter_of_job(b"\xff" + b"x" * 5000, "not a job", tag="cpu")
    assert (unreadable.params, unreadable.run_id) == (None, None)
    assert unreadable.payload == "�" + "x" * 4095


def test_keys_name_the_cause() -> None:
    record = failed(EndReason.TASK_FAILED)
    keyed = record.evolve(idempotency_key="k")
    assert key_of_run(keyed.evolve(idempotency_key=None), DeadLetterReason.EXECUTION_ERROR) == "r:1:execution_error"
    # A run that is not kept may have a successor with the same id: the same key's.
    names = {key_of_run(keyed.evolve(submitted_at=at), DeadLetterReason.EXECUTION_ERROR) for at in (1.0, 1.0, 2.0)}
    assert len(names) == 2
    assert key_of_job(7, b"a") == key_of_job(7, b"a")
    assert len({key_of_job(7, b"a"), key_of_job(8, b"a"), key_of_job(7, b"b")}) == 3


@pytest.mark.parametrize("limit", [4_096, 20_000, 124_000, 130_000, 10**7])
def test_a_letter_fits_and_says_what_is_left_out(limit: int) -> None:
    letter = DeadLetter(
        reason=DeadLetterReason.INVALID_JOB, tag="cpu", run_id="r", flow_name="f", error="é" * 8_000,
        params={"x": "y" * 100_000}, workflow_yaml="z" * 200_000, payload="p" * 4096, tags=["t" * 5_000],
    )  # fmt: skip
    cut = letter.fit(limit)
    assert len(cut.to_json()) <= limit
    assert (cut.run_id, cut.flow_name, cut.reason) == ("r", "f", letter.reason)
    left_out = {name for name in ("workflow_yaml", "params", "payload", "tags") if not getattr(cut, name)}
    assert left_out == set(cut.omitted)
    assert ("params" in cut.omitted, "payload" in cut.omitted) == (limit < 120_000, limit < 125_000)


def test_no_field_of_another_programs_job_makes_it_too_large() -> None:
    raw = json.dumps({"run_id": "r", "flow_name": "f" * 10**6, "tenant_id": "t" * 10**6}).encode()
    cut = letter_of_job(raw, "é" * 10**6, tag="cpu", job=Job.from_json(raw)).fit(4_096)
    assert len(cut.to_json()) <= 4_096
    assert {"flow_name", "tenant_id"} <= set(cut.omitted) and cut.run_id == "r"


def test_a_new_run_takes_over_what_was_asked_for_and_nothing_that_happened() -> None:
    new = again(failed(EndReason.TASK_FAILED), "new")
    taken = "flow_name tag tags params max_attempts timeout_sec tenant_id api_key_id workflow_yaml_sha256"
    for name in taken.split():
        assert getattr(new, name) == getattr(PENDING, name)
    assert (new.run_id, new.rerun_of, new.status, new.attempt) == ("new", "r", RunStatus.PENDING, 0)
    assert new.tasks == {"t": TaskStatus.PENDING}
    for name in (
        "error",
        "end_reason",
        "worker_id",
        "start_time",
        "idempotency_key",
        "submission_digest",
        "schedule_id",
    ):
        assert getattr(new, name) is None
    assert new.submitted_at is not None and new.submitted_at > 1.7e9
    assert again(PENDING.evolve(workflow_yaml_sha256=None), "new").tasks == {}


def test_an_undeliverable_run_waits_again_until_its_attempts_are_used_up() -> None:
    waits = undeliverable(RUNNING, 2)
    assert (waits.status, waits.attempt, waits.job_seq, waits.worker_id) == (RunStatus.PENDING, 1, None, None)
    handed_back = undeliverable(PENDING, 2)
    assert (handed_back.status, handed_back.attempt) == (RunStatus.PENDING, 0)
    over = undeliverable(RUNNING, 1)
    assert (over.status, over.end_reason, over.worker_id) == (RunStatus.FAILED, EndReason.WORKER_LOST, "w")
    assert over.error == "its worker was lost in attempt 1 of 1 (last on w)"
    asked = request_cancel(RUNNING, by=None, reason="no")
    assert undeliverable(asked, 1).status is RunStatus.CANCELLED


def test_a_runs_letter_says_whose_it_was_also_if_it_was_nobodys() -> None:
    nobodys = failed(EndReason.TASK_FAILED).evolve(tenant_id=None, api_key_id=None)
    told = json.loads(letter_of_run(nobodys, DeadLetterReason.EXECUTION_ERROR, tag="cpu").to_json())
    assert (told["tenant_id"], told["api_key_id"]) == (None, None)
    assert "tenant_id" not in json.loads(letter_of_job(b"{", "no job", tag="cpu").to_json())
