"""Records of the existing system as readers get them."""

import json
from typing import Any

import pytest

from pyoco_server.gateway.index.json_fields import whole

THEIRS = {
    "run_id": "r", "flow_name": "f", "status": "RUNNING", "tag": "cpu", "tags": ["cpu"], "params": {"x": 1},
    "tasks": {}, "task_records": {}, "start_time": 20.0, "end_time": None, "heartbeat_at": 21.0, "updated_at": 21.0,
    "error": None,
}  # fmt: skip
WAITING = {"submitted_at": 10.0, "attempt": 0, "start_time": None, "tenant_id": "team", "rerun_of": "old"}


def seen(known: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return whole("r", json.dumps({**THEIRS, **fields}).encode(), lambda _run_id: known)


def test_what_was_known_before_is_kept() -> None:
    found = seen(WAITING, worker_id="w")
    assert (found["submitted_at"], found["tenant_id"], found["rerun_of"]) == (10.0, "team", "old")
    assert (found["attempt"], found["worker_id"], found["queue_wait_ms"], found["end_reason"]) == (1, "w", 10_000, None)


def test_a_start_is_counted_once() -> None:
    """Its worker writes the record again and again, and names itself only once."""
    first = seen(WAITING, worker_id="w")
    again = seen(first)
    assert (again["attempt"], again["worker_id"]) == (1, "w")
    other = seen(again, start_time=30.0)
    assert (other["attempt"], other["worker_id"]) == (2, None)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"status": "COMPLETED"}, "completed"),
        ({"status": "CANCELLED"}, "cancelled"),
        ({"status": "FAILED", "error": "boom"}, "task_failed"),
        ({"status": "FAILED", "error": "flow_not_found: 'x'"}, "flow_not_found"),
    ],
)
def test_why_it_ended(fields: dict[str, Any], reason: str) -> None:
    found = seen(WAITING, end_time=22.5, **fields)
    assert (found["end_reason"], found["run_ms"]) == (reason, 2500.0)


def test_nothing_is_known_of_it() -> None:
    found = seen({})
    assert (found["attempt"], found["run_ms"], found["queue_wait_ms"]) == (1, None, None)
    assert seen({}, status="PENDING", start_time=None)["attempt"] == 0
