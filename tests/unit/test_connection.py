"""What the NATS client raises, and what becomes of it."""

import asyncio

import pytest
import uvloop

from pyoco_server.errors import StoreUnavailable
from pyoco_server.settings.environment import Settings
from pyoco_server.store.nats.connection import Connection


async def write_to_a_closed_socket() -> None:
    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.transport.abort()
        await asyncio.sleep(0)
        with Connection(Settings(_env_file=None), "test").errors("asking"):
            writer.write(b"x")


def test_a_socket_that_uvloop_finds_closed_is_nats_being_away() -> None:
    with pytest.raises(StoreUnavailable, match="asking: NATS did not answer"):
        uvloop.run(write_to_a_closed_socket())


async def other_error() -> None:
    with Connection(Settings(_env_file=None), "test").errors("asking"):
        raise RuntimeError("a bug")


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="a bug"):
        asyncio.run(other_error())
