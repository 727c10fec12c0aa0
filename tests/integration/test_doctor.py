"""``GET /doctor`` of a real gateway: what is wrong is found, and nothing where nothing is."""

import os
import shutil
import signal
import time
from collections import namedtuple
from typing import Any

import pytest
from nats.js import api

from pyoco_server import __version__
from pyoco_server.embedded.nats_server import NatsServer
from pyoco_server.gateway.monitoring import doctor
from pyoco_server.model.worker import WorkerRecord, WorkerState, WorkerTrouble
from pyoco_server.settings.environment import Settings
from pyoco_server.store import topology

from .test_gateway import Running, here, running, until
from .test_gateway_away import Nats, nats
from .test_room import bounded, fill

__all__ = ["here", "nats"]  # fixtures
pytestmark = pytest.mark.anyio


async def ask(here: Running, **query: Any) -> dict[str, Any]:
    """What the doctor tells, with the findings by code."""
    here.gateway.figures._asked_at = 0.0
    answer = await here.http.get("/doctor", params=query)
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    told["notes"] = [finding for finding in told["findings"] if finding["severity"] == "info"]
    told["findings"] = [finding for finding in told["findings"] if finding["severity"] != "info"]
    told["found"] = {}
    for finding in told["findings"]:
        told["found"].setdefault(finding["code"], []).append(finding)
    return told


async def worker(here: Running, worker_id: str, ahead: float = 0.0, **fields: Any) -> None:
    """A worker whose clock is ahead."""
    now = time.time() + ahead
    record = WorkerRecord(worker_id=worker_id, last_seen_at=now, last_heartbeat_at=now, updated_at=now, host="h",
                          version=__version__).evolve(**fields)  # fmt: skip
    revision = await here.gateway.workers.put(record)
    await until(lambda: here.gateway.worker_feed.revision >= revision)


async def waiting(here: Running, tag: str, since: float) -> None:
    run_id = await here.submit(tag=tag)
    stored = await here.gateway.runs.get(run_id)
    assert stored is not None
    old = stored.record.model_copy(update={"submitted_at": time.time() - since})
    revision = (await here.gateway.runs.update(old, stored.revision)).revision
    await until(lambda: here.gateway.run_feed.revision >= revision)


async def test_nothing_is_wrong(here: Running) -> None:
    await worker(here, "w1", tags=["cpu"])
    told = await ask(here)
    assert told["findings"] == []
    (durability,) = told["notes"]
    assert durability["code"] == "durability_unknown" and "PYOCO_NATS_MONITOR_URL" in durability["hint"]
    assert (told["version"], told["authentication"], told["nats_server"]) == (__version__, "none", "2.15.1")
    assert told["workers"] == {"RUNNING": 0, "IDLE": 1, "STOPPED_GRACEFUL": 0, "DISCONNECTED": 0}
    assert abs(told["now"] - time.time()) < 60


async def test_runs_without_workers(here: Running) -> None:
    await worker(here, "w1", tags=["cpu"])
    await worker(here, "gone", ahead=-60, tags=["gpu"], updated_at=0.0)
    for tag, since in (("cpu", 5), ("gpu", 5), ("tpu", 90), ("slow", 700), ("cpu", 3)):
        await waiting(here, tag, since)
    await worker(here, "w2", tags=["slow"])
    await worker(here, "leaving", tags=["tpu"], draining=True)  # these take no more
    await worker(here, "left", tags=["tpu", "gpu"], state=WorkerState.STOPPED_GRACEFUL)
    told = await ask(here)
    found = told["found"]
    assert [(one["details"]["tag"], one["severity"]) for one in found["tag_without_worker"]] == [
        ("tpu", "error"), ("gpu", "warning"),
    ]  # fmt: skip
    (slow,) = found["runs_wait_long"]
    assert slow["details"]["waiting"] == 1 and slow["details"]["workers"] == 1
    assert slow["message"].startswith("Runs wait for the tag slow (1), the oldest for 11 min")
    assert told["findings"][0]["code"] == "tag_without_worker"  # the worst first
    japanese = await ask(here, lang="ja")
    assert "受け付ける動作中のワーカーがありません" in japanese["findings"][0]["message"]


async def test_workers(here: Running) -> None:
    await worker(here, "ok", tags=["cpu"])
    await worker(here, "ahead", ahead=4.0)
    await worker(here, "far", ahead=-15.0)
    await worker(here, "gone", ahead=-90.0, updated_at=time.time())  # written last by somebody else: its clock is right
    full = WorkerTrouble(kind="state_directory", reason="/x is full", since=time.time() - 90, next_try_at=9e9, slots=1)
    await worker(here, "full", trouble=full)
    await worker(here, "half", slots=4, trouble=full.evolve(kind="process", reason="no process"))
    await worker(here, "full-and-gone", ahead=-90.0, updated_at=0.0, hidden=True, trouble=full)
    await worker(here, "hidden", ahead=-90.0, updated_at=0.0, hidden=True)
    await worker(here, "old1", version="0.0.1")
    await worker(here, "old2", version="0.0.1")
    await worker(here, "broken", wheel_sync={"enabled": True, "last_result": "partial", "last_error": "a.whl is bad"})
    found = (await ask(here))["found"]
    clocks = {one["details"]["who"]: (one["severity"], round(one["details"]["offset"])) for one in found["clock_apart"]}
    assert clocks == {"ahead (h)": ("warning", 4), "far (h)": ("error", -15)}
    assert [one["details"]["worker_id"] for one in found["worker_disconnected"]] == ["gone"]
    assert "on h is disconnected; its last sign of life came 1 min 3" in found["worker_disconnected"][0]["message"]
    unfit = {one["details"]["worker_id"]: (one["severity"], one["message"]) for one in found["worker_unfit"]}
    assert {name: severity for name, (severity, _) in unfit.items()} == {"full": "error", "half": "warning"}
    assert unfit["full"][1].startswith("The worker full on h takes no runs for 1 min 3")
    assert unfit["half"][1].startswith("The worker half on h takes no runs on 1 of its slots for 1 min")
    (versions,) = found["version_differs"]
    assert versions["details"] == {"ours": __version__, "version": "0.0.1", "who": ["old1", "old2"]}
    (wheels,) = found["worker_wheels"]
    assert wheels["details"] == {"worker_id": "broken", "reason": "a.whl is bad"}


async def test_dead_letters_streams_and_the_disk(here: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = here.gateway.settings
    js = here.gateway.connection.js
    await js.publish(f"{settings.dlq_subject_prefix}.cpu", b"{}")
    await js.delete_stream(settings.logs_stream)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(100, 90, 10))
    found = (await ask(here))["found"]
    assert found["dead_letters"][0]["details"] == {"letters": 1}
    assert found["stream_missing"][0]["details"] == {"streams": [settings.logs_stream]}
    assert found["disk_full"][0]["severity"] == "warning"


async def test_a_store_that_is_nearly_full(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topology, "_ADVISORY_BYTES", 65536)  # NATS sets it aside
    async with bounded(settings, account=False) as here:
        await fill(here, 0.82)
        (found,) = (await ask(here))["findings"]
        assert (found["code"], found["severity"]) == ("storage_full", "warning")
        await fill(here, 0.95)
        found = (await ask(here))["found"]
        assert "submissions are refused" in found["submissions_refused"][0]["message"]
        assert found["storage_full"][0]["severity"] == "error"


async def test_an_index_that_is_behind(here: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    await here.submit(tag="cpu")
    await worker(here, "w", tags=["cpu"])
    monkeypatch.setattr(doctor, "_BEHIND", 1)
    assert (await ask(here))["findings"] == []
    here.gateway.run_feed.reached = 0
    assert (await ask(here))["found"]["index_behind"][0]["details"] == {"changes": 1}
    here.gateway.run_feed.caught_up.clear()
    assert "index_building" in (await ask(here))["found"]


async def test_what_an_acknowledgement_means(nats_server: NatsServer, settings: Settings) -> None:
    async with running(settings.model_copy(update={"nats_monitor_url": nats_server.monitor_url})) as here:
        (durability,) = (await ask(here))["notes"]
        assert durability["code"] == "acknowledged_means"
        stream = (await here.gateway.connection.js.stream_info(settings.logs_stream)).config
        await here.gateway.connection.js.delete_stream(settings.logs_stream)
        stream.storage = api.StorageType.MEMORY
        await here.gateway.connection.js.add_stream(stream)
        here.gateway.durability._read_at = float("-inf")
        (weaker,) = (await ask(here))["findings"]
        assert weaker["code"] == "stream_less_safe" and settings.logs_stream in weaker["message"]


@pytest.mark.slow
async def test_without_nats(nats: Nats, settings: Settings) -> None:
    await nats.start()
    async with running(settings.model_copy(update={"nats_url": nats.url})) as here:
        assert (await ask(here))["findings"] == []
        assert nats.server is not None
        pid = nats.server.pid
        os.kill(pid, signal.SIGSTOP)
        try:
            told = await ask(here)
        finally:
            os.kill(pid, signal.SIGCONT)
        assert set(told["found"]) & {"nats_slow", "nats_unreachable"}
        await nats.stop()
        await until(lambda: not here.gateway.connection.is_up)
        told = await ask(here)
        assert list(told["found"]) == ["nats_unreachable"]
        assert (told["nats_server"], told["found"]["nats_unreachable"][0]["details"]["url"]) == (None, nats.url)
