"""The worker's end of what a child prints: a pipe of frames, and the plain stdout and stderr of its processes."""

import asyncio
import contextlib
import fcntl
import itertools
import os
import struct
import termios
import time
from collections.abc import Iterable
from typing import Protocol

from pyoco_server.model.runlog import LogStream
from pyoco_server.worker.child.output.frames import MAX_FRAME, Form, Frame, Kind, decode
from pyoco_server.worker.child.output.screen import Change, Screen
from pyoco_server.worker.logs.logtail import Printed

_READ = 64 * 1024
"""Bytes read in one turn of the event loop, so that a flood leaves time for everything else."""
_READ_LINES = 16 * 1024
"""The same for what has to be cut into lines, which may have a byte each."""
_FULL_SEC = 1.0
"""How long the pipes stay unread while the sink is full; less than the child's own patience."""


class OutputSink(Protocol):
    """Where output goes."""

    @property
    def is_full(self) -> bool:
        """Whether it had better get nothing more for now."""

    @property
    def is_spent(self) -> bool:
        """Whether lines that it gets now may never be looked at, so that they are better not cut apart."""

    def take_frame(self, frame: Frame) -> None:
        """Take a frame."""

    def take(self, printed: Printed, form: Form, key: bytes = b"") -> None:
        """Take what went around Python: lines, a part of one, or the state of one that is not finished."""

    def running_task(self) -> str | None:
        """Return the task that runs, if it is exactly one."""


class OutputPipes:
    """Three pipes from one child; all of it on the event loop, and never more than a little at once."""

    def __init__(self, sink: OutputSink) -> None:
        self._sink = sink
        (
            (self._frames, self.frames_end),
            (self._stdout, self.stdout_end),
            (self._stderr, self.stderr_end),
        ) = _pipes(3)
        self._ends = [self.frames_end, self.stdout_end, self.stderr_end]
        self._raw = {self._stdout: LogStream.STDOUT, self._stderr: LogStream.STDERR}
        self._open = {self._frames, *self._raw}
        self._rest = b""  # of a frame
        self._keys = itertools.count(1)
        self._screens = {descriptor: Screen(self._new_key) for descriptor in self._raw}
        self._owners: dict[int, str | None] = dict.fromkeys(self._raw)
        self._paused: asyncio.TimerHandle | None = None
        self._patience_ends = 0.0
        for descriptor in self._open:
            os.set_blocking(descriptor, False)

    def start(self) -> None:
        """Begin to read; the child has its ends now, and ours of them are closed."""
        self._close_ends()
        self._listen()

    def attach(self, sink: OutputSink) -> None:
        """Send everything to another sink from now on. What was printed before goes to the old one."""
        self.drain()
        self._sink = sink

    def drain(self) -> None:
        """Read what has been printed up to now; it ends also when the printing does not."""
        for descriptor in (self._frames, *self._raw):
            left = _waiting(descriptor) if descriptor in self._open else 0
            while left > 0 and descriptor in self._open:
                left -= max(1, self._read(descriptor))
        self._finish_lines(self._raw)

    def close(self) -> None:
        """Read what is left, and let go."""
        self._close_ends()
        self.drain()
        if self._paused is not None:
            self._paused.cancel()
        for descriptor in list(self._open):
            self._close(descriptor)

    def _close_ends(self) -> None:
        for descriptor in self._ends:
            os.close(descriptor)
        self._ends.clear()

    def _listen(self) -> None:
        loop = asyncio.get_running_loop()
        for descriptor in self._open:
            loop.add_reader(descriptor, self._on_readable, descriptor)

    def _on_readable(self, descriptor: int) -> None:
        self._read(descriptor)
        if self._sink.is_full and time.monotonic() >= self._patience_ends:
            self._pause()

    def _pause(self) -> None:
        """Let the pipes fill up for a while; after that what comes is read, and the sink decides."""
        loop = asyncio.get_running_loop()
        for descriptor in self._open:
            loop.remove_reader(descriptor)
        self._paused = loop.call_later(0.01, self._resume, time.monotonic() + _FULL_SEC)

    def _resume(self, deadline: float) -> None:
        if self._sink.is_full and time.monotonic() < deadline:
            self._paused = asyncio.get_running_loop().call_later(0.01, self._resume, deadline)
            return
        self._paused = None
        if self._sink.is_full:
            self._patience_ends = time.monotonic() + _FULL_SEC
        self._listen()

    def _read(self, descriptor: int) -> int:
        """Read once; the number of bytes is the answer."""
        if descriptor == self._frames:
            return self._read_frames()
        # A task's start is told before its output, and its end only after we have read that: so the task that ran
        # before the read printed it, or the one that has started just now.
        self._read_frames()
        task = self._sink.running_task()
        size = _READ if self._sink.is_spent else _READ_LINES
        data = self._get(descriptor, size)
        if data:
            self._read_frames()
            # In a flood what is unfinished now is finished by the next read.
            pausing = len(data) < size or not _waiting(descriptor)
            self._take_raw(descriptor, data, task or self._sink.running_task(), pausing=pausing)
        return len(data)

    def _read_frames(self) -> int:
        data = self._get(self._frames, _READ) if self._frames in self._open else b""
        *frames, rest = (self._rest + data).split(b"\n")
        self._rest = rest if len(rest) < MAX_FRAME else b""
        for text in frames:
            frame = decode(text)
            if frame is None:
                continue
            if frame.kind is Kind.TASK_ENDED:
                self._finish_lines([descriptor for descriptor, task in self._owners.items() if task == frame.task])
            self._sink.take_frame(frame)
        return len(data)

    def _take_raw(self, descriptor: int, data: bytes, task: str | None, *, pausing: bool) -> None:
        screen = self._screens[descriptor]
        self._owners[descriptor] = task
        if self._sink.is_spent and screen.is_plain(data) and (block := screen.finished_block(data)) is not None:
            lines = block.count(b"\n") + 1
            self._sink.take(Printed(time.time(), task, self._raw[descriptor], block, lines), Form.LINE)
            data = b""
        self._take_changes(descriptor, screen.feed(data, show=pausing))

    def _finish_lines(self, descriptors: Iterable[int]) -> None:
        for descriptor in descriptors:
            self._take_changes(descriptor, self._screens[descriptor].finish())

    def _take_changes(self, descriptor: int, changes: list[Change]) -> None:
        now, task = time.time(), self._owners[descriptor]
        for form, text, key in changes:
            printed = Printed(now, task, self._raw[descriptor], text, continued=form is Form.PIECE)
            self._sink.take(printed, form, key)

    def _new_key(self) -> bytes:
        return b"%d" % next(self._keys)  # unlike those of a child, which have a dot

    def _get(self, descriptor: int, size: int) -> bytes:
        try:
            data = os.read(descriptor, size)
        except BlockingIOError:
            return b""
        except OSError:
            data = b""
        if not data:
            self._close(descriptor)  # every writer is gone
        return data

    def _close(self, descriptor: int) -> None:
        if descriptor in self._open:
            self._open.discard(descriptor)
            with contextlib.suppress(RuntimeError):  # no loop any more
                asyncio.get_running_loop().remove_reader(descriptor)
            os.close(descriptor)


def _pipes(count: int) -> list[tuple[int, int]]:
    """Make so many pipes, or none: what is left open where descriptors run out is missed for ever."""
    made: list[tuple[int, int]] = []
    try:
        while len(made) < count:
            made.append(os.pipe())
    except OSError:
        for descriptor in (end for ends in made for end in ends):
            os.close(descriptor)
        raise
    return made


def _waiting(descriptor: int) -> int:
    """Return the number of unread bytes."""
    return int(struct.unpack("i", fcntl.ioctl(descriptor, termios.FIONREAD, b"\0\0\0\0"))[0])
