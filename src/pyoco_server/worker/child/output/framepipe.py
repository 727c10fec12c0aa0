"""The child's end of the pipe that carries frames: it never makes a task wait for long."""

import os
import select
import time

from pyoco_server.worker.child.output.frames import Kind, encode

PATIENCE_SEC = 2.0
"""How long a task waits for a worker that does not read; from then on its output is dropped until the worker does."""


class FramePipe:
    """Writes frames. The caller holds a lock.

    Args:
        descriptor: The pipe's.
    """

    def __init__(self, descriptor: int) -> None:
        os.set_blocking(descriptor, False)
        os.set_inheritable(descriptor, False)
        self._descriptor = descriptor
        self._identity = _identity(descriptor)
        self._stalled = False
        self._lost_lines = 0
        self._lost_bytes = 0

    def send(self, frame: bytes, lines: int = 0, size: int = 0) -> None:
        """Write a frame.

        Args:
            frame: Its bytes.
            lines: What is lost with it, if it cannot be written, …
            size: … in lines and in bytes of text.
        """
        if self._lost_lines:
            lost = b"%d %d" % (self._lost_lines, self._lost_bytes)
            if self._write(encode(Kind.LOST, None, time.time(), lost)):
                self._lost_lines = self._lost_bytes = 0
        if not self._write(frame):
            self._lost_lines += lines
            self._lost_bytes += size

    def _write(self, frame: bytes) -> bool:
        deadline = time.monotonic() + PATIENCE_SEC
        while True:
            try:
                # User code may close descriptors that it does not know, and its own files may get their numbers.
                if _identity(self._descriptor) != self._identity:
                    return False
                os.write(self._descriptor, frame)
            except BlockingIOError:
                left = deadline - time.monotonic()
                if self._stalled or left <= 0:
                    self._stalled = True
                    return False
                poll = select.poll()
                poll.register(self._descriptor, select.POLLOUT)
                poll.poll(left * 1000)
            except OSError:
                return False  # closed, or the worker is gone
            else:
                self._stalled = False
                return True


def _identity(descriptor: int) -> tuple[int, int]:
    found = os.fstat(descriptor)
    return found.st_dev, found.st_ino
