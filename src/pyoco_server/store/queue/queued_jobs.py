"""Looking at the work stream: which run's job lies where.

All jobs of a tag share one subject, so there is no look-up by run. But the stream is ordered by time, and a run's job
is stored right after its record: reading on from the record's time finds it within a few messages.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from pyoco_server.model.job import run_id_in
from pyoco_server.store.nats.connection import Connection
from pyoco_server.store.nats.direct import DirectReader, remove_message
from pyoco_server.store.nats.messages import read
from pyoco_server.store.topology import identity

JOB_FOLLOWS = timedelta(seconds=30)
"""Within this time after its record a job is stored, if it is: so long do the tries of one submission take at most."""
_CLOCKS_APART = timedelta(seconds=1)
"""Record and job may be stamped by two servers of a cluster."""
PAGE = 256


@dataclass(frozen=True)
class QueuedJob:
    """A job in the work stream."""

    seq: int
    run_id: str | None
    stored_at: datetime
    """By NATS's clock."""


class QueuedJobs:
    """Reads the work stream without a consumer."""

    def __init__(self, connection: Connection) -> None:
        settings = connection.settings
        self._connection = connection
        self._stream = settings.work_stream
        self._prefix = settings.work_subject_prefix
        self._reader = DirectReader(connection, settings.work_stream)

    async def identity(self) -> str:
        """Tell the stream from one made anew.

        Raises:
            StoreUnavailable: NATS is away, or there is no such stream.
        """
        with self._connection.errors("looking at the queue"):
            return identity(await self._connection.js.stream_info(self._stream))

    async def at(self, seq: int) -> QueuedJob | None:
        """Give the job at a sequence; ``None`` if there is none any more.

        Raises:
            StoreUnavailable: NATS is away.
        """
        message = await read(self._connection, self._stream, seq=seq, what="looking for a job")
        if message is None or message.time is None:
            return None
        return QueuedJob(seq, run_id_in(message.data or b""), message.time)

    async def holds(self, seq: int | None, run_id: str) -> bool:
        """Tell whether the job of a run is still at a sequence.

        Raises:
            StoreUnavailable: NATS is away.
        """
        job = await self.at(seq) if seq else None
        return job is not None and job.run_id == run_id

    async def page(self, start: int | datetime, tag: str | None = None) -> list[QueuedJob]:
        """Give up to ``PAGE`` jobs; fewer only at the end of the stream.

        Args:
            start: The first sequence, or the time of a record whose job is looked for.
            tag: Only jobs of this tag.

        Raises:
            StoreUnavailable: NATS is away.
        """
        if isinstance(start, datetime):
            start -= _CLOCKS_APART
        messages = await self._reader.read(start=start, subject=f"{self._prefix}.{tag or '>'}", limit=PAGE)
        return [QueuedJob(message.seq, run_id_in(message.data), message.stored_at) for message in messages]

    async def find(self, run_id: str, tag: str, stored_at: datetime, *, pages: int) -> QueuedJob | None:
        """Look for the job of a run whose record was stored at a time.

        Args:
            run_id: The run.
            tag: Its tag.
            stored_at: When its record was stored, by NATS's clock.
            pages: How many pages to read at most.

        Raises:
            StoreUnavailable: NATS is away.
        """
        start: int | datetime = stored_at
        for _ in range(pages):
            jobs = await self.page(start, tag)
            found = next((job for job in jobs if job.run_id == run_id), None)
            if found or len(jobs) < PAGE or jobs[-1].stored_at > stored_at + JOB_FOLLOWS:
                return found
            start = jobs[-1].seq + 1
        return None

    async def remove(self, seq: int, run_id: str) -> bool:
        """Take the job of a run off the queue; ``False`` if it is not there.

        Raises:
            StoreUnavailable: NATS is away.
        """
        return await self.holds(seq, run_id) and await remove_message(self._connection, self._stream, seq)
