"""The audit trail: who changed what, from where, and what came of it."""

import time
import uuid
from enum import Enum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import Self

from pyoco_server.model.provenance import Actor, Source


class AuditAction(str, Enum):
    """What somebody wanted to do: the kind of thing, and the change."""

    RUN_SUBMIT = "run.submit"
    RUN_CANCEL = "run.cancel"
    RUN_RERUN = "run.rerun"
    LETTER_REPLAY = "letter.replay"
    LETTER_DELETE = "letter.delete"
    WHEEL_UPLOAD = "wheel.upload"
    WHEEL_DELETE = "wheel.delete"
    WHEEL_PIN = "wheel.pin"
    WHEEL_UNPIN = "wheel.unpin"
    WORKER_PATCH = "worker.patch"
    WORKER_DRAIN = "worker.drain"
    KEY_CREATE = "key.create"
    KEY_REVOKE = "key.revoke"

    @property
    def kind(self) -> str:
        """Give the kind of thing that is changed: ``run letter wheel worker key``."""
        return self.value.partition(".")[0]


class AuditOutcome(str, Enum):
    """What came of it."""

    DONE = "done"
    REFUSED = "refused"
    """It was not allowed, or there is nothing of that name (for this caller)."""
    UNKNOWN = "unknown"
    """The server failed on the way: it may have been done."""


class AuditTarget(BaseModel):
    """What was changed."""

    model_config = ConfigDict(frozen=True)

    kind: str
    id: str | None = None
    tenant_id: str | None = None
    """Whose it is; ``None`` for what all tenants share, and for what belongs to none."""


class AuditEntry(BaseModel):
    """One line of the trail. Never holds keys, params or results."""

    model_config = ConfigDict(frozen=True)

    event_id: str = Field(default_factory=lambda: uuid.uuid4().hex)
    at: float = Field(default_factory=time.time)
    action: AuditAction
    outcome: AuditOutcome = AuditOutcome.DONE
    status: int | None = None
    """The HTTP status of the answer, of what came over HTTP."""
    actor: Actor = Field(default_factory=Actor)
    source: Source = Field(default_factory=Source)
    target: AuditTarget
    details: dict[str, Any] = Field(default_factory=dict)

    def to_json(self) -> bytes:
        """Give the message body."""
        return self.model_dump_json(exclude_none=True).encode()

    @classmethod
    def from_json(cls, raw: bytes) -> Self:
        """Read a message body.

        Raises:
            pydantic.ValidationError: it is no entry.
        """
        return cls.model_validate_json(raw)
