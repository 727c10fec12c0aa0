"""Headers that contradict each other, come too late, or lead elsewhere: each is refused, and none counts."""

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator

import httpx2
import pytest

from pyoco_server.gateway.access.guard import doors
from pyoco_server.model.apikey import ApiKey
from pyoco_server.settings.environment import Settings

from .keyholders import asking, make_key, sent
from .test_gateway import DEADLINE, JSON, Running, running

pytestmark = pytest.mark.anyio

RUN = b'{"flow_name": "f", "tag": "nobody"}'


@pytest.fixture
async def here(settings: Settings) -> AsyncIterator[Running]:
    async with running(settings) as server:
        yield server


@contextlib.asynccontextmanager
async def connected(here: Running) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", httpx2.URL(here.listener.url).port)
    try:
        yield reader, writer
    finally:
        writer.close()


async def exchange(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, words: bytes
) -> tuple[int, bytes, bytes]:
    """Send bytes as they are; give the answer's status, head and body."""
    writer.write(words)
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), DEADLINE)
    length = [int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    body = await asyncio.wait_for(reader.readexactly(length[0]), DEADLINE) if length else b""
    return int(head[9:12]), head, body


async def speak(here: Running, words: bytes) -> tuple[int, bytes, bytes]:
    async with connected(here) as (reader, writer):
        return await exchange(reader, writer, words)


TWICE = [
    ("Idempotency-Key", "a", "b", 422),
    ("idempotency-key", "a", "A", 422),
    ("Last-Event-ID", "1", "2", 422),
    ("Host", "127.0.0.1", "localhost", 400),
    ("Content-Type", "application/json", "text/plain", 400),
    ("Content-Length", "35", "3", 400),
    ("Origin", "http://127.0.0.1", "http://evil.example", 400),
    ("Sec-Fetch-Site", "same-origin", "cross-site", 400),
]


async def test_a_header_that_decides_is_sent_once(here: Running) -> None:
    usual = {b"Host": b"127.0.0.1", b"Content-Type": b"application/json", b"Content-Length": b"35"}
    for name, one, other, status in TWICE:
        kept = b"".join(b"%b: %b\r\n" % header for header in usual.items() if header[0].decode() != name)
        for values, between in itertools.product(([one, other], [other, one]), (b"", b"X-A: b\r\n")):
            both = between.join(b"%b: %b\r\n" % (name.encode(), value.encode()) for value in values)
            told, _, body = await speak(here, b"POST /runs HTTP/1.1\r\n" + kept + both + b"\r\n" + RUN)
            assert told == status, name
            if name != "Content-Length":  # the parser refuses that
                answer = json.loads(body)
                assert answer["code"] == "header_repeated" and name.lower() in answer["detail"] and answer["hint"]
    for path in (b"/health", b"/", b"/static/app.js", b"/nothing", b"/runs"):
        told, _, _ = await speak(here, b"GET %b HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: localhost\r\n\r\n" % path)
        assert told == 400
    assert (await here.http.get("/runs")).json() == []
    # The same twice does no harm.
    twice = [("Idempotency-Key", "k"), ("Idempotency-Key", "k"), *JSON.items()]
    assert (await here.http.post("/runs", content=RUN, headers=twice)).status_code == 200


async def test_of_two_keys_none_counts(settings: Settings) -> None:
    async with asking(settings) as here:
        good = (await make_key(here.gateway.keys.store)).reveal()
        for pair in ([good, ApiKey.new().reveal()], [ApiKey.new().reveal(), good], [good, ""], ["", good]):
            answer = await here.http.get("/runs", headers=[("X-API-Key", value) for value in pair])
            assert (answer.status_code, answer.json()["code"]) == (401, "header_repeated")
            assert answer.headers["www-authenticate"] == "ApiKey"
            assert not any(value in answer.text for value in pair if value)


async def test_a_key_behind_the_body_admits_nobody(settings: Settings) -> None:
    async with asking(settings) as here:
        key = (await make_key(here.gateway.keys.store)).reveal().encode()
        chunks = b"%x\r\n%b\r\n0\r\n" % (len(RUN), RUN)
        head = b"POST /runs HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        for announced in (b"", b"Trailer: X-API-Key\r\n"):
            words = head + announced + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"X-API-Key: %b\r\n\r\n" % key
            assert (await speak(here, words))[0] == 401
        # Where the key stands in the head, a trailer of its name changes nothing, nor does an idempotency key.
        words = head + b"X-API-Key: %b\r\nTransfer-Encoding: chunked\r\n\r\n" % key + chunks
        told, _, body = await speak(
            here, words + b"X-API-Key: none\r\nIdempotency-Key: late\r\nHost: evil.example\r\n\r\n"
        )
        assert told == 200
        run = (
            await here.http.get(f"/runs/{json.loads(body)['run_id']}", headers=sent(ApiKey.parse(key.decode())))
        ).json()
        assert run["idempotency_key"] is None


@pytest.mark.parametrize("prefix", ["", "/pyoco"])
async def test_no_path_leads_elsewhere(settings: Settings, prefix: str) -> None:
    async with running(settings.model_copy(update={"root_path": prefix})) as here:
        app = here.listener._app
        own = {door.route.path or "/" for door in doors(app)} | {
            "/static",
            "/static/views",
            "/static/app.js",
            "/nothing",
        }
        paths = {path.format(**dict.fromkeys(("run_id", "name", "worker_id", "letter_id", "path", "task"), "x"))
                 for path in own if path.count("{") <= 2}  # fmt: skip
        endings = ["", "/", "//", "/.", "/..", "/%2F", "%2F", "/?x=/", "//evil.example", "/%5Cevil.example"]
        for path in sorted(before + path for before in {"", prefix} for path in paths):
            if path.endswith(("/events", "/watch")):
                continue  # streams
            for ending in endings:
                async with connected(here) as (reader, writer):
                    words = b"GET %b HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" % (path + ending).encode()
                    told, head, _ = await exchange(reader, writer, words)
                    assert not 300 <= told < 400 and b"\r\nlocation:" not in head.lower(), (path + ending, head)
