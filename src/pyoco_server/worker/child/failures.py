"""What went wrong inside user code: its class, its sentence, its place, and how a run that it ends is called."""

import sysconfig
import traceback
from pathlib import Path
from types import TracebackType
from typing import Any

import pyoco

from pyoco_server.model.run import EndReason
from pyoco_server.model.text import MAX_TRACEBACK, clean_text

_ENGINE = tuple(f"{Path(str(place)).parent}/" for place in (pyoco.__file__, __file__))
_INSTALLED = [*{f"{sysconfig.get_path(name)}/" for name in ("purelib", "platlib")}]
_STANDARD = tuple({f"{sysconfig.get_path(name)}/" for name in ("stdlib", "platstdlib")})
_FROZEN = "<frozen "


def note_environment(directory: str | None) -> None:
    """Tell packages of a wheel environment from files of the user's own, as those installed for the worker are."""
    if directory is not None:
        _INSTALLED.append(f"{directory}/")


def describe_exception(error: BaseException) -> dict[str, Any]:
    """Give a task record's ``error``, ``exception`` and ``traceback``, without the engine's own frames.

    The place is the user's: the deepest frame in the task's own code, not in a library that it called.
    """
    inside = _user_part(error.__traceback__)
    place = _user_frame(inside)
    text = "".join(traceback.format_exception(type(error), error, inside))
    return {
        "error": summarise(error),
        "exception": {
            "class": type(error).__qualname__,
            "message": _message(error),
            "file": place.filename if place else None,
            "line": place.lineno if place else None,
            "function": place.name if place else None,
        },
        "traceback": clean_text(text, MAX_TRACEBACK),
    }


def summarise(error: BaseException) -> str:
    """Give an exception's class and message in one line."""
    message = _message(error)
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def end_reason(error: BaseException) -> EndReason:
    """Tell how a run that this exception ended is called."""
    if isinstance(error, ModuleNotFoundError):
        return EndReason.DEPENDENCY_MISSING
    if isinstance(error, MemoryError):
        return EndReason.OUT_OF_MEMORY
    return EndReason.TASK_FAILED


def _message(error: BaseException) -> str:
    try:
        return clean_text(str(error))
    except Exception:  # noqa: BLE001 - a user's __str__ may raise anything
        return "(its message cannot be shown)"


def _user_part(trace: TracebackType | None) -> TracebackType | None:
    """Leave out the frames of engine and worker that lead to the user's code."""
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith((*_ENGINE, _FROZEN)):
        trace = trace.tb_next
    return trace


def _user_frame(inside: TracebackType | None) -> traceback.FrameSummary | None:
    if inside is None:
        return None
    frames = traceback.extract_tb(inside)
    own = _package(frames[0].filename)
    users = [frame for frame in frames if not _is_library(frame.filename, own)]
    place = (users or frames)[-1]
    return None if place.filename.startswith(_FROZEN) else place  # a failed import of a task's own module has no place


def _is_library(filename: str, own: str | None) -> bool:
    """Tell whether a file is no part of what the user wrote.

    Args:
        filename: Of a frame.
        own: The installed package of the task itself, which is user code although it is installed.
    """
    if own is not None and filename.startswith(own):
        return False
    return filename.startswith((*_ENGINE, *_INSTALLED, *_STANDARD, _FROZEN))


def _package(filename: str) -> str | None:
    for root in _INSTALLED:
        if filename.startswith(root):
            top = filename.removeprefix(root).split("/")[0]
            return f"{root}{top}" + ("/" if not top.endswith(".py") else "")
    return None
