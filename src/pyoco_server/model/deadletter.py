"""A dead letter: what is kept of a job that could not be run to its end, so that it can be understood and replayed."""

import hashlib
import time
from enum import Enum
from typing import Any

import pydantic_core
from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import Self

from pyoco_server.model.job import Job
from pyoco_server.model.run import EndReason, RunRecord, RunStatus
from pyoco_server.model.text.clean import clean_text

PAYLOAD_BYTES = 4096
"""How much of an unreadable job is kept."""
TERMINATED = "dead letter "
"""How the reason begins with which a worker takes a job off the queue for which it has published a letter."""

_LEFT_OUT_FIRST = ("workflow_yaml", "payload", "params", "tags")
_LEFT_OUT_LAST = ("flow_name", "tenant_id", "api_key_id", "workflow_yaml_sha256")
_SHORT = 500
"""Characters that a text may have in a letter from which all else was left out already."""


class DeadLetterReason(str, Enum):
    """Why a job became a dead letter."""

    INVALID_JOB = "invalid_job"
    FLOW_NOT_FOUND = "flow_not_found"
    EXECUTION_ERROR = "execution_error"
    ATTEMPTS_EXHAUSTED = "attempts_exhausted"


_REASONS = {
    EndReason.FLOW_NOT_FOUND: DeadLetterReason.FLOW_NOT_FOUND,
    EndReason.WORKER_LOST: DeadLetterReason.ATTEMPTS_EXHAUSTED,
    EndReason.INVALID_JOB: DeadLetterReason.INVALID_JOB,
    EndReason.RECORD_UNREADABLE: DeadLetterReason.INVALID_JOB,
}


class DeadLetter(BaseModel):
    """One dead letter, as published on ``pyoco.dlq.<tag>``."""

    model_config = ConfigDict(frozen=True, extra="allow")

    timestamp: float = Field(default_factory=time.time)
    reason: DeadLetterReason
    error: str | None = None
    run_id: str | None = None
    flow_name: str | None = None
    tag: str
    tags: list[str] = Field(default_factory=list)
    worker_id: str | None = None
    num_delivered: int | None = None
    subject: str | None = None
    payload: str | None = None
    """The first bytes of a job that could not be read."""
    params: dict[str, Any] | None = None
    workflow_yaml: str | None = None
    """The flow's text, where the job brought it along and the store of flows does not have it."""
    workflow_yaml_sha256: str | None = None
    workflow_yaml_bytes: int | None = None
    end_reason: EndReason | None = None
    attempt: int | None = None
    max_attempts: int | None = None
    timeout_sec: float | None = None
    submitted_at: float | None = None
    tenant_id: str | None = None
    api_key_id: str | None = None
    omitted: list[str] = Field(default_factory=list)
    """Fields that were left out because the letter would have been too large."""

    def fit(self, max_bytes: int) -> Self:
        """Leave out what is large until the letter has at most ``max_bytes``; ``omitted`` says what went."""
        letter = self
        for field in _LEFT_OUT_FIRST:
            if len(letter.to_json()) <= max_bytes:
                return letter
            if getattr(letter, field):
                letter = letter._without(field)
        if len(letter.to_json()) > max_bytes and letter.error:
            letter = letter.model_copy(update={"error": clean_text(letter.error, _SHORT)})
        if len(letter.to_json()) > max_bytes:  # a job of another program may hold anything
            for field in _LEFT_OUT_LAST:
                if len(getattr(letter, field) or "") > _SHORT:
                    letter = letter._without(field)
        return letter

    def _without(self, field: str) -> Self:
        empty: Any = [] if field == "tags" else None
        return self.model_copy(update={field: empty, "omitted": [*self.omitted, field]})

    def to_json(self) -> bytes:
        """Return the message body: without what is not known, but a run's letter always says whose it was."""
        told = self.model_dump(mode="json", exclude_none=True)
        if self.run_id is not None:
            told = {**dict.fromkeys(("tenant_id", "api_key_id")), **told}
        return pydantic_core.to_json(told)


def letter_reason(record: RunRecord, *, execution_errors: bool) -> DeadLetterReason | None:
    """Tell which letter an ended run leaves; ``None`` for none.

    Args:
        record: The run.
        execution_errors: Whether a run that failed in its own code leaves one
            (``PYOCO_DLQ_PUBLISH_EXECUTION_ERROR``).
    """
    if record.status is not RunStatus.FAILED:
        return None
    reason = _REASONS.get(record.end_reason) if record.end_reason else None
    if reason is None:
        return DeadLetterReason.EXECUTION_ERROR if execution_errors else None
    return reason


def letter_of_run(
    record: RunRecord,
    reason: DeadLetterReason,
    *,
    tag: str,
    job: Job | None = None,
    worker_id: str | None = None,
    num_delivered: int | None = None,
    subject: str | None = None,
) -> DeadLetter:
    """Write the letter of a run that ended badly.

    Args:
        record: The run, ended.
        reason: Why.
        tag: The tag of the queue that its job lay on.
        job: The job, for a flow's text that only it has.
        worker_id: Who writes; the run's own worker if it is known goes first.
        num_delivered: How often the job was delivered.
        subject: Where the job lay.
    """
    return DeadLetter(
        reason=reason,
        error=record.error,
        run_id=record.run_id,
        flow_name=record.flow_name,
        tag=tag,
        tags=record.tags,
        worker_id=record.worker_id or worker_id,
        num_delivered=num_delivered,
        subject=subject,
        params=record.params or (job.params if job else None) or {},
        workflow_yaml=job.workflow_yaml if job else None,
        workflow_yaml_sha256=record.workflow_yaml_sha256,
        workflow_yaml_bytes=record.workflow_yaml_bytes,
        end_reason=record.end_reason,
        attempt=record.attempt,
        max_attempts=record.max_attempts,
        timeout_sec=record.timeout_sec,
        submitted_at=record.submitted_at,
        tenant_id=record.tenant_id,
        api_key_id=record.api_key_id,
    )


def letter_of_job(
    raw: bytes,
    error: str,
    *,
    tag: str,
    job: Job | None = None,
    worker_id: str | None = None,
    num_delivered: int | None = None,
    subject: str | None = None,
) -> DeadLetter:
    """Write the letter of a job that is none, or has no run.

    Args:
        raw: The message.
        error: What is wrong with it.
        tag: The tag of the queue that it lay on.
        job: The job, if it could be read.
        worker_id: Who found it.
        num_delivered: How often it was delivered.
        subject: Where it lay.
    """
    known = job.model_dump(exclude={"tag", "tags", "params"}, exclude_none=True) if job else {}
    return DeadLetter(
        reason=DeadLetterReason.INVALID_JOB,
        error=error,
        tag=tag,
        tags=(job.tags if job else None) or [],
        params=(job.params or {}) if job else None,
        worker_id=worker_id,
        num_delivered=num_delivered,
        subject=subject,
        payload=payload_preview(raw),
        **known,
    )


def key_of_run(record: RunRecord, reason: DeadLetterReason) -> str:
    """Name the cause of a run's letter: whoever publishes it again gives it the same name."""
    key = f"{record.run_id}:{record.attempt}:{reason.value}"
    if record.idempotency_key is not None:  # a later run of the key has the same id if this one was not kept
        key += f":{record.submitted_at or 0:.3f}"
    return key


def key_of_job(seq: int, raw: bytes) -> str:
    """Name the cause of a job's letter.

    Args:
        seq: The job's sequence in its stream.
        raw: The message; tells it from one of a stream that was made anew.
    """
    return f"job:{seq}:{hashlib.sha256(raw).hexdigest()[:16]}"


def payload_preview(raw: bytes) -> str:
    """Give the first bytes of an unreadable job as text."""
    return raw[:PAYLOAD_BYTES].decode("utf-8", "replace")
