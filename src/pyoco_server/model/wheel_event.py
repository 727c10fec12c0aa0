"""What happened to wheels: who uploaded, deleted or pinned what, and from where."""

import time
import uuid
from enum import Enum

from pydantic import BaseModel, ConfigDict, Field


class WheelAction(str, Enum):
    """What was done to a wheel."""

    UPLOAD = "upload"
    DELETE = "delete"
    PIN = "pin"
    UNPIN = "unpin"


class WheelActor(BaseModel):
    """Who did it; empty where the server asks for no key."""

    model_config = ConfigDict(frozen=True)

    tenant_id: str | None = None
    api_key_id: str | None = None


class WheelSource(BaseModel):
    """From where, as the request told it."""

    model_config = ConfigDict(frozen=True)

    remote_addr: str | None = None
    x_forwarded_for: str | None = None
    x_real_ip: str | None = None
    user_agent: str | None = None
    host: str | None = None
    scheme: str | None = None


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
    actor: WheelActor = Field(default_factory=WheelActor)
    source: WheelSource = Field(default_factory=WheelSource)
