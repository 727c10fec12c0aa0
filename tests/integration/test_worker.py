"""A worker inside this process, as existing programs embed it."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from pyoco_server.embedded.nats_server import NatsServer
from pyoco_server.model.run import RunStatus
from pyoco_server.settings.environment import Settings
from pyoco_server.store.client import PyocoNatsClient
from pyoco_server.worker.embedding import PyocoNatsWorker

from .test_gateway import until

pytestmark = pytest.mark.anyio

RESOLVER = """
from pyoco import Flow, task
@task
def big(size=0):
    return "x" * int(size)
@task
def small(big):
    return {"raw": bytes(range(200))} if len(big) == 1 else [1, 2]
def resolve(name):
    return Flow(name) >> big if name == "main" else Flow(name) >> big >> small
"""


@pytest.fixture
def resolver(tmp_path: Path) -> str:
    (tmp_path / "flows.py").write_text(RESOLVER)
    return f"{tmp_path}/flows.py:resolve"


class SmallNats(NatsServer):
    """One that takes small messages only."""

    def _config(self) -> dict[str, Any]:
        return {**super()._config(), "max_payload": 65536}


@pytest.fixture
async def small_nats(tmp_path: Path) -> AsyncIterator[NatsServer]:
    async with SmallNats(tmp_path / "small", client_port=-1, http_port=-1) as server:
        yield server


async def test_a_record_is_cut_to_what_nats_takes(settings: Settings, small_nats: NatsServer, resolver: str) -> None:
    settings = settings.model_copy(update={"nats_url": small_nats.url})
    client = await PyocoNatsClient.connect(settings)
    worker = await PyocoNatsWorker.connect(config=settings, flow_resolver=resolver, tags=["default"])
    try:
        run_id = await client.submit_run("main", {"size": 100_000})
        assert await worker.run_once(timeout=10) == run_id
        run = await client.get_run(run_id)
        assert (run["status"], run["task_records_truncated"]) == (RunStatus.COMPLETED.value, True)
    finally:
        await worker.close()
        await client.close()


@pytest.mark.parametrize(("size", "cut"), [(200_000, True), (100, False), (1, True)])
async def test_what_is_cut_is_told_of(settings: Settings, resolver: str, size: int, cut: bool) -> None:
    """A large output, or bytes of which only the first are shown; what stands beside it is whole."""
    client = await PyocoNatsClient.connect(settings)
    worker = await PyocoNatsWorker.connect(config=settings, flow_resolver=resolver, tags=["default"])
    try:
        run_id = await client.submit_run("both", {"size": size})
        assert await worker.run_once(timeout=10) == run_id
        run = await client.get_run(run_id)
        assert (run["status"], run["task_records_truncated"]) == (RunStatus.COMPLETED.value, cut)
        records = run["task_records"]
        if size == 200_000:
            assert records["big"]["output"]["truncated"] and records["small"]["output"] == [1, 2]
        else:
            assert records["big"]["output"] == "x" * size
    finally:
        await worker.close()
        await client.close()


def _listen_closely(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_SUSPICIOUS_SEC", "_SURE_SEC"):
        monkeypatch.setattr(f"pyoco_server.worker.watchdog.{name}", 0.5)


async def test_a_program_may_pause_between_two_runs(
    settings: Settings, resolver: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _listen_closely(monkeypatch)
    client = await PyocoNatsClient.connect(settings)
    worker = await PyocoNatsWorker.connect(config=settings, flow_resolver=resolver, tags=["default"])
    try:
        assert await worker.run_once(timeout=0.1) is None
        with pytest.raises(AssertionError):  # the watchdog looks every second: it has looked, and said nothing
            await until(worker.stopping.is_set, timeout=2.5)
        run_id = await client.submit_run("main")
        assert await worker.run_once(timeout=10) == run_id
    finally:
        await worker.close()
        await client.close()


async def test_a_worker_whose_pulls_are_not_answered_stops_and_says_so(
    settings: Settings, resolver: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _listen_closely(monkeypatch)
    worker = await PyocoNatsWorker.connect(config=settings, flow_resolver=resolver, tags=["default"])

    async def deaf(*_: object, **__: object) -> None:
        """Stand in for a line whose requests go nowhere."""

    monkeypatch.setattr("pyoco_server.store.nats.pull_line.PullLine.request", deaf)
    serving = asyncio.create_task(worker.run(drain_sec=0))
    await asyncio.wait_for(worker.stopping.wait(), 10)
    await serving
    with pytest.raises(Exception, match="no request for a job was answered"):
        await worker.close()
