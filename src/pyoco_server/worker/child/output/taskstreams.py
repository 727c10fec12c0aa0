"""What ``sys.stdout``, ``sys.stderr`` and the last resort of ``logging`` are in the child."""

import io
import logging
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from typing_extensions import Buffer

from pyoco_server.model.runlog import LogStream

_SLICE = 64 * 1024
"""Bytes or characters of one write that are looked at together, so that a huge text is not held twice."""
_LOG_FORMAT = "%(levelname)s %(name)s: %(message)s"


class Output(Protocol):
    """Where the streams write to."""

    def write(self, stream: LogStream, data: bytes) -> None:
        """Take some bytes of text."""

    def flush(self, stream: LogStream) -> None:
        """Show the current thread's unfinished line."""


class TaskStream(io.TextIOBase):
    """What ``sys.stdout`` or ``sys.stderr`` is in the child."""

    encoding = "utf-8"
    errors = "backslashreplace"
    line_buffering = True

    def __init__(self, output: Output, stream: LogStream) -> None:
        self._output = output
        self._stream = stream
        self.name = f"<{stream.value}>"
        self.mode = "w"
        self.buffer = TaskBytes(self, output, stream)

    def write(self, text: str, /) -> int:
        """Take some text."""
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        for start in range(0, len(text), _SLICE):
            self._output.write(self._stream, text[start : start + _SLICE].encode("utf-8", "backslashreplace"))
        return len(text)

    def writelines(self, lines: Iterable[str], /) -> None:  # type: ignore[override]
        """Take several texts."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Show an unfinished line."""
        self._output.flush(self._stream)

    def close(self) -> None:
        """Keep it open: the next run prints too."""
        self.flush()

    def reconfigure(self, **_: Any) -> None:
        """Accepted as by the usual streams; there is nothing to set."""

    def writable(self) -> bool:
        """It is."""
        return True

    def isatty(self) -> bool:
        """It is no terminal."""
        return False

    def fileno(self) -> int:
        """Return the descriptor under it, for subprocesses; what goes there is kept too."""
        return 1 if self._stream is LogStream.STDOUT else 2


class TaskBytes(io.BufferedIOBase):
    """What ``sys.stdout.buffer`` is in the child."""

    def __init__(self, text: TaskStream, output: Output, stream: LogStream) -> None:
        self._text = text
        self._output = output
        self._stream = stream

    def write(self, data: Buffer, /) -> int:
        """Take some bytes of text."""
        view = memoryview(data).cast("B")
        for start in range(0, len(view), _SLICE):
            self._output.write(self._stream, bytes(view[start : start + _SLICE]))
        return len(view)

    def flush(self) -> None:
        """Show an unfinished line."""
        self._text.flush()

    def close(self) -> None:
        """Keep it open."""
        self._text.flush()

    def writable(self) -> bool:
        """It is."""
        return True

    def fileno(self) -> int:
        """Return the descriptor under it."""
        return self._text.fileno()


# Before Python 3.11 the class takes no parameter outside of type checking.
if TYPE_CHECKING:
    _TextHandler = logging.StreamHandler[TextIO]
else:
    _TextHandler = logging.StreamHandler


class StderrHandler(_TextHandler):
    """``logging`` for tasks that have set up none."""

    def __init__(self) -> None:
        super().__init__(sys.stderr)
        self.setLevel(logging.INFO)
        self.setFormatter(logging.Formatter(_LOG_FORMAT))

    @property
    def stream(self) -> TextIO:
        """What ``sys.stderr`` is now; a task may have redirected it."""
        return sys.stderr

    @stream.setter
    def stream(self, _: TextIO) -> None:
        """The base class sets it."""
