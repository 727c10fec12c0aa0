"""Keys for tests, made in the store as the admin command makes them."""

import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

from pyoco_server.model.access import Role
from pyoco_server.model.apikey import ApiKey, Pepper
from pyoco_server.settings.environment import Settings
from pyoco_server.store.keys import KeyStore

from .test_gateway import Running, running, until

HEADER = "X-API-Key"


def guarded(settings: Settings, **changes: Any) -> Settings:
    """Give settings that ask for keys."""
    return settings.model_copy(update={"http_auth_mode": "api_key", **changes})


@contextlib.asynccontextmanager
async def asking(settings: Settings, **changes: Any) -> AsyncIterator[Running]:
    """Serve, and ask for keys."""
    async with running(guarded(settings, **changes)) as here:
        await until(here.gateway.keys.feed.caught_up.is_set)
        yield here


async def make_key(
    keys: KeyStore,
    role: Role = Role.MEMBER,
    tenant: str = "demo",
    *,
    expires_at: float | None = None,
    pepper: str | None = None,
) -> ApiKey:
    """Make a key."""
    key = ApiKey.new()
    sealed = Pepper(pepper).seal(key, tenant_id=tenant, role=role, created_at=time.time(), expires_at=expires_at)
    await keys.create(sealed)
    return key


def sent(key: ApiKey | str) -> dict[str, str]:
    """Give the headers of a request with a key."""
    return {HEADER: key if isinstance(key, str) else key.reveal()}
