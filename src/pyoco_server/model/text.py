"""Values on their way into a record: made valid JSON, valid UTF-8 and bounded where they enter.

A lone surrogate in one error text, or a NaN in one output, must never make a list of runs unreadable.
"""

import json
from typing import Any

import pydantic_core

MAX_TEXT = 8_000
"""Characters kept of one error text."""
MAX_TRACEBACK = 16_000


def clean_text(text: str, limit: int = MAX_TEXT) -> str:
    """Replace what UTF-8 cannot carry, and cut the middle out of a text longer than ``limit`` characters."""
    if len(text) > limit:
        half = limit // 2
        text = f"{text[:half]}\n… {len(text) - 2 * half} characters cut …\n{text[-half:]}"
    return text.encode("utf-8", "replace").decode("utf-8")


def clean_value(value: Any, max_bytes: int) -> Any:
    """Make any Python value fit for a JSON record.

    Args:
        value: What a task took or returned.
        max_bytes: Largest JSON text kept; a larger value becomes a short preview that says so.

    Returns:
        Plain JSON data. Unknown types become their ``repr``; NaN and infinities become strings.
    """
    try:
        text = _to_json(value)
    except Exception as error:  # noqa: BLE001 - a user's __repr__ or iterator may raise anything
        return f"<{type(value).__name__} that cannot be shown: {clean_text(str(error), 200)}>"
    if len(text) > max_bytes:
        preview = text[:200].decode("utf-8", "ignore")
        return {"truncated": True, "size_bytes": len(text), "preview": preview}
    return pydantic_core.from_json(text)


def _to_json(value: Any) -> bytes:
    try:
        return pydantic_core.to_json(value, fallback=repr, inf_nan_mode="strings")
    except pydantic_core.PydanticSerializationError:
        # Lone surrogates, which the standard library's JSON carries: clean every text inside, then try once more.
        plain = json.loads(json.dumps(value, default=repr))
        return pydantic_core.to_json(_clean_strings(plain), fallback=repr, inf_nan_mode="strings")


def _clean_strings(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, dict):
        return {_clean_strings(key): _clean_strings(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_clean_strings(item) for item in value]
    return value
