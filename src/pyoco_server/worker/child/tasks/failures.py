"""What went wrong inside user code: its class, its sentence, its place, and how a run that it ends is called."""

import functools
import inspect
import linecache
import os.path
import sysconfig
import traceback
from collections.abc import Callable
from pathlib import Path
from types import CodeType, TracebackType
from typing import Any, NamedTuple

import pyoco

from pyoco_server.model.run import EndReason
from pyoco_server.model.text.clean import MAX_TEXT, clean_text
from pyoco_server.worker import child
from pyoco_server.worker.child.tasks.exceptiontext import class_name, exception_text

_ENGINE = tuple(f"{Path(str(place)).parent}/" for place in (pyoco.__file__, child.__file__))
_INSTALLED = [*{f"{sysconfig.get_path(name)}/" for name in ("purelib", "platlib")}]
_STANDARD = tuple({f"{sysconfig.get_path(name)}/" for name in ("stdlib", "platstdlib")})
_FROZEN = "<frozen "
_IMPORTING = tuple(f"{root}importlib/" for root in _STANDARD)
_CALLING = (
    *_ENGINE,
    *_IMPORTING,
    *(f"{root}{name}/" for root in _STANDARD for name in ("asyncio", "concurrent")),
    _FROZEN,
)
"""What may lie between the worker and the first line of a task."""
_MOST_LINES = 4
_MAX_FILE = 1_000
_MAX_FUNCTION = 200


class Failure(BaseException):
    """What stands for a user's exception in pyoco's engine, which would ask it for its text again, and twice.

    Args:
        told: What ``describe_exception`` says of it.
        reason: How a run that it ends is called.
    """

    def __init__(self, told: dict[str, Any], reason: EndReason) -> None:
        super().__init__(told["error"])
        self.told = told
        self.reason = reason


class TaskFailed(Failure, Exception):
    """A task raised an ``Exception``."""


class TaskExited(Failure, BaseException):
    """A task raised what is no ``Exception``: ``sys.exit``, KeyboardInterrupt. The engine lets it pass."""


class Place(NamedTuple):
    """A line of code."""

    file: str
    line: int | None
    func: str


def note_environment(directory: str | None) -> None:
    """Keep packages of a wheel environment apart from the user's own files, as those installed for the worker are."""
    if directory is not None:
        _INSTALLED.append(f"{directory}/")


def failure_of(error: BaseException, function: Callable[..., Any]) -> TaskFailed | TaskExited:
    """Return what to raise instead of a task's exception: it has been asked for its text, and need not be again.

    Args:
        error: What the task raised.
        function: The task's.
    """
    kind = TaskFailed if issubclass(type(error), Exception) else TaskExited
    return kind(describe_exception(error, function), end_reason(error))


def describe_exception(error: BaseException, function: Callable[..., Any] | None = None) -> dict[str, Any]:
    """Return a task record's ``error``, ``exception``, ``traceback`` and ``origin``, without the engine's own frames.

    ``origin`` is where it was raised; the place in ``exception`` is the user's: the deepest line of the task's own
    files, not of a library that it called. Runs the exception's own code once, for a bounded time. Never raises.

    Args:
        error: What was raised.
        function: The task's, which is the place of an error that was raised on the way into it.
    """
    if type(error) is TaskFailed or type(error) is TaskExited:
        return error.told
    # By type and not by isinstance(), which asks an instance for its __class__: that may be user code.
    trace = _user_part(BaseException.__dict__["__traceback__"].__get__(error))
    text = exception_text(error, trace)
    origin, own = _places(error, trace)
    if trace is None and origin is None and function is not None:
        origin = own = _definition(function)
    name = class_name(error)
    short = name.rpartition(".")[2]
    return {
        "error": f"{short}: {text.message}" if text.message else short,
        "exception": {
            "class": name,
            "message": text.message,
            "file": own.file if own else None,
            "line": own.line if own else None,
            "function": own.func if own else None,
        },
        "traceback": text.traceback,
        "origin": origin._asdict() if origin else None,
    }


def summarise(error: BaseException) -> str:
    """Return an exception's class and message in one line."""
    return str(describe_exception(error)["error"])


def where_raised(error: BaseException) -> str:
    """Return the last lines of the user's own files that led to an exception, as a traceback shows them."""
    trace = BaseException.__dict__["__traceback__"].__get__(error)
    skipped = (*_ENGINE, *_IMPORTING, _FROZEN)
    frames = [frame for frame in traceback.extract_tb(trace) if not frame.filename.startswith(skipped)]
    lines = traceback.format_list(frames[-_MOST_LINES:])
    if (written := _written_at(error)) is not None:  # a SyntaxError has no frame of the file that it is in
        text = linecache.getline(written.file, written.line or 0).strip()
        lines.append(f'  File "{written.file}", line {written.line}\n    {text}\n')
    return clean_text("".join(lines).rstrip("\n"), MAX_TEXT)


def end_reason(error: BaseException) -> EndReason:
    """Return how a run that this exception ended is called."""
    if type(error) is TaskFailed or type(error) is TaskExited:
        return error.reason
    if issubclass(type(error), ModuleNotFoundError):
        return EndReason.DEPENDENCY_MISSING
    if issubclass(type(error), MemoryError):
        return EndReason.OUT_OF_MEMORY
    return EndReason.TASK_FAILED


def _user_part(trace: TracebackType | None) -> TracebackType | None:
    """Leave out the frames of engine and worker that lead to the user's code."""
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(_CALLING):
        trace = trace.tb_next
    return trace


def _places(error: BaseException, trace: TracebackType | None) -> tuple[Place | None, Place | None]:
    """Return where it was raised, and the deepest line of the user's own files on the way there."""
    if (written := _written_at(error)) is not None:
        return written, written
    raised = users = last = None
    own: tuple[str, ...] | None = None
    while trace is not None:
        code = trace.tb_frame.f_code
        last = Place(code.co_filename, trace.tb_lineno, code.co_name)
        if own is None and not _is_standard(last.file):
            own = _package(last.file)
        if not last.file.startswith((*_IMPORTING, _FROZEN)):  # of an import that fails it is the import's line
            raised = last
        if not _is_library(last.file, own) and not (users and last.file.startswith("<")):
            users = last  # of code that was made by exec() it is the line that ran it
        trace = trace.tb_next
    raised = raised or last
    users = users or raised
    return raised and _bounded(raised), users and _bounded(users)


def _written_at(error: BaseException) -> Place | None:
    """Return the line that is no Python, which a SyntaxError names itself, where it is one of a file."""
    if not issubclass(type(error), SyntaxError):
        return None
    file, line = (SyntaxError.__dict__[name].__get__(error) for name in ("filename", "lineno"))
    if type(file) is not str or type(line) is not int or not os.path.isfile(file):  # noqa: PTH113 - of any text
        return None  # of a text that was compiled: where that was done says more
    return _bounded(Place(file, line, "<module>"))


def _definition(function: Callable[..., Any]) -> Place | None:
    """Return where a function is defined; ``None`` where that cannot be told."""
    try:
        while isinstance(function, functools.partial):
            function = function.func
        code = getattr(inspect.unwrap(function), "__code__", None)
    except Exception:  # noqa: BLE001 - a callable of the user's may raise anything when it is looked at
        return None
    if not isinstance(code, CodeType) or code.co_filename.startswith(_ENGINE):
        return None
    return _bounded(Place(code.co_filename, code.co_firstlineno, code.co_name))


def _bounded(place: Place) -> Place:
    return Place(clean_text(place.file, _MAX_FILE), place.line, clean_text(place.func, _MAX_FUNCTION))


def _is_standard(filename: str) -> bool:
    return filename.startswith(_STANDARD) and not filename.startswith(tuple(_INSTALLED))


def _is_library(filename: str, own: tuple[str, ...] | None) -> bool:
    """Whether a file is no part of what the user wrote.

    Args:
        filename: Of a frame.
        own: The installed package of the task itself, which is user code although it is installed.
    """
    if own is not None and filename.startswith(own):
        return False
    return filename.startswith((*_ENGINE, *_INSTALLED, *_STANDARD, _FROZEN))


def _package(filename: str) -> tuple[str, ...]:
    """Return what the files of an installed file's package begin with; nothing for a file of the user's own."""
    for root in _INSTALLED:
        if filename.startswith(root):
            top = filename.removeprefix(root).split("/")[0]
            return (f"{root}{top}" + ("/" if not top.endswith(".py") else ""),)
    return ()
