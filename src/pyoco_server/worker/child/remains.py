"""What a run has started and not ended: found and ended by its guardian.

Resource trackers go last. They are helpers that Python's ``multiprocessing``, joblib and PyTorch start beside a run:
when every process of the run is gone, they remove the shared memory that it left in ``/dev/shm``. Killed with the
others, they would leave it there for good.
"""

import contextlib
import os
import signal
import time
from collections.abc import Collection
from pathlib import Path

import psutil

_PAUSE = 0.003
_LIMIT = 30.0
"""Seconds after which a process that survives SIGKILL (one that hangs in the kernel) is left behind."""
_TRACKER_SEC = 2.0
"""How long trackers may take to clean up after the last other process of the run."""
_TRACKERS = (b"resource_tracker", b"torch_shm_manager")


def own_children() -> set[int]:
    """Return the ids of this process's children, orphans that it adopted and zombies among them."""
    try:
        return {int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()}
    except (OSError, ValueError):  # a kernel without that file
        return {process.pid for process in psutil.Process().children()}


def end_all(spared: Collection[int]) -> int:
    """Kill every descendant of this process, trackers last, and reap it.

    Args:
        spared: Children that do not belong to the run.

    Returns:
        How many were killed or had not ended by themselves.
    """
    found: set[int] = set()
    now = time.monotonic()
    deadline, trackers_until = now + _LIMIT, None
    while time.monotonic() < deadline:
        alive = _living_descendants(own_children().difference(spared))
        if not alive:
            break
        ordinary = [process for process in alive if not _is_tracker(process)]
        if not ordinary:
            trackers_until = trackers_until or time.monotonic() + _TRACKER_SEC
        found.update(process.pid for process in ordinary)
        for process in ordinary if ordinary or time.monotonic() < (trackers_until or deadline) else alive:
            with contextlib.suppress(psutil.Error):
                process.kill()
        time.sleep(_PAUSE)
    return len(found)


def kill_soon(pid: int) -> None:
    """Kill a process and what it has started; trackers only lose what they wait for."""
    with contextlib.suppress(psutil.Error):
        for process in psutil.Process(pid).children(recursive=True):
            if not _is_tracker(process):
                with contextlib.suppress(psutil.Error):
                    process.kill()
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _living_descendants(children: Collection[int]) -> list[psutil.Process]:
    """Reap the children that have ended; return the others, and all below them."""
    alive: list[psutil.Process] = []
    for pid in children:
        with contextlib.suppress(ChildProcessError):
            if os.waitpid(pid, os.WNOHANG)[0]:
                continue
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(pid)
            alive += [process, *process.children(recursive=True)]
    return alive


def _is_tracker(process: psutil.Process) -> bool:
    try:
        command = Path(f"/proc/{process.pid}/cmdline").read_bytes()
    except OSError:
        return False
    return any(word in command for word in _TRACKERS)
