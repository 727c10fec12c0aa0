"""Records that a worker of the existing system wrote, with what such a worker leaves out or drops.

It writes a run's record over what was there. What was known of the run before, and what follows from the record, is put
beside what it says, for readers: nothing is written back, because the next of its writes would drop it again.
"""

from typing import Any

from pyoco_server.model.run import EndReason, RunStatus

_KEPT = ("submitted_at", "schedule_id", "rerun_of", "tenant_id", "api_key_id", "tag", "tags", "workflow_yaml_sha256")
_NOT_FOUND = "flow_not_found"
_ENDS = {
    RunStatus.COMPLETED.value: EndReason.COMPLETED.value,
    RunStatus.CANCELLED.value: EndReason.CANCELLED.value,
    RunStatus.FAILED.value: EndReason.TASK_FAILED.value,
}


def is_of_existing_system(snapshot: dict[str, Any]) -> bool:
    """Return whether a stored record was written by another system: ours names every field."""
    return "attempt" not in snapshot


def completed(snapshot: dict[str, Any], known: dict[str, Any]) -> dict[str, Any]:
    """Return a record of another system with the fields that ours have and readers use.

    Args:
        snapshot: The record.
        known: A list's item of the run as it was known last; empty if it was not.
    """
    found = {**snapshot, **{name: known[name] for name in _KEPT if not snapshot.get(name) and known.get(name)}}
    found["flow_name"] = known.get("flow_name") or snapshot["flow_name"]  # they write the name that the flow has itself
    started = snapshot.get("start_time")
    same = started is not None and known.get("start_time") == started
    attempt = known.get("attempt") if isinstance(known.get("attempt"), int) else 0
    found["attempt"] = attempt if same or started is None else (attempt or 0) + 1
    if not found.get("worker_id"):
        found["worker_id"] = known.get("worker_id") if same else None
    found["end_reason"] = _end_reason(snapshot)
    found["queue_wait_ms"] = known.get("queue_wait_ms") or _milliseconds(found.get("submitted_at"), started)
    found["run_ms"] = _milliseconds(started, snapshot.get("end_time"))
    return found


def _end_reason(snapshot: dict[str, Any]) -> str | None:
    error = snapshot.get("error")
    if isinstance(error, str) and error.startswith(_NOT_FOUND):
        return EndReason.FLOW_NOT_FOUND.value
    return _ENDS.get(str(snapshot.get("status")))


def _milliseconds(start: Any, end: Any) -> float | None:
    both = [value for value in (start, end) if isinstance(value, (int, float)) and not isinstance(value, bool)]
    return max(0.0, (both[1] - both[0]) * 1000) if len(both) == 2 else None
