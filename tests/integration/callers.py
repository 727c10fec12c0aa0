"""Callers of several tenants and roles at one gateway."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

import httpx2
from fastapi import Request

from pyoco_server.gateway import auth
from pyoco_server.model.access import ANYBODY, Caller, Role
from pyoco_server.settings import Settings
from tests.integration.test_gateway import DEADLINE, Running, running

_HEADER = "X-Test-Caller"


@dataclass
class Tenants:
    """A gateway that asks for keys, and clients that have some."""

    here: Running
    stack: contextlib.AsyncExitStack

    async def client(self, tenant: str, role: Role = Role.MEMBER) -> httpx2.AsyncClient:
        """Give a client with a key of its own."""
        headers = {_HEADER: f"{tenant}:{role.value}"}
        client = httpx2.AsyncClient(base_url=self.here.http.base_url, timeout=DEADLINE, headers=headers)
        return await self.stack.enter_async_context(client)


async def _caller(request: Request) -> Caller:
    tenant, _, role = request.headers.get(_HEADER, "").partition(":")
    return Caller(tenant, f"key-of-{tenant}-{role}", Role(role)) if tenant else ANYBODY


@contextlib.asynccontextmanager
async def tenants_at(settings: Settings) -> AsyncIterator[Tenants]:
    """Serve with keys."""
    settings = settings.model_copy(update={"http_auth_mode": "api_key"})
    async with running(settings) as here, contextlib.AsyncExitStack() as stack:
        here.listener._app.dependency_overrides[auth._caller] = _caller
        yield Tenants(here, stack)
