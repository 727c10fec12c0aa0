"""What /ready says of an acknowledgement, read from real servers."""

import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from pyoco_server.embedded.nats_server import NatsServer
from pyoco_server.errors import InvalidSetting
from pyoco_server.gateway.monitoring.durability import DurabilityReader
from pyoco_server.settings.environment import Settings
from pyoco_server.store import topology
from pyoco_server.store.nats.connection import connected
from tests.ports import free_port

from .test_gateway import running

pytestmark = pytest.mark.anyio


async def told(settings: Settings) -> dict[str, Any]:
    async with connected(settings, "test", 10) as connection:
        await topology.ensure(connection)
        reader = DurabilityReader(settings, connection)
        found = await reader.read()
        assert await reader.read() is found  # not asked for again
        return found


@contextlib.asynccontextmanager
async def server(folder: Path, **options: Any) -> AsyncIterator[NatsServer]:
    async with NatsServer(folder, client_port=-1, http_port=-1, **options) as nats:
        yield nats


async def test_an_own_server_as_it_was_told(settings: Settings, tmp_path: Path) -> None:
    async with server(tmp_path / "a") as nats:
        found = await told(settings.at(nats.url, nats.monitor_url))
        assert (found["sync"], found["sync_interval_sec"], found["replicas"]) == ("always", None, 1)
        assert found["servers"][0]["read_from"] == f"{nats.monitor_url}/varz"
    async with server(tmp_path / "b", sync="interval") as nats:
        found = await told(settings.at(nats.url, nats.monitor_url))
        assert (found["sync"], found["sync_interval_sec"]) == ("interval", 120)


async def test_what_is_not_told_is_unknown(settings: Settings, nats_server: NatsServer, tmp_path: Path) -> None:
    found = await told(settings)
    assert (found["sync"], found["replicas"], found["servers"]) == ("unknown", 1, [])
    assert "PYOCO_NATS_MONITOR_URL" in found["hint"]
    found = await told(settings.model_copy(update={"nats_monitor_url": "http://127.0.0.1:1"}))
    assert found["sync"] == "unknown" and "http://127.0.0.1:1/varz does not answer" in found["unknown"]
    async with server(tmp_path / "other") as other:  # of the same name, on the same machine
        found = await told(settings.model_copy(update={"nats_monitor_url": other.monitor_url}))
        assert found["sync"] == "unknown" and "belongs to another NATS" in found["unknown"]
        both = f"{other.monitor_url}/healthz,{nats_server.monitor_url}"
        found = await told(settings.model_copy(update={"nats_monitor_url": both}))
        assert found["sync"] == "always"


async def test_a_restart_is_noticed(settings: Settings, tmp_path: Path) -> None:
    port, monitor = free_port(), free_port()
    first = await NatsServer(tmp_path / "nats", client_port=port, http_port=monitor, sync="interval").start()
    async with running(settings.at(first.url, first.monitor_url)) as here:
        assert (await here.http.get("/ready")).json()["durability"]["sync"] == "interval"
        await first.stop()
        second = await NatsServer(tmp_path / "nats", client_port=port, http_port=monitor).start()
        while (answer := await here.http.get("/ready")).status_code != 200:
            assert answer.json()["durability"]["sync"] == "unknown" or answer.json()["problems"]
        assert answer.json()["durability"]["sync"] == "always"
        await second.stop()


async def test_a_stream_that_somebody_made_weaker_is_named(settings: Settings, tmp_path: Path) -> None:
    async with server(tmp_path / "nats") as nats:
        mine = settings.at(nats.url, nats.monitor_url)
        async with connected(mine, "test", 10) as connection:
            config = {"name": mine.logs_stream, "subjects": [f"{mine.logs_subject_prefix}.>"], "storage": "memory",
                      "num_replicas": 1, "allow_direct": True, "retention": "limits"}  # fmt: skip
            subject = f"$JS.API.STREAM.CREATE.{mine.logs_stream}"
            await connection.request(subject, json.dumps(config).encode(), what="making")
            await topology.ensure(connection)
        found = await told(mine.model_copy(update={"nats_replicas": 3}))
        weaker = {weak["stream"]: weak["reason"] for weak in found["weaker_streams"]}
        assert weaker.pop(mine.logs_stream) == "it is kept in memory only: gone when nats-server ends"
        assert set(weaker.values()) == {"1 of 3 replicas (PYOCO_NATS_REPLICAS)"}
        assert found["replicas"] == 1


async def test_a_monitoring_that_is_no_address_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    for value in ("10.0.0.1:8222", "nats://h:8222", "http://h:port", "http://u:secret@h:8222"):
        monkeypatch.setenv("PYOCO_NATS_MONITOR_URL", value)
        with pytest.raises(InvalidSetting, match="it is not the address of NATS's monitoring") as error:
            Settings.from_env()
        assert "secret" not in error.value.message
    monkeypatch.setenv("PYOCO_NATS_MONITOR_URL", "http://a:8222/, https://b")
    assert Settings.from_env().nats_monitors == ["http://a:8222", "https://b"]


async def test_who_has_no_key_is_told_no_addresses(settings: Settings, tmp_path: Path) -> None:
    async with server(tmp_path / "nats") as nats:
        mine = settings.at(nats.url, nats.monitor_url).model_copy(update={"http_auth_mode": "api_key"})
        async with running(mine) as here:
            answer: httpx2.Response = await here.http.get("/ready")
            assert set(answer.json()["durability"]) == {"sync", "sync_interval_sec", "replicas", "acknowledged_means"}
