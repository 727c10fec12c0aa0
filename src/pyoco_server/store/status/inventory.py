"""What lies in a bucket, without its values: keys, revisions, ages. For those who look at all of it now and then."""

import asyncio
import contextlib
from array import array
from collections.abc import AsyncGenerator
from dataclasses import dataclass

import nats.errors
from nats.aio.msg import Msg
from nats.js import api
from nats.js.errors import APIError

from pyoco_server.errors import StoreUnavailable
from pyoco_server.process.waiting import first_event
from pyoco_server.store.nats.bucket import is_removal
from pyoco_server.store.nats.connection import REQUEST_TIMEOUT, Connection
from pyoco_server.store.nats.pull_line import NO_MESSAGES, TIMED_OUT, PullLine

_PAGE = 1000
_SIZE = "Nats-Msg-Size"
"""Header that stands for the value."""


@dataclass(frozen=True)
class Held:
    """A key that has a value."""

    key: str
    revision: int
    stored_at: float
    """When, in unix seconds by NATS's clock."""


async def holdings(connection: Connection, bucket: str, *, after: int = 0) -> AsyncGenerator[list[Held], None]:
    """Give what a bucket holds, a page of revisions at a time; a page may be empty though more follow.

    One short-lived consumer serves all pages, so leave the loop by ``aclosing``.

    Args:
        connection: The connection.
        bucket: The bucket's name.
        after: Only higher revisions.

    Raises:
        StoreUnavailable: NATS is away, or lost a message on the way.
    """
    stream, prefix, what = f"KV_{bucket}", f"$KV.{bucket}.", f"looking through the bucket {bucket}"
    config = api.ConsumerConfig(
        deliver_policy=api.DeliverPolicy.BY_START_SEQUENCE,
        opt_start_seq=after + 1,
        ack_policy=api.AckPolicy.NONE,
        headers_only=True,
        mem_storage=True,
        num_replicas=1,
        inactive_threshold=30.0,
    )
    with connection.errors(what):
        consumer = str((await connection.js.add_consumer(stream, config)).name)
    messages: list[Msg] = []
    ends: list[int] = []
    news = asyncio.Event()

    def receive(message: Msg) -> None:
        messages.append(message)
        news.set()

    def end(status: int, _: str) -> None:
        ends.append(status)
        news.set()

    line = PullLine(connection, stream, consumer, receive, end)
    expected, left = 1, 0
    try:
        while not ends:
            await line.request(batch=_PAGE, expires=None)
            while len(messages) < _PAGE and not ends:
                news.clear()
                await first_event(REQUEST_TIMEOUT, news)
                if not news.is_set():
                    raise StoreUnavailable(f"{what}: NATS did not answer")
            page = []
            for message in messages:
                meta = message.metadata
                if meta.sequence.consumer != expected:
                    raise StoreUnavailable(f"{what}: a message was lost on the way")
                expected, left = expected + 1, meta.num_pending
                if not is_removal(message.headers) and (message.headers or {}).get(_SIZE) != "0":
                    key = message.subject[len(prefix) :]
                    page.append(Held(key, meta.sequence.stream, meta.timestamp.timestamp()))
            messages.clear()
            if ends and (left or ends[0] not in (NO_MESSAGES, TIMED_OUT)):
                raise StoreUnavailable(f"{what}: it broke off with status {ends[0]}")
            yield page
    finally:
        await line.withdraw()
        with contextlib.suppress(APIError, nats.errors.Error, asyncio.TimeoutError, StoreUnavailable, OSError):
            await connection.js.delete_consumer(stream, consumer)


async def revisions(connection: Connection, bucket: str) -> "array[int]":
    """Give the revisions of all that a bucket holds, in their order; 8 bytes each.

    Raises:
        StoreUnavailable: NATS is away.
    """
    found = array("Q")
    async with contextlib.aclosing(holdings(connection, bucket)) as pages:
        async for page in pages:
            found.extend(held.revision for held in page)
    return found
