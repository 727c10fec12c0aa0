"""Tasks written with ``async def``: what they return is run to its end, in the thread of the task.

Around the function itself, and inside of what keeps forks out and makes the tries: a fork in a coroutine is one in the
task, and each try runs a coroutine of its own.
"""

import asyncio
import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import AsyncGeneratorType, CoroutineType
from typing import Any

from pyoco.core.models import Flow

from pyoco_server.worker.child.tasks.retries import UnusableResult, tasks_of


@contextmanager
def coroutines_run(flow: Flow) -> Iterator[None]:
    """While it lasts, a task that returns a coroutine gives what the coroutine returns.

    Args:
        flow: May be the same object in every run.
    """
    kept = [(task, task.func) for task in tasks_of(flow)]
    try:
        for task, function in kept:
            task.func = _running_coroutines(function, task.name)
        yield
    finally:
        for task, function in kept:
            task.func = function


def _running_coroutines(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    @functools.wraps(function)
    def run(**inputs: Any) -> Any:
        result = function(**inputs)
        if type(result) is CoroutineType:
            result = asyncio.run(result)
        if type(result) is AsyncGeneratorType:
            raise UnusableResult(
                f"task {name!r} returned an async generator, which no other task can read: "
                f"collect its items and return the list, [item async for item in {result.__name__}(…)]"
            )
        return result

    return run
