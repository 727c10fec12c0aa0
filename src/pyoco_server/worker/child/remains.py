"""What a run has started and not ended: found and ended by its guardian.

Resource trackers go last. They are helpers that Python's ``multiprocessing``, joblib and PyTorch start beside a run:
when every process of the run is gone, they remove the shared memory that it left in ``/dev/shm``. Killed with the
others, they would leave it there for good.
"""

import contextlib
import math
import os
import signal
import time
from collections.abc import Collection, Iterable
from pathlib import Path

_PAUSE = 0.003
_LIMIT = 30.0
"""Seconds after which a process that survives SIGKILL (one that hangs in the kernel) is left behind."""
_TRACKER_SEC = 5.0
"""How long trackers may take to clean up after the last other process of the run."""
_LISTED = Path(f"/proc/self/task/{os.getpid()}/children").exists()
_UNSURE_SEC = 0.1
"""How long a process may take to show its own command."""
_TRACKERS = (b"resource_tracker", b"torch_shm_manager")


def own_children() -> set[int]:
    """Return the ids of this process's children, orphans that it adopted and zombies among them."""
    return _children_of(os.getpid())


def end_all(spared: Collection[int]) -> int:
    """Kill every descendant of this process, trackers last, and reap it.

    Args:
        spared: Children that do not belong to the run.

    Returns:
        How many had not ended by themselves, without trackers.
    """
    found: set[int] = set()
    began, trackers_until = time.monotonic(), math.inf
    while (now := time.monotonic()) < began + _LIMIT:
        alive = _living_descendants(own_children().difference(spared))
        if not alive:
            break
        trackers = {pid for pid in alive if _may_be_tracker(pid, unsure=now < began + _UNSURE_SEC)}
        if len(trackers) == len(alive):
            trackers_until = min(trackers_until, now + _TRACKER_SEC)
        _kill(alive if now >= trackers_until else set(alive) - trackers)
        found.update(set(alive) - trackers)
        time.sleep(_PAUSE)
    return len(found)


def kill_soon(pid: int) -> None:
    """Kill a process and what it has started; trackers only lose what they wait for."""
    _kill([pid, *(below for below in _descendants_of(pid) if not _may_be_tracker(below, unsure=True))])


def _kill(pids: Iterable[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


def _living_descendants(children: Collection[int]) -> list[int]:
    """Reap the children that have ended; return the others, and all below them."""
    alive: list[int] = []
    for pid in children:
        with contextlib.suppress(ChildProcessError):
            if os.waitpid(pid, os.WNOHANG)[0]:
                continue
        alive += [pid, *_descendants_of(pid)]
    return alive


def _descendants_of(pid: int) -> list[int]:
    found: list[int] = []
    level = [pid]
    while level:
        level = [below for parent in level for below in _children_of(parent)]
        found += level
    return found


def _children_of(pid: int) -> set[int]:
    """Return the children of a process, as the kernel lists them: without a look at all processes of the machine."""
    if not _LISTED:
        import psutil  # noqa: PLC0415 - only for kernels without that list

        with contextlib.suppress(psutil.Error):
            return {process.pid for process in psutil.Process(pid).children()}
        return set()
    found: set[int] = set()
    with contextlib.suppress(OSError):  # it has just ended
        for thread in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208 - on the way of each run
            with open(f"/proc/{pid}/task/{thread}/children", "rb") as file:  # noqa: PTH123
                found.update(map(int, file.read().split()))
    return found


def _may_be_tracker(pid: int, *, unsure: bool) -> bool:
    """Whether a process is a tracker.

    Args:
        pid: Its id.
        unsure: The answer for one that has just been started: it still shows the command of its parent, or none.
    """
    command = _command_of(pid)
    if command in (b"", _OWN_COMMAND):
        return unsure
    return any(word in command for word in _TRACKERS)


def _command_of(pid: int | str) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


_OWN_COMMAND = _command_of("self")
