"""The stream of logs: what the tasks of a run printed, under the run's own subject."""

import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import nats.errors
import structlog
from nats.aio.msg import Msg
from nats.js import api
from nats.js.errors import NotFoundError

from pyoco_server.model.runlog import LogChunk
from pyoco_server.store.nats.connection import Connection
from pyoco_server.store.nats.direct import DirectReader, purge_subject
from pyoco_server.store.nats.messages import publish
from pyoco_server.store.status.stream_state import read_stream

log = structlog.get_logger(__name__)

_PAGE = 4
"""Chunks read at once; with those of our workers less than half a megabyte."""
_DROP_TRIES = 8

_NOT_STORED = {api.Header.EXPECTED_STREAM.value: "not.stored"}
"""No stream can have this name."""

StoredChunk = tuple[int, LogChunk]
"""A chunk behind its place in the stream."""


class LogStore:
    """Publishing to and reading from ``pyoco.logs.<run_id>``."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._stream = connection.settings.logs_stream
        self._prefix = connection.settings.logs_subject_prefix
        self._reader = DirectReader(connection, self._stream)

    async def publish(self, run_id: str, chunk: LogChunk, message_id: str) -> None:
        """Store a chunk.

        Args:
            run_id: The run.
            chunk: The chunk.
            message_id: Unlike any other chunk's of the run; storing it again under the same id does nothing.

        Raises:
            StoreUnavailable: no acknowledgement; it may be stored all the same.
        """
        headers = {api.Header.MSG_ID.value: f"{run_id}.{message_id}"}
        what = f"storing the log of run {run_id}"
        await publish(self._connection, self._subject(run_id), chunk.to_json(), headers, what=what)

    async def show(self, run_id: str, chunk: LogChunk) -> None:
        """Send what a run shows at the moment to whoever listens; it is stored nowhere, and may be lost.

        It goes the way of a chunk, so that whoever may store logs may show them too. A header of NATS keeps the stream
        from taking it: the message expects a stream of another name.
        """
        client = self._connection.client
        if client.is_connected:  # else it would be sent when it is old
            with suppress(nats.errors.Error, OSError):  # the next one comes in half a second
                await client.publish(self._subject(run_id), chunk.to_json(), headers=_NOT_STORED)

    async def read(self, run_id: str, *, after: int) -> list[StoredChunk]:
        """Return the next few chunks of a run; none when there are none yet.

        Args:
            run_id: The run.
            after: Place of the last chunk that is known; 0 for none.

        Raises:
            StoreUnavailable: NATS is away.
        """
        found = await self._reader.read(start=after + 1, subject=self._subject(run_id), limit=_PAGE)
        return _chunks([(message.seq, message.data) for message in found])

    async def read_next_from_leader(self, run_id: str, *, after: int) -> list[StoredChunk]:
        """Return the next chunk as the stream's leader knows it: with replicas, ``read`` may be a little behind.

        Raises:
            StoreUnavailable: NATS is away.
        """
        if self._connection.cluster.has_one_copy(self._stream):
            return []
        js = self._connection.js
        try:
            with self._connection.errors(f"reading the log of run {run_id}", missing=True):
                found = await js.get_msg(self._stream, after + 1, self._subject(run_id), next=True)
        except NotFoundError:
            return []
        return _chunks([(found.seq or 0, found.data or b"")])

    async def newest(self, run_id: str, *, before: int | None, limit: int) -> list[StoredChunk]:
        """Return the last ``limit`` chunks of a run, in order.

        Args:
            run_id: The run.
            before: Only chunks that lie before this place; ``None`` for all.
            limit: How many at most.

        Raises:
            StoreUnavailable: NATS is away.
        """
        found = await self._reader.newest(before=before, subject=self._subject(run_id), limit=limit)
        return _chunks([(message.seq, message.data) for message in reversed(found)])

    async def drop_oldest(self, size: int) -> int:
        """Remove the oldest chunks, of whatever runs; it works as well while NATS is full.

        Args:
            size: How many bytes to free.

        Returns:
            How many were freed; fewer if there were no more.

        Raises:
            StoreUnavailable: NATS is away, or refuses.
        """
        freed = 0
        for _ in range(_DROP_TRIES):  # chunks differ in size, and some of them have been removed before
            state = await read_stream(self._connection, self._stream)
            if state is None or not state.messages or freed >= size:
                break
            chunks = math.ceil((size - freed) * state.messages / state.bytes)
            await purge_subject(
                self._connection, self._stream, None, through=min(state.first_seq + chunks - 1, state.last_seq)
            )
            left = await read_stream(self._connection, self._stream)
            freed += state.bytes - (left.bytes if left else 0)
        return freed

    async def end(self) -> int:
        """Return the place of the last chunk that was stored, of whatever run.

        Raises:
            StoreUnavailable: NATS is away.
        """
        state = await read_stream(self._connection, self._stream)
        return state.last_seq if state else 0

    async def remove(self, run_id: str, *, through: int) -> int:
        """Remove a run's log; the number of its chunks is the answer.

        Args:
            run_id: The run.
            through: Only chunks up to this place.

        Raises:
            StoreUnavailable: NATS is away.
        """
        return await purge_subject(self._connection, self._stream, self._subject(run_id), through=through)

    @asynccontextmanager
    async def listen(
        self, run_id: str, on_chunk: Callable[[], None], on_show: Callable[[LogChunk], None]
    ) -> AsyncIterator[None]:
        """Call ``on_chunk`` when a chunk is on its way, and ``on_show`` with what is shown and not stored.

        The first is only a hint, and may come before the chunk can be read.

        Raises:
            StoreUnavailable: NATS is away.
        """

        async def receive(message: Msg) -> None:
            if (message.headers or {}).get(api.Header.EXPECTED_STREAM.value) is None:
                on_chunk()
                return
            with suppress(ValueError):  # another program's
                on_show(LogChunk.from_json(message.data))

        with self._connection.errors(f"listening to the log of run {run_id}"):
            subscription = await self._connection.client.subscribe(self._subject(run_id), cb=receive)
        try:
            yield
        finally:
            # Also while NATS is away: it would be subscribed anew on its return.
            with suppress(nats.errors.Error, OSError):
                await subscription.unsubscribe()

    def _subject(self, run_id: str) -> str:
        return f"{self._prefix}.{run_id}"


def _chunks(messages: list[tuple[int, bytes]]) -> list[StoredChunk]:
    chunks = []
    for seq, data in messages:
        try:
            chunks.append((seq, LogChunk.from_json(data)))
        except ValueError as error:  # another program's: its place counts, its content cannot
            log.warning("a chunk of a log cannot be read", seq=seq, reason=str(error))
            chunks.append((seq, LogChunk(0, 0, [])))
    return chunks
