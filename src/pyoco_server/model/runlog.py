"""The log of a run: what its tasks printed, line by line, in chunks."""

from enum import Enum
from typing import Any, NamedTuple

import pydantic_core


class LogStream(str, Enum):
    """Where a line came from."""

    STDOUT = "stdout"
    STDERR = "stderr"
    """``logging`` writes here too."""
    NOTICE = "notice"
    """Ours: what was cut, and why."""


class LogLine(NamedTuple):
    """One line.

    Args:
        time: When it was printed, in unix seconds.
        task: Which task printed it; ``None`` when that cannot be told.
        stream: Where to.
        text: The line without its end.
        continued: Whether the next line of the same task and stream goes on in the same line of text: it was too long
            for one, or it was flushed without a line end.
    """

    time: float
    task: str | None
    stream: LogStream
    text: str
    continued: bool = False

    def as_dict(self, attempt: int) -> dict[str, Any]:
        """Give the line as readers get it."""
        line = {
            "time": self.time,
            "attempt": attempt,
            "task": self.task,
            "stream": self.stream.value,
            "text": self.text,
        }
        return {**line, "continued": True} if self.continued else line


class LogChunk(NamedTuple):
    """Some lines of one attempt, as they are stored.

    Args:
        attempt: Which start of the run printed them.
        number: 1, 2, 3 … within the attempt; a gap means that a chunk was lost.
        lines: The lines, in order.
    """

    attempt: int
    number: int
    lines: list[LogLine]

    def to_json(self) -> bytes:
        """Give the stored form."""
        lines = [line if line.continued else line[:4] for line in self.lines]
        return pydantic_core.to_json({"attempt": self.attempt, "number": self.number, "lines": lines})

    @classmethod
    def from_json(cls, data: bytes) -> "LogChunk":
        """Read the stored form.

        Raises:
            ValueError: it is no chunk.
        """
        try:
            body = pydantic_core.from_json(data)
            return cls(int(body["attempt"]), int(body["number"]), [_line(*fields) for fields in body["lines"]])
        except (KeyError, TypeError, OverflowError) as error:
            raise ValueError(f"not a chunk of a log: {error!r}") from None


def _line(time: float, task: str | None, stream: str, text: str, continued: bool = False) -> LogLine:
    if not isinstance(text, str) or not isinstance(task, str | None):
        raise ValueError("not a line of a log")
    return LogLine(float(time), task, LogStream(stream), text, bool(continued))
