"""Inside the child: what tasks print and log goes to the worker line by line, each under the name of its task.

pyoco's own capture keeps everything that a task prints in memory; it is replaced by this.
"""

import contextlib
import faulthandler
import fcntl
import io
import logging
import os
import sys
import termios
import threading
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, TextIO, cast

from pyoco.core import engine
from typing_extensions import Buffer

from pyoco_server.model.runlog import LogStream
from pyoco_server.worker.allowance import Allowance
from pyoco_server.worker.child.framepipe import FramePipe
from pyoco_server.worker.child.frames import LINE_KINDS, MAX_TEXT, Kind, boundary, encode, pieces

_SLICE = 64 * 1024
"""Characters of one write that are looked at together, so that a huge text is not held twice."""
_IDLE_BYTES = 64 * 1024
"""What may be printed while there is no run: by a flow resolver's module, most likely."""
_CUT_REPORT_SEC = 1.0
_RAW_WAIT_SEC = 0.05
_RAW_POLL_SEC = 0.0005
_LOG_FORMAT = "%(levelname)s %(name)s: %(message)s"


class TaskOutput:
    """Takes what this process prints through ``sys.stdout``, ``sys.stderr`` and ``logging``.

    Args:
        descriptor: Of the pipe to the worker.
    """

    def __init__(self, descriptor: int) -> None:
        self._pipe = FramePipe(descriptor)
        self._lock = threading.RLock()
        self._here = threading.local()
        self._running: list[str] = []
        self._partial: dict[tuple[int, LogStream], bytes] = {}
        self._allowance = Allowance(_IDLE_BYTES)
        self._cut_told = 0.0
        self._raw = [(descriptor, os.fstat(descriptor)) for descriptor in (1, 2)]
        self._streams = (TaskStream(self, LogStream.STDOUT), TaskStream(self, LogStream.STDERR))
        os.register_at_fork(after_in_child=self._after_fork)

    def install(self) -> None:
        """Put it in place of everything that prints, for as long as the process lives."""
        sys.stdout, sys.stderr = cast(tuple[TextIO, TextIO], self._streams)
        # Not a handler of the root logger: user code's own basicConfig() would do nothing then.
        logging.lastResort = _StderrHandler()
        logging.getLogger().setLevel(logging.INFO)
        faulthandler.enable(file=2, all_threads=False)  # a crash of the interpreter says in which line
        # The engine looks the name up in its module for each run.
        vars(engine)["RunLogCapture"] = lambda **_: _EngineCapture(self)

    def begin(self, limit: int) -> None:
        """Begin a run, whose output is kept up to ``limit`` bytes."""
        with self._lock:
            self._allowance = Allowance(limit)
            self._cut_told = 0.0
        sys.stdout, sys.stderr = cast(tuple[TextIO, TextIO], self._streams)  # the last run may have left its own

    def end(self) -> None:
        """End the run: what is still held back goes out."""
        with self._lock:
            for thread, stream in list(self._partial):
                self._flush(thread, stream, continued=False)
            self._tell_cut(last=True)
            self._allowance = Allowance(_IDLE_BYTES)

    def notice(self, text: str) -> None:
        """Put a line of ours into the log, whatever the limit."""
        with self._lock:
            data = text.replace("\n", " ").encode("utf-8", "replace")
            self._pipe.send(encode(Kind.NOTICE, None, time.time(), next(pieces(data))[0]))

    def announce(self, task: str) -> None:
        """Tell which task the current thread is about to run."""
        self._here.announced = task

    @contextlib.contextmanager
    def task(self) -> Iterator[None]:
        """While it lasts, the current thread runs the task that was announced."""
        name = self._here.name = getattr(self._here, "announced", None)
        if name is None:
            yield
            return
        with self._lock:
            self._running.append(name)
            self._pipe.send(encode(Kind.TASK_STARTED, name, time.time(), b""))
        try:
            yield
        finally:
            self._await_raw()
            with self._lock:
                for stream in (LogStream.STDOUT, LogStream.STDERR):
                    self._flush(threading.get_ident(), stream, continued=False)
                self._running.remove(name)
                self._here.name = None
                self._pipe.send(encode(Kind.TASK_ENDED, name, time.time(), b""))

    def write(self, stream: LogStream, data: bytes) -> None:
        """Take some bytes of text; whole lines go out at once."""
        thread = threading.get_ident()
        with self._lock:
            if self._allowance.is_spent:
                self._skip(data.count(b"\n"), len(data))
                return
            *lines, rest = (self._partial.pop((thread, stream), b"") + data).split(b"\n")
            for line in lines:
                self._emit(stream, line, continued=False)
            if len(rest) > MAX_TEXT:
                end = boundary(rest, (len(rest) - 1) // MAX_TEXT * MAX_TEXT)
                self._emit(stream, rest[:end], continued=True)
                rest = rest[end:]
            if rest:
                self._partial[thread, stream] = rest

    def write_text(self, stream: LogStream, text: str) -> None:
        """Take some text."""
        if self._allowance.is_spent:  # a flood: nothing that costs
            with self._lock:
                self._skip(text.count("\n"), len(text) if text.isascii() else len(text.encode("utf-8", "replace")))
            return
        for start in range(0, len(text), _SLICE):
            self.write(stream, text[start : start + _SLICE].encode("utf-8", "backslashreplace"))

    def flush(self, stream: LogStream) -> None:
        """Let the current thread's unfinished line go out."""
        with self._lock:
            self._flush(threading.get_ident(), stream, continued=True)

    def _flush(self, thread: int, stream: LogStream, *, continued: bool) -> None:
        rest = self._partial.pop((thread, stream), b"")
        if rest:
            self._emit(stream, rest, continued=continued)

    def _emit(self, stream: LogStream, line: bytes, *, continued: bool) -> None:
        name = getattr(self._here, "name", None)
        if name is None and len(self._running) == 1:
            name = self._running[0]  # a thread that the task has started
        for text, more in pieces(line.removesuffix(b"\r")):
            if self._allowance.take(len(text)):
                kind = LINE_KINDS[stream, continued or more]
                self._pipe.send(encode(kind, name, time.time(), text), 1, len(text))
            else:
                self._tell_cut()

    def _skip(self, lines: int, size: int) -> None:
        allowance = self._allowance
        allowance.cut_lines += lines
        allowance.cut_bytes += size
        if time.monotonic() >= self._cut_told + _CUT_REPORT_SEC:
            self._tell_cut()

    def _tell_cut(self, *, last: bool = False) -> None:
        """Tell at once that the limit is reached, and now and then how much was cut since."""
        now = time.monotonic()
        if self._allowance.is_spent and (last or now - self._cut_told >= _CUT_REPORT_SEC):
            self._cut_told = now
            self._pipe.send(encode(Kind.CUT, None, time.time(), b"%d %d" % self._allowance.take_counts()))

    def _await_raw(self) -> None:
        """Let the worker read what went around Python (C code, subprocesses), so that it knows whose it was."""
        deadline = time.monotonic() + _RAW_WAIT_SEC
        while any(_unread(descriptor, expected) for descriptor, expected in self._raw):
            if time.monotonic() > deadline:
                return
            time.sleep(_RAW_POLL_SEC)

    def _after_fork(self) -> None:
        """A forked process begins with a free lock, and does not print its parent's unfinished lines."""
        self._lock = threading.RLock()
        self._partial.clear()


class TaskStream(io.TextIOBase):
    """What ``sys.stdout`` or ``sys.stderr`` is in the child."""

    encoding = "utf-8"
    errors = "backslashreplace"
    line_buffering = True

    def __init__(self, output: TaskOutput, stream: LogStream) -> None:
        self._output = output
        self._stream = stream
        self.name = f"<{stream.value}>"
        self.mode = "w"
        self.buffer = TaskBytes(self, output, stream)

    def write(self, text: str, /) -> int:
        """Take some text."""
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        self._output.write_text(self._stream, text)
        return len(text)

    def writelines(self, lines: Iterable[str], /) -> None:  # type: ignore[override]
        """Take several texts."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Let an unfinished line go out."""
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
        """Give the descriptor under it, for subprocesses; what goes there is kept too."""
        return 1 if self._stream is LogStream.STDOUT else 2


class TaskBytes(io.BufferedIOBase):
    """What ``sys.stdout.buffer`` is in the child."""

    def __init__(self, text: TaskStream, output: TaskOutput, stream: LogStream) -> None:
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
        """Let an unfinished line go out."""
        self._text.flush()

    def close(self) -> None:
        """Keep it open."""
        self._text.flush()

    def writable(self) -> bool:
        """It is."""
        return True

    def fileno(self) -> int:
        """Give the descriptor under it."""
        return self._text.fileno()


# Before Python 3.11 the class takes no parameter outside of type checking.
if TYPE_CHECKING:
    _TextHandler = logging.StreamHandler[TextIO]
else:
    _TextHandler = logging.StreamHandler


class _StderrHandler(_TextHandler):
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


class _EngineCapture:
    """Stands in for pyoco's ``RunLogCapture``."""

    def __init__(self, output: TaskOutput) -> None:
        self._output = output

    @contextlib.contextmanager
    def activate(self) -> Iterator["_EngineCapture"]:
        """Around the run; the streams are in place already."""
        yield self

    @contextlib.contextmanager
    def capture_task(self) -> Iterator[tuple[None, None]]:
        """Around a task, in its own thread; there are no texts to give to the engine."""
        with self._output.task():
            yield None, None


def _unread(descriptor: int, expected: os.stat_result) -> bool:
    try:
        if not any(fcntl.ioctl(descriptor, termios.FIONREAD, b"\0\0\0\0")):
            return False
        return os.path.samestat(os.fstat(descriptor), expected)  # not if user code has put a file there
    except OSError:
        return False
