"""The checker goes red for every broken rule, and for nothing else."""

import json
from typing import Any

import pytest

from .history import History, Journal

RECORD = {
    "run_id": "r",
    "status": "COMPLETED",
    "attempt": 1,
    "end_time": 9.0,
    "max_attempts": None,
    "task_records": {"t": {"output": "x"}},
}


def event(what: str, at: float, **fields: Any) -> dict[str, Any]:
    return {"what": what, "run_id": "r", "at": at, **fields}


def start(at: float, attempt: int = 1) -> dict[str, Any]:
    return event("start", at, attempt=attempt, pid=attempt)


def end(at: float, attempt: int = 1, result: str = "x") -> dict[str, Any]:
    return event("end", at, attempt=attempt, pid=attempt, result=result)


ANSWERED = event("answered", 1.0, key=None)
GOOD = [ANSWERED, start(2), end(3)]


def broken(events: list[dict[str, Any]], more: Any = None, /, **record: Any) -> list[str]:
    return History(events, {"r": {**RECORD, **record}}, **(more or {})).broken_rules()


def test_a_clean_history_breaks_nothing() -> None:
    assert broken(GOOD) == []
    raw = json.dumps(RECORD).encode()
    assert broken(GOOD, {"sightings": [("r", 5, raw), ("r", 5, raw)]}) == []
    # The first attempt's worker died after the task's end and before the record's: at least once.
    assert broken([*GOOD, start(4, 2), end(5, 2, "y")], attempt=2, task_records={"t": {"output": "y"}}) == []
    assert broken([ANSWERED, event("cancel", 2, status="CANCELLED")], status="CANCELLED") == []
    # A cancel that came too late was answered with the end that stands.
    assert broken([*GOOD, event("cancel", 4, status="COMPLETED")]) == []


@pytest.mark.parametrize(
    ("events", "record", "said"),
    [
        (GOOD, {"status": "RUNNING"}, "still RUNNING"),
        ([*GOOD, start(4, 2), start(5, 3), start(6, 4)], {}, "4 starts, 3 were allowed"),
        ([*GOOD, start(4, 2)], {"max_attempts": 1}, "2 starts, 1 were allowed"),
        ([*GOOD, event("overlap", 4, attempt=2, other="attempt 1 in process 7")], {}, "attempt 1 in process 7 was ali"),
        ([ANSWERED, start(2), end(5), start(4, 2)], {}, "attempt 2 started before the one before it ended"),
        ([*GOOD, event("cancel", 4, status="CANCELLING")], {}, "answered CANCELLING, and it ended COMPLETED"),
        ([ANSWERED, event("cancel", 2, status="CANCELLED"), start(9.5)], {"status": "CANCELLED"}, "0.500 s after"),
        (GOOD, {"task_records": {"t": {"output": "other"}}}, "'other' is that of 0 executions"),
        (GOOD, {"task_records": {}}, "None is that of 0 executions"),
        (GOOD, {"attempt": 2}, "attempt 2 stands, with the result of attempt 1"),
        ([ANSWERED, start(2)], {}, "'x' is that of 0 executions"),
        (
            [event("answered", 1, key="k"), {**event("answered", 1, key="k"), "run_id": "s"}, *GOOD],
            {},
            "answered with 2 runs",
        ),
    ],
)
def test_a_broken_rule_is_named(events: list[dict[str, Any]], record: dict[str, Any], said: str) -> None:
    assert any(said in line for line in broken(events, **record)), broken(events, **record)


def test_a_lost_run_is_named() -> None:
    assert History(GOOD, {}).broken_rules() == ["r: it was answered, and there is no record of it"]


@pytest.mark.parametrize(
    ("second", "said"),
    [
        ((6, json.dumps(RECORD).encode()), "changed from revision 5 to 6"),
        ((6, None), "was removed"),
        ((5, json.dumps({**RECORD, "status": "FAILED"}).encode()), "changed from revision 5 to 5"),
    ],
)
def test_a_terminal_record_that_changes_is_named(second: tuple[int, bytes | None], said: str) -> None:
    sightings = [("r", 5, json.dumps(RECORD).encode()), ("r", *second)]
    assert any(said in line for line in broken(GOOD, {"sightings": sightings}))


def test_a_record_other_than_the_one_seen_is_named() -> None:
    seen = json.dumps({**RECORD, "error": "once"}).encode()
    assert broken(GOOD, {"sightings": [("r", 5, seen)]}) == ["r: its record is not the terminal one that was seen"]


def test_a_partition_allows_overlap_and_nothing_else() -> None:
    overlap = [*GOOD, event("overlap", 4, attempt=2, other="attempt 1 in process 7")]
    assert broken(overlap, {"partitioned": True}) == []
    assert broken(overlap, {"partitioned": True}, attempt=2) != []


def test_a_drained_run_may_start_once_more() -> None:
    events = [ANSWERED, start(2), start(3), end(4)]
    assert broken(events, {"handed_back": {"r": 1}}, max_attempts=1) == []
    assert broken(events, max_attempts=1) == ["r: 2 starts, 1 were allowed"]


def test_the_journal_gives_back_what_was_noted(tmp_path: Any) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    assert journal.read() == []
    journal.note("answered", "r", key="k")
    journal.note("cancel", "r", status="CANCELLED")
    assert [(line["what"], line["run_id"]) for line in journal.read()] == [("answered", "r"), ("cancel", "r")]
