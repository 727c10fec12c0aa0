"""Why a run is where it is: one code of a closed list, and the facts that its sentence names.

Pure: from what is known to the answer. Other programs write records too, so no field is taken to be what it should be.
"""

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from pyoco_server.gateway.index.json_fields import number
from pyoco_server.model.run import ENDED, EndReason, RunStatus
from pyoco_server.model.text.sentences import Moment, OfTenant, Span, plain
from pyoco_server.model.wheels.sync import as_used_by
from pyoco_server.model.worker import WorkerRecord, WorkerState
from pyoco_server.store.queue.job_queue import ConsumerFigures

LATE_SEC = 30.0
"""Seconds after which it is strange that a run still waits beside a free worker."""
_OVERDUE_SEC = 5.0
_TEXT = 300
_LAST_MOMENT = 1e11
"""No calendar goes further; another program's record may hold any number."""


class WhyCode(str, Enum):
    """Where a run is, or how it ended; the values of the second half are those of ``EndReason``."""

    NO_WORKER = "no_worker"
    WORKERS_GONE = "workers_gone"
    WORKERS_DRAINING = "workers_draining"
    WORKERS_UNFIT = "workers_unfit"
    ALL_BUSY = "all_busy"
    QUEUE_LIMIT = "queue_limit"
    STARTING = "starting"
    JOB_MISSING = "job_missing"
    NOT_FETCHED = "not_fetched"
    RUNNING = "running"
    RETRY_WAIT = "retry_wait"
    WORKER_SILENT = "worker_silent"
    WORKER_SILENT_NO_OTHER = "worker_silent_no_other"
    REDELIVERY_OVERDUE = "redelivery_overdue"
    CANCELLING = "cancelling"
    CANCELLING_WORKER_SILENT = "cancelling_worker_silent"
    COMPLETED = "completed"
    TASK_FAILED = "task_failed"
    TASK_TIMEOUT = "task_timeout"
    RUN_TIMEOUT = "run_timeout"
    CANCELLED = "cancelled"
    CHILD_EXITED = "child_exited"
    CHILD_KILLED_BY_SIGNAL = "child_killed_by_signal"
    OUT_OF_MEMORY = "out_of_memory"
    WORKER_LOST = "worker_lost"
    FLOW_NOT_FOUND = "flow_not_found"
    INVALID_FLOW = "invalid_flow"
    INVALID_JOB = "invalid_job"
    DEPENDENCY_MISSING = "dependency_missing"
    OUTPUT_TOO_LARGE = "output_too_large"
    RECORD_UNREADABLE = "record_unreadable"
    ENDED = "ended"
    """It ended, and the record does not say why: another program's, or a newer version's."""
    UNKNOWN_STATUS = "unknown_status"
    UNREADABLE = "unreadable"
    """Its record cannot be read, so nobody can tell what it does."""


@dataclass(frozen=True)
class Facts:
    """What is known beside the run's own record.

    Args:
        now: Unix seconds.
        cancel_grace_sec: Time between a cancel and the kill.
        max_attempts: For runs that do not say themselves.
        default_ack_wait_sec: Of a consumer that is still to be made.
        nats_url: For the command that starts a worker.
        workers: Those that serve the run's tag, with their states now, last seen first.
        holder: The worker that the record names, if it is known.
        ahead: How many runs of the tag were submitted earlier and still wait.
        own_ahead: How many of these are the asking tenant's, who is told of no others; ``None``: all are told of.
        job_seen: Whether the run's job was seen on the queue.
        consumer: The tag's consumer; ``None`` if there is none.
    """

    now: float
    cancel_grace_sec: float
    max_attempts: int
    default_ack_wait_sec: float
    nats_url: str
    workers: list[tuple[WorkerRecord, WorkerState]] = field(default_factory=list)
    holder: tuple[WorkerRecord, WorkerState] | None = None
    ahead: int = 0
    own_ahead: int | None = None
    job_seen: bool = False
    consumer: ConsumerFigures | None = None

    @property
    def live(self) -> list[WorkerRecord]:
        """The workers that could take the run."""
        return [record for record, state in self.workers if state.is_active and record.takes_runs]

    @property
    def unfit(self) -> list[WorkerRecord]:
        """The workers that are there, and whose machines cannot begin a run now."""
        return [record for record, state in self.workers if state.is_active and record.is_unfit and not record.draining]

    @property
    def draining(self) -> list[WorkerRecord]:
        """The workers that are there and take no more runs."""
        return [record for record, state in self.workers if state.is_active and record.draining]


@dataclass(frozen=True)
class Why:
    """The answer: a code, and the values that its texts may name. ``None`` is not known, or not so."""

    code: WhyCode
    values: dict[str, Any]

    def details(self) -> dict[str, Any]:
        """Give the values for programs: times in unix seconds, durations in seconds."""
        return plain(self.values)


def explain(snapshot: dict[str, Any], facts: Facts) -> Why:
    """Say why a run is where it is.

    Args:
        snapshot: The stored record, parsed.
        facts: What is known beside it.
    """
    status = _text(snapshot.get("status"))
    common = {
        "run_id": _text(snapshot.get("run_id")),
        "tag": _text(snapshot.get("tag")),
        "worker_id": _text(snapshot.get("worker_id")),
        "attempt": int(number(snapshot.get("attempt"))) or None,
        "max_attempts": int(number(snapshot.get("max_attempts"))) or facts.max_attempts,
    }
    if unreadable := _text(snapshot.get("unreadable")):
        why = Why(WhyCode.UNREADABLE, {"status": status, "error": unreadable})
    elif status == RunStatus.PENDING.value:
        why = _waiting(snapshot, facts)
    elif status == RunStatus.RUNNING.value:
        why = _running(snapshot, facts, common)
    elif status == RunStatus.CANCELLING.value:
        why = _cancelling(snapshot, facts)
    elif status in ENDED:
        why = _ended(snapshot, facts)
    else:
        why = Why(WhyCode.UNKNOWN_STATUS, {"status": status})
    return Why(why.code, {**common, **why.values})


def _waiting(snapshot: dict[str, Any], facts: Facts) -> Why:
    live = facts.live
    since = max(number(snapshot.get("submitted_at")), number(snapshot.get("updated_at")))
    waited = facts.now - since if since else 0.0
    values: dict[str, Any] = {
        "ahead": facts.ahead if facts.own_ahead is None else OfTenant(facts.own_ahead),
        "submitted_at": _moment(snapshot.get("submitted_at")),
        "waited": _span(facts.now - number(snapshot.get("submitted_at"))) if snapshot.get("submitted_at") else None,
        "workers": _ids(live) or None,
        "nats_url": facts.nats_url,
    }
    if not live:
        if not facts.workers:
            return Why(WhyCode.NO_WORKER, values)
        if facts.unfit:
            return Why(WhyCode.WORKERS_UNFIT, {**values, **_unfit(facts.unfit)})
        if facts.draining:
            asked = [record for record in facts.draining if record.drain_reason]
            reason = _text(asked[0].drain_reason) if asked else None
            return Why(WhyCode.WORKERS_DRAINING, {**values, "workers": _ids(facts.draining), "drain_reason": reason})
        last, state = facts.workers[0]
        seen = {"known_worker": last.worker_id, "known_state": state.value, "last_seen_at": _moment(last.last_seen_at)}
        silent = _span(facts.now - last.last_seen_at)
        return Why(WhyCode.WORKERS_GONE, {**values, **seen, "silent_for": silent})
    free = sum(max(0, record.slots - record.unfit_slots - len(record.current_run_ids)) for record in live)
    values |= {
        "slots": sum(record.slots for record in live),
        "free_slots": free,
        "live_workers": len(live),
        "unacknowledged": facts.consumer.unacknowledged if facts.consumer and facts.own_ahead is None else None,
        "last_pull_at": _moment(max(record.last_pull_at or 0.0 for record in live)),
    }
    return Why(_waiting_code(facts, free, late=waited > LATE_SEC), values)


def _unfit(workers: list[WorkerRecord]) -> dict[str, Any]:
    """Say what is wrong with the machine of the one that tries again first."""
    first = min(workers, key=lambda record: number(record.trouble.next_try_at if record.trouble else None))
    trouble = first.trouble
    return {
        "workers": _ids(workers),
        "known_worker": first.worker_id,
        "trouble": _text(trouble.reason) if trouble else None,
        "since": _moment(trouble.since) if trouble else None,
        "next_try_at": _moment(trouble.next_try_at) if trouble else None,
    }


def _ids(workers: list[WorkerRecord]) -> list[str]:
    return [record.worker_id for record in workers]


def _waiting_code(facts: Facts, free: int, *, late: bool) -> WhyCode:
    """Tell why a run waits although there are workers.

    Args:
        facts: What is known.
        free: Slots without a run.
        late: Whether it waits longer than a worker takes to fetch a job.
    """
    consumer = facts.consumer
    if free == 0:
        return WhyCode.ALL_BUSY
    if consumer is not None and consumer.unacknowledged >= consumer.max_unacknowledged > 0:
        return WhyCode.QUEUE_LIMIT
    if late and facts.job_seen and facts.ahead == 0:
        return WhyCode.NOT_FETCHED
    empty = consumer is None or consumer.waiting + consumer.unacknowledged == 0
    if late and not facts.job_seen and (facts.ahead == 0 or empty):
        return WhyCode.JOB_MISSING
    return WhyCode.STARTING


def _running(snapshot: dict[str, Any], facts: Facts, common: dict[str, Any]) -> Why:
    seen_at = _last_sign(snapshot, facts)
    start = number(snapshot.get("start_time"))
    values: dict[str, Any] = {
        "start_time": _moment(start),
        "running_for": _span(facts.now - start) if start else None,
        "last_seen_at": _moment(seen_at),
        "silent_for": _span(facts.now - seen_at) if seen_at else None,
    }
    if not _is_held(snapshot, facts):
        due = seen_at + (facts.consumer.ack_wait_sec if facts.consumer else facts.default_ack_wait_sec)
        values |= {
            "expected_by": _moment(due),
            "expected_in": _span(due - facts.now) if due > facts.now else None,
            "attempts_left": max(0, common["max_attempts"] - (common["attempt"] or 0)),
            "nats_url": facts.nats_url,
        }
        if not facts.live:
            return Why(WhyCode.WORKER_SILENT_NO_OTHER, values)
        overdue = facts.now > due + _OVERDUE_SEC
        return Why(WhyCode.REDELIVERY_OVERDUE if overdue else WhyCode.WORKER_SILENT, values)
    records = _records(snapshot)
    waiting = {name: record for name, record in records.items() if _waits(record)}
    active = sorted(
        name for name, record in records.items() if record.get("state") == "RUNNING" and name not in waiting
    )
    values["tasks"] = active or None
    if not waiting or active:
        return Why(WhyCode.RUNNING, {**values, "retrying": sorted(waiting) or None})
    name = min(waiting, key=lambda name: number(waiting[name].get("retry_at")))
    record, at = waiting[name], number(waiting[name].get("retry_at"))
    retry = {
        "task": name,
        "retry_at": _moment(at),
        "retry_in": _span(at - facts.now),
        "try_number": int(number(record.get("try"))) + 1,
        "tries": int(number(record.get("tries"))),
        "error": _text(record.get("last_error") or record.get("error")),
    }
    return Why(WhyCode.RETRY_WAIT, {**values, **retry})


def _cancelling(snapshot: dict[str, Any], facts: Facts) -> Why:
    asked = number(snapshot.get("cancel_requested_at"))
    seen_at = _last_sign(snapshot, facts)
    values: dict[str, Any] = {
        "cancel_requested_at": _moment(asked),
        "asked_ago": _span(facts.now - asked) if asked else None,
        "cancel_requested_by": _text(snapshot.get("cancel_requested_by")),
        "cancel_reason": _text(snapshot.get("cancel_reason")),
        "last_seen_at": _moment(seen_at),
        "silent_for": _span(facts.now - seen_at) if seen_at else None,
    }
    if _is_held(snapshot, facts):
        return Why(WhyCode.CANCELLING, {**values, "killed_by": _moment((asked or facts.now) + facts.cancel_grace_sec)})
    due = seen_at + (facts.consumer.ack_wait_sec if facts.consumer else facts.default_ack_wait_sec)
    return Why(WhyCode.CANCELLING_WORKER_SILENT, {**values, "expected_by": _moment(due)})


def _ended(snapshot: dict[str, Any], facts: Facts) -> Why:
    start, end = number(snapshot.get("start_time")), number(snapshot.get("end_time"))
    submitted = number(snapshot.get("submitted_at"))
    reason = snapshot.get("end_reason")
    known = isinstance(reason, str) and reason in {item.value for item in EndReason}
    code = WhyCode(reason) if known else WhyCode.ENDED
    error = _text(snapshot.get("error"))
    values: dict[str, Any] = {
        "status": _text(snapshot.get("status")),
        "end_time": _moment(end),
        "ran": _span(end - start) if start and end else None,
        "waited": _span(end - submitted) if submitted and end and not start else None,
        "error": error,
        "limit": _span(number(snapshot.get("timeout_sec"))) if number(snapshot.get("timeout_sec")) else None,
        "cancel_requested_by": _text(snapshot.get("cancel_requested_by")),
        "cancel_reason": _text(snapshot.get("cancel_reason")),
    }
    failed = {name: record for name, record in _records(snapshot).items() if record.get("state") == "FAILED"}
    if code in (WhyCode.COMPLETED, WhyCode.CANCELLED):
        return Why(code, {**values, "isolated": sorted(failed) or None})
    wheels = _wheels(facts, snapshot.get("tenant_id")) if code is WhyCode.DEPENDENCY_MISSING else {}
    return Why(code, {**values, **_culprit(failed, error), **wheels})


def _wheels(facts: Facts, tenant_id: object) -> dict[str, Any]:
    """Return what the worker of a tenant's run that missed a module has for it from the wheel registry."""
    state = facts.holder[0].wheel_sync if facts.holder else {}
    if not facts.holder or not isinstance(state, dict):
        return {}
    if not state.get("enabled"):
        return {"wheels_off": facts.holder[0].worker_id}
    state = as_used_by(state, tenant_id)
    if error := _text(state.get("last_error")):
        return {"wheels_error": error}
    rows = state.get("installed_wheels")
    names = (
        [row["wheel_name"] for row in rows if isinstance(row, dict) and _text(row.get("wheel_name"))]
        if isinstance(rows, list)
        else []
    )
    return {"wheels": names} if names else {"wheels_none": ", ".join(facts.holder[0].tags)}


def _culprit(failed: dict[str, dict[str, Any]], error: str | None) -> dict[str, Any]:
    """Give the task that ended the run, and its exception; an isolated failure before it is not meant."""
    named = [name for name in failed if error and f"task {name!r} " in error]
    name = min(named or failed, key=lambda name: number(failed[name].get("ended_at")), default=None)
    if name is None:
        return {}
    exception = failed[name].get("exception")
    exception = exception if isinstance(exception, dict) else {}
    place, origin = _place(exception), _place(failed[name].get("origin"))
    return {
        "task": name,
        "exception": _text(failed[name].get("error")) if exception else None,
        "exception_class": _text(exception.get("class")),
        "place": place or origin,
        "raised_at": origin if place and origin != place else None,
        "tries": int(number(failed[name].get("tries"))) or None,
    }


def _place(told: Any) -> str | None:
    """Return a place that a record tells as ``file:line``."""
    if not isinstance(told, dict):
        return None
    file, line = _text(told.get("file")), int(number(told.get("line")))
    return f"{file}:{line}" if file and line else None


def _is_held(snapshot: dict[str, Any], facts: Facts) -> bool:
    """Tell whether the worker that the record names is there and is still the one that claimed the run."""
    if facts.holder is None:
        return False
    record, state = facts.holder
    claimed_by = snapshot.get("instance_id")
    same = not claimed_by or not record.instance_id or record.instance_id == claimed_by
    return same and state.is_active


def _last_sign(snapshot: dict[str, Any], facts: Facts) -> float:
    """Give the last sign of life of a run: of its worker, unless another process has its name now."""
    written = max(number(snapshot.get(name)) for name in ("heartbeat_at", "updated_at", "start_time"))
    if facts.holder is None:
        return written
    record, _ = facts.holder
    claimed_by = snapshot.get("instance_id")
    same = not claimed_by or record.instance_id == claimed_by
    return max(written, record.last_heartbeat_at) if same else written


def _records(snapshot: dict[str, Any]) -> dict[str, dict[str, Any]]:
    records = snapshot.get("task_records")
    if not isinstance(records, dict):
        return {}
    return {name: record for name, record in records.items() if isinstance(record, dict)}


def _waits(record: dict[str, Any]) -> bool:
    return record.get("state") == "RUNNING" and number(record.get("retry_at")) > 0


def _text(value: Any) -> str | None:
    """Give a text in one short line; ``None`` for what is none."""
    if not isinstance(value, str) or not value.strip():
        return None
    line = " ".join(value.split())
    return line if len(line) <= _TEXT else line[:_TEXT] + "…"


def _moment(value: Any) -> Moment | None:
    found = number(value)
    return Moment(found) if 0 < found < _LAST_MOMENT else None


def _span(seconds: float) -> Span:
    return Span(min(max(0.0, seconds), _LAST_MOMENT))
