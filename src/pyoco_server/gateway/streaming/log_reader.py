"""Reads the log of one run for one reader: a few chunks at a time, filtered, from a place that can be resumed."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from pyoco_server.gateway.gateway import Gateway
from pyoco_server.model.runlog import LiveLines, LogLine, LogStream
from pyoco_server.store.logs import StoredChunk

_TAIL_PAGES = (4, 16)
"""Chunks of the first page that is read backwards, and of the later ones at most."""

Lines = list[dict[str, Any]]


class Live(NamedTuple):
    """What an attempt shows behind its stored lines; the greater one counts."""

    attempt: int
    view: LiveLines


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
        self._live = Live(0, LiveLines(0.0, []))
        self._over: Lines = []  # what was left of attempts before the newest one
        self.position = position

    async def next(self) -> Lines | None:
        """Return the lines of the next few chunks; ``None`` when there is no further chunk yet.

        Raises:
            StoreUnavailable: NATS is away.
        """
        async with self._here.log_reads:
            found = await self._here.logs.read(self._run_id, after=self.position)
            found = found or await self._here.logs.read_next_from_leader(self._run_id, after=self.position)
            return self._take(found) if found else None

    async def tail(self, count: int) -> Lines:
        """Return the last ``count`` wanted lines, and stand at the end then.

        Raises:
            StoreUnavailable: NATS is away.
        """
        backwards = _Backwards()
        before: int | None = None
        size, largest = _TAIL_PAGES
        while True:
            async with self._here.log_reads:
                page = await self._here.logs.newest(self._run_id, before=before, limit=size if count else 1)
                if page and before is None:
                    self.position = page[-1][0]
                for _, chunk in reversed(page):
                    backwards.add(chunk.attempt, self._wanted(chunk.attempt, chunk.lines), chunk.live, self._left)
            if not page or len(page) < size or len(backwards.lines) >= count:
                self.note(*backwards.live)
                return backwards.lines[:count][::-1]
            before = page[0][0]
            size = min(size * 2, largest)

    def note(self, attempt: int, view: LiveLines) -> None:
        """Take what an attempt shows now, if it is newer than what is known."""
        if attempt > self._live.attempt:
            self._over += self.live  # its worker was lost
        if (attempt, view.time) > (self._live.attempt, self._live.view.time):
            self._live = Live(attempt, view)

    @property
    def live(self) -> Lines:
        """What is to be seen behind the lines that were given, as it was told last."""
        return self._left(*self._live)

    def take_left(self) -> Lines:
        """Return the same as lines of the log, for the last time: nothing more comes that could replace it."""
        left = self._over + self.live
        self._over, self._live = [], self._live._replace(view=self._live.view._replace(lines=[]))
        return left

    def _take(self, found: list[StoredChunk]) -> Lines:
        self.position = found[-1][0]
        lines: Lines = []
        for _, chunk in found:
            if chunk.attempt > self._live.attempt:
                self.note(chunk.attempt, LiveLines(0.0, []))
            if chunk.attempt == self._live.attempt:
                lines += self._over
                self._over = []
            lines += self._wanted(chunk.attempt, chunk.lines)
            if chunk.live is not None:
                self.note(chunk.attempt, chunk.live)
        return lines

    def _left(self, attempt: int, view: LiveLines) -> Lines:
        return self._wanted(attempt, view.lines)

    def _wanted(self, attempt: int, lines: Iterable[LogLine]) -> Lines:
        return [
            line.as_dict(attempt)
            for line in lines
            if (self._stream is None or line.stream is self._stream)
            and (self._task is None or line.task == self._task or line.stream is LogStream.NOTICE)
        ]


class _Backwards:
    """Lines, collected from the last to the first."""

    def __init__(self) -> None:
        self.lines: Lines = []
        self.live = Live(0, LiveLines(0.0, []))
        """What the newest attempt shows behind them."""
        self._begins: dict[int, int] = {}
        """How many lines there were when the first chunk of an attempt, as far as it is known, had been added."""
        self._known: set[int] = set()

    def add(self, attempt: int, lines: Lines, view: LiveLines | None, left: Callable[[int, LiveLines], Lines]) -> None:
        """Take the lines of a chunk that lies before all others, and what it says was behind them."""
        if attempt > self.live.attempt:
            self.live = Live(attempt, LiveLines(0.0, []))
        if view is not None and attempt not in self._known:
            self._known.add(attempt)
            if attempt == self.live.attempt:
                self.live = Live(attempt, view)
            else:  # its worker was lost; so they end this attempt, and the next one begins
                self._insert(attempt, left(attempt, view))
        self.lines += lines[::-1]
        self._begins[attempt] = len(self.lines)

    def _insert(self, attempt: int, lines: Lines) -> None:
        place = max((begin for other, begin in self._begins.items() if other > attempt), default=0)
        self.lines[place:place] = lines[::-1]
        for other, begin in self._begins.items():
            self._begins[other] = begin + len(lines) if begin > place else begin
