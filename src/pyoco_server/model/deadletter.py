"""A dead letter: what is kept of a job that could not be run to its end."""

import time
from enum import Enum

from pydantic import BaseModel, ConfigDict, Field

PAYLOAD_BYTES = 4096
"""How much of an unreadable job is kept."""


class DeadLetterReason(str, Enum):
    """Why a job became a dead letter."""

    INVALID_JOB = "invalid_job"
    FLOW_NOT_FOUND = "flow_not_found"
    EXECUTION_ERROR = "execution_error"
    ATTEMPTS_EXHAUSTED = "attempts_exhausted"


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

    def to_json(self) -> bytes:
        """Give the message body."""
        return self.model_dump_json(exclude_none=True).encode()


def payload_preview(raw: bytes) -> str:
    """Give the first bytes of an unreadable job as text."""
    return raw[:PAYLOAD_BYTES].decode("utf-8", "replace")
