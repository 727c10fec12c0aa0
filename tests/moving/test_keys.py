"""Keys that the real existing system made, while its own gateway still runs beside ours."""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import nats
import pytest

from pyoco_server.embedded.nats_server import NatsServer
from pyoco_server.settings.environment import Settings
from tests.integration.keyholders import asking, sent
from tests.integration.test_keys import settings_pepper

from .existing import Existing

pytestmark = [pytest.mark.moving, pytest.mark.anyio]

_WAIT_SEC = 30.0
_STOPS_SEC = 5.0


async def until(holds: Callable[[], Any], seconds: float = _WAIT_SEC) -> Any:
    """Wait until something holds, in a thread: what is asked of the other gateway blocks."""
    deadline = time.monotonic() + seconds
    while not (found := await asyncio.to_thread(holds)):
        assert time.monotonic() < deadline, "it never came true"
        await asyncio.sleep(0.05)
    return found


async def test_keys_of_the_real_one(existing: Existing, tmp_path: Path) -> None:
    async with NatsServer(tmp_path / "nats", client_port=-1, http_port=-1) as server:
        settings = Settings(_env_file=None, nats_url=server.url, state_dir=tmp_path)
        await look(existing, settings, tmp_path)


async def look(existing: Existing, settings: Settings, tmp_path: Path) -> None:
    environment = {
        "PYOCO_NATS_URL": settings.nats_url, "PYOCO_HTTP_AUTH_MODE": "api_key", "PYOCO_LOAD_DOTENV": "0",
        "PYOCO_AUTH_PEPPER": "ours and theirs",
    }  # fmt: skip

    def theirs(*arguments: str, **more: str) -> Any:
        command = ("pyoco-server-admin", "api-key", *arguments)
        return json.loads(existing.run(*command, folder=tmp_path, **{**environment, **more}).stdout)

    def ours(*arguments: str, code: int = 0) -> Any:
        done = subprocess.run(
            [sys.executable, "-m", "pyoco_server.admin_cli", "api-key", *arguments], cwd=tmp_path, capture_output=True,
            text=True, timeout=60, env={**os.environ, **environment},
        )  # fmt: skip
        assert done.returncode == code, done.stderr
        return json.loads(done.stdout)

    create = ("create", "--tenant", "acme")
    first = await asyncio.to_thread(theirs, *create)  # it also makes the bucket
    second, third, other = await asyncio.gather(
        asyncio.to_thread(theirs, *create), asyncio.to_thread(theirs, *create),
        asyncio.to_thread(theirs, *create, PYOCO_AUTH_PEPPER="another"),
    )  # fmt: skip
    await asyncio.to_thread(theirs, "revoke", "--key-id", third["key_id"])
    await allow_direct(settings)
    with existing.server(settings.nats_url, tmp_path, **environment) as url:

        def there(key: dict[str, Any]) -> int:
            try:
                return httpx2.get(f"{url}/runs/none", headers={"X-API-Key": key["api_key"]}, timeout=10).status_code
            except httpx2.TransportError:
                return 0

        await until(lambda: there(first) == 404)
        async with asking(settings, auth_pepper=settings_pepper("ours and theirs")) as here:

            async def status(key: dict[str, Any]) -> int:
                return (await here.http.get("/workers", headers=sent(key["api_key"]))).status_code

            keys = [first, second, third, other]
            assert [await status(key) for key in keys] == [200, 200, 403, 403]
            who = (await here.http.get("/whoami", headers=sent(first["api_key"]))).json()
            assert (who["tenant_id"], who["key_id"], who["role"]) == ("acme", first["key_id"], "member")
            deadline = time.monotonic() + _WAIT_SEC
            while await here.gateway.keys.store.seal(first["key_id"]) is None:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.02)

            # Both systems list them all, and neither stumbles over what the other keeps.
            made_here = await asyncio.to_thread(ours, "create", "--tenant", "acme")
            listed = await asyncio.to_thread(ours, "list")
            assert {key["key_id"] for key in listed} == {key["key_id"] for key in [*keys, made_here]}
            noted = {key["key_id"]: key.get("note") for key in listed}
            assert noted[first["key_id"]] == "made by the existing system" and noted[made_here["key_id"]] is None
            assert [key["created_at"] for key in listed] == sorted((k["created_at"] for k in listed), reverse=True)
            listed_there = await asyncio.to_thread(theirs, "list")
            assert {key["key_id"] for key in listed_there} == {key["key_id"] for key in keys}
            assert await asyncio.to_thread(there, first) == 404  # taken here, and there as before

            # Whoever revokes one revokes both.
            await asyncio.to_thread(theirs, "revoke", "--key-id", first["key_id"])
            await asyncio.to_thread(ours, "revoke", "--key-id", second["key_id"])
            revoked_at = time.monotonic()
            for key in (first, second):
                while await status(key) == 200:
                    assert time.monotonic() < revoked_at + _STOPS_SEC
                assert await until(lambda key=key: there(key) == 403)
            assert [key["revoked_at"] is None for key in await asyncio.to_thread(theirs, "list")].count(True) == 1
    assert ours("revoke", "--key-id", "0" * 24, code=2) == {"error": "not_found", "key_id": "0" * 24}


async def allow_direct(settings: Settings) -> None:
    """Do what an operator, or a gateway of ours, does to a bucket that the existing system made."""
    client = await nats.connect(settings.nats_url)
    js = client.jetstream()
    config = (await js.stream_info(f"KV_{settings.auth_kv_bucket}")).config
    config.allow_direct = True
    await js.update_stream(config)
    await client.close()
