"""The end of a run's process: what a Python program does at its end, and what it leaves behind all the same."""

import atexit
import contextlib
import logging
import os
import threading
from pathlib import Path

_NAMES_AT_MOST = 10


class AtTheEnd:
    """What there was to do at the end of this process before its first run."""

    def __init__(self) -> None:
        self._now = self._count()

    def may_take_time(self) -> bool:
        """Whether there is more to do now: threads to wait for, functions to call, handlers of ``logging`` to flush."""
        return self._count() != self._now or bool(unfinished_threads())

    @staticmethod
    def _count() -> tuple[int, int, int]:
        handlers: list[object] = vars(logging)["_handlerList"]
        callbacks: list[object] = vars(threading).get("_threading_atexits", [])
        return atexit._ncallbacks(), len(callbacks), len(handlers)


def as_at_the_end() -> None:
    """Wait for the threads that are no daemons, then call the ``atexit`` functions, as the interpreter does.

    The interpreter's own end would do the same, and then take every module apart, which costs more than a short run.
    """
    # It has no public name: it shuts executors down, then joins every thread that is no daemon.
    vars(threading)["_shutdown"]()
    atexit._run_exitfuncs()


def unfinished_threads() -> list[str]:
    """Return the names of the threads that a Python program would wait for."""
    main = threading.main_thread()
    found = [thread.name for thread in threading.enumerate() if thread is not main and not thread.daemon]
    return found[:_NAMES_AT_MOST]


def has_children() -> bool:
    """Whether a process that this one started is still there."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def unfinished_processes() -> list[str]:
    """Return this process's living children, by name and id.

    Resource trackers do not count: they end by themselves.
    """
    found: list[str] = []
    for thread in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):
            found += (thread / "children").read_text().split()
    return [shown for pid in found if (shown := _shown(pid))][:_NAMES_AT_MOST]


def _shown(pid: str) -> str | None:
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
        name, _, state = Path(f"/proc/{pid}/stat").read_text(errors="replace").partition(" (")[2].rpartition(") ")
    except OSError:
        return None
    ended = state.startswith(("Z", "X"))  # and nobody has waited for it
    return None if ended or b"resource_tracker" in command else f"{name} (process {pid})"
