"""The end of a log that is longer than what is kept: the last lines, in a ring."""

from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

from pyoco_server.model.runlog import LogLine, LogStream
from pyoco_server.worker.child.output.frames import LINE_COST, pieces


class Printed(NamedTuple):
    """Some lines that were printed together; nearly always one.

    Args:
        time: When.
        task: Which task printed them.
        stream: Where to.
        text: The lines, with line ends between them only.
        lines: How many they are.
        continued: Whether the next line goes on in the last of them.
    """

    time: float
    task: str | None
    stream: LogStream
    text: bytes
    lines: int = 1
    continued: bool = False

    @property
    def size(self) -> int:
        """Their bytes without line ends."""
        return len(self.text) - self.lines + 1

    @property
    def cost(self) -> int:
        """What they count towards a log's limit."""
        return self.size + LINE_COST * self.lines

    def split(self) -> Iterator[LogLine]:
        """Make lines of the log."""
        for text in self.text.split(b"\n"):
            for piece, more in pieces(text):
                kept = piece.decode("utf-8", "replace")
                yield LogLine(self.time, self.task, self.stream, kept, more or self.continued)


class LogTail:
    """Keeps the last lines that fit, and counts the others.

    Args:
        limit: What is kept, in bytes with ``LINE_COST`` for each line.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept: deque[Printed] = deque()
        self.cost = 0
        """What is kept, counted like the limit."""
        self.cut_lines = 0
        self.cut_bytes = 0

    def __bool__(self) -> bool:
        return bool(self._kept) or self.cut_lines > 0

    @property
    def lines(self) -> int:
        """How many lines are kept."""
        return sum(printed.lines for printed in self._kept)

    def add(self, printed: Printed) -> None:
        """Take lines; the oldest go where they do not fit."""
        self._kept.append(printed)
        self.cost += printed.cost
        while self.cost > self._limit:
            oldest = self._kept.popleft()
            excess = self.cost - self._limit
            self.cost -= oldest.cost
            self.cut_lines += oldest.lines
            self.cut_bytes += oldest.size
            rest = _shortened(oldest, excess) if oldest.lines > 1 else None
            if rest is not None:
                self._kept.appendleft(rest)
                self.cost += rest.cost
                self.cut_lines -= rest.lines
                self.cut_bytes -= rest.size

    def first(self) -> Printed | None:
        """Return the oldest lines that are kept."""
        return self._kept[0] if self._kept else None

    def pop(self) -> Printed | None:
        """Take the oldest lines out, if there are any."""
        if not self._kept:
            return None
        oldest = self._kept.popleft()
        self.cost -= oldest.cost
        return oldest

    def last(self, lines: int) -> list[LogLine]:
        """Return the last lines, ``lines`` at most."""
        found: deque[LogLine] = deque()
        for printed in reversed(self._kept):
            wanted = lines - len(found)
            if wanted <= 0:
                break
            text = b"\n".join(printed.text.rsplit(b"\n", wanted)[-wanted:])
            found.extendleft(reversed(list(printed._replace(text=text).split())))
        return list(found)[-lines:]

    def take_counts(self) -> tuple[int, int]:
        """Return the lines and bytes that were cut since the last call."""
        counts = self.cut_lines, self.cut_bytes
        self.cut_lines = self.cut_bytes = 0
        return counts


def _shortened(printed: Printed, excess: int) -> Printed | None:
    """Cut lines from the beginning, for about ``excess`` of their cost; ``None`` if that is all of them."""
    if excess >= printed.cost:
        return None
    # As if all lines were of one length; where they are not, it is done again.
    end = printed.text.find(b"\n", len(printed.text) * excess // printed.cost)
    if end < 0:
        end = printed.text.rfind(b"\n")
    text = printed.text[end + 1 :]
    return printed._replace(text=text, lines=text.count(b"\n") + 1)
