"""Inside the child: what tasks print and log goes to the worker line by line, each under the name of its task.

pyoco's own capture keeps everything that a task prints in memory; it is replaced by this.
"""

import contextlib
import faulthandler
import fcntl
import itertools
import logging
import os
import sys
import termios
import threading
import time
from collections.abc import Iterator
from typing import TextIO, cast

from pyoco.core import engine

from pyoco_server.model.runlog import LogStream
from pyoco_server.worker.child.output.framepipe import FramePipe
from pyoco_server.worker.child.output.frames import KINDS, MAX_FRAME, Form, Kind, encode, pieces
from pyoco_server.worker.child.output.screen import Change, Screen
from pyoco_server.worker.child.output.taskstreams import StderrHandler, TaskStream

_RAW_WAIT_SEC = 0.5
_RAW_POLL_SEC = 0.0005


class TaskOutput:
    """Takes what this process prints through ``sys.stdout``, ``sys.stderr`` and ``logging``.

    Each thread has a screen of its own for each stream, whose changes go to the worker the moment they come: what a
    process has printed outlives it. How much of it is kept, the worker decides.

    Args:
        descriptor: Of the pipe to the worker.
    """

    def __init__(self, descriptor: int) -> None:
        self._pipe = FramePipe(descriptor)
        self._lock = threading.RLock()
        self._here = threading.local()
        self._running: list[str] = []
        self._keys = itertools.count(1)
        self._screens: dict[tuple[int, LogStream], Screen] = {}
        self._raw = [(descriptor, os.fstat(descriptor)) for descriptor in (1, 2)]
        self._streams = (TaskStream(self, LogStream.STDOUT), TaskStream(self, LogStream.STDERR))
        os.register_at_fork(after_in_child=self._after_fork)

    def install(self) -> None:
        """Put it in place of everything that prints, for as long as the process lives."""
        sys.stdout, sys.stderr = cast(tuple[TextIO, TextIO], self._streams)
        # Not a handler of the root logger: user code's own basicConfig() would do nothing then.
        logging.lastResort = StderrHandler()
        logging.getLogger().setLevel(logging.INFO)
        faulthandler.enable(file=2, all_threads=False)  # a crash of the interpreter says in which line
        # The engine looks the name up in its module for each run.
        vars(engine)["RunLogCapture"] = lambda **_: _EngineCapture(self)

    def begin(self) -> None:
        """Begin a run; the last one may have left streams of its own in our places."""
        sys.stdout, sys.stderr = cast(tuple[TextIO, TextIO], self._streams)

    def end(self) -> None:
        """End the run: what is unfinished goes out."""
        with self._lock:
            for thread, stream in list(self._screens):
                self._finish(thread, stream)

    def notice(self, text: str) -> None:
        """Put a line of ours into the log, whatever the limit."""
        with self._lock:
            data = text.replace("\n", " ").encode("utf-8", "replace")
            self._pipe.send(encode(Kind.NOTICE, None, time.time(), next(pieces(data))[0]))

    def announce(self, task: str) -> None:
        """Note which task the current thread is about to run."""
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
                    self._finish(threading.get_ident(), stream)
                self._running.remove(name)
                self._here.name = None
                self._pipe.send(encode(Kind.TASK_ENDED, name, time.time(), b""))

    def write(self, stream: LogStream, data: bytes) -> None:
        """Take some bytes of text; whole lines go out at once, and so does a line that is rewritten."""
        self._feed(stream, data, show=False)

    def flush(self, stream: LogStream) -> None:
        """Show the current thread's unfinished line."""
        if (threading.get_ident(), stream) in self._screens:
            self._feed(stream, b"", show=True)

    def _feed(self, stream: LogStream, data: bytes, *, show: bool) -> None:
        place = threading.get_ident(), stream
        with self._lock:
            # It is not in its place meanwhile: a signal's handler may print or raise at any point here, and then finds
            # no screen that is half changed.
            screen = self._screens.pop(place, None) or Screen(self._new_key)
            try:
                if changes := screen.feed(data, show=show):
                    self._send(stream, changes)
            except BaseException:  # of such a handler
                self._send(stream, screen.finish())
                raise
            if place in self._screens:
                self._finish(*place)
            self._screens[place] = screen

    def _new_key(self) -> bytes:
        return b"%d.%d" % (os.getpid(), next(self._keys))  # another one than those of forked processes

    def _finish(self, thread: int, stream: LogStream) -> None:
        screen = self._screens.pop((thread, stream), None)
        if screen is not None:
            self._send(stream, screen.finish())

    def _send(self, stream: LogStream, changes: list[Change]) -> None:
        name = getattr(self._here, "name", None)
        if name is None and len(self._running) == 1:
            name = self._running[0]  # a thread that the task has started
        now = time.time()
        # Several frames share a write, up to what a pipe takes in one piece.
        frames, lines, size = b"", 0, 0
        for form, text, key in changes:
            for number, (piece, more) in enumerate(pieces(text)):
                kind = KINDS[stream, Form.PIECE if more else form]
                frame = encode(kind, name, now, piece, b"" if number else key)
                if len(frames) + len(frame) > MAX_FRAME:
                    self._pipe.send(frames, lines, size)
                    frames, lines, size = b"", 0, 0
                frames += frame
                if form is not Form.STATE:
                    lines, size = lines + 1, size + len(piece)
        if frames:
            self._pipe.send(frames, lines, size)

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
        self._screens.clear()


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
