"""Callers of several tenants and roles at one gateway."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

import httpx2

from pyoco_server.model.access import Role
from pyoco_server.settings.environment import Settings
from tests.integration.keyholders import asking, make_key, sent
from tests.integration.test_gateway import DEADLINE, Running, running


@dataclass
class Tenants:
    """A gateway that asks for keys, and clients that have some."""

    here: Running
    stack: contextlib.AsyncExitStack

    async def client(self, tenant: str, role: Role = Role.MEMBER) -> httpx2.AsyncClient:
        """Give a client with a key of its own."""
        key = await make_key(self.here.gateway.keys.store, role, tenant)
        client = httpx2.AsyncClient(base_url=self.here.http.base_url, timeout=DEADLINE, headers=sent(key))
        return await self.stack.enter_async_context(client)

    async def anybody(self) -> httpx2.AsyncClient:
        """Give a client of another gateway at the same store, which asks for no keys."""
        settings = self.here.gateway.settings.model_copy(update={"http_auth_mode": "none"})
        return (await self.stack.enter_async_context(running(settings))).http


@contextlib.asynccontextmanager
async def tenants_at(settings: Settings) -> AsyncIterator[Tenants]:
    """Serve with keys."""
    async with asking(settings) as here, contextlib.AsyncExitStack() as stack:
        yield Tenants(here, stack)
