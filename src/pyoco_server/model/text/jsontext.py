"""JSON as people and programs send it: what Python reads beyond it, or reads by guessing, is refused.

Python's reader takes NaN and Infinity, makes infinity of a number such as 1e999, and keeps the last one of two equal
keys. Each would change what somebody sent without a word.
"""

import json
import math
from collections import Counter
from decimal import Decimal, InvalidOperation
from typing import Any

from pyoco_server.errors import InvalidInput

_FINITE_HINT = (
    'JSON has neither NaN nor Infinity, and no number beyond 1.8e308. Send null, or a text such as "NaN", in quotes, '
    "that the task reads."
)
_SHOWN = 80


def read_json(raw: str | bytes) -> Any:
    """Read a JSON text. NaN and Infinity are left to ``check_finite``, which can say where they stand.

    Raises:
        json.JSONDecodeError: it is none.
        UnicodeDecodeError: it is in no encoding of Unicode.
        InvalidInput: it is one, and would not be read as it was written.
    """
    try:
        return json.loads(raw, object_pairs_hook=_object)
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise
    except RecursionError:
        raise InvalidInput(
            "the JSON nests too deeply", hint="Send it flatter, or as a text for a task to read."
        ) from None
    except ValueError:  # Python reads integers up to some thousand digits
        raise InvalidInput("a number in the JSON has too many digits", hint="Send it in quotes, as a text.") from None


def check_finite(value: Any, name: str) -> None:
    """Refuse numbers that JSON cannot carry.

    Args:
        value: Plain data, as a reader of JSON makes it.
        name: What it is called, such as ``params``.

    Raises:
        InvalidInput: there is one; the message says where.
    """
    try:
        json.dumps(value, allow_nan=False)  # many times quicker than what follows, and nearly always enough
    except (ValueError, TypeError, RecursionError):
        where = _not_finite(value)
        if where is not None:
            *path, found = where
            shown = name + "".join(f"[{key}]" if isinstance(key, int) else f".{key[:_SHOWN]}" for key in path)
            raise InvalidInput(f"{shown} is {_word(found)}, which is no number of JSON", hint=_FINITE_HINT) from None


def keeps(text: str, value: Any) -> bool:
    """Whether a number is all of what was typed: a float may be infinite, zero, or have fewer digits.

    Args:
        text: What was typed.
        value: What JSON makes of it.
    """
    if not isinstance(value, float):
        return True
    try:
        return math.isfinite(value) and Decimal(text) == Decimal(repr(value))
    except InvalidOperation:  # an exponent beyond all that can be computed with
        return False


def _not_finite(value: Any) -> list[Any] | None:
    """Return the way to the first number that is not finite, and the number."""
    waiting: list[tuple[Any, Any]] = [(None, value)]
    while waiting:
        way, found = waiting.pop()
        if isinstance(found, float) and not math.isfinite(found):
            path = [found]
            while way is not None:
                way, key = way
                path.append(key)
            return path[::-1]
        if isinstance(found, dict):
            waiting += [((way, str(key)), item) for key, item in reversed(found.items())]
        elif isinstance(found, list | tuple):
            waiting += [((way, len(found) - number), item) for number, item in enumerate(reversed(found), 1)]
    return None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = next(key for key, times in Counter(key for key, _ in pairs).items() if times > 1)
        raise InvalidInput(f"the key {twice[:_SHOWN]!r} is there twice in one object", hint="Leave out one of the two.")
    return found


def _word(value: float) -> str:
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
