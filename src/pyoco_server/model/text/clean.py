"""Texts on their way into a record: made valid UTF-8 and bounded where they enter, and JSON data of other programs.

A lone surrogate in one error text, or a NaN in one output, must never make a list of runs unreadable.
"""

from typing import Any

import pydantic_core

MAX_TEXT = 8_000
"""Characters kept of one error text."""
MAX_TRACEBACK = 16_000
_CUT = " characters cut …"


def clean_text(text: str, limit: int = MAX_TEXT) -> str:
    """Replace what UTF-8 cannot carry, and cut the middle out of a text longer than ``limit`` characters.

    No more than what is kept is copied, and of a subclass of ``str`` nothing is called.
    """
    length = str.__len__(text)
    if length > limit:
        half = limit // 2
        first, last = str.__getitem__(text, slice(half)), str.__getitem__(text, slice(length - half, None))
        text = f"{first}\n… {length - 2 * half}{_CUT}\n{last}"
    return str.encode(text, "utf-8", "replace").decode("utf-8")


def is_cut(text: str) -> bool:
    """Return whether the middle of a text was cut out."""
    return _CUT in text


def clean_json(value: Any) -> Any:
    """Make what was read as JSON fit to be written as JSON again: no lone surrogates, NaN and infinities as strings.

    Args:
        value: Plain data, of any size, with the dates that YAML has; not what a task made (see ``values.clean_value``).

    Raises:
        ValueError: it nests too deeply.
    """
    try:
        return pydantic_core.from_json(_to_json(value))
    except RecursionError as error:
        raise ValueError("it nests too deeply") from error


def _to_json(value: Any) -> bytes:
    try:
        return pydantic_core.to_json(value, fallback=repr, inf_nan_mode="strings")
    except pydantic_core.PydanticSerializationError:
        # Lone surrogates: clean every text inside, then try once more.
        return pydantic_core.to_json(clean_strings(value), fallback=repr, inf_nan_mode="strings")


def clean_strings(value: Any) -> Any:
    """Replace what UTF-8 cannot carry in all texts of plain data."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, dict):
        return {clean_strings(key): clean_strings(item) for key, item in value.items()}
    if isinstance(value, list):
        return [clean_strings(item) for item in value]
    return value
