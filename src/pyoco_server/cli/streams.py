"""The standard streams of a command, which may be closed, full, or read by nobody any more.

An error in writing the answer becomes ``OutputLost``, whoever writes: our own functions, click's help, an archive that
goes to stdout. What is said on stderr never stops a command: there is nowhere left to complain.
"""

import contextlib
import errno
import io
import os
import sys
from collections.abc import Iterator
from typing import TextIO

_IN, _OUT, _ERR = 0, 1, 2


class OutputLost(OSError):
    """Nothing more can be written to stdout."""


@contextlib.contextmanager
def standard_streams() -> Iterator[None]:
    """Make the streams of this process such that each can be used; at the end all is written.

    Streams that somebody else has put in place, as tests do, are left alone.

    Raises:
        OutputLost: something written to stdout is lost.
    """
    closed = _open_closed()
    if sys.stdout is sys.__stdout__:
        sys.stdout = _text(_Closed() if _OUT in closed or sys.stdout is None else _Out(_OUT), sys.stdout)
    if sys.stderr is sys.__stderr__:
        sys.stderr = _text(_Err(_ERR), sys.stderr)
        sys.stderr.reconfigure(errors="backslashreplace", line_buffering=True)
    if sys.stdin is None:
        sys.stdin = open(_IN, encoding="utf-8", closefd=False)  # noqa: SIM115 - it lives as long as we do
    yield
    sys.stdout.flush()


def give_up() -> None:
    """Let everything that still waits to be written to stdout go nowhere, instead of failing once more at the exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, _OUT)
    finally:
        os.close(nowhere)


class _Out(io.FileIO):
    def __init__(self, handle: int) -> None:
        super().__init__(handle, "wb", closefd=False)

    def write(self, data: object) -> int:
        try:
            return super().write(data)  # type: ignore[arg-type]
        except OSError as error:
            raise OutputLost(error.errno, error.strerror) from None


class _Closed(_Out):
    """A stdout that was closed before we began: what took its place must not get the answer."""

    def __init__(self) -> None:
        super().__init__(_OUT)
        self._told = False

    def write(self, data: object) -> int:
        if self._told:
            return super().write(data)  # to nowhere, at the exit
        self._told = True
        raise OutputLost(errno.EBADF, "it is closed")


class _Err(io.FileIO):
    def __init__(self, handle: int) -> None:
        super().__init__(handle, "wb", closefd=False)

    def write(self, data: object) -> int:
        try:
            return super().write(data)  # type: ignore[arg-type]
        except OSError:
            return len(data)  # type: ignore[arg-type]


def _open_closed() -> set[int]:
    """Put the null device where a standard handle is closed, so that no socket gets its number; return which."""
    closed = set()
    for handle in (_IN, _OUT, _ERR):
        try:
            os.fstat(handle)
        except OSError:
            closed.add(handle)
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free: this one
    return closed


def _text(raw: io.FileIO, like: TextIO | None) -> io.TextIOWrapper:
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=like.encoding if like else "utf-8",
        errors=like.errors if like else "backslashreplace",
        newline="\n",
        line_buffering=bool(like and like.line_buffering),
    )
