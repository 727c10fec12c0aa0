"""Messages of a stream, read without a trace: by the ordinary request for one message, which every stream takes.

No consumer is made and no flag is needed, also not for a work queue. One request gives one message, so several lanes
read side by side, each its part of the stream. What is too large to be read whole is read in pieces from all over it.
"""

import asyncio
import base64
import itertools
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from pyoco_server.errors import StoreUnavailable
from pyoco_server.store.nats.connection import Connection
from pyoco_server.store.status.stream_state import StreamState

MOST_MESSAGES = 10_000
MOST_BYTES = 64 * 1024 * 1024
_LANES = 16
_PARTS = 64
"""Of a stream that is read in pieces: one piece from each part."""
_NO_MESSAGE = 10037
_REMOVED = (b"KV-Operation:", b"Nats-Marker-Reason:")


@dataclass(frozen=True)
class Message:
    """One stored message."""

    seq: int
    subject: str
    data: bytes
    removed: bool
    """Whether it is the mark of a removal in a bucket."""


@dataclass
class Sample:
    """What was read of a stream.

    Args:
        messages: What was read, in no order; marks of removals are counted, and not kept.
        looked_at: How many there were, with the marks.
        whole: Whether that is all.
    """

    messages: list[Message] = field(default_factory=list)
    looked_at: int = 0
    whole: bool = True


async def read_sample(
    connection: Connection,
    stream: str,
    state: StreamState,
    subject: str,
    *,
    deadline: float,
    most: int = MOST_MESSAGES,
    most_bytes: int = MOST_BYTES,
) -> Sample:
    """Read a stream, or pieces from all over it where it is large.

    Args:
        connection: The connection.
        stream: The stream's name.
        state: How it stands.
        subject: Only these; may hold wildcards.
        deadline: Monotonic time at which to stop with what was read until then.
        most: How many messages are read at most.
        most_bytes: How many bytes.

    Raises:
        StoreUnavailable: NATS is away, or refuses.
    """
    if not state.messages:
        return Sample()
    whole = state.messages <= most
    reader = _Reader(connection, stream, subject, deadline, most, most_bytes)
    parts = _parts(state.first_seq, state.last_seq + 1, _LANES if whole else _PARTS)
    piece = most if whole else -(-most // _PARTS)
    lanes = [asyncio.create_task(reader.run(parts, piece)) for _ in range(_LANES)]
    try:
        await asyncio.gather(*lanes)
    finally:
        for lane in lanes:
            lane.cancel()
    reader.sample.whole = whole and not reader.stopped
    return reader.sample


class _Reader:
    def __init__(
        self, connection: Connection, stream: str, subject: str, deadline: float, most: int, most_bytes: int
    ) -> None:
        self._connection = connection
        self._stream = stream
        self._subject = subject
        self._deadline = deadline
        self._most = most
        self._bytes_left = most_bytes
        self.sample = Sample()
        self.stopped = False

    async def run(self, parts: Iterator[tuple[int, int]], piece: int) -> None:
        """Read parts until there are no more: ``piece`` messages at most of each."""
        for start, end in parts:
            seq = start
            for _ in range(piece):
                if self._is_over():
                    self.stopped = True
                    return
                message = await self._next(seq)
                if message is None or message.seq >= end:
                    break
                self._keep(message)
                seq = message.seq + 1
                if seq >= end:
                    break

    def _is_over(self) -> bool:
        full = self.sample.looked_at >= self._most or self._bytes_left <= 0
        return full or time.monotonic() >= self._deadline

    def _keep(self, message: Message) -> None:
        self.sample.looked_at += 1
        self._bytes_left -= len(message.data)
        if not message.removed:
            self.sample.messages.append(message)

    async def _next(self, seq: int) -> Message | None:
        """Read the first message from a sequence on; ``None`` if there is none."""
        subject, wish = f"$JS.API.STREAM.MSG.GET.{self._stream}", {"seq": seq, "next_by_subj": self._subject}
        what = f"reading the stream {self._stream}"
        asking = self._connection.request(subject, json.dumps(wish).encode(), what=what)
        answer: dict[str, Any] = json.loads((await self._connection.if_allowed(subject, asking)).data)
        if problem := answer.get("error"):
            if problem.get("err_code") == _NO_MESSAGE:
                return None
            raise StoreUnavailable(f"{what}: NATS answered {problem.get('description') or problem}")
        found = answer["message"]
        headers = base64.b64decode(found.get("hdrs") or "")
        return Message(
            seq=found["seq"],
            subject=found["subject"],
            data=base64.b64decode(found.get("data") or ""),
            removed=any(mark in headers for mark in _REMOVED),
        )


def _parts(first: int, end: int, count: int) -> Iterator[tuple[int, int]]:
    """Cut the sequences from ``first`` to before ``end`` into parts of equal length."""
    if first >= end:
        return iter(())
    edges = sorted({first + (end - first) * number // count for number in range(count + 1)})
    return iter(list(itertools.pairwise(edges)))
