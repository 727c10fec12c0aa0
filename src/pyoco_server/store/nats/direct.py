"""Messages of a stream by their sequence, without a consumer: read in batches, and taken out."""

import asyncio
import base64
import contextlib
import json
import time
from collections import deque
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Any

import nats.errors
import structlog
from nats.aio.msg import Msg
from nats.js.errors import NotFoundError

from pyoco_server.errors import StoreUnavailable
from pyoco_server.process.waiting import first_event
from pyoco_server.store.nats.connection import REQUEST_TIMEOUT, Connection
from pyoco_server.store.nats.direct_reads import OFF_HINT

log = structlog.get_logger(__name__)

_BATCH = 64
_END_OF_BATCH = "204"
_NO_MESSAGE = "404"
_NO_RESPONDERS = "503"
_NO_MESSAGE_FOUND = 10037
_SEQUENCE_NOT_FOUND = 10043
_DELETE_FAILED = 10057


def read_time(text: str) -> datetime:
    """Read a time as NATS writes it: in UTC, with up to nine digits behind the second."""
    whole, _, fraction = text.rstrip("Z").partition(".")
    return datetime.fromisoformat(f"{whole}.{fraction[:6]:0<6}+00:00")


@dataclass(frozen=True)
class StreamMessage:
    """One stored message."""

    seq: int
    subject: str
    data: bytes
    headers: Mapping[str, str]
    pending: int
    """How many matching messages come after it."""

    @property
    def stored_at(self) -> datetime:
        """When it was stored, by NATS's clock."""
        return read_time(self.headers["Nats-Time-Stamp"])


class _NoDirectReads(Exception):
    """The stream takes none, or our user may not make them."""


class DirectReader:
    """Reads a stream by direct reads, in batches; where it takes none by JetStream's API, one message at a time.

    Args:
        connection: The connection.
        stream: The stream's name.
    """

    def __init__(self, connection: Connection, stream: str) -> None:
        self._connection = connection
        self._stream = stream

    async def read(self, *, start: int | datetime, subject: str, limit: int) -> list[StreamMessage]:
        """Give the first ``limit`` messages from a sequence or a time on.

        Args:
            start: The lowest sequence, or the earliest time by NATS's clock.
            subject: Only these; may hold wildcards.
            limit: How many at most; asked for in pieces, so that the answer never overruns the client.

        Raises:
            StoreUnavailable: NATS is away, or there is no such stream.
        """
        found: list[StreamMessage] = []
        while len(found) < limit:
            piece = min(_BATCH, limit - len(found))
            messages = await self._batch(start, subject, piece)
            found += messages
            if len(messages) < piece or not messages[-1].pending:
                break
            start = messages[-1].seq + 1
        return found

    async def newest(self, *, before: int | None, subject: str, limit: int) -> list[StreamMessage]:
        """Give the last ``limit`` messages below a sequence, the newest first.

        A stream is read upwards only. Each read also tells how many messages follow it, so the place from where
        exactly ``limit`` are left is found by halving: in a stream without holes at once, at worst after as many reads
        as the stream's length has binary digits.

        Args:
            before: Only lower sequences; ``None`` for all.
            subject: Only these; may hold wildcards.
            limit: How many at most.

        Raises:
            StoreUnavailable: NATS is away, or there is no such stream.
        """
        with self._connection.errors(f"looking at the stream {self._stream}"):
            state = (await self._connection.js.stream_info(self._stream)).state
        end = state.last_seq + 1 if before is None else min(before, state.last_seq + 1)
        first = max(1, state.first_seq)
        try:
            beyond = await self._count_from(end, subject) if end <= state.last_seq else 0
            return await self._newest_by_count(first, end, subject, limit, beyond)
        except _NoDirectReads:  # without them nothing tells how many follow
            return await self._newest_by_walking(first, end, subject, limit)

    async def _newest_by_count(
        self, first: int, end: int, subject: str, limit: int, beyond: int
    ) -> list[StreamMessage]:
        step = limit
        low, short = end, end  # from ``short`` on there are too few
        while low > first:
            low = max(first, end - step)
            left = await self._count_from(low, subject) - beyond
            if left > limit:
                low = await self._halve(low, short, subject, limit + beyond)
            if left >= limit:
                break
            short, step = low, step * 2
        messages = await self.read(start=low, subject=subject, limit=limit)
        return [message for message in reversed(messages) if message.seq < end]

    async def _newest_by_walking(self, first: int, end: int, subject: str, limit: int) -> list[StreamMessage]:
        """Read ever longer stretches before the end, until there are enough."""
        found: list[StreamMessage] = []
        low, step = end, limit
        while low > first and len(found) < limit:
            high, low = low, max(first, low - step)
            last: deque[StreamMessage] = deque(maxlen=limit - len(found))
            async for message in self._walk(low, subject):
                if message.seq >= high:
                    break
                last.append(message)
            found += reversed(last)
            step *= 2
        return found

    async def _halve(self, low: int, short: int, subject: str, wanted: int) -> int:
        """Give the highest sequence from which ``wanted`` are left: ``low`` has enough, ``short`` too few."""
        while short - low > 1:
            middle = (low + short) // 2
            left = await self._count_from(middle, subject)
            if left < wanted:
                short = middle
            else:
                low = middle
                if left == wanted:
                    break
        return low

    async def _count_from(self, start: int, subject: str) -> int:
        messages = await self._directly(start, subject, 1)
        return messages[0].pending + 1 if messages else 0

    async def _batch(self, start: int | datetime, subject: str, limit: int) -> list[StreamMessage]:
        try:
            return await self._directly(start, subject, limit)
        except _NoDirectReads:
            found: list[StreamMessage] = []
            async for message in self._walk(start, subject):
                found.append(message)
                if len(found) > limit:  # there is one more, which is all that ``pending`` must tell
                    break
            last = len(found) - 1
            return [replace(message, pending=last - at) for at, message in enumerate(found[:limit])]

    async def _walk(self, start: int | datetime, subject: str) -> AsyncIterator[StreamMessage]:
        """Yield messages one after the other, by JetStream's API; none of them knows how many follow."""
        told = self._connection.direct_reads.told
        while message := await next_message(self._connection, self._stream, start, subject):
            if self._stream not in told:
                told.add(self._stream)
                log.warning(
                    "a stream takes no direct reads; it is read message by message, which takes longer",
                    stream=self._stream, hint=OFF_HINT,
                )  # fmt: skip
            yield message
            start = message.seq + 1

    async def _directly(self, start: int | datetime, subject: str, limit: int) -> list[StreamMessage]:
        """Read a batch directly.

        Raises:
            _NoDirectReads: there are none of this stream.
            StoreUnavailable: NATS is away.
        """
        known = self._connection.direct_reads
        if not known.may_be_asked(self._stream):
            raise _NoDirectReads
        try:
            return await self._ask_directly(start, subject, limit)
        except StoreUnavailable as error:
            if known.failed(self._stream, error):
                raise _NoDirectReads from error
            raise

    async def _ask_directly(self, start: int | datetime, subject: str, limit: int) -> list[StreamMessage]:
        what = f"reading the stream {self._stream}"
        client = self._connection.client
        found: list[StreamMessage] = []
        status: list[str] = []
        news = asyncio.Event()

        async def receive(message: Msg) -> None:
            headers: dict[str, Any] = message.headers or {}
            if "Nats-Sequence" in headers:
                found.append(_message(message, headers))
            else:
                status.append(headers.get("Status", "unknown"))
            news.set()

        wish = {"batch": limit, **_wish(start, subject)}
        with self._connection.errors(what):
            inbox = client.new_inbox()
            subscription = await client.subscribe(inbox, cb=receive)
            try:
                await client.publish(f"$JS.API.DIRECT.GET.{self._stream}", json.dumps(wish).encode(), reply=inbox)
                deadline = time.monotonic() + REQUEST_TIMEOUT
                while not status:
                    news.clear()
                    await first_event(deadline - time.monotonic(), news)
                    if not news.is_set():
                        raise StoreUnavailable(f"{what}: NATS did not answer")
            finally:
                # Also while NATS is away: it would be subscribed anew on its return.
                with contextlib.suppress(nats.errors.Error, OSError):
                    await subscription.unsubscribe()
            if status[0] == _NO_RESPONDERS:
                raise nats.errors.NoRespondersError
        if status[0] not in (_END_OF_BATCH, _NO_MESSAGE):
            raise StoreUnavailable(f"{what}: {status[0]}")
        return found


async def next_message(
    connection: Connection, stream: str, start: int | datetime, subject: str
) -> StreamMessage | None:
    """Ask the stream's leader for the first message from a sequence or a time on; ``None`` if there is none.

    Raises:
        StoreUnavailable: NATS is away, or refuses; or there is no such stream.
    """
    what, wish = f"reading the stream {stream}", json.dumps(_wish(start, subject)).encode()
    answer = json.loads((await connection.request(f"$JS.API.STREAM.MSG.GET.{stream}", wish, what=what)).data)
    error = answer.get("error") or {}
    if error.get("err_code") == _NO_MESSAGE_FOUND:
        return None
    if error:
        raise StoreUnavailable(f"{what}: NATS answered {error.get('description') or error}")
    told = answer["message"]
    described = {"Nats-Subject": told["subject"], "Nats-Sequence": str(told["seq"]), "Nats-Time-Stamp": told["time"]}
    return StreamMessage(
        seq=told["seq"],
        subject=told["subject"],
        data=base64.b64decode(told.get("data") or ""),
        headers={**_headers(told.get("hdrs") or ""), **described},
        pending=0,
    )


def _wish(start: int | datetime, subject: str) -> dict[str, Any]:
    if isinstance(start, datetime):
        return {
            "next_by_subj": subject,
            "start_time": start.astimezone(timezone.utc).isoformat().replace("+00:00", "Z"),
        }
    return {"next_by_subj": subject, "seq": max(1, start)}


def _headers(raw: str) -> dict[str, str]:
    fields = (header.partition(":") for header in base64.b64decode(raw).decode().split("\r\n")[1:] if header)
    return {name: value.strip() for name, _, value in fields}


def _message(message: Msg, headers: dict[str, Any]) -> StreamMessage:
    return StreamMessage(
        seq=int(headers["Nats-Sequence"]),
        subject=headers["Nats-Subject"],
        data=message.data,
        headers=headers,
        pending=int(headers.get("Nats-Num-Pending", 0)),
    )


async def remove_message(connection: Connection, stream: str, seq: int) -> bool:
    """Take a message out of a stream; ``False`` if it was not there.

    It is not erased from the disk. The server would rewrite the whole block of messages around it, with the stream
    locked: of a large stream less than 150 a second, against more than 10,000.

    Raises:
        StoreUnavailable: NATS is away, or refuses.
    """
    what = f"removing message {seq} from {stream}"
    wish = json.dumps({"seq": seq, "no_erase": True}).encode()
    answer = json.loads((await connection.request(f"$JS.API.STREAM.MSG.DELETE.{stream}", wish, what=what)).data)
    if answer.get("success"):
        return True
    error = answer.get("error") or {}
    if error.get("err_code") == _SEQUENCE_NOT_FOUND:
        return False
    if error.get("err_code") == _DELETE_FAILED:
        # Also the answer for a sequence below the first or above the last one: look whether it is there.
        try:
            with connection.errors(what, missing=True):
                await connection.js.get_msg(stream, seq)
        except NotFoundError:
            return False
    raise StoreUnavailable(f"{what}: NATS answered {error.get('description') or answer}")


async def purge_subject(connection: Connection, stream: str, subject: str | None, *, through: int) -> int:
    """Take messages of a subject out of a stream, without a mark; their number is the answer.

    It works as well while NATS is full.

    Args:
        connection: The connection.
        stream: The stream.
        subject: Whose messages; ``None`` for all.
        through: Only up to this sequence: whatever is stored meanwhile stays.

    Raises:
        StoreUnavailable: NATS is away, or refuses.
    """
    what = f"removing {subject or 'messages'} from {stream}"
    wish = json.dumps({"seq": through + 1, **({"filter": subject} if subject else {})}).encode()
    answer = json.loads((await connection.request(f"$JS.API.STREAM.PURGE.{stream}", wish, what=what)).data)
    if not answer.get("success"):
        raise StoreUnavailable(f"{what}: NATS answered {(answer.get('error') or {}).get('description') or answer}")
    return int(answer.get("purged") or 0)
