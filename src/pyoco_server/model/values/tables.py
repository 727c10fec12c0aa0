"""How numbers, arrays and tables of numpy and pandas are shown; neither is imported here.

Only what they wrote themselves is called, and for exactly their own classes.
"""

import types
from typing import Any

from pyoco_server.model.values.lookup import class_name, is_kind, loaded

_WHOLE = 100
"""An array of so many items is shown with all of them, in its own form."""
_FIRST = 20
_COLUMNS = 50
_WIDE = 1024
_TABLES = ("DataFrame", "Series")


def numpy_kind(value: Any, name: str) -> Any:
    """Return numpy's class of that name if a value is one of its; else ``None``."""
    kind = loaded("numpy", name)
    return kind if type(kind) is type and is_kind(value, kind) else None


def pandas_kind(value: Any) -> str | None:
    """Return ``"DataFrame"`` or ``"Series"`` for exactly such a value."""
    return next((name for name in _TABLES if type(value) is loaded("pandas", name)), None)


def scalar(value: Any) -> Any:
    """Return a numpy scalar as the Python number that it is; ``None`` if it is none, or has no such number."""
    generic = numpy_kind(value, "generic")
    if generic is None or numpy_kind(value, "object_") or numpy_kind(value, "void"):
        return None
    found = _own(generic, "item")(value)
    if numpy_kind(found, "generic"):  # more precise than any number of Python
        return str(found) if type(found) is loaded("numpy", "longdouble") else None
    return found


def array(value: Any) -> dict[str, Any] | None:
    """Return an array's type, shape and first items; ``None`` if a value is no array."""
    ndarray = numpy_kind(value, "ndarray")
    if ndarray is None:
        return None
    plain = value if type(value) is ndarray else _own(ndarray, "view")(value, ndarray)
    shown: dict[str, Any] = {"array": class_name(type(value)), "dtype": str(plain.dtype), "shape": list(plain.shape)}
    if plain.dtype.hasobject or plain.dtype.names or plain.dtype.itemsize > _WIDE:
        return shown  # its items are objects, or records of any depth, or very long texts
    if plain.size <= _WHOLE:
        return {**shown, "items": plain.tolist()}
    return {**shown, "first": plain.flat[:_FIRST].tolist()}


def table(value: Any) -> dict[str, Any] | None:
    """Return a table's size and columns; ``None`` if a value is no DataFrame or Series."""
    name = pandas_kind(value)
    if name is None:
        return None
    shown: dict[str, Any] = {"table": f"pandas.{name}", "shape": list(value.shape)}
    if name == "DataFrame":
        shown["columns"] = list(value.columns[:_COLUMNS])
    return shown


def _own(kind: Any, name: str) -> Any:
    """Return a method that numpy itself wrote in C; never one that somebody put in its place."""
    found = vars(kind)[name]
    if type(found) not in (types.MethodDescriptorType, types.WrapperDescriptorType):
        raise TypeError(f"{name} is not numpy's own")
    return found
