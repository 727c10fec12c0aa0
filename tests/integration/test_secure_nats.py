"""The configuration that we give to users: what a worker's credential opens, tried by an attacker who has it."""

import asyncio
import contextlib
import io
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nats
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from pyoco_server.embedded.keyring import Keyring
from pyoco_server.embedded.nats_server import NatsServer
from pyoco_server.errors import RightMissing
from pyoco_server.model.access import Role
from pyoco_server.model.apikey import ApiKey, Pepper
from pyoco_server.model.audit import AuditAction, AuditEntry, AuditTarget
from pyoco_server.model.runlog import LiveLines, LogChunk, LogLine, LogStream
from pyoco_server.process.waiting import first_event
from pyoco_server.settings.environment import Settings
from pyoco_server.settings.nats_signer import NatsRole
from pyoco_server.store import topology
from pyoco_server.store.audit import AuditTrail
from pyoco_server.store.deadletters import DeadLetterStore
from pyoco_server.store.flows import FlowStore
from pyoco_server.store.keys import KeyStore
from pyoco_server.store.logs import LogStore
from pyoco_server.store.nats.connection import Connection
from pyoco_server.store.queue.job_queue import JobQueue
from pyoco_server.store.status.inventory import revisions
from pyoco_server.store.wheels import WheelStore
from pyoco_server.worker.embedding import PyocoNatsWorker
from tests.nats_with_users import SecuredNats

from .attacks import FOREIGN, OWN, SECRET, Attacker, tries

pytestmark = pytest.mark.anyio

PATIENCE = 10.0
"""Seconds within which a try must have succeeded where it can."""
SILENCE = 1.0
"""Seconds after all tries in which nothing may have come of them."""
KEYS = {"name": "KV_pyoco_auth", "subjects": ["$KV.pyoco_auth.>"], "allow_direct": True, "allow_rollup_hdrs": True,
        "max_msgs_per_subject": 1, "storage": "file", "num_replicas": 1}  # fmt: skip


def user(name: str) -> dict[str, str]:
    return {"user": name, "password": SecuredNats.PASSWORDS[name.upper()]}


@dataclass
class World:
    """A store with something in every stream, and those who may look at all of it."""

    url: str
    app: Client
    """May do everything where runs are."""
    keys: Client
    """May read and write keys."""
    gateway: Connection
    told: int = 0
    """How many cancels the workers have been told of."""

    async def digest(self) -> dict[str, Any]:
        """Give all streams' configuration, content and consumers, by which any change shows."""
        found: dict[str, Any] = {"told": self.told}
        names = json.loads((await self.app.request("$JS.API.STREAM.NAMES", b"", timeout=5)).data)["streams"] or []
        places = [(self.app, name) for name in names if name != KEYS["name"]] + [(self.keys, KEYS["name"])]
        for client, name in places:
            info = json.loads((await client.request(f"$JS.API.STREAM.INFO.{name}", b"", timeout=5)).data)
            if name in ("KV_pyoco_runs", "KV_pyoco_workers", "PYOCO_LOGS", "PYOCO_DLQ"):
                # A worker adds to these. But what is there may not go: of each the first message is somebody else's.
                kept = {name: info.get("state", {}).get(name) for name in ("first_seq", "consumer_count")}
                info = {"config": info.get("config"), **kept}
            else:
                info = {"config": info.get("config"), "state": info.get("state"), "error": info.get("error")}
            found[name] = info
        return found


def nkey(keyring: Keyring, role: NatsRole) -> dict[str, Any]:
    return {"nkeys_seed_str": keyring._pairs[role].seed.decode()}


@contextlib.asynccontextmanager
async def world(server: NatsServer, *, secured: bool, keyring: Keyring | None = None) -> AsyncIterator[World]:
    """Fill a server."""
    credential = {"nats_user": "gateway", "nats_password": SecuredNats.PASSWORDS["GATEWAY"]} if secured else {}
    settings = Settings(_env_file=None, nats_url=server.url, **credential)
    users = [user(name) if secured else {} for name in ("admin", "keys_admin")]
    if keyring:
        settings = settings.at(server.url, signer=keyring)
        users = [nkey(keyring, role) for role in (NatsRole.ADMIN, NatsRole.KEYS_ADMIN)]
    gateway = await Connection(settings, "gateway").start()
    app, keys = [await nats.connect(server.url, **credential) for credential in users]
    try:
        assert await gateway.wait_up(10)
        await topology.ensure(gateway)
        await JobQueue(gateway).make_consumers_for_others()
        await JobQueue(gateway).ensure_consumer("cpu")
        await keys.request("$JS.API.STREAM.CREATE.KV_pyoco_auth", json.dumps(KEYS).encode(), timeout=5)
        await keys.jetstream().publish("$KV.pyoco_auth.k1", SECRET)
        for subject in FOREIGN.values():
            if not subject.startswith(("$KV.pyoco_auth.", "$JS.")):
                await app.jetstream().publish(subject, SECRET)
        for subject in ("pyoco.dlq.cpu", "pyoco.logs.x"):
            await app.jetstream().publish(subject, SECRET)
        for bucket in ("runs", "workers"):
            await app.jetstream().publish(f"$KV.pyoco_{bucket}.others", b"somebody else's")
            await app.jetstream().publish(f"$KV.pyoco_{bucket}.{OWN}", b"the attacker's own words")
        place = World(server.url, app, keys, gateway)

        async def tell(_: Msg) -> None:
            place.told += 1

        await app.subscribe("pyoco.control.*", cb=tell)
        yield place
    finally:
        await gateway.close()
        await app.close()
        await keys.close()


async def life(place: World) -> None:
    """Do what an eavesdropper would like to hear."""
    await place.app.jetstream().publish("pyoco.work.cpu", SECRET)
    await place.app.jetstream().publish("pyoco.audit.x", SECRET)
    await place.keys.jetstream().publish("$KV.pyoco_auth.k2", SECRET)
    await place.app.jetstream().publish("$O.pyoco_wheels.C.nuid2", SECRET)
    # The answer to this one comes to the gateway's own inbox.
    await place.gateway.js.get_msg("PYOCO_WORK", 1)
    await place.gateway.js.get_msg("PYOCO_WORK", 1, direct=True)


@pytest.mark.slow
async def test_each_try_succeeds_where_everything_is_allowed(tmp_path: Path) -> None:
    """Or the next test would show nothing."""
    failed = []
    async with NatsServer(tmp_path, client_port=-1, http_port=-1) as server, world(server, secured=False) as place:
        for name, attempt in tries():
            attacker = await Attacker.connect(server.url)
            before = await place.digest()
            await attempt(attacker)
            if name.startswith("listen"):
                await life(place)
            deadline = time.monotonic() + PATIENCE
            while not attacker.has_read() and await place.digest() == before:
                if time.monotonic() > deadline:
                    failed.append(name)
                    break
            await attacker.client.close()
    assert not failed, "\n".join(failed)


@pytest.mark.parametrize("embedded", [False, pytest.param(True, marks=pytest.mark.slow)])
async def test_no_try_succeeds_with_a_workers_credential(tmp_path: Path, embedded: bool) -> None:
    """Neither on the configuration that we give to users, nor on the server of ``up --with-nats``."""
    keyring = Keyring() if embedded else None
    server = NatsServer(tmp_path, client_port=-1, http_port=-1, keyring=keyring) if embedded else SecuredNats(tmp_path)
    async with server, world(server, secured=True, keyring=keyring) as place:
        before = await place.digest()
        credential = nkey(keyring, NatsRole.WORKER) if keyring else user("worker")
        attacker = await Attacker.connect(server.url, **credential)
        succeeded = []
        for name, attempt in tries():
            await attempt(attacker)
            if attacker.has_read() or await place.digest() != before:
                succeeded.append(name)
                attacker.heard.clear()
                before = await place.digest()
        assert not succeeded, "\n".join(succeeded)
        # What NATS does a little later is seen too.
        deadline = time.monotonic() + SILENCE
        while time.monotonic() < deadline:
            assert await place.digest() == before
        await life(place)
        deadline = time.monotonic() + SILENCE
        while time.monotonic() < deadline:
            assert not attacker.has_read()
            await first_event(0.01, asyncio.Event())
        # It was let in, and may do what a worker does.
        stored = await attacker.client.jetstream().publish(f"$KV.pyoco_runs.{OWN}", b"again")
        assert stored.stream == "KV_pyoco_runs"
        await attacker.client.close()


async def test_nobody_asks_in_the_name_of_another_account(tmp_path: Path) -> None:
    forged = {"Nats-Request-Info": json.dumps({"acc": "KEYS", "svc": "KEYS", "user": "keys"})}
    async with SecuredNats(tmp_path) as server, world(server, secured=True):
        attacker = await Attacker.connect(server.url, **user("worker"))
        answer = await attacker.client.request("$JS.API.STREAM.INFO.KV_pyoco_runs", b"", timeout=5, headers=forged)
        # Of the account where it may ask: there is no such stream among the keys.
        assert json.loads(answer.data)["config"]["name"] == "KV_pyoco_runs"
        await attacker.client.close()


async def test_a_worker_waits_for_a_gateway_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pyoco_server.worker.worker._NEEDS_WORDS", 0.0)
    async with SecuredNats(tmp_path / "nats") as server:
        settings, gateway = (
            Settings(
                _env_file=None,
                nats_url=server.url,
                state_dir=tmp_path / name,
                nats_user=name,
                nats_password=SecuredNats.PASSWORDS[name.upper()],
            )
            for name in ("worker", "gateway")
        )
        starting = asyncio.create_task(PyocoNatsWorker.connect(config=settings, tags=["cpu"]))
        said = ""
        while "PYOCO_WORK is missing, and our user may not make it" not in said:
            await first_event(0.05, asyncio.Event())
            said += capsys.readouterr().out
            assert not starting.done()
        connection = await Connection(gateway, "test").start()
        assert await connection.wait_up(10)
        await topology.ensure(connection)
        while "'cpu' has no consumer yet, our user may not make it, and no gateway answers" not in said:
            await first_event(0.05, asyncio.Event())
            said += capsys.readouterr().out
            assert not starting.done()
        await JobQueue(connection).make_consumers_for_others()
        worker = await asyncio.wait_for(starting, 10)
        await worker.close()
        await connection.close()


async def test_what_a_worker_shows_of_a_log_is_heard_by_gateways_and_stored_nowhere(tmp_path: Path) -> None:
    async with SecuredNats(tmp_path) as server, world(server, secured=True) as place:
        credential = {"nats_user": "worker", "nats_password": SecuredNats.PASSWORDS["WORKER"]}
        worker = await Connection(Settings(_env_file=None, nats_url=server.url, **credential), "worker").start()
        assert await worker.wait_up(10)
        logs = LogStore(place.gateway)
        end, stored, shown = await logs.end(), asyncio.Event(), asyncio.Queue[LogChunk]()
        async with logs.listen("x", stored.set, shown.put_nowait):
            chunk = LogChunk(1, 0, [], LiveLines(1.0, [LogLine(1.0, "t", LogStream.STDERR, "step 1")]))
            deadline = time.monotonic() + 10
            while shown.empty():  # what is shown before NATS has the subscription is lost
                assert time.monotonic() < deadline
                await LogStore(worker).show("x", chunk)
                await first_event(0.05, stored)
            assert shown.get_nowait() == chunk
            assert await logs.end() == end and not stored.is_set()
            await LogStore(worker).publish("x", chunk, "x.1")
            await asyncio.wait_for(stored.wait(), 10)
        assert worker._denied is None
        await worker.close()


async def test_a_gateway_may_do_what_it_does_seldom(tmp_path: Path) -> None:
    async with SecuredNats(tmp_path) as server, world(server, secured=True) as place:
        gateway = place.gateway
        flows, logs, wheels, trail = (
            kind(gateway) for kind in (FlowStore, LogStore, WheelStore, AuditTrail)
        )  # fmt: skip
        await flows.put(b"text", "f2")
        assert await flows.remove("f2", 1000)
        assert await logs.remove("x", through=1000) == 1
        for bucket in ("pyoco_runs", "pyoco_flows"):
            assert len(await revisions(gateway, bucket)) > 0
        await trail.store(AuditEntry(action=next(iter(AuditAction)), target=AuditTarget(kind="run")))
        assert len((await trail.list(limit=9))[0]) == 1
        wheel = "secure_lib-1-py3-none-any.whl"
        await wheels.put(wheel, io.BytesIO(b"bytes"))
        await wheels.pin(wheel)
        await wheels.remove(wheel)
        await wheels.sweep()
        assert await DeadLetterStore(gateway).remove(1)
        assert await JobQueue(gateway).remove(1)
        assert gateway._denied is None


async def test_a_gateway_looks_keys_up_and_makes_none(tmp_path: Path) -> None:
    async with SecuredNats(tmp_path) as server, world(server, secured=True):
        stores = []
        for name in ("keys_admin", "keys"):
            access = {"auth_nats_user": name, "auth_nats_password": SecuredNats.PASSWORDS[name.upper()]}
            settings = Settings(_env_file=None, nats_url=server.url, **access)
            connection = await Connection(settings, name, target=settings.keys_target()).start()
            assert await connection.wait_up(10)
            stores.append((connection, KeyStore(connection)))
        (admin, makes), (gateway, looks) = stores
        record = Pepper(None).seal(ApiKey.new(), tenant_id="demo", role=Role.MEMBER, created_at=1, expires_at=None)
        await makes.create(record)
        assert [found.key_id for found in await makes.list()] == [record.key_id]
        assert await looks.get(record.key_id) is not None
        assert admin._denied is None and gateway._denied is None
        with pytest.raises(RightMissing):
            await gateway.if_allowed("$KV.pyoco_auth.x", gateway.js.publish("$KV.pyoco_auth.x", b"forged"))
        for connection, _ in stores:
            await connection.close()


@pytest.mark.parametrize("credential", ["none", "a password", "another key", "another nonce's signature"])
async def test_nobody_is_let_into_the_embedded_server_without_its_keys(tmp_path: Path, credential: str) -> None:
    keyring = Keyring()
    pair = Keyring()._pairs[NatsRole.ADMIN]
    public = keyring.users[NatsRole.ADMIN]
    tried: dict[str, Any] = {
        "none": {},
        "a password": {"user": public, "password": public},
        "another key": {"nkeys_seed_str": pair.seed.decode()},
        "another nonce's signature": {"nkeys_seed_str": pair.seed.decode()},
    }[credential]
    async with NatsServer(tmp_path, client_port=-1, http_port=-1, keyring=keyring) as server:
        client = Client()
        if credential.startswith("another nonce"):
            stale = keyring.sign(NatsRole.ADMIN, "an old nonce", "", 0).signature
            client._setup_nkeys_connect = lambda: None  # type: ignore[method-assign]
            client._public_nkey = public
            tried = {"nkeys_seed_str": "x", "signature_cb": lambda _: stale.encode()}
        with pytest.raises(nats.errors.Error, match=r"(?i)authorization"):
            await client.connect(server.url, allow_reconnect=False, **tried)
        config = (tmp_path / "nats-server.conf").read_text()
        assert public in config and keyring._pairs[NatsRole.ADMIN].seed.decode() not in config
