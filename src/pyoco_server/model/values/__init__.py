"""Any Python value as plain JSON data for a record, bounded, and without running any of the value's own code.

A value is never asked for anything: not for its ``repr``, its items or its class. Containers are read with the methods
of the builtin that they are made of, so what a subclass overrides is not called; an iterator is not touched.
"""

import json
from typing import Any

from pyoco_server.model.values.lookup import MISSING
from pyoco_server.model.values.quick import QUICK_BYTES, quick
from pyoco_server.model.values.walk import PREVIEW, Walk

_FEW = 4
_A_LITTLE = 1024
_BYTES_KEYS = {"bytes", "preview"}
"""Of bytes that are no text, and of which only the first are shown."""
_PREVIEW_KEYS = {"truncated", "size_bytes", "preview", "why"}


def clean_value(value: Any, max_bytes: int) -> Any:
    """Make any Python value fit for a JSON record.

    Args:
        value: What a task took or returned.
        max_bytes: Largest JSON text kept; a larger value becomes a short preview that says so.

    Returns:
        Plain JSON data that shares nothing with the value that could change. What JSON has no form for becomes a text
        or an object that names it; NaN and infinities become strings.
    """
    if max_bytes >= QUICK_BYTES and (small := quick(value)) is not MISSING:
        return small
    return _measured(value, max_bytes)[0]


def clean_values(values: dict[str, Any], max_bytes: int) -> dict[str, Any]:
    """Make several values fit for a record, none of them larger than ``max_bytes``, nor all together by much.

    Args:
        values: By name.
        max_bytes: Of JSON text; each value may have a little, however large those before it are.
    """
    if len(values) <= _FEW and max_bytes >= QUICK_BYTES:
        small = {name: quick(value) for name, value in values.items()}
        if MISSING not in small.values():
            return small
    shown, left = {}, max_bytes
    for name, value in values.items():
        shown[name], size = _measured(value, max(left, min(max_bytes, _A_LITTLE)))
        left -= size
    return shown


def _measured(value: Any, max_bytes: int) -> tuple[Any, int]:
    walk = Walk(max_bytes)
    found = walk.value(value, 0)
    if walk.is_rough and (walk.why or walk.left < 0):  # perhaps it only seems to be too large
        walk = Walk(max_bytes, exact=True)
        found = walk.value(value, 0)
    if walk.why is None and walk.left >= 0:
        return found, max_bytes - walk.left
    shown = _preview(found, walk.why or f"it is larger than the {max_bytes} bytes that are kept", max_bytes)
    return shown, 2 * PREVIEW


def _preview(found: Any, why: str, max_bytes: int) -> dict[str, Any]:
    """Return what stands for a value that is not kept: the beginning of its JSON text."""
    if is_preview(found):  # of a record that is cut once more
        size = max_bytes // 4
        return {key: _beginning(item, size) if type(item) is str else item for key, item in found.items()}
    text = found if type(found) is str else json.dumps(found, ensure_ascii=False, separators=(",", ":"))
    return {"truncated": True, "size_bytes": None, "preview": _beginning(text, PREVIEW), "why": why}


def is_preview(found: Any) -> bool:
    """Return whether plain data looks like what stands for a value that is not kept."""
    if type(found) is not dict or not {"truncated", "preview"} <= found.keys() <= _PREVIEW_KEYS:
        return False
    return found["truncated"] is True and all(type(item) in (str, int, bool, type(None)) for item in found.values())


def is_part(found: Any) -> bool:
    """Return whether plain data shows less than there was: a preview, or the first of bytes that are no text."""
    return is_preview(found) or (type(found) is dict and found.keys() == _BYTES_KEYS and type(found["bytes"]) is int)


def _beginning(text: str, size: int) -> str:
    return text[:size].encode()[:size].decode("utf-8", "ignore")
