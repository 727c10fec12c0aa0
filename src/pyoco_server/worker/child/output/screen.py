"""What a writer has not finished yet, as a terminal would show it.

A progress bar writes its line again and again. Only the last state of a line is worth keeping, so what is printed goes
through a small screen: some rows and a cursor, as far as progress bars use a terminal. A row that is left for good is a
line of the log. Until then its state can be shown, under a key by which a later state, or the line, replaces it.

It is no full terminal: text after a carriage return replaces the whole row, also where that was longer.
"""

import re
from collections.abc import Callable
from typing import NamedTuple

from pyoco_server.worker.child.output.frames import MAX_TEXT, Form, boundary

MOST_ROWS = 32
"""Rows that wait for a cursor to come back; what is above them is finished."""

_SPECIAL = re.compile(
    rb"\n|\r|\x08+"
    rb"|\x1b\[(?P<count>\d{0,3})(?P<move>[ABEF])"  # up, down, and the same to the beginning of the row
    rb"|\x1b\[1?(?P<home>G)"
    rb"|\x1b\[(?P<erase>2K|0?K|0?J)"
)
_CUT_OFF = re.compile(rb"\x1b(\[\d{0,3})?\Z")
"""The beginning of a sequence whose rest comes with the next write."""


class Change(NamedTuple):
    """Something to tell.

    Args:
        form: What it is.
        text: The bytes, without a line end.
        key: Of the row, if a state of it was told before or is told now; else empty.
    """

    form: Form
    text: bytes
    key: bytes = b""


class _Row:
    __slots__ = ("back", "key", "returned", "rewritten", "shown", "text", "written")

    def __init__(self, text: bytes = b"") -> None:
        self.text = text
        self.key = b""
        self.shown = b""
        self.returned = False  # the next text replaces what is here
        self.back = 0  # … or so many of its last characters
        self.rewritten = False
        self.written = bool(text)

    @property
    def is_blank(self) -> bool:
        """Whether there is nothing to see; blanks that were written over something else are how a bar is removed."""
        return not self.text or (self.rewritten and not self.text.strip())


class Screen:
    """The unfinished lines of one writer.

    Args:
        new_key: Makes a key for a row, each time another one.
    """

    def __init__(self, new_key: Callable[[], bytes]) -> None:
        self._new_key = new_key
        self._rows = [_Row()]
        self._at = 0
        self._rest = b""  # of an escape sequence
        self._highest = 0  # where the cursor was, since it left the last row
        self._patience = 0  # line ends on the last row until a screen of several rows is given up

    @property
    def is_empty(self) -> bool:
        """Whether nothing is unfinished."""
        return self._is_simple and not self._rows[0].text and not self._rows[0].key

    def is_plain(self, data: bytes) -> bool:
        """Whether the data are only text and line ends, and go to a row that nobody has seen."""
        specials = b"\r" in data or b"\x1b" in data or b"\x08" in data
        return not specials and self._is_simple and not self._rows[0].key

    def feed(self, data: bytes, *, show: bool = False) -> list[Change]:
        """Take what was written.

        Args:
            data: The bytes.
            show: Whether the unfinished rows are to be told; those that are rewritten are told in any case.
        """
        changes: list[Change] = []
        if not (b"\r" in data or b"\x1b" in data or b"\x08" in data) and self._is_simple:
            self._feed_plain(data, changes)
        else:
            show = True
            self._feed_special(data, changes)
        if show:
            changes += self._states()
        return changes

    def finished_block(self, data: bytes) -> bytes | None:
        """Take data that are plain; the lines that they finish are the answer, as one text, or ``None`` for none."""
        end = data.rfind(b"\n")
        row = self._rows[0]
        if end < 0:
            return None
        block = row.text + data[:end]
        self._rows = [_Row(data[end + 1 :])]
        return block

    def finish(self) -> list[Change]:
        """End every line that is unfinished."""
        changes: list[Change] = []
        self._at = len(self._rows) - 1
        if self._rest:
            rest, self._rest = self._rest, b""
            self._put(rest, changes)
        *above, last = self._rows
        for row in above:
            self._end(row, changes)
        if not last.is_blank:
            changes.append(Change(Form.LINE, last.text, last.key))
        elif last.key:
            changes.append(Change(Form.STATE, b"", last.key))
        self._clear()
        return changes

    @property
    def _is_simple(self) -> bool:
        row = self._rows[0]
        return len(self._rows) == 1 and not self._rest and not row.returned and not row.back

    def _clear(self) -> None:
        self._rows = [_Row()]
        self._at = self._highest = self._patience = 0

    def _feed_plain(self, data: bytes, changes: list[Change]) -> None:
        row = self._rows[0]
        if b"\n" in data:
            first, *more, rest = data.split(b"\n")
            changes.append(Change(Form.LINE, row.text + first, row.key))
            changes += [Change(Form.LINE, line) for line in more]
            self._rows[0] = _Row(rest)
        elif data:
            row.text += data
            row.written = True
        self._shorten(changes)

    def _feed_special(self, data: bytes, changes: list[Change]) -> None:
        data = self._rest + data
        cut_off = _CUT_OFF.search(data, max(0, len(data) - 5))
        end = cut_off.start() if cut_off else len(data)
        self._rest = data[end:]
        start = 0
        for found in _SPECIAL.finditer(data, 0, end):
            if found.start() > start:
                self._put(data[start : found.start()], changes)
            start = found.end()
            what = found[0][:1]
            if what == b"\n":
                self._line_end(changes)
            elif what == b"\r" or found["home"]:
                self._rows[self._at].returned = True
            elif what == b"\x08":
                self._rows[self._at].back += len(found[0])
            elif found["move"]:
                self._move(found["move"], int(found["count"] or 1))
            else:
                self._erase(found["erase"])
        if start < end:
            self._put(data[start:end], changes)

    def _put(self, text: bytes, changes: list[Change]) -> None:
        row = self._rows[self._at]
        if row.returned:
            row.rewritten |= bool(row.text)
            row.text = b""
        elif row.back:
            row.text = row.text.decode("utf-8", "surrogateescape")[: -row.back].encode("utf-8", "surrogateescape")
        row.returned, row.back, row.written = False, 0, True
        row.text += text
        self._shorten(changes)

    def _shorten(self, changes: list[Change]) -> None:
        """Let the beginning of a row go that is too long; it cannot be rewritten then."""
        row = self._rows[self._at]
        if len(row.text) <= MAX_TEXT:
            return
        for above in self._rows[: self._at]:
            self._end(above, changes)
        del self._rows[: self._at]
        self._at = self._highest = 0
        end = boundary(row.text, (len(row.text) - 1) // MAX_TEXT * MAX_TEXT)
        changes.append(Change(Form.PIECE, row.text[:end], row.key))
        self._rows[0] = _Row(row.text[end:])

    def _line_end(self, changes: list[Change]) -> None:
        row = self._rows[self._at]
        row.back = 0
        if self._at < len(self._rows) - 1:
            self._at += 1
            self._rows[self._at].returned = True
            return
        row.written = True
        # What lies above every place to which the cursor still comes is finished.
        done = self._highest if self._patience else len(self._rows)
        self._patience = max(0, self._patience - 1)
        self._rows.append(_Row())
        done = max(done, len(self._rows) - MOST_ROWS)
        for finished in self._rows[:done]:
            self._end(finished, changes)
        del self._rows[:done]
        self._at = self._highest = len(self._rows) - 1

    def _move(self, direction: bytes, count: int) -> None:
        if direction in b"BE":
            self._at = min(self._at + count, len(self._rows) - 1)
        else:
            # The rows above are finished and told; what is written there now is told once more.
            missing = min(max(0, count - self._at), MOST_ROWS - len(self._rows))
            self._rows[:0] = [_Row() for _ in range(missing)]
            self._at = max(0, self._at + missing - count)
            self._highest = min(self._highest, self._at)
            self._patience = len(self._rows)
        self._rows[self._at].returned = True

    def _erase(self, what: bytes) -> None:
        row = self._rows[self._at]
        if what == b"2K" or row.returned:
            row.text, row.returned, row.back, row.rewritten = b"", False, 0, True
        if what.endswith(b"J"):
            for below in self._rows[self._at + 1 :]:
                below.text, below.written = b"", False

    def _end(self, row: _Row, changes: list[Change]) -> None:
        if row.written:
            changes.append(Change(Form.LINE, row.text, row.key))
        elif row.key:
            changes.append(Change(Form.STATE, b"", row.key))

    def _states(self) -> list[Change]:
        states = []
        for row in self._rows:
            text = b"" if row.is_blank else row.text
            if text != row.shown:
                row.key = row.key or self._new_key()
                row.shown = text
                states.append(Change(Form.STATE, text, row.key))
        return states
