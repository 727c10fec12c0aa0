"""One line for each failure: what is an error, what is told once, and what a child may not do to the log."""

from typing import Any

import pytest
from structlog.testing import capture_logs

from pyoco_server.model.run import EndReason, RunRecord, RunStatus, TaskStatus, settle
from pyoco_server.worker.child.tasks.failures import describe_exception
from pyoco_server.worker.logs import failure_log
from pyoco_server.worker.logs.failure_log import FailureLog, exception_fields

RECORD = RunRecord(
    run_id="r1", flow_name="nightly", tag="cpu", attempt=2, worker_id="w", status=RunStatus.RUNNING, start_time=1.0
)
CONTEXT = {"run_id": "r1", "flow_name": "nightly", "tag": "cpu", "attempt": 2, "worker_id": "w"}
Entries = list[dict[str, Any]]


def failed(**more: Any) -> dict[str, Any]:
    try:
        raise ValueError("boom")
    except ValueError as error:
        return {"state": "FAILED", **describe_exception(error), **more}


def ended(reason: EndReason, error: str, *running: str) -> RunRecord:
    record = RECORD.evolve(tasks=dict.fromkeys(running, TaskStatus.RUNNING))
    return settle(record, RunStatus.FAILED, reason, error)


def levels(entries: Any) -> list[tuple[str, str | None]]:
    return [(entry["log_level"], entry.get("task")) for entry in entries]


def test_a_failed_task_is_one_error_with_all_fields() -> None:
    log = FailureLog(RECORD)
    with capture_logs() as entries:
        log.note_task("t", {"state": "RUNNING"}, stopping=False)
        log.note_task("t", failed(), stopping=False)
        log.note_task("t", failed(output=None), stopping=False)  # its output follows
        log.note_end({"outcome": "failed", "raised_in": "t", "task": None})
        log.run_ended(ended(EndReason.TASK_FAILED, "task 't' failed: ValueError: boom"))
    [entry] = entries
    assert entry["log_level"] == "error"
    line = failed.__code__.co_firstlineno + 2
    place = {"file": __file__, "line": line, "func": "failed"}
    trace = entry.pop("exc_traceback")
    assert trace.startswith("Traceback (most recent call last)")
    assert {name: value for name, value in entry.items() if name not in ("event", "log_level")} == {
        **CONTEXT, "task": "t", "exc_type": "ValueError", "exc_message": "boom", "exc_origin": place,
        "exc_user_origin": place,
    }  # fmt: skip


def test_a_try_that_is_followed_by_another_one_is_a_warning_told_once() -> None:
    log = FailureLog(RECORD)
    with capture_logs() as entries:
        for number in (1, 2):
            waiting = failed(state="RUNNING", retry_at=float(number), **{"try": number, "tries": 3})
            log.note_task("t", waiting, stopping=False)
            log.note_task("t", waiting, stopping=False)  # sent again with another task's message
            log.note_task("t", {"state": "RUNNING", "retry_at": None}, stopping=False)
        log.note_task("t", failed(retry_at=None, **{"try": 3, "tries": 3}), stopping=False)
    assert levels(entries) == [("warning", "t"), ("warning", "t"), ("error", "t")]
    assert [(entry["try"], entry["tries"], entry["exc_type"]) for entry in entries] == [
        (1, 3, "ValueError"), (2, 3, "ValueError"), (3, 3, "ValueError"),
    ]  # fmt: skip


def test_each_of_two_failed_tasks_and_each_round_is_told() -> None:
    log = FailureLog(RECORD)
    with capture_logs() as entries:
        log.note_task("a", failed(), stopping=False)
        log.note_task("b", failed(), stopping=False)
        log.note_task("a", {"state": "RUNNING"}, stopping=False)
        log.note_task("a", failed(), stopping=False)
        log.run_ended(RECORD.evolve(status=RunStatus.COMPLETED))  # isolated
    assert levels(entries) == [("error", "a"), ("error", "b"), ("error", "a")]


def test_what_a_stopped_run_raises_is_no_error() -> None:
    log = FailureLog(RECORD)
    with capture_logs() as entries:
        log.note_task("t", failed(), stopping=True)
        log.note_end({"outcome": "failed", "raised_in": "t"})
        log.run_ended(RECORD.evolve(status=RunStatus.CANCELLED))
        log.run_ended(None)
    assert levels(entries) == [("info", "t")]


@pytest.mark.parametrize(("running", "told"), [((), {}), (("t",), {"task": "t"}), (("a", "b"), {"tasks": ["a", "b"]})])
def test_a_run_that_fails_without_a_task_having_said_so(running: tuple[str, ...], told: dict[str, Any]) -> None:
    log = FailureLog(RECORD)
    with capture_logs() as entries:
        log.run_ended(ended(EndReason.CHILD_EXITED, "exit code 3", *running))
    assert entries == [
        {"event": "run failed", "log_level": "error", **CONTEXT, **told, "end_reason": EndReason.CHILD_EXITED,
         "reason": "exit code 3"},
    ]  # fmt: skip


def test_the_run_is_told_of_too_where_something_else_ended_it() -> None:
    log = FailureLog(RECORD)
    with capture_logs() as entries:
        log.note_task("isolated", failed(), stopping=False)
        log.note_task("late", failed(), stopping=True)  # what the signal made of it after its time was up
        log.run_ended(ended(EndReason.TASK_TIMEOUT, "took longer", "late"))
    assert levels(entries) == [("error", "isolated"), ("info", "late"), ("error", "late")]


def test_an_import_that_fails_is_told_with_its_task_and_place() -> None:
    log = FailureLog(RECORD)
    details = {name: value for name, value in failed().items() if name != "state"}
    with capture_logs() as entries:
        log.note_end({"outcome": "failed", "task": "t", "raised_in": None, "details": details})
        log.run_ended(ended(EndReason.INVALID_FLOW, "importing mod:t raised ValueError: boom"))
    [entry] = entries
    assert (entry["task"], entry["exc_type"], entry["exc_origin"]["func"]) == ("t", "ValueError", "failed")
    assert (entry["end_reason"], entry["reason"]) == ("invalid_flow", "importing mod:t raised ValueError: boom")


@pytest.mark.parametrize(
    "told",
    [
        {"exception": 5, "error": ["x"]},
        {"exception": {"class": 1, "message": {}, "file": [], "line": "x"}, "origin": "nowhere", "traceback": 7},
        {"exception": {"class": "a.B", "file": "f", "line": {}, "function": 3}, "origin": {"file": "g", "line": []}},
        {"exception": {"message": "x" * 1_000_000}, "traceback": "y" * 1_000_000, "error": "z" * 1_000_000},
        {"error": "x" * 1_000_000},
        {},
    ],
)
def test_whatever_a_child_sends_makes_a_bounded_line(told: dict[str, Any]) -> None:
    fields = exception_fields(told)
    assert len(str(fields)) < 40_000
    log = FailureLog(RECORD)
    with capture_logs() as entries:
        log.note_task("t" * 100_000, {"state": "FAILED", **told, "try": [], "tries": None}, stopping=False)
        log.note_end({"task": 5, "raised_in": ["t"], "details": told})
        log.run_ended(ended(EndReason.TASK_FAILED, "why"))
    assert len(entries) == 2
    assert len(str(entries)) < 80_000


def test_the_lines_about_one_attempt_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failure_log, "_MAX_LINES", 10)
    log = FailureLog(RECORD)
    with capture_logs() as entries:
        for n in range(50):
            log.note_task(f"t{n}", failed(), stopping=False)
    assert len(entries) == 10
    assert entries[-1]["log_level"] == "warning"
