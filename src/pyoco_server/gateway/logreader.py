"""Reads the log of one run for one reader: a few chunks at a time, filtered, from a place that can be resumed."""

from typing import Any

from pyoco_server.gateway.state import Gateway
from pyoco_server.model.runlog import LogChunk, LogStream
from pyoco_server.store.logs import StoredChunk

_TAIL_PAGES = (4, 16)
"""Chunks of the first page that is read backwards, and of the later ones at most."""

Lines = list[dict[str, Any]]


class LogReader:
    """A place in a run's log, and what of it is wanted.

    Args:
        here: The gateway.
        run_id: The run.
        task: Only lines of this task; notices come in any case.
        stream: Only lines of this stream.
        position: Place of the last chunk that is known; 0 for none.
    """

    def __init__(
        self, here: Gateway, run_id: str, *, task: str | None, stream: LogStream | None, position: int = 0
    ) -> None:
        self._here = here
        self._run_id = run_id
        self._task = task
        self._stream = stream
        self.position = position

    async def next(self) -> Lines | None:
        """Give the lines of the next few chunks; ``None`` when there is no further chunk yet.

        Raises:
            StoreUnavailable: NATS is away.
        """
        async with self._here.log_reads:
            found = await self._here.logs.read(self._run_id, after=self.position)
            found = found or await self._here.logs.read_next_from_leader(self._run_id, after=self.position)
            return self._take(found) if found else None

    async def tail(self, count: int) -> Lines:
        """Give the last ``count`` wanted lines, and stand at the end then.

        Raises:
            StoreUnavailable: NATS is away.
        """
        backwards: Lines = []
        before: int | None = None
        size, largest = _TAIL_PAGES
        while True:
            async with self._here.log_reads:
                page = await self._here.logs.newest(self._run_id, before=before, limit=size if count else 1)
                if page and before is None:
                    self.position = page[-1][0]
                for _, chunk in reversed(page):
                    backwards += reversed(self._wanted(chunk))
            if not page or len(page) < size or len(backwards) >= count:
                return backwards[:count][::-1]
            before = page[0][0]
            size = min(size * 2, largest)

    def _take(self, found: list[StoredChunk]) -> Lines:
        self.position = found[-1][0]
        return [line for _, chunk in found for line in self._wanted(chunk)]

    def _wanted(self, chunk: LogChunk) -> Lines:
        return [
            line.as_dict(chunk.attempt)
            for line in chunk.lines
            if (self._stream is None or line.stream is self._stream)
            and (self._task is None or line.task == self._task or line.stream is LogStream.NOTICE)
        ]
