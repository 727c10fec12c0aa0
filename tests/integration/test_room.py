"""A store that is nearly full: submissions are refused before anything is damaged, and taken again by themselves."""

import asyncio
import contextlib
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from nats.js import api

from pyoco_server.embedded.nats_server import NatsServer
from pyoco_server.embedded.system import System
from pyoco_server.errors import StoreFull
from pyoco_server.gateway.maintenance import retention
from pyoco_server.gateway.monitoring import capacity as room
from pyoco_server.model.deadletter import DeadLetterReason, letter_of_run
from pyoco_server.model.run import RunStatus
from pyoco_server.settings.environment import Settings
from pyoco_server.store import topology
from tests.wheels import make_wheel

from .test_gateway import DEADLINE, FLOW, Running, running, until
from .test_retention import ended, eventually, record

pytestmark = pytest.mark.anyio

MB = 1_000_000
LIMIT = 24 * 1024 * 1024


@pytest.fixture(autouse=True)
def _look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "_LOOK_SEC", 0.05)
    monkeypatch.setattr(topology, "_ADVISORY_BYTES", 65536)  # NATS sets it aside


class Bounded(NatsServer):
    """A nats-server that may take only so much."""

    account = True
    limit = LIMIT

    def _config(self) -> dict[str, Any]:
        config = super()._config()
        if self.account:
            users = [{"user": "a", "password": "a"}]
            config |= {"accounts": {"A": {"jetstream": {"max_file": self.limit}, "users": users}}, "no_auth_user": "a"}
        else:
            config["jetstream"]["max_file_store"] = self.limit
        return config


@contextlib.asynccontextmanager
async def bounded(settings: Settings, *, account: bool, **update: Any) -> AsyncIterator[Running]:
    server = Bounded(settings.state_dir / "nats", client_port=-1, http_port=-1)
    server.account = account
    async with server:
        wanted = {"nats_url": server.url, "nats_monitor_url": server.monitor_url, "audit_max_bytes": 65536, **update}
        async with running(settings.model_copy(update=wanted)) as here:
            yield here


async def fill(here: Running, share: float) -> None:
    """Take so much of the room with what is not ours, and wait until the gateway has seen it."""
    js = here.gateway.connection.js
    with contextlib.suppress(Exception):
        await js.add_stream(api.StreamConfig(name="FILL", subjects=["fill"], allow_direct=True))
    while here.gateway.room.figures()["used_share"] is None or here.gateway.room.figures()["used_share"] < share:
        await js.publish("fill", b"x" * 500_000)
        await here.gateway.room.look()


async def refused(here: Running, path: str, **request: Any) -> None:
    answer = await here.http.post(path, **request)
    assert (answer.status_code, answer.json()["code"]) == (507, "store_full"), (path, answer.text)
    assert "is nearly full" in answer.json()["detail"] and "PYOCO_RUN_RETENTION_SEC" in answer.json()["hint"]


@pytest.mark.parametrize("account", [True, False])
async def test_what_would_need_room_is_refused_and_everything_else_works(settings: Settings, account: bool) -> None:
    async with bounded(settings, account=account) as here:
        old = await ended(here, RunStatus.FAILED, idempotency_key="k")
        letter_id = await here.gateway.letters.publish(
            letter_of_run(await record(here, old), DeadLetterReason.EXECUTION_ERROR, tag="default"), "key"
        )
        waiting = await here.submit()
        form: dict[str, Any] = {"data": {"flow_name": "main"}, "files": {"workflow": ("f", FLOW.encode())}}
        await fill(here, 0.96)
        await refused(here, "/runs", json={"flow_name": "f"})
        await refused(here, "/runs", json={"flow_name": "f", "idempotency_key": "new"})
        await refused(here, "/runs/yaml", **form)
        await refused(here, f"/runs/{old}/rerun")
        await refused(here, f"/dlq/{letter_id}/replay")
        package = make_wheel(settings.state_dir, "w", "1")
        await refused(here, "/wheels", files={"wheel": (package.name, package.read_bytes())})
        await refused(here, "/wheels", files={"wheel": (package.name, b"of any kind: it is not looked at")})
        assert not (await here.gateway.connection.js.stream_info(f"KV_{settings.flows_kv_bucket}")).state.messages

        # What exists is answered, read, cancelled, ended.
        again = await here.http.post("/runs", json={"flow_name": "f", "idempotency_key": "k"})
        assert again.json() == {"run_id": old, "status": "FAILED", "created": False}
        assert (await here.http.get(f"/runs/{old}")).status_code == 200
        assert (await here.http.post(f"/runs/{waiting}/cancel")).json()["status"] == "CANCELLED"
        answer = await here.http.get("/ready")
        ready = answer.json()
        assert (answer.status_code, ready["status"], ready["problems"]) == (200, "ready", [])
        assert "is nearly full" in ready["warnings"][0]
        assert ready["storage"]["accepts_submissions"] is False
        assert ready["storage"]["limit_bytes"] == LIMIT and ready["storage"]["used_share"] >= 0.95

        await here.gateway.connection.js.purge_stream("FILL")
        await until(lambda: not here.gateway.room.refusal())
        await here.submit()
        replayed = await here.http.post(f"/dlq/{letter_id}/replay")
        assert replayed.status_code == 200
        assert (await here.http.get("/ready")).json()["warnings"] == []


@pytest.mark.slow
async def test_runs_that_are_over_age_go_though_the_store_is_full(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "_LATE_SEC", 0.5)
    async with bounded(settings, account=False, retention_interval_sec=0.05, store_full_share=1.0) as here:
        runs = [await ended(here, params={"x": "y" * 50_000}) for _ in range(40)]
        js = here.gateway.connection.js
        await js.add_stream(api.StreamConfig(name="FILL", subjects=["fill"]))
        with pytest.raises(StoreFull), here.gateway.connection.errors("filling"):  # NATS's own word for it
            while True:
                await js.publish("fill", b"x" * 300_000)
        # NATS's own expiry would need room for its marks, and stands still. Gateways remove without any.
        here.gateway.retention._settings = here.gateway.settings.model_copy(update={"run_retention_sec": 1.0})
        await until(lambda: here.gateway.index.count() == 0)

        async def there_is_room() -> bool:
            return (await here.http.post("/runs", json={"flow_name": "f"})).status_code == 200

        await eventually(there_is_room)
        assert (await here.http.get(f"/runs/{runs[0]}")).status_code == 404


async def test_ready_shows_what_takes_the_room(settings: Settings) -> None:
    async with running(settings) as here:
        await here.submit()
        ready = (await here.http.get("/ready")).json()
        work, logs = ready["streams"][settings.work_stream], ready["streams"][settings.logs_stream]
        assert work["messages"] == 1 and work["bytes"] > 0
        assert (work["max_bytes"], work["max_msgs"], work["max_age_sec"], work["used_share"]) == (None,) * 4
        assert (logs["max_bytes"], logs["max_age_sec"]) == (settings.logs_max_bytes, settings.logs_max_age_sec)
        assert logs["used_share"] == 0.0
        assert ready["warnings"] == []
        await until(lambda: here.gateway.room.figures()["used_bytes"] is not None)
        storage = (await here.http.get("/ready")).json()["storage"]
        assert storage["accepts_submissions"] is True and storage["full_share"] == 0.95
        assert storage["reserved_bytes"] >= settings.logs_max_bytes
        assert storage["disk_free_bytes"] is None  # NATS's data may be anywhere


async def test_a_bucket_without_expiry_is_told_of_where_runs_are_to_expire(settings: Settings) -> None:
    async with running(settings) as here:
        name = f"KV_{settings.runs_kv_bucket}"
        js = here.gateway.connection.js
        await js.delete_stream(name)
        await js.add_stream(api.StreamConfig(name=name, subjects=[f"$KV.{settings.runs_kv_bucket}.>"], max_msgs_per_subject=1, allow_direct=True, allow_rollup_hdrs=True))  # fmt: skip # noqa: E501
        assert (await here.http.get("/ready")).json()["warnings"] == []
        here.gateway.settings = settings.model_copy(update={"run_retention_failed_sec": 60.0})
        assert "allow_msg_ttl" in (await here.http.get("/ready")).json()["warnings"][0]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=160m", "tmpfs", str(place)], capture_output=True, text=True
    )
    if mounted.returncode != 0:
        pytest.skip(f"no small file system can be mounted here: {mounted.stderr.strip()}")
    try:
        yield place
    finally:
        deadline = time.monotonic() + DEADLINE
        while subprocess.run(["umount", str(place)], capture_output=True).returncode:
            assert time.monotonic() < deadline
            time.sleep(0.05)


async def test_an_own_nats_on_a_disk_that_fills_up(settings: Settings, small_disk: Path) -> None:
    own = settings.model_copy(update={"disk_free_min_bytes": 64 * MB, "audit_max_bytes": 65536})
    system = System(own, host="127.0.0.1", port=0, nats_store=small_disk / "nats", nats_listen=("127.0.0.1", -1, -1))
    await system.start()
    try:
        assert system._listener is not None
        gateway = system._listener._app.state.gateway
        here = Running(None, gateway, system._listener)  # type: ignore[arg-type]
        async with contextlib.AsyncExitStack() as stack:
            here.http = await stack.enter_async_context(httpx2.AsyncClient(base_url=system.url, timeout=DEADLINE))
            await here.submit()
            filler = small_disk / "filler"
            with filler.open("wb") as file:
                while file.tell() < 110 * MB:
                    file.write(b"\0" * MB)
            await until(gateway.room.refusal)
            answer = await here.http.post("/runs", json={"flow_name": "f"})
            assert answer.status_code == 507
            assert "MB left" in answer.json()["detail"] and "PYOCO_DISK_FREE_MIN_BYTES" in answer.json()["detail"]
            storage = (await here.http.get("/ready")).json()["storage"]
            assert storage["disk_free_bytes"] < 64 * MB < storage["disk_total_bytes"]
            filler.unlink()
            await until(lambda: not gateway.room.refusal())
            await here.submit()  # and nothing was restarted
    finally:
        await system.stop()
        await asyncio.sleep(0)
