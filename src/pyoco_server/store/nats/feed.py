"""Follows a bucket: every change once and in order, over restarts of NATS and lost messages."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog
from nats.aio.msg import Msg
from nats.js import api

from pyoco_server.errors import StoreUnavailable
from pyoco_server.process.waiting import first_event
from pyoco_server.store.nats.bucket import is_removal
from pyoco_server.store.nats.connection import Connection
from pyoco_server.store.nats.pull_line import NO_MESSAGES, TIMED_OUT, PullLine
from pyoco_server.store.topology import identity

log = structlog.get_logger(__name__)

_BATCH = 1000
_EXPIRES = 5.0
_BEAT = 1.0
_SILENCE = 3.0
"""Seconds without a change or a sign of life after which the consumer is lost, perhaps with its server."""
_RETRY = 0.5
_LOOKS = 3
"""How often a bucket may seem to be behind what was seen, as a replica may be that has just become the leader."""


@dataclass(frozen=True)
class Change:
    """One change of a key; ``value`` is ``None`` when the key was removed."""

    key: str
    value: bytes | None
    revision: int
    stored_at: float | None = None
    """When, in unix seconds by NATS's clock; ``None`` if that was not told."""


class BucketFeed:
    """Gives a bucket's changes to a callback, in batches.

    Args:
        connection: The connection.
        bucket: The bucket's name.
        on_changes: Called with each batch, in order.
        on_reset: Called when what was seen so far is void: the bucket was made anew.
        start_after: The last revision that was already seen; 0 for all.
        identity: Of the bucket that ``start_after`` belongs to (``topology.identity``), if known.
    """

    def __init__(
        self,
        connection: Connection,
        bucket: str,
        *,
        on_changes: Callable[[list[Change]], None],
        on_reset: Callable[[], None],
        start_after: int = 0,
        identity: str | None = None,
    ) -> None:
        self._connection = connection
        self._stream = f"KV_{bucket}"
        self._prefix = f"$KV.{bucket}."
        self._on_changes = on_changes
        self._on_reset = on_reset
        self.revision = start_after
        self.identity = identity
        self.caught_up = asyncio.Event()
        """Set while everything that was stored when we (re)connected has been seen."""
        self.replaying = True
        """Whether what is given to the callback is history: stored before we first caught up with this bucket."""
        self.reached = 0
        """The stream's sequence up to which all was seen, also where the last messages are gone."""
        self._last_seq = 0
        self._buffer: list[Msg] = []
        self._wake = asyncio.Event()
        self._ended = False
        self._broken = ""
        self._heard = 0.0
        self._behind = 0
        self._stop = asyncio.Event()
        connection.reconnected.append(self._interrupt)

    async def run(self) -> None:
        """Follow until ``stop``; trouble is retried for ever."""
        while not self._stop.is_set():
            try:
                await self._follow()
            except StoreUnavailable as error:
                self.caught_up.clear()
                log.debug("the feed waits for NATS", stream=self._stream, reason=error.message)
                await first_event(_RETRY, self._stop)

    def stop(self) -> None:
        """End ``run`` soon, or before it begins; a feed that was stopped is not followed again."""
        self._stop.set()
        self._wake.set()

    async def _interrupt(self) -> None:
        """After a return of NATS: the consumer may be gone without a word."""
        self._broken = "NATS was away"
        self._wake.set()

    async def _follow(self) -> None:
        """Follow with one consumer until it fails."""
        await self._check_identity()
        consumer = await self._make_consumer()
        line = PullLine(self._connection, self._stream, consumer, self._on_message, self._on_end, self._on_beat)
        self._buffer.clear()
        self._broken = ""
        expected = 1
        try:
            while not self._stop.is_set():
                self._ended = False
                await line.request(batch=_BATCH, expires=_EXPIRES, beat=_BEAT)
                left = _BATCH
                self._heard = time.monotonic()
                while left and not (self._ended and not self._buffer) and not self._stop.is_set():
                    if not self._buffer and not await self._wait():
                        raise StoreUnavailable("the feed's consumer is silent")
                    if self._broken and not self._buffer:
                        raise StoreUnavailable(f"the feed's consumer is lost: {self._broken}")
                    batch, self._buffer = self._buffer, []
                    if batch:
                        expected = self._apply(batch, expected)
                        left -= len(batch)
                        await asyncio.sleep(0)  # let others run during a long replay
        finally:
            await line.withdraw()

    async def _wait(self) -> bool:
        while (left := self._heard + _SILENCE - time.monotonic()) > 0:
            self._wake.clear()
            if self._buffer or self._ended or self._broken or self._stop.is_set():
                return True
            await first_event(left, self._wake)
        return False

    def _apply(self, batch: list[Msg], expected: int) -> int:
        changes = []
        for message in batch:
            meta = message.metadata
            if meta.sequence.consumer != expected:
                raise StoreUnavailable("the feed lost messages on the way")  # read on from the last one seen
            expected += 1
            self.revision = meta.sequence.stream
            removed = is_removal(message.headers)
            key = message.subject[len(self._prefix) :]
            stored_at = meta.timestamp.timestamp()
            changes.append(Change(key, None if removed else message.data, meta.sequence.stream, stored_at))
            if meta.num_pending == 0:
                self.caught_up.set()
        self._on_changes(changes)
        if self.caught_up.is_set():
            self.replaying = False
            self.reached = max(self.revision, self._last_seq)
        return expected

    async def _check_identity(self) -> None:
        """Start from scratch when the bucket is not the one that we have followed so far."""
        with self._connection.errors("following a bucket"):
            info = await self._connection.js_of_short_tries.stream_info(self._stream)
        found = identity(info)
        another = self.identity is not None and found != self.identity
        self._behind = self._behind + 1 if self.revision > info.state.last_seq and not another else 0
        if 0 < self._behind < _LOOKS:
            raise StoreUnavailable("the bucket is behind what was seen of it")
        if another or self._behind:
            self._behind = 0
            log.warning("the bucket was made anew; reading it from the start", stream=self._stream)
            self.revision, self.reached, self.replaying = 0, 0, True
            self._on_reset()
        self.identity = found
        self._last_seq = info.state.last_seq

    async def _make_consumer(self) -> str:
        config = api.ConsumerConfig(
            deliver_policy=api.DeliverPolicy.BY_START_SEQUENCE,
            opt_start_seq=self.revision + 1,
            ack_policy=api.AckPolicy.NONE,
            mem_storage=True,
            num_replicas=1,
            inactive_threshold=30.0,
        )
        with self._connection.errors("following a bucket"):
            info = await self._connection.js.add_consumer(self._stream, config)
        if info.num_pending == 0:
            self.caught_up.set()
            self.replaying = False
            self.reached = max(self.revision, self._last_seq)
        return str(info.name)

    def _on_message(self, message: Msg) -> None:
        self._heard = time.monotonic()
        self._buffer.append(message)
        self._wake.set()

    def _on_beat(self) -> None:
        self._heard = time.monotonic()
        self._wake.set()

    def _on_end(self, status: int, text: str) -> None:
        if status in (NO_MESSAGES, TIMED_OUT):
            self._ended = True
        else:
            self._broken = f"status {status} {text}"
        self._wake.set()
