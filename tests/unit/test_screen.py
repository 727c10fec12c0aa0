"""What is left of lines that are rewritten: the states that a terminal would show last, and each of them once."""

import itertools
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyoco_server.worker.child.output.frames import MAX_TEXT, Form
from pyoco_server.worker.child.output.screen import MOST_ROWS, Change, Screen


class Shown:
    """A reader of a screen's changes, as the worker is one."""

    def __init__(self) -> None:
        keys = itertools.count(1)
        self.screen = Screen(lambda: b"%d" % next(keys))
        self.lines: list[bytes] = []
        self.states: dict[bytes, bytes] = {}
        self._piece = b""

    def take(self, changes: Iterable[Change]) -> None:
        for form, text, key in changes:
            assert b"\n" not in text and b"\r" not in text
            if form is Form.STATE:
                assert key and len(text) <= MAX_TEXT
                self.states[key] = text
                if not text:
                    del self.states[key]
                continue
            self.states.pop(key, None)
            self._piece += text
            if form is Form.LINE:
                self.lines.append(self._piece)
                self._piece = b""

    def write(self, data: bytes, *, show: bool = False) -> "Shown":
        self.take(self.screen.feed(data, show=show))
        return self

    def finish(self) -> list[bytes]:
        self.take(self.screen.finish())
        assert not self.states and self.screen.is_empty
        return self.lines


@pytest.mark.parametrize(
    ("writes", "lines"),
    [
        ("plain\n|next\n", "plain|next"),
        ("\rstep 1|\rstep 2|\rstep 3", "step 3"),  # the return before an update, and no line end
        ("step 1\r|step 2\r|step 3\r|\n", "step 3"),  # … after it
        ("step 1|\r|step 2|\r|step 3|\n", "step 3"),  # … on its own
        ("\r|st|ep| 1|\r|st|ep| 2", "step 2"),
        ("a\r\nb\r\n\r\n", "a|b|"),  # a line end of Windows
        ("a\r|\nb\r\r\n", "a|b"),
        ("step 10\rstep 9\n", "step 9"),  # no rest of what was longer
        ("50 %\r      \rdone\n", "done"),
        ("50 %\r      \r", ""),  # removed: tqdm's leave=False
        ("50 %\r      |\r|", ""),
        ("50 %\x1b[2K\rdone\n|100 %\r\x1b[K", "done"),
        ("50 %\r\x1b[|2|Kdone", "done"),  # a sequence that is cut in two
        ("50 %\x1b[1G60 %\x1b[G70 %\x1b[K\n", "70 %"),
        ("\x1b[31mred\x1b[0m\n", "\x1b[31mred\x1b[0m"),  # colours are text
        ("- |\x08\x08/ |\x08\x08日 |\x08\x08ok\n", "ok"),
        ("   ", "   "),
        ("\n\n", "|"),
        ("\x1b", "\x1b"),
        # Nested bars of tqdm: down to the inner one, and up again.
        ("\router 0|\n\rin 1\x1b[A|\n\rin 2\x1b[A|\router 1|\n\rin 3\x1b[A|\n", "outer 0|outer 1|in 3"),
        ("\router 0|\n\rin 1\x1b[A|\n\r    \r\x1b[A|\router 1|\n", "outer 0|outer 1"),
        # Lines beside bars: tqdm.write().
        ("\ro 0\n\ri 0\x1b[A|\n\r   \r\x1b[A|msg 1\n\ro 0\n\ri 1\x1b[A|\n\r  \r\x1b[A|msg 2\n\ro 1\n\ri 2\x1b[A",
         "o 0|msg 1|msg 2|o 1|i 2"),
        # Several rows drawn anew, with cursor-up and erase.
        ("a 1\nb 1\n|\x1b[2Aa 2\nb 2\n|\x1b[2F\x1b[Ja 3\nb 3\n|end\n", "a 1|b 1|a 3|b 3|end"),
        ("a 1\nb 1\n|\x1b[2A\x1b[Jgone\n", "a 1|b 1|gone"),
        ("\x1b[999A\x1b[B\x1b[Ex\n", "x"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("show", [False, True])
def test_the_last_state_of_each_line_is_left(writes: str, lines: str, show: bool) -> None:
    shown = Shown()
    for data in writes.split("|"):
        shown.write(data.encode(), show=show)
    expected = lines.split("|") if lines or "\n\n" in writes else []
    assert [line.decode() for line in shown.finish()] == expected


def test_states_are_told_at_once_when_a_line_is_rewritten_and_else_when_asked() -> None:
    shown = Shown().write(b"half")
    assert not shown.states
    assert list(shown.write(b"", show=True).states.values()) == [b"half"]
    shown.write(b"\rwhole")
    assert list(shown.states.values()) == [b"whole"] and len(shown.states) == 1
    shown.write(b"\n\r1 %\r2 %")
    assert shown.lines == [b"whole"] and list(shown.states.values()) == [b"2 %"]
    shown.write(b"\r   \r")
    assert not shown.states
    assert shown.finish() == [b"whole"]


def test_a_state_that_does_not_change_is_told_once() -> None:
    screen = Shown().screen
    assert len(screen.feed(b"\rsame")) == 1
    assert screen.feed(b"\r") == screen.feed(b"same") == screen.feed(b"", show=True) == []


def test_ten_hours_of_nested_bars_leave_a_few_lines() -> None:
    shown = Shown()
    for epoch in range(100):
        shown.write(b"\repoch %d" % epoch)
        for batch in range(100):
            shown.write(b"\n").write(b"\rbatch %d" % batch).write(b"\x1b[A")
    assert shown.finish() == [b"epoch 0", b"epoch 99", b"batch 99"]


CUTS = st.lists(st.tuples(st.integers(1, 60), st.booleans()), min_size=1, max_size=30)
TEXTS = st.sampled_from([b"a", b"bb", b" ", "日".encode(), b"x" * 999])


def write_cut(shown: Shown, text: bytes, cuts: list[tuple[int, bool]]) -> None:
    """Write a text in pieces, some of them followed by a flush."""
    start = 0
    for size, flush in itertools.cycle(cuts):
        if start >= len(text):
            return
        shown.write(text[start : start + size], show=flush)
        assert len(shown.states) <= MOST_ROWS
        start += size


@settings(deadline=None)
@given(st.lists(st.tuples(TEXTS, st.sampled_from([b"", b"\r", b"\n", b"\r\n"])), max_size=40), CUTS)
def test_any_writes_leave_what_a_line_of_a_terminal_shows_last(
    parts: list[tuple[bytes, bytes]], cuts: list[tuple[int, bool]]
) -> None:
    text = b"".join(part for pair in parts for part in pair)
    expected = []
    for number, line in enumerate(lines := text.split(b"\n")):
        states = [state for state in line.split(b"\r") if state]
        last = states[-1] if states else b""
        # The line that has no end is none where nothing is to be seen in it.
        if number < len(lines) - 1 or last.strip() or (last and len(states) == 1):
            expected.append(last)
    shown = Shown()
    write_cut(shown, text, cuts)
    if all(len(state) <= MAX_TEXT for line in lines for state in line.split(b"\r")):
        assert shown.finish() == expected
    else:  # what was too long to wait cannot be rewritten
        assert [line[-10:] for line in shown.finish()] == [line[-10:] for line in expected]


SEQUENCES = [
    *(b"a", b"bc ", b"\n", b"\r", b"\x1b[A", b"\x1b[2A", b"\x1b[99A", b"\x1b[B", b"\x1b[2K", b"\x1b[K", b"\x1b[J"),
    *(b"\x1b[G", b"\x1b[", b"\x1b", b"\x08\x08", b"\xe6\x97", b"\xff", b"x" * 2000),
]


@settings(deadline=None)
@given(st.lists(st.sampled_from(SEQUENCES), max_size=60), CUTS)
def test_it_does_not_matter_how_writes_are_cut_nor_what_is_in_them(
    parts: list[bytes], cuts: list[tuple[int, bool]]
) -> None:
    text = b"".join(parts)
    at_once, in_pieces = Shown().write(text), Shown()
    write_cut(in_pieces, text, cuts)
    if len(text) <= MAX_TEXT:
        assert in_pieces.finish() == at_once.finish()
    else:
        in_pieces.finish()


@settings(deadline=None)
@given(st.lists(st.lists(st.sampled_from([*SEQUENCES, b"\n", b"\n"]), max_size=9), max_size=30), st.booleans())
def test_a_block_of_plain_lines_is_the_same_as_its_lines(writes: list[list[bytes]], show: bool) -> None:
    one, other = Shown(), Shown()
    for parts in writes:
        data = b"".join(parts)
        one.write(data, show=show)
        block = other.screen.finished_block(data) if other.screen.is_plain(data) else None
        if block is not None:
            other.take(Change(Form.LINE, line) for line in block.split(b"\n"))
        other.write(data if block is None else b"", show=show)
    assert one.finish() == other.finish()
