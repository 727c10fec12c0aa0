"""Our errors, as httpx's too: programs of the existing system catch those.

The existing client raised httpx's errors. Ours speaks HTTP by another library, and does not import httpx. But an
``except httpx.HTTPStatusError`` can stand only where the program has imported it. So this is looked at when an error is
raised, and then the error is made of a class that is a subclass of both.
"""

import sys
from typing import Any, TypeVar, cast

_E = TypeVar("_E", bound=Exception)
_made: dict[tuple[type, type], Any] = {}


def kin(ours: type[_E], names: tuple[str, ...]) -> type[_E]:
    """Return a class of errors that is one of httpx's too, where the program has imported httpx; else ours alone.

    Args:
        ours: Our class.
        names: What httpx calls it; the first that it has counts.
    """
    httpx = sys.modules.get("httpx")
    for name in names if httpx is not None else ():
        theirs = getattr(httpx, name, None)
        if isinstance(theirs, type) and issubclass(theirs, Exception):
            return ours if issubclass(ours, theirs) else _both(ours, theirs)
    return ours


def _both(ours: type[_E], theirs: type[Exception]) -> type[_E]:
    if (ours, theirs) not in _made:
        # It has our class's name: what people read is that the server refused, not how we are related.
        names = {"__module__": ours.__module__, "__qualname__": ours.__qualname__, "__doc__": ours.__doc__}
        _made[ours, theirs] = type(ours.__name__, (ours, theirs), names)
    return cast("type[_E]", _made[ours, theirs])
