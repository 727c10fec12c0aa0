"""Messages of a stream by their sequence, without a consumer: read in batches, and taken out."""

import asyncio
import contextlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

import nats.errors
from nats.aio.msg import Msg
from nats.js.errors import NotFoundError

from pyoco_server.errors import StoreUnavailable
from pyoco_server.store.connection import REQUEST_TIMEOUT, Connection
from pyoco_server.waiting import first_event

_BATCH = 64
_END_OF_BATCH = "204"
_NO_MESSAGE = "404"
_NO_RESPONDERS = "503"
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


class DirectReader:
    """Reads a stream whose definition has ``allow_direct``.

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
            StoreUnavailable: NATS is away, or the stream does not take direct reads.
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
            StoreUnavailable: NATS is away, or the stream does not take direct reads.
        """
        with self._connection.errors(f"looking at the stream {self._stream}"):
            state = (await self._connection.js.stream_info(self._stream)).state
        end = state.last_seq + 1 if before is None else min(before, state.last_seq + 1)
        beyond = await self._count_from(end, subject) if end <= state.last_seq else 0
        first, step = max(1, state.first_seq), limit
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
        messages = await self._batch(start, subject, 1)
        return messages[0].pending + 1 if messages else 0

    async def _batch(self, start: int | datetime, subject: str, limit: int) -> list[StreamMessage]:
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

        wish: dict[str, Any] = {"batch": limit, "next_by_subj": subject}
        if isinstance(start, datetime):
            wish["start_time"] = start.astimezone(timezone.utc).isoformat().replace("+00:00", "Z")
        else:
            wish["seq"] = max(1, start)
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
        if status[0] not in (_END_OF_BATCH, _NO_MESSAGE):
            missing = status[0] == _NO_RESPONDERS
            raise StoreUnavailable(
                f"{what}: " + ("there is no such stream, or it takes no direct reads" if missing else status[0]),
                hint=f"nats stream edit {self._stream} --allow-direct" if missing else "",
            )
        return found


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
