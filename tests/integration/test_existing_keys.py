"""Keys that the existing system made, at our gateway: checked once, known by their seals, revoked in one place."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from pyoco_server.embedded.keyring import Keyring
from pyoco_server.embedded.nats_server import NatsServer
from pyoco_server.errors import KeyNotFound
from pyoco_server.gateway.access import existing_keys
from pyoco_server.model.access import Role
from pyoco_server.model.apikey import ApiKey, Pepper
from pyoco_server.model.existing.api_key import ExistingKey, Seal, SlowHash
from pyoco_server.settings.environment import Settings
from pyoco_server.settings.nats_signer import NatsRole
from pyoco_server.store.keys import KeyStore
from pyoco_server.store.nats.connection import Connection
from tests.nats_with_users import SecuredNats

from .existing_keyholders import made_there, make_there
from .keyholders import asking, guarded, make_key, sent
from .test_gateway import Running, running, until
from .test_keys import settings_pepper

pytestmark = pytest.mark.anyio


@pytest.fixture
async def here(settings: Settings) -> AsyncIterator[Running]:
    async with asking(settings) as server:
        yield server


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What the slow hash was made of, each time."""
    made: list[bytes] = []
    of = SlowHash.of

    def counted(self: SlowHash, password: bytes) -> bytes:
        made.append(password)
        return of(self, password)

    monkeypatch.setattr(SlowHash, "of", counted)
    return made


async def status(here: Running, key: ApiKey) -> int:
    answer = await here.http.get("/runs", headers=sent(key))
    if answer.status_code == 403:
        assert answer.json()["detail"] == "invalid api key"
    return int(answer.status_code)


def store(here: Running) -> KeyStore:
    return here.gateway.keys.store


async def sealed(here: Running, key: ApiKey) -> Seal:
    found: list[Seal] = []

    async def look() -> bool:
        seal = await store(here).seal(key.key_id)
        found.extend([seal] if seal else [])
        return bool(found)

    deadline = time.monotonic() + 10
    while not await look():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
    return found[0]


async def test_it_is_checked_once_and_known_from_then_on(settings: Settings, here: Running, slow: list[bytes]) -> None:
    key = await make_there(store(here))
    answers = await asyncio.gather(*(status(here, key) for _ in range(9)))
    assert answers == [200] * 9 and len(slow) == 1
    who = (await here.http.get("/whoami", headers=sent(key))).json()
    assert (who["tenant_id"], who["key_id"], who["role"]) == ("demo", key.key_id, "member")
    seal = await sealed(here, key)
    assert key.secret not in seal.to_json().decode() and seal.role == "member"
    assert await status(here, ApiKey(key.key_id, ApiKey.new().secret)) == 403 and len(slow) == 1
    async with asking(settings) as other:  # another gateway, or this one after a restart
        assert await status(other, key) == 200
    assert len(slow) == 1


@pytest.mark.slow
async def test_two_gateways_at_once(settings: Settings, here: Running, slow: list[bytes]) -> None:
    key = await make_there(store(here))
    async with asking(settings) as other:
        assert await asyncio.gather(status(here, key), status(other, key)) == [200, 200]
        assert (await sealed(here, key)) == (await sealed(other, key))
    assert len(slow) <= 2


@pytest.mark.slow
async def test_a_gateway_that_died_before_the_seal_was_stored(
    settings: Settings, here: Running, slow: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nothing(*_: object) -> None: ...

    monkeypatch.setattr(existing_keys.ExistingKeys, "_keep", nothing)
    key = await make_there(store(here))
    assert [await status(here, key) for _ in range(3)] == [200] * 3
    async with asking(settings) as other:
        assert await status(other, key) == 200
    assert len(slow) == 2


@pytest.mark.parametrize("known", [False, True], ids=["before its use", "after its use"])
async def test_our_revoking(here: Running, known: bool) -> None:
    key = await make_there(store(here))
    if known:
        assert await status(here, key) == 200
        await sealed(here, key)
    first = await store(here).revoke(key.key_id, 5.0)
    assert (await store(here).revoke(key.key_id, 6.0)).revoked_at == first.revoked_at == 5.0
    await until_refused(here, key)
    assert await store(here).seal(key.key_id) is None
    kept = await store(here)._bucket.get(f"api_keys.{key.key_id}")
    assert kept is not None and json.loads(kept.value)["hash_b64"] == "" and json.loads(kept.value)["revoked_at"] == 5.0


async def test_their_revoking(here: Running) -> None:
    key = await make_there(store(here))
    assert await status(here, key) == 200
    await sealed(here, key)
    kept = await store(here)._bucket.get(f"api_keys.{key.key_id}")
    assert kept is not None
    there = json.dumps({**json.loads(kept.value), "revoked_at": time.time()}).encode()
    await store(here)._bucket.put(f"api_keys.{key.key_id}", there)  # as its command does
    await until_refused(here, key)
    assert [record.revoked_at is not None for record in await store(here).list()] == [True]


async def test_a_key_that_was_taken_out(here: Running) -> None:
    key = await make_there(store(here))
    assert await status(here, key) == 200
    await sealed(here, key)
    kept = await store(here)._bucket.get(f"api_keys.{key.key_id}")
    assert kept is not None
    await store(here)._bucket.purge(f"api_keys.{key.key_id}", kept.revision)
    await until_refused(here, key)
    with pytest.raises(KeyNotFound):
        await store(here).revoke(key.key_id, 1.0)


async def until_refused(here: Running, key: ApiKey) -> None:
    deadline = time.monotonic() + 5.0
    while await status(here, key) == 200:
        assert time.monotonic() < deadline  # the promise, whatever the machine's load
        await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    ("made_with", "asked_with"),
    [("", "b"), pytest.param("a", "b", marks=pytest.mark.slow), pytest.param("a", "", marks=pytest.mark.slow)],
)
async def test_another_pepper(settings: Settings, made_with: str, asked_with: str) -> None:
    pepper = settings_pepper(asked_with) if asked_with else None
    with capture_logs() as lines:
        async with asking(settings, auth_pepper=pepper) as here:
            key = await make_there(store(here), made_with)
            assert await status(here, key) == 403
            good = await make_there(store(here), asked_with)
            assert await status(here, good) == 200
            findings = await operators_doctor(here, asked_with)
    told = next(line for line in lines if line["event"] == "an api key was refused")
    assert (told["reason"], told["key_id"]) == ("existing_system_wrong", key.key_id)
    assert "made by the existing system" in told["why"] and "PYOCO_AUTH_PEPPER" in told["why"]
    assert findings["existing_keys_refused"]["details"]["keys"] == [key.key_id]
    assert key.secret not in str(lines)


async def operators_doctor(here: Running, pepper: str = "") -> dict[str, Any]:
    operator = await make_key(store(here), Role.OPERATOR, pepper=pepper or None)
    told = (await here.http.get("/doctor", headers=sent(operator))).json()
    return {finding["code"]: finding for finding in told["findings"]}


async def test_what_cannot_be_checked_is_told(settings: Settings, slow: list[bytes]) -> None:
    connection = await Connection(settings, "test").start()
    assert await connection.wait_up(10)
    keys = KeyStore(connection)
    await keys.ensure()
    key = await make_there(keys, kdf="argon2id")
    with capture_logs() as lines:
        async with asking(settings) as here:
            await until(lambda: any(line["event"] == "an api key cannot be used" for line in lines))
            assert await status(here, key) == 403
            assert (await operators_doctor(here))["existing_keys_unusable"]["details"]["keys"] == [key.key_id]
    told = next(line for line in lines if line["event"] == "an api key cannot be used")
    assert told["reason"].startswith("made by the existing system: ") and "argon2id" in told["reason"]
    assert slow == []
    await connection.close()


async def test_wrong_secrets_of_a_key_are_braked_and_those_of_others_are_not(here: Running, slow: list[bytes]) -> None:
    key, other = await make_there(store(here)), await make_there(store(here))
    codes = [await status(here, ApiKey(key.key_id, ApiKey.new().secret)) for _ in range(16)]
    assert codes[:10] == [403] * 10 and codes[-1] == 429 and len(slow) == 10
    answer = await here.http.get("/runs", headers=sent(ApiKey(key.key_id, ApiKey.new().secret)))
    assert answer.status_code == 429 and "this api key" in answer.json()["detail"]
    assert await status(here, other) == 200
    for _ in range(20):  # and those of strangers hold up nobody
        await status(here, ApiKey.new())
    late = await make_there(store(here))
    await until(lambda: here.gateway.auth._ring.knows(late.key_id))
    assert await status(here, late) == 200


async def test_a_key_of_ours_is_not_changed_under_the_other_name(here: Running) -> None:
    key = await make_key(store(here), Role.ADMIN)
    assert await status(here, key) == 200
    await store(here)._bucket.put(f"api_keys.{key.key_id}", made_there(key, tenant_id="other"))
    seen = here.gateway.keys.feed
    last = await make_key(store(here))
    await until(lambda: here.gateway.auth._ring.knows(last.key_id) and seen.caught_up.is_set())
    who = (await here.http.get("/whoami", headers=sent(key))).json()
    assert (who["tenant_id"], who["role"]) == ("demo", "admin")
    here.gateway.auth._ring.clear()  # nor where the other one is heard of first
    await store(here)._bucket.put(f"api_keys.{key.key_id}", made_there(key, tenant_id="other"))
    await until(lambda: here.gateway.auth._ring.knows(key.key_id))
    who = (await here.http.get("/whoami", headers=sent(key))).json()
    assert (who["tenant_id"], who["role"]) == ("demo", "admin")
    assert sorted(type(record).__name__ for record in await store(here).list()) == ["ApiKeyRecord"] * 2


async def test_a_seal_is_nothing_without_its_record(here: Running, slow: list[bytes]) -> None:
    key = ApiKey.new()
    record = ExistingKey.from_json(made_there(key))
    made = Pepper(None).seal(key, tenant_id="demo", role=Role.OPERATOR, created_at=1.0, expires_at=None)
    await store(here).store_seal(Seal(**made.model_dump(), seal_of=record.print()))
    assert await status(here, key) == 403
    # Of another record of this key: the hash decides, and the record's tenant.
    await store(here)._bucket.put(f"api_keys.{key.key_id}", made_there(key, tenant_id="other"))
    deadline = time.monotonic() + 10
    while await status(here, key) != 200:
        assert time.monotonic() < deadline
    assert len(slow) == 1
    who = (await here.http.get("/whoami", headers=sent(key))).json()
    assert (who["tenant_id"], who["role"]) == ("other", "member")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["keys", "embedded", "without the right"])
async def test_where_nats_has_users(tmp_path: Path, name: str, slow: list[bytes]) -> None:
    keyring = Keyring() if name == "embedded" else None
    embedded = NatsServer(tmp_path, client_port=-1, http_port=-1, keyring=keyring) if keyring else None
    async with embedded or Secured(tmp_path, seals=name == "keys") as nats:
        settings = settings_of(nats.url, tmp_path, keyring, "keys")
        admin = settings_of(nats.url, tmp_path, keyring, "keys_admin")
        connection = await Connection(admin, "admin", target=admin.keys_target(NatsRole.KEYS_ADMIN)).start()
        assert await connection.wait_up(10)
        keys = KeyStore(connection)
        await keys.ensure()
        key = await make_there(keys)
        with capture_logs() as lines:
            async with running(settings) as here:
                await until(here.gateway.keys.feed.caught_up.is_set)
                assert [await status(here, key) for _ in range(3)] == [200] * 3
                if name == "without the right":
                    await until(lambda: any("checked anew" in line["event"] for line in lines))
                else:
                    assert (await sealed(here, key)).key_id == key.key_id
                assert [await status(here, key) for _ in range(3)] == [200] * 3
        assert len(slow) == 1
        assert not [line for line in lines if line["log_level"] == "error"]
        await connection.close()


def settings_of(url: str, folder: Path, keyring: Keyring | None, user: str) -> Settings:
    if keyring:
        return guarded(Settings(_env_file=None, state_dir=folder)).at(url, signer=keyring)
    passwords = SecuredNats.PASSWORDS
    access = {
        "nats_user": "gateway", "nats_password": passwords["GATEWAY"],
        "auth_nats_user": user, "auth_nats_password": passwords[user.upper()],
    }  # fmt: skip
    return guarded(Settings(_env_file=None, nats_url=url, state_dir=folder, **access))


class Secured(SecuredNats):
    """The configuration that we tell users to take, or the one of before: without the right to store seals."""

    def __init__(self, folder: Path, *, seals: bool) -> None:
        super().__init__(folder)
        if not seals:
            older = folder / "older.conf"
            folder.mkdir(exist_ok=True)
            older.write_text(SecuredNats.CONFIG.read_text().replace('"$KV.pyoco_auth.sealed.*"', ""))
            self.CONFIG = older  # type: ignore[misc]
