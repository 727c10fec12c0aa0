"""A flow resolver that was sent by value, on its arrival in the process of a run."""

import base64
import functools
import io
import pickle
import sys
from collections.abc import Callable
from typing import Any

from pyoco.core.models import Task

from pyoco_server.worker.child.flow.resolver import Resolver


def blank_task(kind: type[Task], name: str) -> Task:
    """Return a task that has its name alone: enough to stand in a set, before the rest of it arrives."""
    task = kind.__new__(kind)
    task.name = name
    return task


def cached(function: Callable[..., Any], maxsize: int | None, typed: bool) -> Any:
    """Return a function with an empty cache, as ``functools.lru_cache`` has made it in the program."""
    return functools.lru_cache(maxsize, typed)(function)


def see_places(carried: dict[str, Any]) -> None:
    """Let modules be imported from where the program does it that has sent its resolver, after all other places."""
    sys.path.extend(place for place in carried["path"] if place not in sys.path)


def unpack(carried: dict[str, Any]) -> Resolver | None:
    """Return the function; ``None`` where only the places were sent.

    Raises:
        Exception: whatever importing its modules and making its values raises.
    """
    see_places(carried)
    if carried["pickled"] is None:
        return None
    # From the worker, who reads nothing of the kind from us.
    reader = pickle.Unpickler(io.BytesIO(base64.b64decode(carried["pickled"])))  # noqa: S301
    found: Resolver = reader.load()
    while (edges := reader.load()) is not None:
        task, before, after = edges
        task.dependencies, task.dependents = set(before), set(after)
    return found
