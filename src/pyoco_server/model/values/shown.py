"""How a value that is no container is shown: as a number or a text, made without running its code.

Each function takes a value of its class or of a subclass, and reads it with the class's own methods.
"""

import contextlib
import datetime
import decimal
import enum
import fractions
import functools
import pathlib
import re
import types
import uuid
import zoneinfo
from collections.abc import Callable
from typing import Any

import pydantic_core

from pyoco_server.model.values.lookup import (
    MISSING,
    attribute,
    attributes,
    bases,
    class_name,
    in_class,
    loaded,
    namespace,
    plain,
    short,
    slot,
)

_EXACT_BITS = 13_287
"""A larger int may have more than 4,000 digits; Python and the readers of JSON refuse to read more than 4,300."""
_DIGITS_PER_BIT = 0.30103
ALWAYS_BITS = 2_000
"""An int that Python writes whatever its limit of digits."""
_LONG = 65_536
"""Characters, or bytes in memory, of a path or a Decimal that is not written out."""
_QUOTED = 200
_ARGUMENTS = 5
_ISO_UTC = "+00:00"
_ZONES = (datetime.timezone, zoneinfo.ZoneInfo)

_complex_text = complex.__repr__
_decimal_size = decimal.Decimal.__sizeof__
_decimal_text = decimal.Decimal.__str__
_uuid_number = uuid.UUID.__dict__["int"].__get__
_pattern = re.Pattern.__dict__["pattern"].__get__
_arguments = BaseException.__dict__["args"].__get__
_method_function = types.MethodType.__dict__["__func__"].__get__
_partial_function = functools.partial.__dict__["func"].__get__
_function_name = types.FunctionType.__dict__["__qualname__"].__get__
_generator_name = types.GeneratorType.__dict__["__qualname__"].__get__
_coroutine_name = types.CoroutineType.__dict__["__qualname__"].__get__
_async_generator_name = types.AsyncGeneratorType.__dict__["__qualname__"].__get__
_date_parts = [datetime.date.__dict__[name].__get__ for name in ("year", "month", "day")]
_clock = ("hour", "minute", "second", "microsecond")
_time_parts = [datetime.time.__dict__[name].__get__ for name in _clock]
_datetime_parts = [*_date_parts, *(datetime.datetime.__dict__[name].__get__ for name in _clock)]
_duration_parts = [datetime.timedelta.__dict__[name].__get__ for name in ("days", "seconds", "microseconds")]


def number(value: int) -> int | str:
    """Return an int as it is; one with very many digits as a text that says how large it is."""
    bits = int.bit_length(value)
    if bits <= ALWAYS_BITS:
        return int.__index__(value)
    with contextlib.suppress(ValueError):  # a task may have lowered the limit of digits
        if bits <= _EXACT_BITS:
            int.__repr__(value)
            return int.__index__(value)
    return f"<int of about {int(bits * _DIGITS_PER_BIT) + 1:,} digits, {bits:,} bits>"


def description(value: Any) -> str:
    """Return the name of a value's class; what else there is to say only its own code knows."""
    kind = type(value)
    if in_class(kind, "__next__") is not MISSING:
        return unread(class_name(kind))
    return f"<{class_name(kind)} object>"


def unread(name: str) -> str:
    """Return what is shown of an iterator."""
    return f"<{name} object: not recorded, since reading it would use it up>"


def _generator(value: Any) -> str:
    name = short(_generator_name(value))
    body = "its body runs only as a task reads it"
    return f"<generator object {name}: not recorded, since reading it would use it up; {body}>"


def _coroutine(value: Any) -> str:
    return f"<coroutine object {short(_coroutine_name(value))}: not awaited>"


def _async_generator(value: Any) -> str:
    return unread(f"async_generator {short(_async_generator_name(value))}")


def _datetime(value: Any) -> str:
    if type(value) is loaded("pandas", "NaTType") or value is loaded("pandas", "NaT"):
        return "NaT"
    parts: list[Any] = [read(value) for read in _datetime_parts]
    zone = datetime.datetime.__dict__["tzinfo"].__get__(value)
    fold = datetime.datetime.__dict__["fold"].__get__(value)
    make: Any = datetime.datetime  # it may have no zone
    return _with_zone(lambda known: make(*parts, known, fold=fold).isoformat(), zone)


def _time(value: Any) -> str:
    parts: list[Any] = [read(value) for read in _time_parts]
    zone = datetime.time.__dict__["tzinfo"].__get__(value)
    fold = datetime.time.__dict__["fold"].__get__(value)
    make: Any = datetime.time
    return _with_zone(lambda known: make(*parts, known, fold=fold).isoformat(), zone)


def _with_zone(show: Callable[[Any], str], zone: Any) -> str:
    if zone is None:
        return show(None)
    if any(type(zone) is known for known in _ZONES):
        text = show(zone)
        return f"{text.removesuffix(_ISO_UTC)}Z" if text.endswith(_ISO_UTC) else text
    return f"{show(None)}[{class_name(type(zone))}]"  # only its own code knows the offset


def _date(value: Any) -> str:
    return datetime.date(*(read(value) for read in _date_parts)).isoformat()


def _duration(value: Any) -> str:
    exact = datetime.timedelta(*(read(value) for read in _duration_parts))
    return pydantic_core.to_json(exact).decode().strip('"')


def _decimal(value: Any) -> str:
    return description(value) if _decimal_size(value) > _LONG else _decimal_text(value)


def _fraction(value: Any) -> str:
    parts = [slot(value, "_numerator"), slot(value, "_denominator")]
    if any(type(part) is not int for part in parts):
        return description(value)
    top, bottom = map(number, parts)
    return f"{top}" if bottom == 1 else f"{top}/{bottom}"


def _uuid(value: Any) -> str:
    found = _uuid_number(value)
    return str(uuid.UUID(int=found)) if type(found) is int else description(value)


def _path(value: Any) -> str:
    written = [held for name in ("_raw_paths", "_parts") if type(held := slot(value, name)) is list]
    size = sum(str.__len__(part) for parts in written for part in parts)
    if size > _LONG or not _adds_nothing(type(value), _PATHS):
        return description(value)
    return plain(str(value))


def _adds_nothing(kind: type, known: tuple[type, ...]) -> bool:
    """Whether a class is a known one, or a subclass that replaces nothing of it."""
    for base in bases(kind):
        if any(base is one for one in known):
            return True
        if any(name in _EVERYWHERE for name in namespace(base) if name not in _HARMLESS):
            return False
    return False


def _complex(value: Any) -> str:
    return _complex_text(value).strip("()")


def _range(value: range) -> str:
    start, stop, step = number(value.start), number(value.stop), number(value.step)
    return f"range({start}, {stop})" if step == 1 else f"range({start}, {stop}, {step})"


def _exception(value: Any) -> str:
    given = _arguments(value)
    shown = [_argument(one) for one in given[:_ARGUMENTS]]
    more = ["…"] if len(given) > _ARGUMENTS else []
    return f"{class_name(type(value))}({', '.join([*shown, *more])})"


def _argument(value: Any) -> str:
    kind = type(value)
    if kind is str:
        return repr(value if len(value) <= _QUOTED else f"{value[:_QUOTED]}…")
    if kind is int:
        return str(number(value))
    if kind is float or kind is bool or value is None:
        return repr(value)
    return description(value)


def _class(value: Any) -> str:
    return f"<class {class_name(value)!r}>"


def _function(value: Any) -> str:
    return f"<function {short(_function_name(value))}>"


def _builtin(value: Any) -> str:
    return f"<built-in function {value.__name__}>"


def _method(value: Any) -> str:
    return f"<bound method {_of(_method_function(value))}>"


def _partial(value: Any) -> str:
    return f"<functools.partial of {_of(_partial_function(value))}>"


def _of(function: Any) -> str:
    show = {id(types.FunctionType): _function, id(types.BuiltinFunctionType): _builtin}.get(id(type(function)))
    return show(function) if show else description(function)


def _module(value: Any) -> str:
    name = (attributes(value) or {}).get("__name__")
    return f"<module {name!r}>" if type(name) is str else description(value)


def _nothing(value: Any) -> str:
    return "Ellipsis" if value is Ellipsis else "NotImplemented"


def _member(value: Any) -> Any:
    found = attribute(value, "_value_")
    return description(value) if found is MISSING else found


_PATHS = (
    pathlib.PurePath,
    pathlib.PurePosixPath,
    pathlib.PureWindowsPath,
    pathlib.Path,
    pathlib.PosixPath,
    pathlib.WindowsPath,
)
_HARMLESS = {
    "__module__",
    "__doc__",
    "__slots__",
    "__firstlineno__",
    "__static_attributes__",
    "__dict__",
    "__weakref__",
}
_EVERYWHERE = {name for path in _PATHS for base in path.__mro__ for name in vars(base)} | {"__getattr__"}

SHOWN: dict[type, Callable[[Any], Any]] = {
    complex: _complex,
    datetime.datetime: _datetime,
    datetime.date: _date,
    datetime.time: _time,
    datetime.timedelta: _duration,
    decimal.Decimal: _decimal,
    fractions.Fraction: _fraction,
    uuid.UUID: _uuid,
    pathlib.PurePath: _path,
    range: _range,
    re.Pattern: _pattern,
    BaseException: _exception,
    type: _class,
    types.FunctionType: _function,
    types.BuiltinFunctionType: _builtin,
    types.MethodType: _method,
    functools.partial: _partial,
    types.ModuleType: _module,
    type(Ellipsis): _nothing,
    type(NotImplemented): _nothing,
    types.GeneratorType: _generator,
    types.CoroutineType: _coroutine,
    types.AsyncGeneratorType: _async_generator,
    enum.Enum: _member,
}
"""By class: what makes of a value one that JSON has, or that is known itself (an enum's value may be a tuple)."""
