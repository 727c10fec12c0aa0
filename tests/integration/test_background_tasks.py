"""Every background task of a gateway and of a worker is killed once: it comes back, and the gateway says so."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from pyoco_server.embedded.system import System
from pyoco_server.errors import CommandFailed
from pyoco_server.gateway.app import Gateway
from pyoco_server.process import supervision
from pyoco_server.process.supervision import Supervised, Supervisor
from pyoco_server.settings.environment import Settings
from pyoco_server.worker.embedding import PyocoNatsWorker

from .test_gateway import Running, running, until

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervision, "_FIRST_SEC", 0.05)


def of(supervisor: Supervisor) -> dict[str, tuple[asyncio.Task[None], Supervised]]:
    return {one.name: (task, one) for task, one in supervisor._tasks.items()}


async def kill_each(*supervisors: Supervisor) -> set[str]:
    """Kill every task, and wait until each goes on; their names are the answer."""
    names = set()
    for supervisor in supervisors:
        for name, (victim, told) in of(supervisor).items():
            if victim.done():
                continue  # it had only one thing to do
            victim.cancel()
            await until(lambda: told.failures == 1 and told.began is not None)  # noqa: B023
            assert name in of(supervisor)
            names.add(name)
    return names


async def works(here: Running) -> None:
    """Check what a gateway is for."""
    await until(here.gateway.run_feed.caught_up.is_set)
    await until(here.gateway.worker_feed.caught_up.is_set)
    run_id = await here.submit()
    assert run_id in [item["run_id"] for item in (await here.http.get("/runs?limit=200")).json()]
    await here.http.post(f"/runs/{run_id}/cancel")
    assert (await here.http.get(f"/runs/{run_id}")).json()["status"] == "CANCELLED"


async def test_each_task_of_a_gateway_comes_back(settings: Settings) -> None:
    async with running(settings) as here:
        killed = await kill_each(*here.gateway.supervisors)
        assert killed == {
            "streams", "run-index", "worker-index", "advisories", "reconciler", "wheel-sweep", "retention",
            "spent-logs", "room", "letter-reasons", "depths", "stream-watch", "nats-pulse", "audit",
        }  # fmt: skip
        await works(here)
        text = (await here.http.get("/metrics")).text
        for name in killed:
            assert f'pyoco_background_task_failures_total{{task="{name}"}} 1.0' in text
            assert f'pyoco_background_task_failing{{task="{name}"}}' in text


async def test_each_task_that_keeps_keys_comes_back(settings: Settings) -> None:
    with_keys = settings.model_copy(update={"http_auth_mode": "api_key"})
    async with running(with_keys) as here:
        await until(here.gateway.keys.feed.caught_up.is_set)
        assert await kill_each(here.gateway.supervisor) >= {"keys", "key-bucket"}
        await until(here.gateway.keys.feed.caught_up.is_set)


async def test_a_failing_task_is_told_of(here_with_broken_rooms: Running) -> None:
    here = here_with_broken_rooms
    ready = await here.http.get("/ready")
    assert ready.status_code == 200  # it works without the figures of the room
    (sentence,) = [line for line in ready.json()["warnings"] if "background task" in line]
    assert "'room' has failed" in sentence and "no figures today" in sentence
    (finding,) = [one for one in (await here.http.get("/doctor")).json()["findings"] if one["code"] == "task_failing"]
    assert (finding["severity"], finding["details"]["task"]) == ("warning", "room")
    assert finding["details"]["failures"] >= 1 and "no figures today" in finding["message"]


async def test_a_failing_vital_task_makes_a_gateway_unready(here: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken() -> None:
        raise ValueError("no streams today")

    monkeypatch.setattr(here.gateway.streams, "_ensure", broken)
    here.gateway.streams.look.set()
    (streams,) = [one for one in here.gateway.supervisor.known if one.name == "streams"]
    await until(lambda: streams.is_failing)
    ready = await here.http.get("/ready")
    assert ready.status_code == 503 and any("no streams today" in line for line in ready.json()["problems"])
    monkeypatch.undo()
    await until(lambda: not streams.is_failing, timeout=20)
    assert (await here.http.get("/ready")).status_code == 200


@pytest.fixture
async def here(settings: Settings) -> Any:
    async with running(settings) as server:
        yield server


@pytest.fixture
async def here_with_broken_rooms(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Any:
    async def broken(_: object) -> None:
        raise ValueError("no figures today")

    monkeypatch.setattr("pyoco_server.gateway.monitoring.capacity.StoreRoom.round", broken)
    async with running(settings) as server:
        gateway: Gateway = server.gateway
        (room,) = [one for one in gateway.supervisor.known if one.name == "room"]
        await until(lambda: room.is_failing)
        yield server


async def test_a_gateway_that_cannot_go_on_ends_everything(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(_: object) -> None:
        raise ValueError("no streams")

    monkeypatch.setattr(supervision, "_GIVE_UP_SEC", 0.1)
    monkeypatch.setattr(supervision, "_LONGEST_SEC", 0.05)
    monkeypatch.setattr("pyoco_server.store.topology.ensure", broken)
    system = System(settings, host="127.0.0.1", port=0, nats_store=None)
    await system.start()
    try:
        with pytest.raises(CommandFailed, match=r"the gateway cannot go on: .*'streams' has failed .*no streams"):
            await asyncio.wait_for(system.watch(asyncio.Event()), 20)
    finally:
        await system.stop()


async def test_each_task_of_a_worker_comes_back(settings: Settings, tmp_path: Path) -> None:
    resolver = tmp_path / "flows.py"
    resolver.write_text(
        "from pyoco import Flow, task\n@task\ndef t():\n    return 1\ndef resolve(name):\n    flow = Flow(name=name)\n"
        "    flow >> t\n    return flow\n"
    )
    async with running(settings) as here:
        worker = await PyocoNatsWorker.connect(config=settings, flow_resolver=f"{resolver}:resolve", worker_id="w")
        try:
            killed = await kill_each(worker._supervisor)
            assert killed == {"heartbeat", "resources", "acks", "leases", "watchdog"}
            assert not worker.stopping.is_set()
            run_id = (await here.http.post("/runs", json={"flow_name": "main"})).json()["run_id"]
            assert await worker.run_once(timeout=20) == run_id
        finally:
            await worker.close()
