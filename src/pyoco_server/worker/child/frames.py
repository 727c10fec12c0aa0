"""How a child tells what its tasks print: one frame a line, each small enough to go into the pipe in one piece.

A frame is ``kind 0x1f task 0x1f time 0x1f text`` and a line end. Up to ``PIPE_BUF`` bytes a pipe takes whole or not at
all, so threads and forked processes may write side by side, and what was written outlives the writer.
"""

import math
import select
from collections.abc import Iterator
from enum import Enum
from typing import NamedTuple

from pyoco_server.model.runlog import LogStream

MAX_FRAME = select.PIPE_BUF
LINE_COST = 48
"""What a line counts towards a log's limit beside its text: it is stored with its time and names."""

_SEPARATOR = b"\x1f"
_MAX_NAME = 1024
_HEAD = 64
"""Room for the kind, the time and the separators."""
MAX_TEXT = MAX_FRAME - _HEAD - _MAX_NAME


class Kind(bytes, Enum):
    """What a frame tells."""

    STDOUT = b"1"
    STDERR = b"2"
    STDOUT_CONTINUED = b"1+"
    STDERR_CONTINUED = b"2+"
    TASK_STARTED = b"s"
    TASK_ENDED = b"e"
    CUT = b"c"
    """The run's limit is reached. Text: lines and bytes that were cut since the last such frame."""
    LOST = b"l"
    """The pipe was full for too long. Text: lines and bytes that were dropped."""
    NOTICE = b"n"
    """Text: what the run's process says about itself."""


STREAMS = {
    Kind.STDOUT: (LogStream.STDOUT, False),
    Kind.STDERR: (LogStream.STDERR, False),
    Kind.STDOUT_CONTINUED: (LogStream.STDOUT, True),
    Kind.STDERR_CONTINUED: (LogStream.STDERR, True),
}
"""Stream and continuation of the kinds that carry a line."""
_KINDS: dict[bytes, Kind] = {kind.value: kind for kind in Kind}
LINE_KINDS = {value: kind for kind, value in STREAMS.items()}


class Frame(NamedTuple):
    """One frame; ``text`` as it was printed, perhaps no UTF-8."""

    kind: Kind
    task: str | None
    time: float
    text: bytes


def encode(kind: Kind, task: str | None, time: float, text: bytes) -> bytes:
    """Give a frame's bytes; ``text`` has at most ``MAX_TEXT`` bytes and no line end."""
    name = task.encode("utf-8", "replace")[:_MAX_NAME].translate(None, b"\n\x1f") if task else b""
    return b"%b\x1f%b\x1f%.3f\x1f%b\n" % (kind.value, name, time, text)


def decode(data: bytes) -> Frame | None:
    """Read a frame without its line end; ``None`` for what is none (user code may write into any pipe)."""
    parts = data.split(_SEPARATOR, 3)
    if len(parts) != 4 or (kind := _KINDS.get(parts[0])) is None:
        return None
    try:
        time = float(parts[2])
    except ValueError:
        return None
    if not math.isfinite(time):
        return None
    return Frame(kind, parts[1].decode("utf-8", "ignore") or None, time, parts[3])


def pieces(text: bytes) -> Iterator[tuple[bytes, bool]]:
    """Cut a line into pieces that fit a frame, between characters where it is UTF-8.

    Returns:
        Each piece, and whether another one follows.
    """
    start = 0
    while len(text) - start > MAX_TEXT:
        end = boundary(text, start + MAX_TEXT)
        yield text[start:end], True
        start = end
    yield text[start:], False


def boundary(text: bytes, end: int) -> int:
    """Give the last place up to ``end`` that is not inside of a UTF-8 character."""
    for back in range(4):
        if text[end - back] & 0xC0 != 0x80:
            return end - back
    return end  # no UTF-8
