"""Which values are containers, and how each is read."""

import array
import collections
import dataclasses
import gc
import itertools
import types
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pyoco_server.model.values import tables
from pyoco_server.model.values.lookup import MISSING, attribute, attributes, bases, in_class, is_kind, loaded
from pyoco_server.model.values.shown import SHOWN, description

if TYPE_CHECKING:
    from pyoco_server.model.values.walk import Walk

Handler = Callable[["Walk", Any, int], Any]
"""Reads a value at a depth."""
_MOST_LEVELS = 110
"""What is shown as another value, and that again as another one, ends here."""


def _sequence_of(kind: Any) -> Handler:
    iterate, length = kind.__iter__, kind.__len__
    size_of = kind.__sizeof__ if kind in (set, frozenset) else None

    def handle(walk: "Walk", value: Any, depth: int) -> Any:
        if size_of is not None:
            walk.work(size_of(value) >> 10)  # one that was large once is looked through from end to end
        return walk.sequence(iterate(value), length(value), value, depth)

    return handle


def _mapping_of(kind: Any) -> Handler:
    items, length, size_of = kind.items, kind.__len__, kind.__sizeof__

    def handle(walk: "Walk", value: Any, depth: int) -> Any:
        walk.work(size_of(value) >> 10)
        return walk.mapping(items(value), length(value), value, depth)

    return handle


def _binary_of(kind: Any) -> Handler:
    length, begin = kind.__len__, kind.__getitem__  # not the buffer, which a subclass may make itself
    return lambda walk, value, _: walk.binary(value, length(value), begin)


def _shown(show: Callable[[Any], Any]) -> Handler:
    def handle(walk: "Walk", value: Any, depth: int) -> Any:
        # What it becomes may be of such a class again, for an enum even the same value.
        return walk.value(show(value), depth + 1) if depth <= _MOST_LEVELS else walk.text(description(value))

    return handle


def _ordered(walk: "Walk", value: Any, depth: int) -> Any:
    return _mapping_of(collections.OrderedDict if type(value) is collections.OrderedDict else dict)(walk, value, depth)


def _proxy(walk: "Walk", value: Any, depth: int) -> Any:
    # The proxy itself would ask what it stands for.
    inner = next(iter(gc.get_referents(value)), None)
    return _mapping_of(dict)(walk, inner, depth) if is_kind(inner, dict) else walk.text(description(value))


def _object(walk: "Walk", value: Any, depth: int) -> Any:
    held = attributes(value) or {}
    return walk.mapping(dict.items(held), len(held), value, depth)


def _dataclass(walk: "Walk", value: Any, depth: int) -> Any:
    names = [
        name
        for name, field in in_class(type(value), "__dataclass_fields__").items()
        if type(name) is str and attribute(field, "_field_type") is _FIELD
    ]
    return _fields(walk, value, names, depth)


def _fields(walk: "Walk", value: Any, names: list[str], depth: int) -> Any:
    walk.work(2 * len(names) * len(bases(type(value))))
    fields = ((name, found) for name in names if (found := attribute(value, name)) is not MISSING)
    return walk.mapping(fields, len(names), value, depth)


def _pydantic(walk: "Walk", value: Any, depth: int) -> Any:
    declared = in_class(type(value), "__pydantic_fields__")
    hidden = {
        name
        for name, field in (declared.items() if type(declared) is dict else ())
        if attribute(field, "exclude") is True
    }
    own, extra = attributes(value) or {}, attribute(value, "__pydantic_extra__")
    more = extra if type(extra) is dict else {}
    held = itertools.chain(own.items(), more.items())
    size = len(own) + len(more) - len(hidden)
    shown = ((name, item) for name, item in held if type(name) is not str or name not in hidden)
    return walk.mapping(shown, size, value, depth)


def _root_model(walk: "Walk", value: Any, depth: int) -> Any:
    return walk.value((attributes(value) or {}).get("root"), depth + 1)


def _attrs(walk: "Walk", value: Any, depth: int) -> Any:
    names = [attribute(field, "name") for field in tuple.__iter__(in_class(type(value), "__attrs_attrs__"))]
    return _fields(walk, value, names, depth)


def _of_numpy_or_pandas(walk: "Walk", value: Any, depth: int) -> Any:
    found = tables.array(value) or tables.table(value)
    if found is None:
        found = tables.scalar(value)
    return walk.text(description(value)) if found is None else walk.value(found, depth)


def _named(value: Any) -> Handler:
    text = description(value)  # of its class alone
    return lambda walk, _, __: walk.text(text)


def find_handler(value: Any, kind: type) -> Handler:
    """Return what reads values of a class that is no builtin."""
    others = {id(loaded(module, name)): handler for module, name, handler in _OTHERS}
    for base in bases(kind):
        if (handler := HANDLERS.get(id(base)) or others.get(id(base))) is not None:
            return handler
    if type(in_class(kind, "__dataclass_fields__")) is dict:
        return _dataclass
    declared = in_class(kind, "__attrs_attrs__")
    if declared is not MISSING and is_kind(declared, tuple):
        return _attrs
    theirs = any(found is not None for found in (show(value) for show in (tables.array, tables.table, tables.scalar)))
    return _of_numpy_or_pandas if theirs else _named(value)


_FIELD = dataclasses.fields(dataclasses.make_dataclass("_One", ["one"]))[0]._field_type  # type: ignore[attr-defined]
_VIEWS: tuple[Any, ...] = (type({}.keys()), type({}.values()), type({}.items()))
_BY_KIND: dict[type, Handler] = {
    str: lambda walk, value, _: walk.text(value),
    int: lambda walk, value, _: walk.integer(value),
    float: lambda walk, value, _: walk.floating(value),
    bool: lambda walk, value, _: walk.constant(value),
    type(None): lambda walk, value, _: walk.constant(value),
    bytes: _binary_of(bytes),
    bytearray: _binary_of(bytearray),
    **{kind: _sequence_of(kind) for kind in (list, tuple, set, frozenset, collections.deque, array.array, *_VIEWS)},
    dict: _mapping_of(dict),
    collections.OrderedDict: _ordered,
    types.MappingProxyType: _proxy,
    types.SimpleNamespace: _object,
    **{kind: _shown(show) for kind, show in SHOWN.items()},
}
_OTHERS = (
    ("pydantic.root_model", "RootModel", _root_model),
    ("pydantic.main", "BaseModel", _pydantic),
    ("argparse", "Namespace", _object),
)
"""Classes of modules that need not be there."""
HANDLERS: dict[int, Handler] = {id(kind): handler for kind, handler in _BY_KIND.items()}
"""By the identity of a class: to look a class up by itself would ask its metaclass for a hash."""
