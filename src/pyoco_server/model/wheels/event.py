"""What happened to wheels: who uploaded, deleted or pinned what, and from where."""

import time
import uuid
from enum import Enum

from pydantic import BaseModel, ConfigDict, Field

from pyoco_server.model.provenance import Actor, Source


class WheelAction(str, Enum):
    """What was done to a wheel."""

    UPLOAD = "upload"
    DELETE = "delete"
    PIN = "pin"
    UNPIN = "unpin"


class WheelEvent(BaseModel):
    """One line of the history."""

    model_config = ConfigDict(frozen=True)

    event_id: str = Field(default_factory=lambda: uuid.uuid4().hex)
    occurred_at: float = Field(default_factory=time.time)
    action: WheelAction
    wheel_name: str
    tags: list[str] = Field(default_factory=list)
    size_bytes: int | None = None
    sha256_hex: str | None = None
    replace: bool | None = None
    """What an upload asked for; it has no effect: a version is never replaced."""
    actor: Actor = Field(default_factory=Actor)
    source: Source = Field(default_factory=Source)
    tenant_id: str | None = None
    """Whose wheel it is; ``None``: all tenants share it."""
