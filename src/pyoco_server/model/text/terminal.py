"""Text of other people on its way to a terminal: what would steer it is replaced, and nothing else."""

import re

# Unicode calls far more than this "not printable": the ideographic space, no-break spaces, the joiners inside emoji and
# Indic words, private use, and every character that is younger than this Python's tables. All of that is text.
#
# Replaced are: the control characters C0, DEL and C1 (escape sequences, forged lines); U+2028 and U+2029, which end a
# line for many programs that read what we print; lone surrogates, which no encoding carries; and the characters that
# embed, override or isolate a direction (U+202A to U+202E, U+2066 to U+2069). The last reorder what stands beside them,
# our own words too, so that a line says something else than was printed. Hebrew and Arabic need none of them: their
# letters have a direction, and the marks LRM, RLM and ALM stay.
_STEERING = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def plain(text: str, keep: str = "") -> str:
    """Return the text with a ``?`` for each character that would steer a terminal.

    Args:
        text: The text.
        keep: Control characters that may stay, such as a tab.
    """
    return _STEERING.sub(lambda found: found[0] if found[0] in keep else "?", text)


def is_plain(text: str) -> bool:
    """Whether nothing in the text would steer a terminal."""
    return _STEERING.search(text) is None
