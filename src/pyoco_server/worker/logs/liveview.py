"""What readers of a running log see beyond what is stored: progress bars, prompts, and the end of a log that is full.

It is sent about twice a second, and only the newest counts; nobody keeps it. Now and then a chunk of the log carries it
as well, for those who do not follow, and for the case that this worker dies.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable

from pyoco_server.model.runlog import LiveLines, LogLine, LogStream
from pyoco_server.worker.child.output.frames import LINE_COST
from pyoco_server.worker.logs.logtail import LogTail, Printed

FIRST_SEC = 0.25
"""A line that is finished by then is never shown unfinished."""
SHOW_SEC = 0.5
_STORE_SEC = (5.0, 60.0)
"""Seconds between two that are stored: at first, and after many."""
_MOST_OPEN = 64
"""Unfinished lines of a run; the oldest are taken for finished beyond this, for user code can write any key."""
_LINES = 20
_BYTES = 8 * 1024


class LiveView:
    """The unfinished lines of a run, and how they are shown.

    Args:
        tail: The end of the log, if that is not stored for the time being.
        budget: What may be stored of all this in the whole run, in bytes.
        show: Sends it to whoever follows.
        wake: Called when the next chunk should be stored soon, for what it has to carry.
    """

    def __init__(
        self, tail: LogTail, budget: int, show: Callable[[LiveLines], Awaitable[None]], wake: Callable[[], None]
    ) -> None:
        self._tail = tail
        self._budget = budget
        self._show = show
        self._wake = wake
        self.notice: str | None = None
        """Stands above the end of a log that is full."""
        self._states: dict[bytes, Printed] = {}
        self._changed = asyncio.Event()
        self._showing: asyncio.Task[None] | None = None
        self._shown = False
        self._stored = False
        self._closed = False
        self._due = False
        self._store_at = 0.0
        self._pause = _STORE_SEC[0]

    @property
    def is_seen(self) -> bool:
        """Whether readers know of lines here, so that they have to be told when there are none any more."""
        return self._shown or self._stored

    def set(self, key: bytes, state: Printed) -> Printed | None:
        """Note an unfinished line; without text there is none. The answer is a line to be taken for finished."""
        if not state.text:
            self.end(key)
            return None
        self._states[key] = state
        self.note()
        return self._states.pop(next(iter(self._states))) if len(self._states) > _MOST_OPEN else None

    def end(self, key: bytes) -> None:
        """Forget a line: it is finished, or there is nothing left of it."""
        if key and self._states.pop(key, None) is not None:
            self._closed = True
            self.note()

    def note(self) -> None:
        """Note that there is something new to see."""
        self._changed.set()
        if self._showing is None:
            self._store_at = time.monotonic() + self._pause
            self._showing = asyncio.create_task(self._show_changes(), name="live-log")

    def finish(self) -> list[Printed]:
        """End it; the lines that are unfinished are the answer."""
        states = list(self._states.values())
        self._states.clear()
        if self._showing is not None:
            self._showing.cancel()
        return states

    def for_chunk(self, *, last: bool) -> LiveLines | None:
        """Return what the next chunk has to say about what is not in it, if anything.

        Args:
            last: Whether the run has ended, so that all of it is in chunks now.
        """
        seen, due, self._due = self.is_seen, self._due, False
        if last:
            self._shown = self._stored = False
            return LiveLines(time.time(), []) if seen else None
        if not due and not (seen and self._closed):
            return None
        self._closed = False
        lines = self._lines()
        self._budget -= _cost(lines)
        if self._budget < 0:
            lines = []
        self._stored = bool(lines)
        return LiveLines(time.time(), lines)

    async def _show_changes(self) -> None:
        await asyncio.sleep(FIRST_SEC)
        while True:
            await self._changed.wait()
            self._changed.clear()
            lines = self._lines()
            if lines or self._shown:
                self._shown = bool(lines)
                await self._show(LiveLines(time.time(), lines))
            self._store_sometimes(lines)
            await asyncio.sleep(SHOW_SEC)

    def _store_sometimes(self, lines: list[LogLine]) -> None:
        now = time.monotonic()
        if lines and now >= self._store_at and self._budget > 0:
            self._pause = min(self._pause * 2, _STORE_SEC[1])
            self._store_at = now + self._pause
        elif lines or not self._stored:
            return
        self._due = True
        self._wake()

    def _lines(self) -> list[LogLine]:
        lines = []
        if self.notice is not None:
            lines = [LogLine(time.time(), None, LogStream.NOTICE, self.notice), *self._tail.last(_LINES)]
        lines += [line for state in self._states.values() for line in state.split()]
        size = first = 0
        for first in range(len(lines), 0, -1):
            size += len(lines[first - 1].text)
            if size > _BYTES:
                return lines[first:]
        return lines


def _cost(lines: list[LogLine]) -> int:
    return sum(len(line.text.encode()) + LINE_COST for line in lines)
