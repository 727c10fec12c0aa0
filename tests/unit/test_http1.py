"""HTTP/1.1 over a real socket, from clients that offer another protocol: an app that echoes what it was sent."""

import asyncio
import itertools
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import uvicorn
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from pyoco_server.gateway.http.http1 import Http1Protocol

pytestmark = pytest.mark.anyio

DEADLINE = 20.0
CURL = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n"
OFFERS = {
    "none": b"",
    "curl's": CURL,
    "Java's, in another order": b"HTTP2-Settings: AAE\r\nUpgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\n",
    "a websocket": b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: eA==\r\n",
    "TLS": b"Upgrade: TLS/1.0\r\nConnection: upgrade\r\n",
    "several, in capitals": b"UPGRADE: h2c, websocket\r\nCONNECTION: keep-alive, UPGRADE\r\n",
    "two headers of the name": b"Upgrade: h2c\r\nUpgrade: IRC/6.9\r\nConnection: upgrade\r\n",
    "one without Connection": b"Upgrade: h2c\r\n",
}


@dataclass
class Request:
    """What is sent."""

    offer: str
    body: bytes
    chunk: int | None
    """Size of the chunks; ``None`` to tell the length instead."""

    def encode(self, number: int) -> bytes:
        head = b"POST /n/%d?q=1 HTTP/1.1\r\nHost: a\r\n" % number + OFFERS[self.offer]
        if self.chunk is None:
            return head + b"Content-Length: %d\r\n\r\n" % len(self.body) + self.body
        parts = [self.body[at : at + self.chunk] for at in range(0, len(self.body), self.chunk)]
        chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
        return head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"


async def echo(scope: Any, receive: Any, send: Any) -> None:
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message["body"], message["more_body"]
    told = {"method": scope["method"], "path": scope["path"], "body": body.hex(),
            "headers": [name.decode() for name, _ in scope["headers"]]}  # fmt: skip
    answer = json.dumps(told).encode()
    headers = [(b"content-length", str(len(answer)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer})


@asynccontextmanager
async def serving() -> AsyncIterator[int]:
    server = uvicorn.Server(uvicorn.Config(echo, http=Http1Protocol, ws="none", lifespan="off", log_config=None))
    server.config.load()
    server.lifespan = server.config.lifespan_class(server.config)
    await server.startup(sockets=[(sock := _free_socket())])
    try:
        yield sock.getsockname()[1]
    finally:
        server.should_exit = True
        await server.shutdown(sockets=[sock])


def _free_socket() -> socket.socket:
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    return sock


async def read_answer(reader: asyncio.StreamReader) -> tuple[bytes, dict[str, Any]]:
    head = await reader.readuntil(b"\r\n\r\n")
    if head.startswith(b"HTTP/1.1 100"):
        return head, {}
    [length] = [int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")]
    return head, json.loads(await reader.readexactly(length))


async def exchange(port: int, pieces: list[bytes], answers: int) -> list[dict[str, Any]]:
    """Send pieces, each in a packet of its own as far as that can be had, and read as many answers."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
        found = [(await asyncio.wait_for(read_answer(reader), DEADLINE)) for _ in range(answers)]
        assert all(head.startswith(b"HTTP/1.1 200") for head, _ in found)
        return [told for _, told in found]
    finally:
        writer.close()


def check(sent: list[Request], told: list[dict[str, Any]]) -> None:
    assert [(one["path"], bytes.fromhex(one["body"])) for one in told] == [
        (f"/n/{number}", request.body) for number, request in enumerate(sent)
    ]
    assert {one["method"] for one in told} == {"POST"}


@pytest.mark.parametrize("chunk", [None, 7], ids=["length", "chunks"])
@pytest.mark.parametrize("offer", OFFERS)
async def test_an_offer_changes_nothing(offer: str, chunk: int | None) -> None:
    sent = [Request(offer, b'{"flow_name": "main"}', chunk), Request(offer, b"", None), Request("none", b"x", chunk)]
    async with serving() as port:
        whole = b"".join(request.encode(number) for number, request in enumerate(sent))
        check(sent, await exchange(port, [whole], 3))
        check(sent, await exchange(port, [whole[at : at + 1] for at in range(len(whole))], 3))


async def test_what_is_read_over_is_not_passed_on() -> None:
    async with serving() as port:
        [told] = await exchange(port, [Request("curl's", b"x", None).encode(0)], 1)
    assert "upgrade" not in told["headers"] and {"host", "connection", "content-length"} <= set(told["headers"])


@pytest.mark.parametrize("offer", OFFERS)
async def test_a_body_that_waits_to_be_asked_for(offer: str) -> None:
    head = b"POST /n/0 HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n" + OFFERS[offer] + b"Content-Length: 4\r\n\r\n"
    async with serving() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head)
        first, _ = await asyncio.wait_for(read_answer(reader), DEADLINE)
        assert first.startswith(b"HTTP/1.1 100")
        writer.write(b"body")
        _, told = await asyncio.wait_for(read_answer(reader), DEADLINE)
        assert bytes.fromhex(told["body"]) == b"body"
        writer.close()


async def test_a_large_body_in_many_packets() -> None:
    request = Request("curl's", bytes(range(256)) * 8192, None)
    whole = request.encode(0)
    async with serving() as port:
        check([request], await exchange(port, [whole[at : at + 65_536] for at in range(0, len(whole), 65_536)], 1))


@pytest.mark.parametrize(
    "words",
    [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00", b"POST / HTTP/1.1\r\nUpgrade\r\n\r\n"],
    ids=["HTTP/2 without asking", "TLS", "no header"],
)  # fmt: skip
async def test_what_is_not_http_1_is_refused(words: bytes) -> None:
    async with serving() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(words)
        assert (await asyncio.wait_for(reader.read(), DEADLINE)).startswith(b"HTTP/1.1 400")  # and then the end
        writer.close()


@pytest.mark.parametrize("target", [b"example.org:443", b"/n/0"])
async def test_a_tunnel_is_not_opened(target: bytes) -> None:
    async with serving() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"CONNECT %b HTTP/1.1\r\nHost: a\r\n\r\nGET /n/1 HTTP/1.1\r\nHost: a\r\n\r\n" % target)
        answer = await asyncio.wait_for(reader.read(), DEADLINE)  # ends: the connection is closed
        assert answer.count(b"HTTP/1.1 ") == 1
        writer.close()


REQUESTS = st.lists(
    st.builds(
        Request, offer=st.sampled_from(sorted(OFFERS)), body=st.binary(max_size=300),
        chunk=st.none() | st.integers(1, 50),
    ),
    min_size=1, max_size=5,
)  # fmt: skip


@given(sent=REQUESTS, cuts=st.lists(st.integers(0, 3000), max_size=8))
@hypothesis_settings(
    max_examples=25, deadline=None, phases=[Phase.generate], suppress_health_check=[HealthCheck.function_scoped_fixture]
)
async def test_bodies_arrive_however_they_are_sent(sent: list[Request], cuts: list[int]) -> None:
    whole = b"".join(request.encode(number) for number, request in enumerate(sent))
    edges = sorted({0, len(whole), *(cut for cut in cuts if cut < len(whole))})
    pieces = [whole[left:right] for left, right in itertools.pairwise(edges)]
    async with serving() as port:
        check(sent, await exchange(port, pieces, len(sent)))
