"""Keys of dicts, which in JSON are texts."""

import enum
import math
from collections.abc import Callable
from typing import Any

from pyoco_server.model.values.lookup import bases, class_name, clean, plain
from pyoco_server.model.values.shown import SHOWN, description, number
from pyoco_server.model.values.tables import scalar

LONGEST_KEY = 1_000
_LONGEST_TUPLE = 50


def key_text(key: Any, *, inside: bool = False) -> str:
    """Return the text that stands for a dict's key.

    Args:
        key: Of any class.
        inside: Whether it is part of another key; then it is not taken apart again.
    """
    for base in bases(type(key)):
        if (show := _KEYS.get(id(base))) is not None:
            return _bounded(show(key))
        if base is tuple and tuple.__len__(key) <= _LONGEST_TUPLE and not inside:
            return _bounded(",".join(key_text(part, inside=True) for part in tuple.__iter__(key)))
        if base is enum.Enum and not inside:
            return key_text(SHOWN[base](key), inside=True)
    found = scalar(key)
    return description(key) if found is None or inside else key_text(found, inside=True)


def _bounded(text: Any) -> str:
    if type(text) is not str:
        return description(text)
    return text if len(text) <= LONGEST_KEY else f"{text[:LONGEST_KEY]}… ({len(text)} characters)"


def _text(key: Any) -> str:
    length = str.__len__(key)
    text = clean(plain(str.__getitem__(key, slice(LONGEST_KEY))))
    return text if length <= LONGEST_KEY else f"{text}… ({length} characters)"


def _float(key: Any) -> str:
    found = float.__float__(key)
    return repr(found) if math.isfinite(found) else "NaN" if math.isnan(found) else f"{'-' * (found < 0)}Infinity"


def _bytes(key: Any) -> str:
    begin = bytes.__getitem__(key, slice(LONGEST_KEY))
    try:
        return begin.decode()
    except UnicodeDecodeError:
        return repr(begin)


_KEYS: dict[int, Callable[[Any], str]] = {
    **{id(kind): show for kind, show in SHOWN.items() if kind is not enum.Enum},
    id(str): _text,
    id(bool): lambda key: "true" if key else "false",
    id(int): lambda key: str(number(key)),
    id(float): _float,
    id(type(None)): lambda _: "None",
    id(bytes): _bytes,
}


def other_text(name: str, key: Any, out: dict[str, Any], counts: dict[str, int]) -> str:
    """Return another text for a key whose own is taken: ``1`` and ``"1"`` are two keys."""
    if type(key) is not str and (typed := f"{name} <{class_name(type(key))}>") not in out:
        return typed
    while True:
        counts[name] = counts.get(name, 1) + 1
        if (numbered := f"{name} #{counts[name]}") not in out:
            return numbered
