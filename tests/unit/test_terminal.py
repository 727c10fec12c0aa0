"""Text on its way to a terminal: what would steer it is replaced, and nothing else."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyoco_server.model.text.terminal import is_plain, plain


@pytest.mark.parametrize(
    "text",
    [
        "学習　完了",  # U+3000
        "12\u00a0345 km\u202f/\u2009h",  # no-break, narrow no-break and thin space
        "👨\u200d👩\u200d👧 ❤\ufe0f ☺\ufe0e 🏴\U000e0067\U000e007f",  # joiners, variation selectors, tags
        "e\u0301 क्\u200dष می\u200cخواهم",  # noqa: RUF001 - combining characters, joiners inside words
        "שלום \u200eabc\u200f مرحبا",  # right to left, with marks
        "\ue0b0 \uf8ff \U000f0001",  # private use: the symbols of fonts
        "\u0378\U0001fae9",  # not in every Python's tables
        "a\u00ad\u2060b\ufeff",  # soft hyphen, word joiner, BOM
    ],
)
def test_text_is_text(text: str) -> None:
    assert plain(text) == text and is_plain(text)


@pytest.mark.parametrize(
    "text",
    [
        "\x1b[2Jgone", "a\rb", "a\nb", "a\tb", "\x00", "\x7f", "\x9b31m", "\x85",  # C0, DEL, C1
        "a\u2028b", "a\u2029b",  # ends of lines
        "\ud800", "\udfff",  # lone surrogates
        "user\u202egnp.exe", "\u202a", "\u202c", "\u2066a\u2069",  # directions
    ],
)  # fmt: skip
def test_what_steers_is_replaced(text: str) -> None:
    assert not is_plain(text)
    shown = plain(text)
    assert is_plain(shown) and len(shown) == len(text) and "?" in shown


def test_a_caller_may_keep_what_its_place_can_hold() -> None:
    assert plain("a\tb\nc\x1b", keep="\n\t") == "a\tb\nc?"


@given(st.text())
def test_nothing_else_is_touched(text: str) -> None:
    for char, shown in zip(text, plain(text), strict=True):
        directs = unicodedata.bidirectional(char) in {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
        steers = directs or unicodedata.category(char) in {"Cc", "Cs", "Zl", "Zp"}
        assert shown == ("?" if steers else char)
