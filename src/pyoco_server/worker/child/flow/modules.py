"""The functions that a flow names: imported, or said why they cannot be.

What a name leads to is decided by the order of ``sys.path`` (``worker/import_path``): a file of the user's own that is
called like a module of the standard library is never imported. Then both files are named.
"""

import difflib
import importlib
import inspect
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

from pyoco.core.base_task import BaseTask
from pyoco.core.models import Task
from pyoco.dsl.syntax import TaskWrapper

from pyoco_server.model.flow.yaml_source import short, suggest
from pyoco_server.model.run import EndReason
from pyoco_server.worker.child.tasks.failures import summarise

_INSTALLED = {f"{sysconfig.get_path(name)}/" for name in ("purelib", "platlib")}
_STANDARD = {f"{sysconfig.get_path(name)}/" for name in ("stdlib", "platstdlib")}
_MOST_NAMES = 2000


class CannotLoad(Exception):
    """A function that cannot be had.

    Args:
        reason: How the run ends.
        message: Why.
    """

    def __init__(self, reason: EndReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def load_function(path: str) -> Any:
    """Import the function that ``package.module:function`` names; a pyoco task is as good.

    Raises:
        CannotLoad: there is none; its cause is what the user's module raised, if it did.
    """
    module_name, _, attribute = path.partition(":")
    module = _import(module_name, path)
    found: Any = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise CannotLoad(EndReason.INVALID_FLOW, missing_attribute(module, found, part))
        found = getattr(found, part)
    if is_standard(module) and (own := own_file(module)) is not None:
        text = f"module {module_name!r} is {_origin(module)}, {_before(own)}"
        raise CannotLoad(EndReason.INVALID_FLOW, text)
    function = found.task.func if isinstance(found, TaskWrapper) else found.func if isinstance(found, Task) else found
    if problem := _unfit(function):
        raise CannotLoad(EndReason.INVALID_FLOW, f"{path} ({_origin(module)}) {problem}")
    return function


def refused_argument(function: Any, inputs: Iterable[str]) -> str:
    """Return which input a task's function cannot take, as the end of a sentence; nothing if it takes them all."""
    try:
        # Not that of the function behind a decorator: only what is called decides.
        parameters = inspect.signature(function, follow_wrapped=False).parameters
    except (ValueError, TypeError):
        return ""
    kinds = {parameter.kind for parameter in parameters.values()}
    if inspect.Parameter.VAR_KEYWORD in kinds:
        return ""
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    taken = [name for name, parameter in parameters.items() if parameter.kind in named]
    wrong = next((name for name in inputs if name not in taken), None)
    return "" if wrong is None else f"takes no input {short(wrong)!r}. {suggest(wrong, taken, 'It takes')}"


def missing_attribute(module: ModuleType, holder: Any, name: str) -> str:
    """Return the sentence on a module, or something in it, that has not what is asked for.

    Args:
        module: The module.
        holder: The module, or a class in it.
        name: What is missing.
    """
    inside = "" if holder is module else f"{getattr(holder, '__qualname__', type(holder).__name__)!r} in "
    text = f"{inside}module {module.__name__!r} has no {short(name)!r}: it is {_origin(module)}"
    if (own := own_file(module)) is not None:
        return f"{text}, {_before(own)}"
    known = [known for known in list(getattr(holder, "__dict__", {}))[:_MOST_NAMES] if isinstance(known, str)]
    close = difflib.get_close_matches(name[:80], known, n=1)
    return f"{text}. Did you mean {close[0]!r}?" if close else text


def own_file(module: ModuleType) -> Path | None:
    """Return the user's own file that is called like a module, and that the module stands before."""
    where = getattr(module, "__file__", None)
    if where is not None and not _is_installed(where):
        return None
    return _own(module.__name__, where)


def is_standard(module: ModuleType) -> bool:
    """Whether a module is a part of Python."""
    where = getattr(module, "__file__", None)
    if where is None:
        return module.__name__ in sys.builtin_module_names
    return where.startswith(tuple(_STANDARD)) and not where.startswith(tuple(_INSTALLED))


def _import(name: str, path: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        text = f"importing {path} failed: no module named {error.name!r} on this worker{_why_not(error.name or name)}"
        raise CannotLoad(EndReason.DEPENDENCY_MISSING, text) from error
    except ImportError as error:
        text = f"importing {path} failed: {error.msg or summarise(error)}{_shadowed(error.name)}"
        raise CannotLoad(EndReason.DEPENDENCY_MISSING, text) from error
    except Exception as error:  # a module's top level may raise anything
        holder = error.obj if isinstance(error, AttributeError) else None
        shadowed = _shadowed(holder.__name__) if isinstance(holder, ModuleType) else ""
        text = f"importing {path} raised {summarise(error)}{shadowed}"
        raise CannotLoad(EndReason.INVALID_FLOW, text) from error


def _why_not(name: str) -> str:
    """Return what is known of a module that was not found, as the end of a sentence."""
    parent_name, _, child = name.rpartition(".")
    parent = sys.modules.get(parent_name)
    if parent is None:
        close = difflib.get_close_matches(name[:80], _own_modules(), n=1)
        return f". Did you mean {close[0]!r}?" if close else ""
    if (own := own_file(parent) or _own(name)) is not None:
        return f": {parent_name!r} is {_origin(parent)}, {_before(own)}"
    if child == "py":
        return f": write {parent_name}, without .py"
    return f": {parent_name!r} is {_origin(parent)}"


def _own(name: str, besides: str | None = None) -> Path | None:
    """Return the user's own file that a module's name may mean."""
    relative = Path(*name.split("."))
    for entry in sys.path:
        folder = Path(entry)
        for candidate in (folder / relative.with_suffix(".py"), folder / relative / "__init__.py"):
            if str(candidate) != besides and not _is_installed(str(candidate)) and candidate.is_file():
                return candidate
    return None


def _own_modules() -> list[str]:
    """Return the names of modules that lie in folders of the user's own."""
    found: list[str] = []
    for entry in sys.path:
        if entry and not _is_installed(f"{entry}/") and (folder := Path(entry)).is_dir():
            for path in folder.iterdir():
                if len(found) >= _MOST_NAMES:
                    return found
                if path.suffix == ".py" or (path / "__init__.py").is_file():
                    found.append(path.stem)
    return found


def _shadowed(name: str | None) -> str:
    module = sys.modules.get(name or "")
    own = own_file(module) if module is not None else None
    return f". {name!r} is {_origin(module)}, {_before(own)}" if module is not None and own is not None else ""


def _unfit(function: Any) -> str:
    """Return why something cannot be a task's function, as the end of a sentence; nothing if it can."""
    if isinstance(function, ModuleType):
        return f"is a module: write {function.__name__}:function"
    if isinstance(function, type) and issubclass(function, BaseTask):
        return "is a class of tasks: name a function that makes one and returns what its run(ctx) returns"
    if function is None or not callable(function):
        return f"is {'None' if function is None else 'of the type ' + type(function).__name__}, not a function"
    try:
        inspect.signature(function)
    except (ValueError, TypeError):
        return "does not show what it takes, as functions written in C may: name a function in Python that calls it"
    return ""


def _origin(module: ModuleType) -> str:
    where = getattr(module, "__file__", None)
    if where is None:
        folders = [str(folder) for folder in getattr(module, "__path__", ())]
        return f"the folder {folders[0]}, which holds no __init__.py" if folders else "built into Python"
    return f"{where} (Python's standard library)" if is_standard(module) else str(where)


def _before(own: Path) -> str:
    return f"which comes before your own {own}. Give your file another name, one that nothing installed has"


def _is_installed(file: str) -> bool:
    return file.startswith((*_INSTALLED, *_STANDARD))
