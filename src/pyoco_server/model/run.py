"""A run: its states, the record that holds them, and who may move it from one to the next.

This is the only place that decides a next state; everybody else asks it.
"""

import re
import time
import uuid
from enum import Enum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import Self


class RunStatus(str, Enum):
    """Where a run is. Each comment: who moves it on, and what a crash does.

    PENDING → RUNNING → COMPLETED | FAILED, and PENDING | RUNNING → CANCELLING → CANCELLED.
    """

    PENDING = "PENDING"  # A worker's claim moves it on. Crash of the gateway: the job lies in the queue.
    RUNNING = "RUNNING"  # Its worker moves it on. Crash of the worker: the job is redelivered after AckWait.
    CANCELLING = "CANCELLING"  # Its worker ends it. Crash of the worker: the redelivery's receiver ends it.
    COMPLETED = "COMPLETED"  # Terminal. A redelivered job is only acknowledged.
    FAILED = "FAILED"  # Terminal.
    CANCELLED = "CANCELLED"  # Terminal.

    @property
    def is_terminal(self) -> bool:
        """Tell whether nothing can move the run any more."""
        return self in _TERMINAL


_RUN_ID = re.compile(r"[A-Za-z0-9_=-]{1,128}")
_TERMINAL = {RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.CANCELLED}
ENDED = tuple(status.value for status in RunStatus if status.is_terminal)
"""The statuses of runs that have ended, as they are stored."""


class TaskStatus(str, Enum):
    """Where a task of a run is."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


class EndReason(str, Enum):
    """Why a run ended: a closed list, each with its own sentence in ``error``."""

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


class RunRecord(BaseModel):
    """The truth about a run, as stored under its id. Frozen: changed by ``evolve``.

    Unknown fields survive a read and a write, so that a newer version's record is not damaged by an older one.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    run_id: str
    flow_name: str
    status: RunStatus = RunStatus.PENDING
    params: dict[str, Any] = Field(default_factory=dict)
    tag: str = "default"
    tags: list[str] = Field(default_factory=list)
    tasks: dict[str, TaskStatus] = Field(default_factory=dict)
    task_records: dict[str, dict[str, Any]] = Field(default_factory=dict)
    task_records_truncated: bool = False
    skipped_tasks: list[str] = Field(default_factory=list)
    """Tasks of branches that the run did not take; they stay PENDING in a COMPLETED run."""
    submitted_at: float | None = None
    start_time: float | None = None
    end_time: float | None = None
    heartbeat_at: float | None = None
    updated_at: float = 0.0
    error: str | None = None
    end_reason: EndReason | None = None
    worker_id: str | None = None
    instance_id: str | None = None
    """The worker process that holds the run; two processes with one worker_id differ here."""
    attempt: int = 0
    max_attempts: int | None = None
    timeout_sec: float | None = None
    job_seq: int | None = None
    """Stream sequence of the job that was claimed: only its redelivery may take the run over."""
    environment: str | None = None
    """Digest of the wheel environment that the attempt imported from; ``None``: of the worker's own packages alone."""
    isolation: str | None = None
    """``process``: the attempt had a process of its own; ``shared``: one that earlier runs of its flow had used."""
    queue_wait_ms: float | None = None
    run_ms: float | None = None
    tenant_id: str | None = None
    api_key_id: str | None = None
    workflow_yaml_sha256: str | None = None
    workflow_yaml_bytes: int | None = None
    own_workers_only: str | None = None
    """What of its flow.yaml workers of the existing system would run wrongly, in words; ``None`` if nothing."""
    cancel_requested_at: float | None = None
    cancel_requested_by: str | None = None
    cancel_reason: str | None = None
    schedule_id: str | None = None
    rerun_of: str | None = None
    idempotency_key: str | None = None
    submission_digest: str | None = None
    """Hash of the request that came with the key: its repeat has the same one."""

    def evolve(self, **changes: Any) -> Self:
        """Return a copy with the changes, and ``updated_at`` moved forward (never back)."""
        changes.setdefault("updated_at", max(time.time(), self.updated_at))
        return self.model_copy(update=changes)

    def attempts_allowed(self, default: int) -> int:
        """Return how often the run may be started.

        Args:
            default: For runs that were submitted without a limit of their own.
        """
        return self.max_attempts or default

    def to_json(self) -> bytes:
        """Return the stored form."""
        return self.model_dump_json(warnings=False).encode()  # whoever stores it looks whether it can be read back

    @classmethod
    def from_json(cls, raw: bytes) -> Self:
        """Read the stored form.

        Raises:
            pydantic.ValidationError: not a record.
        """
        return cls.model_validate_json(raw)


def is_run_id(text: str) -> bool:
    """Tell whether a text may be a run's id: it becomes a key and part of subjects."""
    return bool(_RUN_ID.fullmatch(text))


def new_run_id() -> str:
    """Make a fresh run id."""
    return str(uuid.uuid4())


def claim(record: RunRecord, *, worker_id: str, instance_id: str, job_seq: int) -> RunRecord:
    """Start the next attempt of a run on a worker."""
    now = time.time()
    waited = (now - record.submitted_at) * 1000 if record.submitted_at else None
    return record.evolve(
        status=RunStatus.RUNNING,
        worker_id=worker_id,
        instance_id=instance_id,
        attempt=record.attempt + 1,
        job_seq=job_seq,
        start_time=now,
        heartbeat_at=now,
        queue_wait_ms=record.queue_wait_ms if record.attempt else waited,
        tasks=dict.fromkeys(record.tasks, TaskStatus.PENDING),
        task_records={},
        task_records_truncated=False,
        error=None,
        environment=None,
        isolation=None,
    )


def hand_back(record: RunRecord) -> RunRecord:
    """Make a claimed run wait again without costing an attempt; one being cancelled ends instead."""
    if record.status is RunStatus.CANCELLING:
        return cancelled(record)
    return record.evolve(
        status=RunStatus.PENDING,
        attempt=record.attempt - 1,
        worker_id=None,
        instance_id=None,
        start_time=None,
        tasks=dict.fromkeys(record.tasks, TaskStatus.PENDING),
        task_records={},
        task_records_truncated=False,
    )


def requeue(record: RunRecord) -> RunRecord:
    """Make a run whose worker is lost wait for its next attempt; one being cancelled ends instead.

    The lost attempt stays counted. Any job of the run may be claimed next: the one that was claimed is gone.
    """
    if record.status is RunStatus.CANCELLING:
        return cancelled(record)
    return record.evolve(
        status=RunStatus.PENDING,
        worker_id=None,
        instance_id=None,
        start_time=None,
        job_seq=None,
        tasks=dict.fromkeys(record.tasks, TaskStatus.PENDING),
        task_records={},
        task_records_truncated=False,
    )


def undeliverable(record: RunRecord, max_attempts: int) -> RunRecord:
    """Move on a run whose job the queue will not deliver again, and that nobody works on.

    With attempts left it waits for a new job. Being handed back costs no attempt, but the queue counts every
    delivery, so a run can get here without having started once.

    Args:
        record: The run, not terminal.
        max_attempts: How many starts it may have.
    """
    if record.status is RunStatus.CANCELLING or record.attempt < max_attempts:
        return requeue(record)
    last = f" (last on {record.worker_id})" if record.worker_id else ""
    error = f"its worker was lost in attempt {record.attempt} of {max_attempts}{last}"
    return settle(record, RunStatus.FAILED, EndReason.WORKER_LOST, error)


def again(record: RunRecord, run_id: str) -> RunRecord:
    """Make a new run of the same flow with the same params, linked to the old one.

    Args:
        record: The old run, in whatever state.
        run_id: The new one's id.
    """
    now = time.time()
    known_tasks = record.tasks if record.workflow_yaml_sha256 else ()  # a resolver's flow may have others by now
    return RunRecord(
        run_id=run_id,
        flow_name=record.flow_name,
        params=record.params,
        tag=record.tag,
        tags=record.tags,
        tasks=dict.fromkeys(known_tasks, TaskStatus.PENDING),
        submitted_at=now,
        heartbeat_at=now,
        updated_at=now,
        max_attempts=record.max_attempts,
        timeout_sec=record.timeout_sec,
        tenant_id=record.tenant_id,
        api_key_id=record.api_key_id,
        workflow_yaml_sha256=record.workflow_yaml_sha256,
        workflow_yaml_bytes=record.workflow_yaml_bytes,
        own_workers_only=record.own_workers_only,
        rerun_of=record.run_id or None,
    )


def request_cancel(record: RunRecord, *, by: str | None, reason: str | None) -> RunRecord:
    """Answer a cancel request: at once for a waiting run, by its worker for a running one.

    A terminal run comes back unchanged.
    """
    if record.status.is_terminal or record.status is RunStatus.CANCELLING:
        return record
    asked = record.evolve(
        cancel_requested_at=time.time(), cancel_requested_by=by, cancel_reason=reason, status=RunStatus.CANCELLING
    )
    return cancelled(asked) if record.status is RunStatus.PENDING else asked


def cancelled(record: RunRecord) -> RunRecord:
    """End a run as CANCELLED, with every unfinished task."""
    return settle(record, RunStatus.CANCELLED, EndReason.CANCELLED, record.cancel_reason)


def end_unreadable(record: RunRecord, status: RunStatus, why: str) -> RunRecord:
    """End a run whose record cannot be read: nobody can tell what it did.

    Args:
        record: What could be read of it.
        status: FAILED, or CANCELLED where somebody asked for it.
        why: What is wrong with the stored form.
    """
    text = f"the run's record could not be read: {why}"
    return settle(record.evolve(status=RunStatus.RUNNING), status, EndReason.RECORD_UNREADABLE, text)


def settle(record: RunRecord, status: RunStatus, reason: EndReason, error: str | None) -> RunRecord:
    """Move a run to its terminal state.

    A run whose cancel was recorded first ends CANCELLED, whatever its last task did: the first write stands.
    """
    if record.status is RunStatus.CANCELLING:
        status, reason, error = RunStatus.CANCELLED, EndReason.CANCELLED, record.cancel_reason
    now = time.time()
    tasks = dict(record.tasks)
    if status is not RunStatus.COMPLETED:
        loose = TaskStatus.FAILED if status is RunStatus.FAILED else TaskStatus.CANCELLED
        tasks = {
            name: loose if state is TaskStatus.RUNNING
            else TaskStatus.CANCELLED if state is TaskStatus.PENDING
            else state
            for name, state in tasks.items()
        }  # fmt: skip
    skipped = [name for name, state in tasks.items() if state is TaskStatus.PENDING]
    return record.evolve(
        status=status,
        end_reason=reason,
        error=error,
        tasks=tasks,
        task_records=_end_records(record.task_records, tasks, now, error),
        skipped_tasks=skipped,
        end_time=now,
        heartbeat_at=now if record.start_time else record.heartbeat_at,
        run_ms=(now - record.start_time) * 1000 if record.start_time else None,
    )


def _end_records(
    records: dict[str, dict[str, Any]], tasks: dict[str, TaskStatus], now: float, error: str | None
) -> dict[str, dict[str, Any]]:
    """Give each task record its task's final state, and an end to those that were still running.

    A task that was running when the run failed has no error of its own: it gets the run's.
    """
    ended = {}
    for name, record in records.items():
        state = tasks.get(name)
        if state is not None and record.get("state") != state.value:
            record = {**record, "state": state.value}  # noqa: PLW2901 - the record itself is never changed
            started = record.get("started_at")
            if isinstance(started, float | int) and 0 < started < now and not record.get("ended_at"):
                record["ended_at"] = now
                record["duration_ms"] = (now - started) * 1000
            if record.get("retry_at"):
                record["retry_at"] = None
            if state is TaskStatus.FAILED:  # what stands there is of an earlier try, and so is last_error
                record |= {"error": error, "exception": None, "traceback": None, "origin": None}
        ended[name] = record
    return ended
