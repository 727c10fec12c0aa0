"""How a child tells what its tasks print: one frame a line, each small enough to go into the pipe in one piece.

A frame is ``kind 0x1f task 0x1f key 0x1f time 0x1f text`` and a line end. Up to ``PIPE_BUF`` bytes a pipe takes whole
or not at all, so threads and forked processes may write side by side, and what was written outlives the writer. The key
is empty but for lines of which a state was told before they were finished; a state, and the line, replace what has
their key.
"""

import functools
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
_MAX_KEY = 64
_NAMES = 1024
_HEAD = 64
"""Room for the kind, the time and the separators."""
MAX_TEXT = MAX_FRAME - _HEAD - _MAX_KEY - _MAX_NAME


class Kind(bytes, Enum):
    """What a frame tells."""

    STDOUT = b"1"
    STDERR = b"2"
    STDOUT_CONTINUED = b"1+"
    STDERR_CONTINUED = b"2+"
    STDOUT_STATE = b"1~"
    """A line that is not finished, as it is now."""
    STDERR_STATE = b"2~"
    TASK_STARTED = b"s"
    TASK_ENDED = b"e"
    LOST = b"l"
    """The pipe was full for too long. Text: lines and bytes that were dropped."""
    NOTICE = b"n"
    """Text: what the run's process says about itself."""


class Form(Enum):
    """What a text is."""

    LINE = ""
    """A finished line."""
    PIECE = "+"
    """A part of a line; the next line of the same task and stream goes on in it."""
    STATE = "~"
    """A line that is not finished, as it is now; nothing is left of it where the text is empty."""


KINDS = {
    (LogStream.STDOUT, Form.LINE): Kind.STDOUT,
    (LogStream.STDERR, Form.LINE): Kind.STDERR,
    (LogStream.STDOUT, Form.PIECE): Kind.STDOUT_CONTINUED,
    (LogStream.STDERR, Form.PIECE): Kind.STDERR_CONTINUED,
    (LogStream.STDOUT, Form.STATE): Kind.STDOUT_STATE,
    (LogStream.STDERR, Form.STATE): Kind.STDERR_STATE,
}
"""Kinds of the frames that carry text, by stream and form."""
FORMS = {kind: value for value, kind in KINDS.items()}
_KINDS: dict[bytes, Kind] = {kind.value: kind for kind in Kind}


class Frame(NamedTuple):
    """One frame; ``text`` as it was printed, perhaps no UTF-8."""

    kind: Kind
    task: str | None
    time: float
    text: bytes
    key: bytes = b""


def encode(kind: Kind, task: str | None, time: float, text: bytes, key: bytes = b"") -> bytes:
    """Return a frame's bytes; ``text`` has at most ``MAX_TEXT`` bytes and no line end, ``key`` at most 64."""
    name = task.encode("utf-8", "replace")[:_MAX_NAME].translate(None, b"\n\x1f") if task else b""
    return b"%b\x1f%b\x1f%b\x1f%.3f\x1f%b\n" % (kind.value, name, key, time, text)


def decode(data: bytes) -> Frame | None:
    """Read a frame without its line end; ``None`` for what is none (user code may write into any pipe)."""
    parts = data.split(_SEPARATOR, 4)
    if len(parts) != 5 or (kind := _KINDS.get(parts[0])) is None or len(parts[2]) > _MAX_KEY:
        return None
    try:
        time = float(parts[3])
    except ValueError:
        return None
    if not math.isfinite(time):
        return None
    task = _name(parts[1]) or None
    return Frame(kind, task, time, parts[4], parts[2])


@functools.lru_cache(maxsize=_NAMES)
def _name(raw: bytes) -> str:
    """Return a task's name: the same string each time, for thousands of lines may wait under it."""
    return raw.decode("utf-8", "ignore")


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
    """Return the last place up to ``end`` that is not inside of a UTF-8 character."""
    for back in range(4):
        if text[end - back] & 0xC0 != 0x80:
            return end - back
    return end  # no UTF-8
