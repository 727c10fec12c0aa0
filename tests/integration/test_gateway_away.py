"""NATS is away, comes back, comes back empty; and the gateway under a uvicorn of one's own."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest

from pyoco_server.embedded.nats_server import NatsServer
from pyoco_server.model.run import EndReason, RunRecord, RunStatus, settle
from pyoco_server.settings.environment import Settings
from pyoco_server.store.nats.connection import REQUEST_TIMEOUT
from tests.ports import free_port

from .test_gateway import DEADLINE, Running, events, running, until

pytestmark = pytest.mark.anyio

NEEDING_NATS = ("/runs", "/runs?cursor=", "/runs/a", "/runs/a/tasks", "/runs/a/watch", "/workers", "/ready")


class Nats:
    """A nats-server that keeps its port and its data while it is stopped and started."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"nats://127.0.0.1:{self.port}"
        self.server: NatsServer | None = None

    async def start(self) -> None:
        self.server = await NatsServer(self.folder, client_port=self.port, http_port=-1).start()

    async def stop(self) -> None:
        if self.server is not None:
            await self.server.stop()
            self.server = None


@pytest.fixture
async def nats(tmp_path: Path) -> AsyncIterator[Nats]:
    server = Nats(tmp_path / "nats")
    yield server
    await server.stop()


@pytest.fixture
async def here(nats: Nats, settings: Settings) -> AsyncIterator[Running]:
    await nats.start()
    async with running(settings.model_copy(update={"nats_url": nats.url})) as server:
        yield server


async def ready(here: Running) -> None:
    """Wait until everything can be asked."""
    await until(lambda: here.gateway.connection.is_up)
    deadline = time.monotonic() + DEADLINE
    while (await here.http.get("/ready")).status_code != 200:
        assert time.monotonic() < deadline


async def stop(nats: Nats, here: Running) -> None:
    await nats.stop()
    await until(lambda: not here.gateway.connection.is_up)


async def assert_away(here: Running) -> None:
    for path in NEEDING_NATS:
        started = time.monotonic()
        answer = await here.http.get(path)
        assert answer.status_code == 503, path
        if path != "/ready":  # the next try goes through a balancer anew, to a gateway that is better off
            assert answer.headers["Connection"] == "close", path
        assert time.monotonic() - started < REQUEST_TIMEOUT, path  # it did not wait for NATS to answer
        if path != "/ready":
            assert answer.json()["code"] == "nats_unavailable"
            assert answer.json()["hint"] and answer.json()["trace_id"]
    told = (await here.http.get("/ready")).json()
    assert told["nats"]["connected"] is False and told["nats"]["down_since"] > 0
    assert (await here.http.post("/runs", json={"flow_name": "f"})).status_code == 503
    assert (await here.http.get("/health")).json() == {"status": "ok"}


async def test_it_starts_without_nats_and_is_well_as_soon_as_nats_is(nats: Nats, settings: Settings) -> None:
    async with running(settings.model_copy(update={"nats_url": nats.url}), store=False) as here:
        await assert_away(here)
        await nats.start()
        await ready(here)
        assert (await here.http.get("/runs")).json() == []
        assert await here.submit()


async def test_lists_and_watches_go_on_when_nats_is_back(nats: Nats, here: Running) -> None:
    run_id = await here.submit()
    async with here.watch(run_id) as stream:
        assert (await anext(stream))["event"] == "snapshot"
        await stop(nats, here)
        await assert_away(here)
        for _ in (1, 2):
            started = time.monotonic()
            assert (await anext(stream))["event"] == "heartbeat"
            assert time.monotonic() - started < 5  # existing clients give up then
        await nats.start()
        await ready(here)
        await here.gateway.runs.change(
            run_id, lambda record: settle(record, RunStatus.COMPLETED, EndReason.COMPLETED, None)
        )
        snapshots = [event async for event in stream if event["event"] == "snapshot"]
    assert [event["data"]["snapshot"]["status"] for event in snapshots] == ["COMPLETED"]
    other = await here.submit()
    assert {item["run_id"] for item in (await here.http.get("/runs")).json()} == {run_id, other}


async def test_a_watch_reads_the_record_once_nats_is_back(
    nats: Nats, here: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = await here.submit()
    reads, get_raw = [], here.gateway.runs.get_raw

    async def get(asked: str) -> tuple[bytes, int] | None:
        reads.append(asked)
        if len(reads) == 2:  # the route has found the run; NATS goes away before the stream begins
            await stop(nats, here)
        return await get_raw(asked)

    monkeypatch.setattr(here.gateway.runs, "get_raw", get)
    async with here.watch(run_id) as stream:
        assert (await anext(stream))["event"] == "heartbeat"
        await nats.start()
        async for event in stream:
            if event["event"] == "snapshot":
                break
        assert event["data"]["snapshot"]["status"] == "PENDING"


async def test_nats_comes_back_with_an_empty_store(nats: Nats, here: Running) -> None:
    run_id = await here.submit()
    async with here.watch(run_id, timeout_sec=30) as stream:
        await anext(stream)
        await stop(nats, here)
        shutil.rmtree(nats.folder)
        await nats.start()
        await ready(here)
        assert {event["event"] async for event in stream} <= {"heartbeat"}  # and it ends: the run is no more
    assert (await here.http.get("/runs")).json() == []
    other = await here.submit()
    assert [item["run_id"] for item in (await here.http.get("/runs")).json()] == [other]
    await here.gateway.runs.create(RunRecord(run_id="seen", flow_name="f"))
    await until(lambda: here.gateway.index.count() == 2)


async def test_under_a_uvicorn_of_ones_own(settings: Settings, tmp_path: Path) -> None:
    port = free_port()
    names = ("nats_url", "work_stream", "work_subject_prefix", "runs_kv_bucket", "flows_kv_bucket", "workers_kv_bucket",
             "dlq_stream", "dlq_subject_prefix", "dlq_max_bytes", "state_dir")  # fmt: skip
    environment = {f"PYOCO_{name.upper()}": str(getattr(settings, name)) for name in names}
    command = [sys.executable, "-m", "uvicorn", "--factory", "pyoco_server.http_api:create_app", "--port", str(port)]
    process = subprocess.Popen(command, cwd=tmp_path, env={**os.environ, **environment})
    try:
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=DEADLINE) as http:
            deadline = time.monotonic() + 20
            while True:
                try:
                    if (await http.get("/ready")).status_code == 200:
                        break
                except httpx2.TransportError:
                    pass
                assert time.monotonic() < deadline and process.poll() is None
            run_id = (await http.post("/runs", json={"flow_name": "f"})).json()["run_id"]
            async with http.stream("GET", f"/runs/{run_id}/watch?timeout_sec=600") as answer:
                stream = events(answer)
                assert (await anext(stream))["event"] == "snapshot"
                process.send_signal(signal.SIGTERM)
                assert {event["event"] async for event in stream} <= {"heartbeat"}  # ended, not cut off
        assert await asyncio.to_thread(process.wait, DEADLINE) in (0, -signal.SIGTERM)
    finally:
        process.kill()
        process.wait()
