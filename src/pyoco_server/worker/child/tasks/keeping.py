"""How one object of plain data is kept, and put back as it was."""

import array
import collections
import datetime
import decimal
import enum
import fractions
import operator
import pathlib
import re
import sys
import types
import uuid
from collections.abc import Callable
from typing import Any, NamedTuple

from pyoco_server.model.values.lookup import MISSING, attributes, in_class, is_kind, loaded
from pyoco_server.model.values.tables import numpy_kind

_FIXED_KINDS = {
    id(kind)
    for kind in (
        type(None), bool, int, float, complex, str, bytes, range, slice, type(Ellipsis), re.Pattern,
        datetime.datetime, datetime.date, datetime.time, datetime.timedelta, datetime.timezone,
        decimal.Decimal, fractions.Fraction, uuid.UUID, pathlib.PosixPath, pathlib.PurePosixPath,
        pathlib.PureWindowsPath, types.FunctionType, types.BuiltinFunctionType, types.ModuleType, type,
    )
}  # fmt: skip
_FIXED_BASES = (enum.Enum, str, int, float, bytes, type, datetime.date, BaseException)


class Kept(NamedTuple):
    """An object, what it was, and what it held then.

    Args:
        value: The object.
        saved: What it was; nothing where it cannot change itself, but what it holds can.
        put: Makes the object what it was.
        parts: What it holds.
        size: Bytes that keeping it takes.
    """

    value: Any
    saved: Any
    put: Callable[[Any, Any], None] | None
    parts: list[Any]
    size: int

    def put_back(self) -> None:
        """Make the object what it was, if it is not; other threads may be reading it."""
        if self.put is not None:
            self.put(self.value, self.saved)


def is_fixed(value: Any) -> bool:
    """Whether a value never changes."""
    if id(type(value)) in _FIXED_KINDS or any(is_kind(value, base) for base in _FIXED_BASES):
        return True
    return numpy_kind(value, "generic") is not None


def keep(value: Any, most_items: int, most_bytes: int) -> Kept | None:
    """Keep one object, without what it holds.

    Args:
        value: No fixed one.
        most_items: A container with more is not kept.
        most_bytes: Nor an array with more.

    Returns:
        What puts it back; ``None`` if it is no plain data.

    Raises:
        TooLarge: it has more.
    """
    kind = type(value)
    if kind is frozenset or is_kind(value, tuple):
        return Kept(value, None, None, list(value if kind is frozenset else tuple.__iter__(value)), 0)
    if (way := _WAYS.get(id(kind))) is not None:
        if len(value) > most_items:
            raise TooLarge
        saved = way.copy(value)
        return Kept(value, saved, way.put, way.parts(saved), sys.getsizeof(saved))
    if kind is loaded("numpy", "ndarray"):
        if value.nbytes > most_bytes or (value.dtype.hasobject and value.size > most_items):
            raise TooLarge
        parts = list(value.flat) if value.dtype.hasobject else []
        return Kept(value, value.copy(), _put_array, parts, value.nbytes)
    if kind is types.SimpleNamespace or type(in_class(kind, "__dataclass_fields__")) is dict or _is_model(value):
        held = attributes(value)
        return None if held is None else Kept(held, dict(held), _put_dict, list(held.values()), sys.getsizeof(held))
    return None


class TooLarge(Exception):
    """An object is too large to be kept."""


def _is_model(value: Any) -> bool:
    model = loaded("pydantic.main", "BaseModel")
    return model is not MISSING and is_kind(value, model)


def _same(one: Any, other: Any) -> bool:
    return len(one) == len(other) and all(map(operator.is_, one, other))


def _put_list(value: Any, saved: list[Any]) -> None:
    if not _same(value, saved):
        value[:] = saved


def _put_deque(value: Any, saved: list[Any]) -> None:
    if not _same(value, saved):
        value.clear()
        value.extend(saved)


def _put_dict(value: Any, saved: dict[Any, Any]) -> None:
    if not (_same(value, saved) and _same(value.values(), saved.values())):
        value.clear()
        value.update(saved)


def _put_set(value: Any, saved: set[Any]) -> None:
    if value != saved:
        value.clear()
        value.update(saved)


def _put_items(value: Any, saved: Any) -> None:
    if value != saved:
        value[:] = saved


def _put_array(value: Any, saved: Any) -> None:
    if value.flags.writeable:
        value[...] = saved


class _Way(NamedTuple):
    copy: Callable[[Any], Any]
    put: Callable[[Any, Any], None]
    parts: Callable[[Any], list[Any]]


def _of_mapping(saved: dict[Any, Any]) -> list[Any]:
    return [*saved, *saved.values()]


def _of_nothing(_: Any) -> list[Any]:
    return []


_MAPPING = _Way(dict, _put_dict, _of_mapping)
_WAYS: dict[int, _Way] = {
    id(list): _Way(list, _put_list, list),
    id(dict): _MAPPING,
    id(collections.defaultdict): _MAPPING,
    id(collections.Counter): _MAPPING,
    id(collections.OrderedDict): _Way(collections.OrderedDict, _put_dict, _of_mapping),
    id(collections.deque): _Way(list, _put_deque, list),
    id(set): _Way(set, _put_set, list),
    id(bytearray): _Way(bytes, _put_items, _of_nothing),
    id(array.array): _Way(lambda value: value[:], _put_items, _of_nothing),
}
"""By the identity of a class: only exactly these, whose methods are their own."""
