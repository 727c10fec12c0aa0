"""Clients and workers on a connection that the program has made itself, as programs of the existing system do."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from pathlib import Path

import nats as nats_py
import pytest
from nats.aio.client import Client

from pyoco_server import NatsBackendConfig, PyocoNatsClient, PyocoNatsWorker, ensure_resources
from pyoco_server.errors import CommandFailed, StoreRefused, StoreUnavailable

from .test_gateway import until
from .test_gateway_away import Nats, nats

pytestmark = pytest.mark.anyio

__all__ = ["nats"]

FLOWS = """
from pyoco import Flow, task
@task
def double(x=1):
    return int(x) * 2
def resolve(name):
    return Flow(name) >> double
"""


@pytest.fixture
async def config(nats: Nats, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> NatsBackendConfig:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "their_flows.py").write_text(FLOWS)
    await nats.start()
    return NatsBackendConfig(nats_url="nats://nobody.invalid:1", default_tag="cpu")


@pytest.fixture
async def told() -> list[str]:
    return []


@pytest.fixture
async def nc(nats: Nats, config: NatsBackendConfig, told: list[str]) -> AsyncIterator[Client]:
    async def note(*what: object) -> None:
        told.append(str(what))

    client = await nats_py.connect(
        nats.url,
        reconnect_time_wait=0.05,
        max_reconnect_attempts=-1,
        error_cb=note,
        disconnected_cb=note,
        reconnected_cb=note,
    )  # type: ignore[arg-type]
    yield client
    await client.close()


async def test_a_run_by_both(nc: Client, nats: Nats, config: NatsBackendConfig) -> None:
    await ensure_resources(nc.jetstream(), config)
    client = PyocoNatsClient(nc, config)
    worker = PyocoNatsWorker(nc, config=config, flow_resolver="their_flows.py:resolve", worker_id="w", tags=["cpu"])
    run_id = await client.submit_run("main", {"x": 21})
    assert await worker.run_once(timeout=10) == run_id
    run = await client.get_run(run_id)
    assert (run["status"], run["tag"], run["worker_id"]) == ("COMPLETED", "cpu", "w")
    assert "42" in str(run["task_records"])
    with pytest.raises(KeyError):
        await client.get_run("none")
    await worker.close()
    assert nc.is_closed  # as it is there: the connection goes with whoever has it
    with pytest.raises(StoreUnavailable):
        await client.get_run(run_id)
    await client.close()


@pytest.mark.slow
async def test_beginning_as_programs_of_the_existing_system_do(nc: Client, config: NatsBackendConfig) -> None:
    client = PyocoNatsClient(nc, config)
    await client._init()
    worker = PyocoNatsWorker(nc, config=config, flow_resolver="their_flows.py:resolve")
    await worker._init()
    assert worker.tags == ["cpu"]
    assert await worker.run_once(timeout=0.2) is None
    await worker.close()


@pytest.mark.slow
async def test_nats_goes_and_comes_back(nc: Client, nats: Nats, config: NatsBackendConfig, told: list[str]) -> None:
    client = PyocoNatsClient(nc, config)
    await client._init()
    worker = PyocoNatsWorker(nc, config=config, flow_resolver="their_flows.py:resolve")
    await worker.start()
    await nats.stop()
    await until(lambda: not nc.is_connected)
    with pytest.raises(StoreUnavailable):
        await client.submit_run("main")
    await nats.start()
    await until(lambda: nc.is_connected)
    assert told  # the program's own callbacks are called as before
    run_id = await client.submit_run("main")
    assert await worker.run_once(timeout=20) == run_id
    await worker.close()


@pytest.mark.slow
async def test_a_connection_that_is_gone_for_good_is_told(nats: Nats, config: NatsBackendConfig) -> None:
    nc = await nats_py.connect(nats.url, reconnect_time_wait=0.01, max_reconnect_attempts=1)
    client = PyocoNatsClient(nc, config)
    await client._init()
    worker = PyocoNatsWorker(nc, config=config, flow_resolver="their_flows.py:resolve")
    await worker.start()
    await nats.stop()
    await until(lambda: nc.is_closed)
    for call in (client.submit_run("main"), worker.run_once(timeout=0.1)):
        with pytest.raises(StoreRefused, match="closed for good"):
            await call
    await worker.close()
    late = PyocoNatsClient(nc, config)
    with pytest.raises(StoreRefused, match="closed for good"):
        await late.get_run("x")


@pytest.mark.slow
async def test_connect_takes_the_plain_settings(nats: Nats, config: NatsBackendConfig) -> None:
    config = dataclasses.replace(config, nats_url=nats.url)
    client = await PyocoNatsClient.connect(config)
    worker = await PyocoNatsWorker.connect(config=config, flow_resolver="their_flows.py:resolve", tags=["cpu"])
    runs = await asyncio.gather(*(client.submit_run("main") for _ in range(2)))
    assert {await worker.run_once(timeout=10) for _ in range(2)} == set(runs)
    await worker.close()
    await client.close()
    with pytest.raises(CommandFailed, match="names no function"):
        PyocoNatsWorker(config=config, flow_resolver="their_flows")
