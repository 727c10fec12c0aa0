"""``--isolation shared``: what a run changed is put back before the next run, or the process is replaced.

The next run is of the same tenant, flow and environment. It may find of the runs before it: the modules that they
imported, with the globals of user code; open files and connections; ``atexit`` functions, which wait for the process's
end.
"""

import asyncio
import builtins
import contextlib
import decimal
import faulthandler
import gc
import locale
import logging
import multiprocessing
import os
import random
import resource
import signal
import socket
import sys
import tempfile
import threading
import time
import types
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

_LIMITS = [getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")]
_TIMERS = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)
_MORE_FILES = 64
"""Open files beyond those of the first run after which the process is replaced."""
_STREAMS = (0, 1, 2)
_MODULE_ATTRIBUTES = (
    (
        sys,
        ("stdin", "stdout", "stderr", "excepthook", "displayhook", "unraisablehook", "argv", "path", "tracebacklimit"),
    ),
    (threading, ("excepthook",)),
    (warnings, ("filters", "showwarning", "formatwarning")),
    (tempfile, ("tempdir",)),
    (logging, ("lastResort", "raiseExceptions")),
    (os, ("environ", "environb")),
)
_ABSENT = object()
_FUNCTIONS = (types.FunctionType, types.BuiltinFunctionType, types.MethodDescriptorType)
_CODE = (type, classmethod, staticmethod, property, *_FUNCTIONS)


class ProcessState:
    """The state of this process before its first run."""

    def __init__(self) -> None:
        self._environ = dict(os.environ)
        self._umask = _umask()
        self._directory = os.getcwd()  # noqa: PTH109
        self._signals = {sig: signal.getsignal(sig) for sig in signal.valid_signals()}
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        self._fixed = _fixed()
        self._files = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
        self._kept = {number: os.dup(number) for number in _STREAMS}
        self._attributes = [
            (module, name, getattr(module, name, _ABSENT)) for module, names in _MODULE_ATTRIBUTES for name in names
        ]
        self._lists: list[tuple[Any, list[Any]]] = [
            (kept, list(kept)) for kept in (sys.path, sys.argv, sys.meta_path, sys.path_hooks, warnings.filters)
        ]
        self._logging = _Logging()
        self._random = random.getstate()
        self._calls = _scalar_settings()
        self._code = _Code()

    def restore(self) -> list[str]:
        """Put back what can be put back.

        Returns:
            What cannot: then the process must not be used again.
        """
        for timer in _TIMERS:
            signal.setitimer(timer, 0)
        if self._code.patched():
            return ["code of others"]
        self._restore_signals()
        with contextlib.suppress(OSError):  # somebody has removed it
            os.chdir(self._directory)
        os.umask(self._umask)
        self._restore_environ()
        for module, name, value in self._attributes:
            if value is _ABSENT:
                vars(module).pop(name, None)
            else:
                setattr(module, name, value)
        for kept, items in self._lists:
            if list(kept) != items:
                kept[:] = items
        for number, copy in self._kept.items():
            os.dup2(copy, number, inheritable=True)
        self._logging.restore()
        random.setstate(self._random)
        for restore, value in self._calls:
            restore(value)
        sys.settrace(None)
        sys.setprofile(None)
        return self._changed_for_good()

    def _restore_signals(self) -> None:
        for sig, handler in self._signals.items():
            if handler is not None and signal.getsignal(sig) is not handler:
                with contextlib.suppress(OSError, ValueError):  # SIGKILL and SIGSTOP have none
                    signal.signal(sig, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)

    def _restore_environ(self) -> None:
        if self._environ != dict(os.environ):
            zone = os.environ.get("TZ")
            os.environ.clear()
            os.environ.update(self._environ)
            if zone != self._environ.get("TZ"):
                time.tzset()

    def _changed_for_good(self) -> list[str]:
        now = _fixed()
        found = [name for name, value in self._fixed.items() if now[name] != value]
        if len(os.listdir("/proc/self/fd")) > self._files + len(_STREAMS) + _MORE_FILES:  # noqa: PTH208
            found.append("open files")
        return found


class _Logging:
    """The root logger, and what holds for all."""

    def __init__(self) -> None:
        root = logging.getLogger()
        self._root = (root.level, list(root.handlers), list(root.filters))
        self._disabled = root.manager.disable
        self._levels = logging.getLevelNamesMapping() if hasattr(logging, "getLevelNamesMapping") else None

    def restore(self) -> None:
        """Put it back."""
        root = logging.getLogger()
        level, handlers, filters = self._root
        root.setLevel(level)
        root.handlers[:] = handlers
        root.filters[:] = filters
        logging.disable(self._disabled)
        logging.captureWarnings(False)


class _Code:
    """The functions and classes of the modules that were there before the first run: a run may have patched them."""

    def __init__(self) -> None:
        modules = [module for module in list(sys.modules.values()) if isinstance(module, types.ModuleType)]
        self._modules = [_Names(vars(module)) for module in modules]
        classes = {value for names in self._modules for value in names.code.values() if type(value) is type}
        self._classes = [_Names(vars(cls)) for cls in classes]

    def patched(self) -> bool:
        """Whether something is not what it was, or hides what was there: a builtin, a method of a base class."""
        return any(not names.code.items() <= names.now.items() for names in (*self._modules, *self._classes)) or (
            any(names.added() & vars(builtins).keys() for names in self._modules)
            or any(names.added() for names in self._classes)
        )


class _Names:
    """The code of a module or of a class, under its names."""

    def __init__(self, now: Mapping[str, Any]) -> None:
        self.now = now
        self._size = len(now)
        self.code = _code_in(now)

    def added(self) -> set[str]:
        """Return the names that were not there. Most have no new one, and are not looked through."""
        return _code_in(self.now).keys() - self.code.keys() if len(self.now) != self._size else set()


def _code_in(names: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in names.items() if isinstance(value, _CODE)}


def _fixed() -> dict[str, Any]:
    """Return what only a new process has anew."""
    return {
        "limits": [resource.getrlimit(limit) for limit in _LIMITS],
        "priority": os.getpriority(os.PRIO_PROCESS, 0),
        "CPU affinity": sorted(os.sched_getaffinity(0)),
        "user": (os.getresuid(), os.getresgid(), sorted(os.getgroups())),
        "session": (os.getsid(0), os.getpgid(0)),
        "root directory": os.stat("/").st_ino,  # noqa: PTH116
        "name": Path("/proc/self/comm").read_text(errors="replace"),
        "locale": locale.setlocale(locale.LC_ALL),
        "start method": multiprocessing.get_start_method(allow_none=True),
    }


def _scalar_settings() -> list[tuple[Callable[[Any], Any], Any]]:
    """Return what sets a setting of the interpreter, and its value now."""
    policy = asyncio.get_event_loop_policy()
    return [
        (sys.setrecursionlimit, sys.getrecursionlimit()),
        (sys.setswitchinterval, sys.getswitchinterval()),
        (lambda value: gc.set_threshold(*value), gc.get_threshold()),
        (lambda on: (gc.enable if on else gc.disable)(), gc.isenabled()),
        (gc.set_debug, gc.get_debug()),
        (socket.setdefaulttimeout, socket.getdefaulttimeout()),
        (decimal.setcontext, decimal.getcontext().copy()),
        (asyncio.set_event_loop_policy, policy),
        (lambda on: faulthandler.enable(file=2, all_threads=False) if on else None, faulthandler.is_enabled()),
        (lambda _: faulthandler.cancel_dump_traceback_later(), None),
    ]


def _umask() -> int:
    now = os.umask(0o077)
    os.umask(now)
    return now
