"""A process that a task forks is the task's own affair: it never goes on with the run.

``os.fork()`` copies everything, the engine's stack too. Where the copy comes to the end of the task's function, by
returning, by ``sys.exit`` or by an exception, it ends as a Python process does, instead of running the rest of the
flow a second time and reporting it.
"""

import atexit
import functools
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from pyoco.core.models import Flow

from pyoco_server.worker.child.tasks.retries import tasks_of


@contextmanager
def forks_kept_out(flow: Flow) -> Iterator[None]:
    """While it lasts, a fork ends with the function of the task in which it was made.

    Args:
        flow: May be the same object in every run.
    """
    kept = [(task, task.func) for task in tasks_of(flow)]
    try:
        for task, function in kept:
            task.func = _ending_forks(function, os.getpid())
        yield
    finally:
        for task, function in kept:
            task.func = function


def _ending_forks(function: Callable[..., Any], owner: int) -> Callable[..., Any]:
    @functools.wraps(function)
    def run(**inputs: Any) -> Any:
        error: BaseException | None = None
        try:
            return function(**inputs)
        except BaseException as raised:
            error = raised
            raise
        finally:
            if os.getpid() != owner:
                end_fork(error)

    return run


def end_fork(error: BaseException | None) -> None:
    """End this process as the interpreter would: with what ``error`` says, after its ``atexit`` functions."""
    code = 0
    if isinstance(error, SystemExit):
        code = _exit_code(error)
    elif error is not None:
        traceback.print_exception(type(error), error, error.__traceback__)
        code = 1
    try:
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()  # a line without an end
    finally:
        os._exit(code)


def _exit_code(error: SystemExit) -> int:
    if error.code is None:
        return 0
    if isinstance(error.code, int):
        return error.code & 0xFF
    sys.stderr.write(f"{error.code}\n")
    return 1
