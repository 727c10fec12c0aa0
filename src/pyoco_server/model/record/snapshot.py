"""How large a record may be, what is cut first, and which fields a reader gets."""

from typing import Any

from pyoco_server.model.run import RunRecord, TaskStatus
from pyoco_server.model.text.clean import clean_text, is_cut
from pyoco_server.model.values import clean_value, is_part

SUMMARY_FIELDS = (
    "run_id",
    "flow_name",
    "status",
    "tag",
    "tags",
    "tenant_id",
    "api_key_id",
    "updated_at",
    "heartbeat_at",
    "worker_id",
    "error",
    "schedule_id",
    "submitted_at",
    "start_time",
    "end_time",
    "attempt",
    "end_reason",
    "queue_wait_ms",
    "run_ms",
    "workflow_yaml_sha256",
    "rerun_of",
    "unreadable",
)
"""Fields of an item in a list of runs."""

_RECORD_FIELDS = ("task_records", "task_records_truncated")
_INTERNAL_FIELDS = ("instance_id", "job_seq", "submission_digest")
_MOST_UNSTARTED = 1000
"""A graph of more tasks would make each answer, and each event of a watch, many times as large."""
_UNSTARTED = (TaskStatus.PENDING.value, TaskStatus.CANCELLED.value)
_PREVIEW_STEPS = (16_384, 2_048, 256)


def fit(record: RunRecord, max_bytes: int) -> RunRecord:
    """Cut a record down to ``max_bytes`` of JSON.

    Large inputs, outputs and tracebacks go first, from generous to strict, so that small task records survive;
    then the records as a whole. ``tasks``, ``status`` and ``error`` always stay.
    """
    if len(record.to_json()) <= max_bytes:
        return record
    for limit in _PREVIEW_STEPS:
        records = {name: _cut_task(task, limit) for name, task in record.task_records.items()}
        smaller = record.model_copy(update={"task_records": records, "task_records_truncated": True})
        if len(smaller.to_json()) <= max_bytes:
            return smaller
    smaller = record.model_copy(update={"task_records": {}, "task_records_truncated": True})
    if len(smaller.to_json()) > max_bytes and smaller.error:
        smaller = smaller.model_copy(update={"error": clean_text(smaller.error, 500)})
    return smaller


def is_cut_task(task: dict[str, Any]) -> bool:
    """Return whether something of a task's record is not kept: a preview stands for it, or a text lacks its middle."""
    if any(_holds_preview(task.get(name)) for name in ("output", "artifacts", "inputs")):
        return True
    exception = task.get("exception")
    texts = [task.get(name) for name in ("error", "last_error", "traceback")]
    texts += [exception.get("message")] if isinstance(exception, dict) else []
    return any(isinstance(text, str) and is_cut(text) for text in texts)


def _holds_preview(value: Any) -> bool:
    if isinstance(value, dict):
        return is_part(value) or any(map(_holds_preview, value.values()))
    return isinstance(value, list) and any(map(_holds_preview, value))


def _cut_task(task: dict[str, Any], limit: int) -> dict[str, Any]:
    cut = dict(task)
    for field in ("output", "artifacts"):
        if field in cut:
            cut[field] = clean_value(cut[field], limit)
    if isinstance(cut.get("inputs"), dict):
        cut["inputs"] = {name: clean_value(value, limit) for name, value in cut["inputs"].items()}
    for field in ("error", "last_error", "traceback"):
        if isinstance(cut.get(field), str):
            cut[field] = clean_text(cut[field], limit)
    if isinstance(cut.get("exception"), dict) and isinstance(cut["exception"].get("message"), str):
        cut["exception"] = {**cut["exception"], "message": clean_text(cut["exception"]["message"], limit)}
    return cut


def summary(snapshot: dict[str, Any]) -> dict[str, Any]:
    """Give a list's item of a stored record (as parsed JSON)."""
    return {field: snapshot.get(field) for field in SUMMARY_FIELDS}


def public(snapshot: dict[str, Any], *, records: bool) -> dict[str, Any]:
    """Leave out of a record what is none of a reader's business.

    Args:
        snapshot: The record, as JSON data.
        records: Whether ``task_records`` are wanted; then those that never started have one too.
    """
    for field in _INTERNAL_FIELDS if records else (*_INTERNAL_FIELDS, *_RECORD_FIELDS):
        snapshot.pop(field, None)
    return with_unstarted(snapshot) if records else snapshot


def with_unstarted(snapshot: dict[str, Any]) -> dict[str, Any]:
    """Add a record for each task that never started: it is not stored, for it says nothing that ``tasks`` does not.

    Where all records were cut nobody can tell whether a task had one: then nothing is added, nor in a very large graph.

    Args:
        snapshot: The record, as JSON data; perhaps another program's.
    """
    tasks, records = snapshot.get("tasks"), snapshot.get("task_records")
    if not isinstance(tasks, dict) or not isinstance(records, dict):
        return snapshot
    if snapshot.get("task_records_truncated") and not records:
        return snapshot
    unstarted = {name: state for name, state in tasks.items() if name not in records and state in _UNSTARTED}
    if 0 < len(unstarted) <= _MOST_UNSTARTED:
        snapshot["task_records"] = records | {
            name: _unstarted(state, snapshot.get("end_time")) for name, state in unstarted.items()
        }
    return snapshot


def _unstarted(state: str, end_time: Any) -> dict[str, Any]:
    ended_at = end_time if state == TaskStatus.CANCELLED.value else None
    nothing = dict.fromkeys(("started_at", "duration_ms", "error", "traceback", "output"))
    return {"state": state, **nothing, "ended_at": ended_at, "inputs": {}, "artifacts": {}}


def log_fields(record: RunRecord) -> dict[str, Any]:
    """Return what a log line about a run names."""
    return {"run_id": record.run_id, "flow_name": record.flow_name, "tag": record.tag, "attempt": record.attempt}


def end_fields(record: RunRecord) -> dict[str, Any]:
    """Return what a log line about the end of a run tells of it."""
    return {"end_reason": record.end_reason, "reason": record.error}
