"""Who changed something, and from where."""

from pydantic import BaseModel, ConfigDict


class Actor(BaseModel):
    """Who did it; empty where the server asks for no key."""

    model_config = ConfigDict(frozen=True)

    tenant_id: str | None = None
    api_key_id: str | None = None


class Source(BaseModel):
    """From where, as the request told it."""

    model_config = ConfigDict(frozen=True)

    remote_addr: str | None = None
    x_forwarded_for: str | None = None
    x_real_ip: str | None = None
    user_agent: str | None = None
    host: str | None = None
    scheme: str | None = None
