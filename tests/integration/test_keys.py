"""API keys: their store, and the gateway that asks for them."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

import pytest
from structlog.testing import capture_logs

from pyoco_server.errors import KeyNotFound, RevisionConflict, StoreUnavailable
from pyoco_server.model.access import Role
from pyoco_server.model.apikey import ApiKey, Pepper
from pyoco_server.settings.environment import Settings
from pyoco_server.store.keys import KeyStore
from pyoco_server.store.nats.connection import Connection

from .keyholders import asking, guarded, make_key, sent
from .test_gateway import DEADLINE, Running, events, running, until
from .test_gateway_away import Nats, nats

pytestmark = pytest.mark.anyio

__all__ = ["nats"]


@pytest.fixture
async def keys(settings: Settings) -> AsyncIterator[KeyStore]:
    connection = await Connection(settings, "test").start()
    assert await connection.wait_up(10)
    store = KeyStore(connection)
    await store.ensure()
    yield store
    await connection.close()


@pytest.fixture
async def here(settings: Settings) -> AsyncIterator[Running]:
    async with asking(settings) as server:
        yield server


async def test_the_store(keys: KeyStore) -> None:
    assert await keys.list() == []
    key = await make_key(keys)
    stored = await keys.get(key.key_id)
    assert stored is not None and stored.record is not None
    with pytest.raises(RevisionConflict):
        await keys.create(stored.record)
    newest = await make_key(keys, Role.VIEWER)
    assert [record.key_id for record in await keys.list()] == [newest.key_id, key.key_id]
    for unknown in ("0" * 24, "no id", "x.>"):
        assert await keys.get(unknown) is None
        with pytest.raises(KeyNotFound):
            await keys.revoke(unknown, 1.0)


async def test_revoking_at_once_is_one_revocation(keys: KeyStore) -> None:
    key = await make_key(keys)
    revoked = await asyncio.gather(*(keys.revoke(key.key_id, float(now)) for now in range(1, 9)))
    assert len({record.revoked_at for record in revoked}) == 1
    assert await keys.revoke(key.key_id, 99.0) == revoked[0]
    assert [record.revoked_at for record in await keys.list()] == [revoked[0].revoked_at]


async def test_what_others_have_written_there(keys: KeyStore) -> None:
    key = await make_key(keys)
    for name, value in {"1" * 24: b"{", "2" * 24: b"[]", "3" * 24: b'{"key_id": "other", "tenant_id": "t"}'}.items():
        await keys._bucket.put(name, value)
    assert [record.key_id for record in await keys.list()] == [key.key_id]
    with pytest.raises(KeyNotFound):
        await keys.revoke("1" * 24, 1.0)


async def test_a_run_carries_who_made_and_who_cancelled_it(here: Running) -> None:
    key, other = await make_key(here.gateway.keys.store), await make_key(here.gateway.keys.store)
    body = {"flow_name": "f", "tag": "nobody"}
    made = (await here.http.post("/runs", json=body, headers=sent(key))).json()
    run = (await here.http.get(f"/runs/{made['run_id']}", headers=sent(key))).json()
    assert (run["tenant_id"], run["api_key_id"]) == ("demo", key.key_id)
    cancelled = (await here.http.post(f"/runs/{made['run_id']}/cancel", headers=sent(other))).json()
    assert cancelled["cancel_requested_by"] == f"api_key:{other.key_id}"
    again = (await here.http.post(f"/runs/{made['run_id']}/rerun", headers=sent(other))).json()
    run = (await here.http.get(f"/runs/{again['run_id']}", headers=sent(key))).json()
    assert (run["tenant_id"], run["api_key_id"]) == ("demo", other.key_id)


async def test_idempotency_keys_of_two_tenants_do_not_meet(here: Running) -> None:
    ours, theirs = await make_key(here.gateway.keys.store), await make_key(here.gateway.keys.store, tenant="other")
    body = {"flow_name": "f", "tag": "nobody", "idempotency_key": "k"}
    made = [(await here.http.post("/runs", json=body, headers=sent(key))).json() for key in (ours, theirs, ours)]
    assert [answer["created"] for answer in made] == [True, True, False]
    assert made[0]["run_id"] == made[2]["run_id"] != made[1]["run_id"]


async def test_a_revoked_key_stops_at_once(here: Running) -> None:
    key = await make_key(here.gateway.keys.store)
    assert (await here.http.get("/runs", headers=sent(key))).status_code == 200
    await here.gateway.keys.store.revoke(key.key_id, time.time())
    deadline = time.monotonic() + DEADLINE
    while (answer := await here.http.get("/runs", headers=sent(key))).status_code == 200:
        assert time.monotonic() < deadline
    assert (answer.status_code, answer.json()["detail"]) == (403, "invalid api key")


async def test_a_revoked_key_stops_though_the_word_of_it_is_lost(here: Running) -> None:
    key = await make_key(here.gateway.keys.store)
    here.gateway.keys.feed._on_changes = lambda _: None
    assert (await here.http.get("/runs", headers=sent(key))).status_code == 200
    revoked_at = time.monotonic()
    await here.gateway.keys.store.revoke(key.key_id, time.time())
    while (await here.http.get("/runs", headers=sent(key))).status_code == 200:
        assert time.monotonic() < revoked_at + 5.0  # the promise, whatever the machine's load
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("path", ["/runs/{}/watch", "/runs/{}/logs?follow=true", "/events"])
async def test_an_open_stream_ends_when_its_key_does(here: Running, path: str) -> None:
    key = await make_key(here.gateway.keys.store)
    made = await here.http.post("/runs", json={"flow_name": "f", "tag": "nobody"}, headers=sent(key))
    async with here.http.stream("GET", path.format(made.json()["run_id"]), headers=sent(key)) as answer:
        seen = events(answer)
        await seen.__anext__()
        await here.gateway.keys.store.revoke(key.key_id, time.time())
        revoked_at = time.monotonic()
        async for _ in seen:
            assert time.monotonic() < revoked_at + DEADLINE


async def test_a_key_that_is_revoked_while_the_body_comes(here: Running) -> None:
    key = await make_key(here.gateway.keys.store)
    admitted, revoked = asyncio.Event(), asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield b'{"flow_name": "f",'
        admitted.set()
        await revoked.wait()
        yield b'"tag": "nobody"}'

    headers = {**sent(key), "content-type": "application/json"}
    asked = asyncio.create_task(here.http.post("/runs", content=body(), headers=headers))
    await asyncio.wait_for(admitted.wait(), DEADLINE)
    ring = here.gateway.auth._ring
    await until(lambda: ring.knows(key.key_id))  # the guard has let it pass
    record = await here.gateway.keys.store.revoke(key.key_id, time.time())
    await until(lambda: record in ring.records())
    revoked.set()
    answer = await asked
    assert (answer.status_code, answer.json()["code"]) == (403, "invalid_api_key")
    other = await make_key(here.gateway.keys.store)
    assert (await here.http.get("/runs", headers=sent(other))).json() == []


async def test_without_a_key_no_byte_of_the_body_is_asked_for(here: Running) -> None:
    host, port = here.http.base_url.host, here.http.base_url.port
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(
            b"POST /wheels HTTP/1.1\r\nHost: x\r\nContent-Length: 400000000\r\nExpect: 100-continue\r\n"
            b"Content-Type: multipart/form-data; boundary=b\r\n\r\n"
        )
        status = await asyncio.wait_for(reader.readline(), DEADLINE)
        assert status == b"HTTP/1.1 401 Unauthorized\r\n"
    finally:
        writer.close()


@pytest.mark.parametrize("headers", [{}, {"X-API-Key": ""}])
async def test_no_key(here: Running, headers: dict[str, str]) -> None:
    for path in ("/runs", "/nowhere", "/openapi.json", "/runs/", "/static"):
        answer = await here.http.get(path, headers=headers)
        assert (answer.status_code, answer.json()["detail"]) == (401, "api key required"), path
        assert answer.headers["www-authenticate"]
        assert "X-API-Key" in answer.json()["hint"]
    assert (await here.http.post("/runs", content=b"{", headers=headers)).status_code == 401


async def test_public_paths(here: Running) -> None:
    for path in ("/health", "/ready", "/", "/static/app.js"):
        for headers in ({}, sent("nonsense")):
            assert (await here.http.get(path, headers=headers)).status_code == 200, path
    assert (await here.http.get("/static/..%2fopenapi.json")).status_code == 404
    assert (await here.http.get("/docs", headers=sent(await make_key(here.gateway.keys.store)))).status_code == 404


async def test_ready_tells_a_stranger_little(here: Running) -> None:
    key = await make_key(here.gateway.keys.store)
    full = (await here.http.get("/ready", headers=sent(key))).json()
    assert full["streams"] and full["nats"]["url"]
    for headers in ({}, sent("nonsense")):
        short = (await here.http.get("/ready", headers=headers)).json()
        assert set(short) == {"status", "problems", "nats", "index", "durability"}
        assert short["nats"] == {"connected": True}


async def test_two_keys_in_one_request_are_none(here: Running) -> None:
    key = await make_key(here.gateway.keys.store)
    both = [("X-API-Key", key.reveal()), ("X-API-Key", ApiKey.new().reveal())]
    answer = await here.http.get("/runs", headers=both)
    assert (answer.status_code, answer.json()["code"]) == (401, "header_repeated")
    twice = [("X-API-Key", key.reveal())] * 2
    assert (await here.http.get("/runs", headers=twice)).status_code == 200


async def test_the_header_has_the_name_of_the_settings(settings: Settings) -> None:
    async with asking(settings, http_api_key_header="X-Pyoco") as here:
        key = await make_key(here.gateway.keys.store)
        assert (await here.http.get("/runs", headers={"x-pyoco": key.reveal()})).status_code == 200
        refused = await here.http.get("/runs", headers=sent(key))
        assert refused.status_code == 401 and "X-Pyoco" in refused.json()["hint"]


async def test_another_pepper_is_told_at_the_start_and_refused(settings: Settings, keys: KeyStore) -> None:
    old = await make_key(keys, pepper="old")
    await make_key(keys, pepper="new")
    with capture_logs() as lines:
        async with asking(settings, auth_pepper=settings_pepper("new")) as here:
            await until(lambda: any("PYOCO_AUTH_PEPPER" in line["event"] for line in lines))
            assert (await here.http.get("/runs", headers=sent(old))).status_code == 403
    told = next(line for line in lines if "PYOCO_AUTH_PEPPER" in line["event"])
    assert (told["keys"], told["of"]) == (1, 2)
    refused = next(line for line in lines if line["event"] == "an api key was refused")
    assert (refused["reason"], refused["key_id"]) == ("other_pepper", old.key_id)
    assert old.secret not in str(lines)


def settings_pepper(text: str) -> object:
    from pydantic import SecretStr

    return SecretStr(text)


async def test_bad_keys_are_held_up_and_good_ones_are_not(here: Running) -> None:
    key = await make_key(here.gateway.keys.store)
    await until(lambda: here.gateway.auth._ring.knows(key.key_id))
    wrong = ApiKey(key.key_id, ApiKey.new().secret)
    codes = []
    for bad in ["nonsense", ApiKey.new(), wrong] * 9:
        answer = await here.http.get("/runs", headers=sent(bad))
        codes.append(answer.status_code)
    assert codes[:20] == [403] * 20 and codes[-1] == 429
    assert answer.json()["code"] == "too_many_failed_keys" and 1 <= int(answer.headers["retry-after"]) <= 3
    assert (await here.http.get("/runs", headers=sent(key))).status_code == 200
    assert (await here.http.get("/runs")).status_code == 401
    assert (await here.http.get("/ready", headers=sent(wrong))).status_code == 200


async def test_what_a_proxy_says_is_no_address(here: Running) -> None:
    for number in range(22):
        headers = {**sent("nonsense"), "x-forwarded-for": f"192.0.2.{number}"}
        answer = await here.http.get("/runs", headers=headers)
    assert answer.status_code == 429


async def test_with_nats_away_nobody_can_tell(nats: Nats, settings: Settings) -> None:
    await nats.start()
    async with asking(settings, nats_url=nats.url) as here:
        key = await make_key(here.gateway.keys.store)
        made = await here.http.post("/runs", json={"flow_name": "f", "tag": "nobody"}, headers=sent(key))
        run_id = made.json()["run_id"]
        async with here.http.stream("GET", f"/runs/{run_id}/watch", headers=sent(key)) as answer:
            seen = events(answer)
            assert (await seen.__anext__())["event"] == "snapshot"
            await nats.stop()
            await until(lambda: not here.gateway.connection.is_up)
            # Known a moment ago: metrics tell that NATS is away, for as long as the key may be believed in.
            assert "pyoco_nats_up 0.0" in (await here.http.get("/metrics", headers=sent(key))).text
            while "pyoco_runs" in (metrics := await here.http.get("/metrics", headers=sent(key))).text:
                await asyncio.sleep(0.05)
            # Then any key may be good: what /ready tells everybody, for an alert to see, and nothing else.
            strange = await here.http.get("/metrics", headers=sent(ApiKey.new()))
            for answer_ in (metrics, strange):
                told = [line for line in answer_.text.splitlines() if not line.startswith("#")]
                assert (answer_.status_code, told) == (200, ["pyoco_nats_up 0.0"])
            assert (await here.http.get("/metrics", headers=sent("nonsense"))).status_code == 403
            assert (await here.http.get("/metrics")).status_code == 401
            assert (await here.http.get("/whoami", headers=sent(key))).json()["code"] == "nats_unavailable"
            assert (await here.http.get("/runs", headers=sent(ApiKey.new()))).status_code == 503
            assert (await here.http.get("/runs", headers=sent("nonsense"))).status_code == 403
            assert (await here.http.get("/health")).status_code == 200
            assert (await here.http.get("/ready", headers=sent(key))).status_code == 503
            assert (await seen.__anext__())["event"] == "heartbeat"
            await nats.start()
            await until(lambda: here.gateway.connection.is_up)
            while (await here.http.get(f"/runs/{run_id}", headers=sent(key))).status_code != 200:
                await asyncio.sleep(0.05)
            assert "pyoco_runs" in (await here.http.get("/metrics", headers=sent(key))).text
            assert (await here.http.get("/metrics", headers=sent(ApiKey.new()))).status_code == 403
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(seen.__anext__(), DEADLINE)


async def test_a_pepper_of_the_store_is_not_in_it(keys: KeyStore) -> None:
    key = await make_key(keys, pepper="very secret")
    entry = await keys._bucket.get(key.key_id)
    assert entry is not None and b"very secret" not in entry.value
    assert Pepper("very secret").id in entry.value.decode()


async def test_requests_of_one_moment_share_one_reading(here: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    key = await make_key(here.gateway.keys.store)
    read, reads = here.gateway.keys.store.get, []

    async def counted(key_id: str):  # type: ignore[no-untyped-def]
        reads.append(key_id)
        return await read(key_id)

    monkeypatch.setattr(here.gateway.keys.store, "get", counted)
    here.gateway.auth._ring.clear()
    answers = await asyncio.gather(*(here.http.get("/runs", headers=sent(key)) for _ in range(20)))
    assert {answer.status_code for answer in answers} == {200}
    assert len(reads) == 1


async def test_keys_behind_a_connection_of_their_own(settings: Settings, nats: Nats) -> None:
    async with running(guarded(settings, auth_nats_url=nats.url)) as here:
        assert (await here.http.get("/runs", headers=sent(ApiKey.new()))).status_code == 503
        ready = await here.http.get("/ready")
        assert (ready.status_code, ready.json()["status"]) == (503, "not ready")
        assert ready.json()["problems"] and nats.url not in ready.text
        assert "API keys" in str(here.gateway.keys.problem) and nats.url in str(here.gateway.keys.problem)
        await nats.start()
        await until(here.gateway.keys.feed.caught_up.is_set)
        key = await make_key(here.gateway.keys.store)
        assert (await here.http.get("/runs", headers=sent(key))).status_code == 200
        assert here.gateway.keys.problem is None
        with pytest.raises(StoreUnavailable):  # where workers are, there are no keys
            await KeyStore(here.gateway.connection).list()
