"""JSON as one line for every reader: JSON lets stand what ends a line for Python, JavaScript and many log readers."""

import re

_ENDS = re.compile("[\x7f-\x9f\u2028\u2029]")
"""DEL and C1 with U+0085, and Unicode's own separators. What is below U+0020 no writer of JSON lets through."""


def one_line(json_text: str) -> str:
    """Write what may be taken for the end of a line, or for a terminal's command, as escapes: the JSON is the same.

    Args:
        json_text: JSON without line breaks of its own. Such characters can stand in its strings alone.
    """
    return _ENDS.sub(lambda found: f"\\u{ord(found[0]):04x}", json_text)
