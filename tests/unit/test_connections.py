"""Clients that stand still, over real sockets: each phase has a deadline, and there is room for others."""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvicorn

from pyoco_server.gateway.http.connections import STATE, Connections, Deadlines, Why
from pyoco_server.gateway.http.http1 import Http1Protocol
from pyoco_server.settings.environment import Settings

pytestmark = pytest.mark.anyio

DEADLINE = 10.0
QUICK = Deadlines(head_sec=0.3, body_sec=0.3, body_bytes=100, unread_sec=0.3, look_sec=0.02)
PATIENT = Deadlines(head_sec=60, body_sec=60, unread_sec=60, look_sec=0.02)
GET = b"GET /%b HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST /echo HTTP/1.1\r\nHost: a\r\n"


@dataclass
class Server:
    """A web server with an app that answers by its path."""

    port: int
    table: Connections
    ended: list[Why]
    left: list[str] = field(default_factory=list)
    """Paths whose clients went away, as the app was told."""

    async def connect(self, *said: bytes, source: str = "127.0.0.1") -> "Peer":
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, local_addr=(source, 0), limit=1 << 16)
        peer = Peer(reader, writer)
        for piece in said:
            await peer.say(piece)
        return peer

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        path = scope["path"].strip("/")
        start = {"type": "http.response.start", "status": 200, "headers": []}
        if path == "stream":
            await send(start)
            for number in range(10_000):
                await send({"type": "http.response.body", "body": b"event %d\n" % number, "more_body": True})
                message = asyncio.ensure_future(receive())
                done, _ = await asyncio.wait({message}, timeout=0.02)
                message.cancel()
                if done and message.result()["type"] == "http.disconnect":
                    break
            self.left.append(path)
            return
        body, more = b"", path != "unread"
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.left.append(path)
                return
            body, more = body + message["body"], message["more_body"]
        if path == "slow":
            await asyncio.sleep(1)
        large = b"x" * (32 << 20) if path == "large" else None
        names = [name.decode() for name, _ in scope["headers"]]
        answer = large or json.dumps({"body": len(body), "headers": names}).encode()
        start["headers"] = [(b"content-length", str(len(answer)).encode())]
        await send(start)
        await send({"type": "http.response.body", "body": answer})


@dataclass
class Peer:
    """A client's end of a connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def say(self, words: bytes) -> None:
        self.writer.write(words)
        await self.writer.drain()

    async def rest(self) -> bytes:
        """Read until the server ends the connection."""
        with contextlib.suppress(ConnectionError):
            return await asyncio.wait_for(self.reader.read(), DEADLINE)
        return b""

    async def answer(self) -> bytes:
        """Read one answer with a length."""
        head = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), DEADLINE)
        [length] = [int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        return head + await asyncio.wait_for(self.reader.readexactly(length), DEADLINE)


@contextlib.asynccontextmanager
async def serving(
    deadlines: Deadlines = QUICK, *, keep_alive: float = 60.0, most: int = 100, **settings: Any
) -> AsyncIterator[Server]:
    ended: list[Why] = []
    wanted = Settings(_env_file=None, http_max_connections=most, **settings)
    table = Connections(wanted, deadlines, ended.append)
    sock = socket.socket()
    sock.bind(("0.0.0.0", 0))
    here = Server(sock.getsockname()[1], table, ended)
    server = uvicorn.Server(
        uvicorn.Config(here.app, http=Http1Protocol, ws="none", lifespan="off", interface="asgi3", log_config=None,
                       timeout_keep_alive=keep_alive, timeout_graceful_shutdown=1)  # type: ignore[arg-type]
    )  # fmt: skip
    server.config.load()
    server.lifespan = server.config.lifespan_class(server.config)
    server.lifespan.state[STATE] = table
    await server.startup(sockets=[sock])
    try:
        yield here
    finally:
        server.should_exit = True
        await server.shutdown(sockets=[sock])


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE) if hasattr(asyncio, "timeout") else contextlib.nullcontext():
        while not holds():
            await asyncio.sleep(0.01)


SILENT = {
    "nothing at all": (b"", Why.SILENT, None),
    "line ends alone": (b"\r\n\r\n", Why.SILENT, None),
    "a request line": (b"GET / HTTP/1.1\r\n", Why.HEAD, 408),
    "half a head": (b"GET / HTTP/1.1\r\nHost: a\r\nX-A: ", Why.HEAD, 408),
    "half a head after a good request": (GET % b"" + b"GET / HT", Why.HEAD, 408),
    "a length and no body": (POST + b"Content-Length: 10\r\n\r\n", Why.BODY, 408),
    "a length and a part of the body": (POST + b"Content-Length: 10\r\n\r\n12345", Why.BODY, 408),
    "no chunk": (POST + b"Transfer-Encoding: chunked\r\n\r\n", Why.BODY, 408),
    "half a chunk": (POST + b"Transfer-Encoding: chunked\r\n\r\n5\r\nab", Why.BODY, 408),
    "no end of chunks": (POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n", Why.BODY, 408),
    "half a trailer": (POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX-A: ", Why.BODY, 408),
    "a body that nobody reads": (b"GET /unread HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n", Why.BODY, None),
    "a body that waits to be asked for": (
        POST + b"Expect: 100-continue\r\nContent-Length: 10\r\n\r\n", Why.BODY, 408,
    ),
    "an answer that is not read": (GET % b"large", Why.UNREAD, None),
    "many answers that are not read": (GET % b"large" * 5, Why.UNREAD, None),
}  # fmt: skip


@pytest.mark.parametrize("words", SILENT)
async def test_who_stands_still_is_ended(words: str) -> None:
    said, why, status = SILENT[words]
    async with serving() as here:
        peer = await here.connect(said) if why is not Why.UNREAD else None
        deaf = await _connect_deaf(here.port, said) if peer is None else None
        await until(lambda: here.ended == [why])
        await until(lambda: here.table.open == 0)
        if deaf is not None:
            deaf.close()
        elif peer is not None:
            said_last = (await peer.rest()).split(b"HTTP/1.1 ")[-1]
            assert said_last.startswith(str(status).encode()) if status else b"408" not in said_last[:3]
            if status:
                assert json.loads(said_last.split(b"\r\n\r\n")[1])["code"] == "request_timeout"
            peer.writer.close()


async def _connect_deaf(port: int, said: bytes) -> socket.socket:
    """Connect somebody who reads nothing, not even into a buffer of asyncio's."""
    sock = socket.socket()
    sock.setblocking(False)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(sock, ("127.0.0.1", port))
    await loop.sock_sendall(sock, said)
    return sock


@pytest.mark.parametrize("begin", [b"GET / HTTP/1.1\r\nX-A: ", POST + b"Content-Length: 9999\r\n\r\n",
                                   POST + b"Transfer-Encoding: chunked\r\n\r\nffff\r\n"],
                         ids=["head", "body", "chunks"])  # fmt: skip
async def test_who_trickles_is_ended(begin: bytes) -> None:
    async with serving() as here:
        peer = await here.connect(begin)
        with contextlib.suppress(ConnectionError):
            while not here.ended:
                await peer.say(b"a")
                await asyncio.sleep(0.02)
        assert here.ended[0] in (Why.HEAD, Why.BODY)
        peer.writer.close()


async def test_an_idle_connection_is_ended() -> None:
    async with serving(keep_alive=0.2) as here:
        peer = await here.connect(GET % b"")
        assert (await peer.answer()).startswith(b"HTTP/1.1 200")
        assert await peer.rest() == b"" and here.ended == [Why.IDLE]


async def test_a_slow_but_steady_body_arrives() -> None:
    async with serving() as here:
        peer = await here.connect(POST + b"Content-Length: 1500\r\n\r\n")
        for _ in range(30):  # twice the deadline and more
            await peer.say(b"x" * 50)
            await asyncio.sleep(0.025)
        assert b'"body": 1500' in await peer.answer()
        assert here.ended == []


async def test_a_slow_answer_is_waited_for() -> None:
    async with serving() as here:
        peer = await here.connect(GET % b"slow")
        assert (await peer.answer()).startswith(b"HTTP/1.1 200")
        assert here.ended == []


async def test_a_slow_reader_gets_all() -> None:
    async with serving() as here:
        peer = await here.connect(GET % b"large")
        got = 0
        while got < 32 << 20:
            got += len(await asyncio.wait_for(peer.reader.read(1 << 20), DEADLINE))
            await asyncio.sleep(0.01)
        assert here.ended == []


async def test_an_open_stream_lives_while_it_is_read() -> None:
    async with serving() as here:
        peer = await here.connect(GET % b"stream")
        seen = b""
        while b"event 60\n" not in seen:
            seen += await asyncio.wait_for(peer.reader.read(1 << 16), DEADLINE)
        assert here.ended == [] and here.table.open == 1
        peer.writer.close()
        await until(lambda: here.left == ["stream"])


async def test_a_request_behind_a_stream_does_not_hide_that_its_client_left() -> None:
    async with serving() as here:
        peer = await here.connect(GET % b"stream" + GET % b"next")
        await asyncio.wait_for(peer.reader.readuntil(b"event 1\n"), DEADLINE)
        peer.writer.transport.abort()
        await until(lambda: here.left == ["stream"])


WAITING = {
    "new": b"",
    "head": b"GET / HT",
    "idle": GET % b"",
    "body": POST + b"Content-Length: 10\r\n\r\n1",
}


@pytest.mark.parametrize("kind", WAITING)
async def test_who_has_waited_longest_gives_way(kind: str) -> None:
    async with serving(PATIENT, most=8) as here:
        peers = []
        for _ in range(8):
            peers.append(await here.connect(WAITING[kind]))
            await until(lambda: here.table.open == len(peers))
            if kind == "idle":
                await peers[-1].answer()
        newcomer = await here.connect(GET % b"")
        assert (await newcomer.answer()).startswith(b"HTTP/1.1 200")
        assert here.ended == [Why.ROOM] and here.table.short_of_room() == 1
        told = await peers[0].rest()  # the oldest
        assert told.startswith(b"HTTP/1.1 503") if kind in ("head", "body") else told == b""
        assert "8 may be" in here.table.warning()
        for peer in [*peers[1:], newcomer]:
            assert not peer.reader.at_eof()
            peer.writer.close()


async def test_who_sends_gives_way_last() -> None:
    async with serving(PATIENT, most=8) as here:
        first = await here.connect(POST + b"Content-Length: 100\r\n\r\n")
        others = [await here.connect() for _ in range(7)]
        await until(lambda: here.table.open == 8)
        for number in range(7):
            await first.say(b"x" * 10)
            await until(lambda: here.table.figures()["waiting"] == 8)
            await asyncio.sleep(0.02)  # the server has read it
            others.append(await here.connect(GET % b""))
            assert await others[-1].answer()
            assert here.ended == [Why.ROOM] * (number + 1)
        await first.say(b"x" * 30)
        assert b'"body": 100' in await first.answer()
        assert [await peer.rest() for peer in others[:7]] == [b""] * 7


async def test_where_all_are_served_a_new_one_is_refused_at_once() -> None:
    async with serving(PATIENT, most=8) as here:
        streams = [await here.connect(GET % b"stream") for _ in range(8)]
        for peer in streams:
            await asyncio.wait_for(peer.reader.readuntil(b"event 1\n"), DEADLINE)
        refused = await (await here.connect()).rest()
        assert refused.startswith(b"HTTP/1.1 503") and b"retry-after: 1" in refused
        assert json.loads(refused.split(b"\r\n\r\n")[1])["code"] == "too_many_connections"
        assert here.ended == [Why.REFUSED]
        streams[0].writer.close()
        await until(lambda: here.table.open == 7)
        assert (await (await here.connect(GET % b"")).answer()).startswith(b"HTTP/1.1 200")
        for peer in streams[1:]:
            peer.writer.close()


async def test_one_address_does_not_take_all(monkeypatch: pytest.MonkeyPatch) -> None:
    from pyoco_server.gateway.http import http1

    # Loopback carries many clients: let the test's addresses be those of others.
    monkeypatch.setattr(http1, "address_of", lambda host: host.replace("127.0.0.", "198.51.100."))
    async with serving(PATIENT, most=8, http_max_connections_per_address=3, trusted_proxies="198.51.100.9") as here:
        greedy = [await here.connect(source="127.0.0.2") for _ in range(3)]
        other = await here.connect(source="127.0.0.3")
        await until(lambda: here.table.open == 4)
        newcomer = await here.connect(GET % b"", source="127.0.0.2")
        assert (await newcomer.answer()).startswith(b"HTTP/1.1 200")
        assert here.ended == [Why.ROOM] and await greedy[0].rest() == b""
        proxied = [await here.connect(source="127.0.0.9") for _ in range(4)]
        await until(lambda: here.table.open == 8)
        assert here.ended == [Why.ROOM] and not any(peer.reader.at_eof() for peer in [other, newcomer, *proxied])


async def test_loopback_has_no_bound_of_its_own() -> None:
    async with serving(PATIENT, most=8, http_max_connections_per_address=1) as here:
        peers = [await here.connect() for _ in range(8)]
        await until(lambda: here.table.open == 8)
        assert here.ended == [] and len(peers) == 8


@pytest.mark.parametrize("name", ["X-API-Key", "Idempotency-Key", "Host", "Content-Type", "Origin", "Expect", "X-Any"])
async def test_a_trailer_is_no_header(name: str) -> None:
    async with serving() as here:
        plain = POST + b"Transfer-Encoding: chunked\r\n%b\r\n1\r\na\r\n0\r\n%b: v\r\n\r\n"
        for announced in (b"", b"Trailer: %b\r\n" % name.encode()):
            peer = await here.connect(plain % (announced, name.encode()) + GET % b"after")
            told = json.loads((await peer.answer()).split(b"\r\n\r\n")[1])
            wanted = ["host", "transfer-encoding", *(["trailer"] if announced else [])]
            assert told == {"body": 1, "headers": wanted}
            assert json.loads((await peer.answer()).split(b"\r\n\r\n")[1])["headers"] == ["host"]


ENDLESS = {
    "a header": b"GET / HTTP/1.1\r\nX-A: " + b"a" * 100_000,
    "headers": b"GET / HTTP/1.1\r\n" + b"X-A: a\r\n" * 20_000,
    "a path": b"GET /" + b"a" * 100_000,
    "a trailer": POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX-A: " + b"a" * 600_000,
    "line ends": b"\r\n" * 100_000,
}


@pytest.mark.parametrize("words", ENDLESS)
async def test_what_has_no_end_is_refused(words: str) -> None:
    async with serving(PATIENT) as here:
        peer = await here.connect()
        with contextlib.suppress(ConnectionError):
            for at in range(0, len(ENDLESS[words]), 10_000):
                await peer.say(ENDLESS[words][at : at + 10_000])
                await asyncio.sleep(0)
        assert (await peer.rest())[:12] in (b"HTTP/1.1 431", b"")  # it may be lost where much was still on its way
        await until(lambda: here.table.open == 0)


async def test_of_many_requests_sent_ahead_the_first_are_answered() -> None:
    async with serving(PATIENT) as here:
        peer = await here.connect(GET % b"a" * 500)
        answers = (await peer.rest()).count(b"HTTP/1.1 200")
        assert 2 <= answers <= 20
        await until(lambda: here.table.open == 0)


async def test_requests_sent_ahead_leave_time_for_others() -> None:
    async with serving(PATIENT, most=80) as here:
        crowd = [await here.connect(GET % b"a" * 8) for _ in range(60)]
        for _ in range(5):
            assert (await (await here.connect(GET % b"")).answer()).startswith(b"HTTP/1.1 200")
        for peer in crowd:
            for _ in range(8):
                await peer.answer()
        assert Why.REFUSED not in here.ended
