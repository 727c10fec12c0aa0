"""The worker's end of what a child prints: a pipe of frames, and the plain stdout and stderr of its processes."""

import asyncio
import contextlib
import fcntl
import os
import struct
import termios
import time
from typing import Protocol

from pyoco_server.model.runlog import LogStream
from pyoco_server.worker.child.frames import MAX_FRAME, MAX_TEXT, Frame, boundary, decode, pieces

_READ = 64 * 1024
"""Bytes read in one turn of the event loop, so that a flood leaves time for everything else."""
_READ_LINES = 16 * 1024
"""The same for what has to be cut into lines, which may have a byte each."""
_UNFINISHED_SEC = 0.25
"""After this a line without an end is passed on as it is: it may be a prompt."""
_FULL_SEC = 1.0
"""How long the pipes stay unread while the sink is full; less than the child's own patience."""


class OutputSink(Protocol):
    """Where output goes."""

    @property
    def is_full(self) -> bool:
        """Whether it had better get nothing more for now."""

    @property
    def is_spent(self) -> bool:
        """Whether it only counts what goes around Python from now on."""

    def skip_raw(self, lines: int, size: int) -> None:
        """Count what is not taken."""

    def take_frame(self, frame: Frame) -> None:
        """Take a frame."""

    def take_raw(self, stream: LogStream, text: bytes, task: str | None, *, continued: bool) -> None:
        """Take a line that went around Python."""

    def running_task(self) -> str | None:
        """Give the task that runs, if it is exactly one."""


class OutputPipes:
    """Three pipes from one child; all of it on the event loop, and never more than a little at once."""

    def __init__(self, sink: OutputSink) -> None:
        self._sink = sink
        self._frames, self.frames_end = os.pipe()
        self._stdout, self.stdout_end = os.pipe()
        self._stderr, self.stderr_end = os.pipe()
        self._ends = [self.frames_end, self.stdout_end, self.stderr_end]
        self._raw = {self._stdout: LogStream.STDOUT, self._stderr: LogStream.STDERR}
        self._open = {self._frames, *self._raw}
        self._rest: dict[int, bytes] = dict.fromkeys(self._open, b"")
        self._unfinished: asyncio.TimerHandle | None = None
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
        self._flush_unfinished(continued=False)

    def close(self) -> None:
        """Read what is left, and let go."""
        self._close_ends()
        self.drain()
        for timer in (self._unfinished, self._paused):
            if timer is not None:
                timer.cancel()
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
        data = self._get(descriptor, _READ if self._sink.is_spent else _READ_LINES)
        if data and self._sink.is_spent:
            self._sink.skip_raw(data.count(b"\n"), len(data))
        elif data:
            self._read_frames()
            self._take_raw(descriptor, data, task or self._sink.running_task())
        return len(data)

    def _read_frames(self) -> int:
        data = self._get(self._frames, _READ) if self._frames in self._open else b""
        *frames, rest = (self._rest[self._frames] + data).split(b"\n")
        self._rest[self._frames] = rest if len(rest) < MAX_FRAME else b""
        for text in frames:
            frame = decode(text)
            if frame is not None:
                self._sink.take_frame(frame)
        return len(data)

    def _take_raw(self, descriptor: int, data: bytes, task: str | None) -> None:
        stream = self._raw[descriptor]
        *lines, rest = (self._rest[descriptor] + data).split(b"\n")
        for line in lines:
            for piece, more in pieces(line.removesuffix(b"\r")):
                self._sink.take_raw(stream, piece, task, continued=more)
        while len(rest) > MAX_TEXT:
            end = boundary(rest, MAX_TEXT)
            self._sink.take_raw(stream, rest[:end], task, continued=True)
            rest = rest[end:]
        self._rest[descriptor] = rest
        if rest and self._unfinished is None:
            loop = asyncio.get_running_loop()
            self._unfinished = loop.call_later(_UNFINISHED_SEC, self._flush_unfinished, True)

    def _flush_unfinished(self, continued: bool) -> None:
        if self._unfinished is not None:
            self._unfinished.cancel()
            self._unfinished = None
        for descriptor, stream in self._raw.items():
            rest, self._rest[descriptor] = self._rest[descriptor], b""
            if rest:
                self._sink.take_raw(stream, rest, self._sink.running_task(), continued=continued)

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


def _waiting(descriptor: int) -> int:
    """Give the number of unread bytes."""
    return int(struct.unpack("i", fcntl.ioctl(descriptor, termios.FIONREAD, b"\0\0\0\0"))[0])
