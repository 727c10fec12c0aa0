"""A connection to NATS comes back whatever happens to it, and leaves nothing behind."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator

import psutil
import pytest
from nats.aio.client import Client

from pyoco_server.errors import RightMissing, StoreUnavailable
from pyoco_server.settings.environment import Settings
from pyoco_server.store.nats import pulse
from pyoco_server.store.nats.connection import Connection, connected

from .test_gateway import DEADLINE, until
from .test_gateway_away import Nats, nats

__all__ = ["nats"]  # a fixture

pytestmark = pytest.mark.anyio


@pytest.fixture
async def connection(nats: Nats, settings: Settings) -> AsyncIterator[Connection]:
    await nats.start()
    async with connected(settings.model_copy(update={"nats_url": nats.url}), "test", DEADLINE) as connection:
        yield connection


@contextlib.contextmanager
def standing_still(nats: Nats) -> Iterator[None]:
    assert nats.server is not None
    os.kill(nats.server.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(nats.server.pid, signal.SIGCONT)


async def is_answered(connection: Connection) -> bool:
    try:
        await connection.request("$JS.API.INFO", what="asking", timeout=1)
    except StoreUnavailable:
        return False
    return True


async def comes_back(connection: Connection) -> None:
    deadline = time.monotonic() + DEADLINE
    while not await is_answered(connection):
        assert time.monotonic() < deadline, "NATS is back, and the connection is not"
        await asyncio.sleep(0.05)


async def test_an_error_that_the_client_does_not_expect_is_not_its_last(
    connection: Connection, nats: Nats, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin, failed = Client._process_connect_init, 0

    async def fail(client: Client) -> None:
        nonlocal failed
        await begin(client)
        failed += 1
        if failed <= 2:
            raise RuntimeError("the handler is closed")

    monkeypatch.setattr(Client, "_process_connect_init", fail)
    await nats.stop()
    await nats.start()
    await comes_back(connection)
    assert failed == 3


@pytest.mark.parametrize("task", ["_reading_task", "_ping_interval_task", "_flusher_task"])
async def test_a_client_that_has_lost_a_task_connects_anew(
    connection: Connection, monkeypatch: pytest.MonkeyPatch, task: str
) -> None:
    monkeypatch.setattr(pulse, "_EVERY", 0.05)
    before = connection.client.stats["reconnects"]
    getattr(connection.client, task).cancel()
    await until(lambda: connection.is_up and connection.client.stats["reconnects"] > before)
    await comes_back(connection)
    assert not connection.client.is_maimed


async def test_also_one_that_may_not_ask_for_streams(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = asyncio.Event()

    async def denied(_subject: str) -> bytes:
        asked.set()
        raise RightMissing("no right")

    monkeypatch.setattr(pulse, "_EVERY", 0.05)
    monkeypatch.setattr(connection._pulse, "_ask", denied)
    await asyncio.wait_for(asked.wait(), DEADLINE)
    before = connection.client.stats["reconnects"]
    connection.client._flusher_task.cancel()
    await until(lambda: connection.is_up and connection.client.stats["reconnects"] > before)
    await comes_back(connection)


async def test_what_fails_after_the_return_costs_nothing_else(connection: Connection, nats: Nats) -> None:
    called = []

    async def fail() -> None:
        called.append("fails")
        raise ConnectionError("a bug")

    async def work() -> None:
        called.append("works")

    connection.reconnected[:] = [fail, work]
    await nats.stop()
    await nats.start()
    await until(lambda: "works" in called)
    assert called == ["fails", "works"]
    assert connection.is_up


async def test_a_server_that_stands_still_costs_one_socket(
    connection: Connection, nats: Nats, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(connection.client.options, "connect_timeout", 0.1)
    errors: list[Exception] = []
    told = connection._on_error

    async def note(error: Exception) -> None:
        errors.append(error)
        await told(error)

    connection.client._error_cb = note
    before = open_sockets(nats.port)
    with standing_still(nats):
        await connection.client.force_reconnect()
        await until(lambda: len(errors) >= 5)
        assert open_sockets(nats.port) <= before
    await comes_back(connection)


async def test_what_cannot_be_sent_does_not_hold_up_the_return(connection: Connection, nats: Nats) -> None:
    client = connection.client
    with standing_still(nats):
        client._transport.write(b"x" * 64_000_000)  # much more than the sockets take
        await client.force_reconnect()
        await until(lambda: connection.down_since is not None)  # told only once the old connection is closed
    await comes_back(connection)


def open_sockets(port: int) -> int:
    return sum(bool(each.raddr and each.raddr.port == port) for each in psutil.Process().net_connections("tcp"))


async def test_what_happens_again_and_again_is_told_now_and_then_with_how_often(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[dict[str, object]] = []

    def tell(what: str, **context: object) -> None:
        told.append({"what": what, **context})

    now = 1000.0
    monkeypatch.setattr("pyoco_server.store.nats.connection.time.monotonic", lambda: now)
    connection = Connection(settings, "c")
    for _ in range(1664):
        connection.tell(tell, "it differs", every_sec=3600.0, stream="S")
        connection.tell(tell, "it differs", every_sec=3600.0, stream="T")
    now += 3601.0
    connection.tell(tell, "it differs", every_sec=3600.0, stream="S")
    assert told == [
        {"what": "it differs", "connection": "c", "stream": "S"},
        {"what": "it differs", "connection": "c", "stream": "T"},
        {"what": "it differs", "connection": "c", "stream": "S", "times": 1664},
    ]
