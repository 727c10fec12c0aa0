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
        """Return the line as readers get it."""
        line = {
            "time": self.time,
            "attempt": attempt,
            "task": self.task,
            "stream": self.stream.value,
            "text": self.text,
        }
        return {**line, "continued": True} if self.continued else line


class LiveLines(NamedTuple):
    """What a run shows at the moment and has not stored: unfinished lines in their last state.

    Of two of one attempt the later one counts, and what it does not hold is gone: it has become a line of the log.

    Args:
        time: When they were looked at.
        lines: All of them.
    """

    time: float
    lines: list[LogLine]


class LogChunk(NamedTuple):
    """Some lines of one attempt, as they are stored.

    Args:
        attempt: Which start of the run printed them.
        number: 1, 2, 3 … within the attempt; a gap means that a chunk was lost.
        lines: The lines, in order.
        live: What else there was to see behind them; ``None`` when the chunk says nothing about that.
    """

    attempt: int
    number: int
    lines: list[LogLine]
    live: LiveLines | None = None

    def to_json(self) -> bytes:
        """Return the stored form."""
        body = {"attempt": self.attempt, "number": self.number, "lines": _short(self.lines)}
        if self.live is not None:
            body["live"] = [self.live.time, _short(self.live.lines)]
        return pydantic_core.to_json(body)

    @classmethod
    def from_json(cls, data: bytes) -> "LogChunk":
        """Read the stored form.

        Raises:
            ValueError: it is no chunk.
        """
        try:
            body = pydantic_core.from_json(data)
            lines = [_line(*fields) for fields in body["lines"]]
            return cls(int(body["attempt"]), int(body["number"]), lines, _live(body.get("live")))
        except (KeyError, TypeError, OverflowError) as error:
            raise ValueError(f"not a chunk of a log: {error!r}") from None


def _short(lines: list[LogLine]) -> list[tuple[Any, ...]]:
    return [line if line.continued else line[:4] for line in lines]


def _live(fields: Any) -> LiveLines | None:
    if fields is None:
        return None
    time, lines = fields
    return LiveLines(float(time), [_line(*line) for line in lines])


def _line(time: float, task: str | None, stream: str, text: str, continued: bool = False) -> LogLine:
    if not isinstance(text, str) or not isinstance(task, str | None):
        raise ValueError("not a line of a log")
    return LogLine(float(time), task, LogStream(stream), text, bool(continued))
