"""Values whose own code must not run: each of their hooks notes that it was called, and raises."""

import collections.abc
import enum
import functools
import threading
import types
from collections.abc import Callable, Iterator
from typing import Any

CALLED: list[str] = []
"""What was called, since the last ``clear``."""

_HOOKS = (
    "__repr__ __str__ __format__ __bytes__ __len__ __bool__ __iter__ __next__ __contains__ __getitem__ __eq__ __ne__ "
    "__int__ __float__ __index__ __complex__ __abs__ __round__ __add__ __dir__ __sizeof__ __reduce__ __reduce_ex__ "
    "__copy__ __deepcopy__ __getattr__ __getattribute__ __fspath__ __length_hint__ __reversed__ __getstate__ "
    "__array__ __dataframe__ __json__ keys values items get as_tuple isoformat utcoffset encode decode bit_length "
    "is_integer tolist item model_dump dict json __get_pydantic_core_schema__ __buffer__ __call__ __await__"
).split()


def _hook(name: str) -> Callable[..., Any]:
    def called(*_: Any, **__: Any) -> Any:
        CALLED.append(name)
        raise AssertionError(f"{name} was called")

    return called


def hostile(*bases: type, metaclass: type = type, **more: Any) -> Any:
    """Make a class all of whose hooks are traps."""
    body: dict[str, Any] = {name: _hook(name) for name in _HOOKS}
    for name in ("__class__", "__dict__", "__dataclass_params__", "__module__", "shape", "dtype", "_value_", "value"):
        body[name] = property(_hook(name))
    return types.new_class("Hostile", bases, {"metaclass": metaclass}, lambda space: space.update({**body, **more}))


class HostileMeta(type):
    """A metaclass that answers no question about its classes."""

    __repr__ = __str__ = __hash__ = __eq__ = _hook("metaclass")  # type: ignore[assignment]
    __instancecheck__ = __subclasscheck__ = __getattribute__ = __len__ = __iter__ = _hook("metaclass")
    __mro__ = property(_hook("metaclass"))  # type: ignore[assignment]


class Consumer:
    """An iterator that never ends, and waits before each item."""

    def __iter__(self) -> Iterator[int]:
        CALLED.append("__iter__")
        return self

    def __next__(self) -> int:
        CALLED.append("__next__")
        threading.Event().wait(3600)
        return 0


class View(collections.abc.Mapping[str, int]):
    """A mapping that is read from a database, say."""

    __getitem__ = _hook("__getitem__")
    __iter__ = _hook("__iter__")
    __len__ = _hook("__len__")


class Lazy:
    """What an object mapper makes: reading an attribute reads the database."""

    def __init__(self) -> None:
        self.__dict__["_state"] = "transient"

    def __getattr__(self, name: str) -> Any:
        return _hook(name)()

    rows = property(_hook("rows"))
    cached = functools.cached_property(_hook("cached"))


class Odd(enum.Enum):
    """An enum whose members answer nothing."""

    ONE = 1
    __repr__ = __str__ = __format__ = _hook("enum")


def counting() -> Iterator[int]:
    """Note when it is begun."""
    CALLED.append("body")
    yield from range(3)


def _shadowing() -> Any:
    """Return a dataclass whose descriptors are hostile values themselves."""
    trap = object.__new__(hostile(metaclass=HostileMeta))
    made = types.new_class("Shadowing", (), {}, lambda space: space.update(__dict__=trap, one=trap, __annotations__={}))
    made.__dataclass_fields__ = {"one": trap}  # type: ignore[attr-defined]
    return made()


def untouchables() -> list[Any]:
    """Return a fresh value of each kind."""
    plain = hostile()
    made = [
        object.__new__(plain),
        object.__new__(hostile(metaclass=HostileMeta)),
        hostile(metaclass=HostileMeta),
        _shadowing(),
        str.__new__(hostile(str), "text"),
        int.__new__(hostile(int), 7),
        float.__new__(hostile(float), 1.5),
        complex.__new__(hostile(complex), 1.5),
        bytes.__new__(hostile(bytes), b"abc"),
        bytearray.__new__(hostile(bytearray)),
        list.__new__(hostile(list)),
        tuple.__new__(hostile(tuple), (1, 2)),
        dict.__new__(hostile(dict)),
        set.__new__(hostile(set)),
        frozenset.__new__(hostile(frozenset), (1, 2)),
        collections.OrderedDict.__new__(hostile(collections.OrderedDict)),
        collections.deque.__new__(hostile(collections.deque)),
        Exception.__new__(hostile(Exception), "said"),
        object.__new__(View),
        Lazy(),
        Odd.ONE,
        Consumer(),
        types.MappingProxyType(object.__new__(View)),
        counting(),
        map(_hook("map"), [1]),
        iter([1, 2]),
        functools.partial(_hook("partial"), object.__new__(plain)),
        {str.__new__(hostile(str, __hash__=str.__hash__), "key"): 1},
    ]
    CALLED.clear()
    return made
