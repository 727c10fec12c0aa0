"""What makes flows by their names: named, or taken to the processes of runs by value.

A process of a run imports a resolver that a module or a file holds at its top level. A closure, a method, or a function
of the script that was started cannot be had so: importing the script would start it again, worker and all. Such a
function goes to the run's process as it is now, with what it refers to (``cloudpickle``). No process is forked from the
program, whose threads, locks and connections a copy could not use.

Only what goes to a child is packed so, never what comes from one.
"""

import base64
import functools
import inspect
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cloudpickle  # type: ignore[import-untyped]
from pyoco.core.models import Task

from pyoco_server.errors import CommandFailed
from pyoco_server.worker.child.flow.carried import blank_task, cached

_SCRIPTS = ("__main__", "__mp_main__")
_MOST_BYTES = 16 * 1024 * 1024
_DEEPEST = 6
_TRIES = 5
_CACHED = type(functools.lru_cache(len))
_HINT = (
    "Make it inside the function, or define the resolver at the top level of a module of its own and pass "
    "flow_resolver='module:function'."
)


class Carried:
    """A function that the processes of runs get by value.

    Args:
        function: It.
    """

    def __init__(self, function: Callable[[str], Any]) -> None:
        self._function = function
        self._name = name_of(function)

    def places(self) -> dict[str, Any]:
        """Return what modules of the program are imported from, for ``load_resolver``, without the function."""
        return {"pickled": None, "path": [str(Path(place).resolve()) for place in sys.path]}

    def packed(self) -> dict[str, Any]:
        """Return the function as it is now, with the places.

        Raises:
            CommandFailed: it refers to something that no other process can have; the message names it.
        """
        if (started := sys.modules.get("__mp_main__")) is not None:  # a script that multiprocessing has started
            cloudpickle.register_pickle_by_value(started)
        try:
            data = _pack(self._function)
        except _TooMuch:
            raise CommandFailed(
                f"the flow resolver {self._name} refers to more than {_MOST_BYTES >> 20} MiB of data, which each run "
                "would get",
                hint="Let the tasks read large data where they need it.",
            ) from None
        except Exception as error:  # noqa: BLE001 - whatever a value's own way of being packed raises
            told = f"{type(error).__name__}: {error}"
            found = " of ".join(_culprit(self._function))
            where = f"its {found}" if found else "what it refers to"
            raise CommandFailed(
                f"the flow resolver {self._name} cannot go to the process that runs flows: {where} cannot be copied "
                f"({told[:200]})",
                hint=_HINT,
            ) from None
        return {**self.places(), "pickled": base64.b64encode(data).decode()}


Resolver = str | Carried


def resolver_of(given: Callable[[str], Any] | str | None) -> Resolver | None:
    """Return what a program has given as its resolver.

    Args:
        given: A function, or the ``module:function`` or ``path/file.py:function`` of one.

    Raises:
        CommandFailed: it is neither.
    """
    if given is None or isinstance(given, str):
        return given
    if not callable(given):
        raise CommandFailed(
            f"the flow resolver is of the type {type(given).__name__}, no function",
            hint="Pass a function that takes a flow's name and returns a pyoco.Flow, or its 'module:function'.",
        )
    name, module = getattr(given, "__qualname__", ""), sys.modules.get(getattr(given, "__module__", None) or "")
    named = isinstance(given, types.FunctionType) and module is not None and getattr(module, name, None) is given
    if not named or module is None or module.__name__ in _SCRIPTS:
        return Carried(given)
    file = getattr(module, "__file__", None)
    return f"{file}:{name}" if file else f"{module.__name__}:{name}"


def for_child(resolver: Resolver | None, *, asked: bool = True) -> str | dict[str, Any] | None:
    """Return a resolver as a message to a child holds it.

    Args:
        resolver: It.
        asked: Whether it will be asked for a flow.

    Raises:
        CommandFailed: it cannot go there.
    """
    if not isinstance(resolver, Carried):
        return resolver
    return resolver.packed() if asked else resolver.places()


def name_of(function: Any) -> str:
    """Return what to call a function in a sentence."""
    inner = function.func if isinstance(function, functools.partial) else function
    return str(getattr(inner, "__qualname__", None) or type(inner).__qualname__)


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    """Packs tasks apart from what binds them: they refer to each other in rings, and in chains of any length."""

    def __init__(self, writer: "_Writer") -> None:
        super().__init__(writer)
        self._tasks: list[Task] = []

    def dump_all(self, value: Any) -> None:
        """Write a value, then what comes before and after each task in it, then ``None``; see ``unpack``."""
        self.dump(value)
        for task in self._tasks:  # more may be found on the way
            self.dump((task, list(task.dependencies), list(task.dependents)))
        self.dump(None)

    def reducer_override(self, value: Any) -> Any:
        """Return how a value is packed."""
        if isinstance(value, _CACHED) and (value.__module__ in _SCRIPTS or "<locals>" in value.__qualname__):
            return cached, (value.__wrapped__, *value.cache_parameters().values())
        if not isinstance(value, Task):
            return super().reducer_override(value)
        self._tasks.append(value)
        rest = {name: part for name, part in vars(value).items() if name not in ("dependencies", "dependents")}
        return blank_task, (type(value), value.name), rest


class _TooMuch(Exception):
    """More was written than may be."""


class _Writer:
    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self._left = _MOST_BYTES

    def write(self, part: Any) -> int:
        data = bytes(part)
        self._left -= len(data)
        if self._left < 0:
            raise _TooMuch
        self.parts.append(data)
        return len(data)


def _pack(value: Any) -> bytes:
    """Return the bytes of a value, also while another thread of the program adds to what it refers to."""
    for tries in range(_TRIES):
        writer = _Writer()
        try:
            _Pickler(writer).dump_all(value)
        except RuntimeError as error:
            if "during iteration" not in str(error) or tries == _TRIES - 1:
                raise
        else:
            break
    return b"".join(writer.parts)


def _culprit(value: Any, depth: int = 0) -> list[str]:
    """Return the names that lead to what cannot be copied, the innermost first; nothing if it is not found."""
    for name, part in _parts(value) if depth < _DEEPEST else ():
        try:
            _pack(part)
        except Exception:  # noqa: BLE001 - this is what is looked for
            return [*_culprit(part, depth + 1), f"{name} ({type(part).__name__})"]
    return []


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    """Return what a value refers to, with its names."""
    if isinstance(value, functools.partial):
        yield from (("function", value.func), *((f"argument {n}", part) for n, part in enumerate(value.args, 1)))
        yield from value.keywords.items()
    elif isinstance(value, types.MethodType):
        yield from (("object", value.__self__), ("function", value.__func__))
    elif isinstance(value, types.FunctionType):
        found = inspect.getclosurevars(value)
        yield from (*found.nonlocals.items(), *found.globals.items())
        yield from ((f"default {n}", part) for n, part in enumerate(value.__defaults__ or (), 1))
    elif isinstance(value, dict):
        yield from ((f"item {key!r}"[:60], part) for key, part in value.items())
    elif isinstance(value, (list, tuple, set, frozenset)):
        yield from ((f"item {n}", part) for n, part in enumerate(value))
    else:
        yield from getattr(value, "__dict__", {}).items()
