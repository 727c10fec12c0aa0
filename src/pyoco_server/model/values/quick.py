"""The way of most values: small ones of JSON's own types, which are told apart in a microsecond or less."""

import math
from typing import Any

from pyoco_server.model.values.lookup import MISSING

_LEVELS = 2
_ITEMS = 16
_TEXT = 100
_SMALL = 1 << 63
QUICK_BYTES = (_ITEMS + 1) ** _LEVELS * 4 * (_TEXT + 2)
"""What so many texts take at most, each with a key, when every character is a quotation mark."""


def quick(value: Any, levels: int = _LEVELS) -> Any:  # noqa: C901, PLR0911, PLR0912 - a call an item would double it
    """Return a copy of a value so small that it need not be measured; ``MISSING`` for any other one."""
    kind = type(value)
    if kind is float:
        return value if math.isfinite(value) else MISSING
    if kind is int:
        return value if -_SMALL <= value < _SMALL else MISSING
    if kind is str:
        return value if len(value) <= _TEXT and value.isascii() and value.isprintable() else MISSING
    if kind is bool or value is None:
        return value
    if (kind is not dict and kind is not list) or not levels or len(value) > _ITEMS:
        return MISSING
    # Copied first: another thread may change it.
    made = value.copy()
    if kind is dict:
        for key in made:
            if type(key) is not str or len(key) > _TEXT or not (key.isascii() and key.isprintable()):
                return MISSING
    for place, item in enumerate(made) if kind is list else made.items():
        kind = type(item)
        if kind is float:
            if not math.isfinite(item):
                return MISSING
        elif kind is int:
            if not -_SMALL <= item < _SMALL:
                return MISSING
        elif kind is str:
            if len(item) > _TEXT or not item.isascii() or not item.isprintable():
                return MISSING
        elif kind is dict or kind is list:
            made[place] = found = quick(item, levels - 1)  # no key is added, so the iteration goes on
            if found is MISSING:
                return MISSING
        elif kind is not bool and item is not None:
            return MISSING
    return made
