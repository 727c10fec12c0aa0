"""Names that look alike: what Python reads as one name, and which known one somebody may have meant.

Both cost more than in proportion to what a writer may have made endless, so that both are bounded here.
"""

import difflib
import heapq
import unicodedata
from collections.abc import Iterable
from itertools import islice

_COMPARED = 40
"""Characters of a name that are compared."""
_CANDIDATES = 1000
_CLOSEST = 10
_ALIKE = 0.6
_MOST_MARKS = 30
"""Combining characters in a row, as in Unicode's stream-safe text; putting more in order takes their number squared."""


def normal_name(name: str) -> str:
    """Return a name as Python reads it in a program, where identifiers that only look different are one (NFKC).

    A name with endless combining characters, which no script has, stays as it is.
    """
    if name.isascii() or _has_endless_marks(name):
        return name
    return unicodedata.normalize("NFKC", name)


def composed(name: str) -> str:
    """Return a name in Unicode's composed form (NFC), bounded in the same way."""
    return name if _has_endless_marks(name) else unicodedata.normalize("NFC", name)


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that somebody may have meant by one that is not known.

    Only the first ones are looked at, and only those that share most of its letters are compared with care.
    """
    matcher = difflib.SequenceMatcher(b=name[:_COMPARED])
    alike: list[tuple[float, int, str]] = []
    for number, candidate in enumerate(islice(known, _CANDIDATES)):
        matcher.set_seq1(candidate[:_COMPARED])
        if matcher.real_quick_ratio() >= _ALIKE and (ratio := matcher.quick_ratio()) >= _ALIKE:
            alike.append((ratio, -number, candidate))
    best, found = 0.0, None
    for _, _, candidate in heapq.nlargest(_CLOSEST, alike):
        matcher.set_seq1(candidate[:_COMPARED])
        if (ratio := matcher.ratio()) >= _ALIKE and ratio > best:
            best, found = ratio, candidate
    return found


class Misspellings:
    """Finds names that are probably misspelt, in one flow; after so many comparisons it finds none.

    Args:
        most: Comparisons that are made.
    """

    def __init__(self, most: int = 4000) -> None:
        self._left = most

    def is_like(self, name: str, known: list[str]) -> bool:
        """Whether a name looks like one of the known ones."""
        self._left -= len(known)
        return self._left >= 0 and bool(difflib.get_close_matches(name[:30], known, n=1, cutoff=0.75))


def _has_endless_marks(name: str) -> bool:
    marks = 0
    for char in name:
        marks = marks + 1 if unicodedata.combining(char) else 0
        if marks > _MOST_MARKS:
            return True
    return False
