"""Entry point of a template: a process that has loaded the engine and forks a fresh process for each run.

It has one thread, knows the worker's packages and the wheel environment, and nothing of any run: user code is imported
only after the fork. What ``--preload`` names is imported here, once, and shared by all runs.
"""

import contextlib
import ctypes
import gc
import importlib
import json
import os
import resource
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from pyoco_server.errors import PyocoError
from pyoco_server.worker.child.confinement.barrier import Barrier, NoBarrier
from pyoco_server.worker.child.freshness import import_fresh
from pyoco_server.worker.child.guardian import Guardian
from pyoco_server.worker.child.runner import Runner
from pyoco_server.worker.child.warming import warm_up
from pyoco_server.worker.wheels.import_path import use_environment

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_MOST_LIKELY_VICTIM = b"500"
_WARM_TIMES = 20
"""After so many rounds Python has specialised the code that it will."""
_MAX_PACKET = 64 * 1024
_IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# What a child does first is done with plain numbers and functions that are there: each page of memory that it touches
# is copied for it.
_prctl = ctypes.CDLL(None).prctl
_SIGKILL = int(signal.SIGKILL)
_HANDLERS = [
    (int(number), signal.default_int_handler if number == signal.SIGINT else int(signal.SIG_DFL)) for number in _IGNORED
]


class PreloadRefused(Exception):
    """A module cannot be loaded before the fork; the message says why."""


def main() -> None:
    """Serve the worker; ``argv`` holds the descriptor of the control socket."""
    control = socket.socket(fileno=int(sys.argv[1]))
    control.set_inheritable(False)
    if _prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise PyocoError("Linux does not let this process adopt the orphans of runs")
    for sig in _IGNORED:
        signal.signal(sig, signal.SIG_IGN)  # it ends with its worker and its runs, whoever asks
    packet = control.recv(_MAX_PACKET)
    if not packet:
        return
    setup = json.loads(packet)
    # The worker has raised its own limit. User code that uses select() wants the one that the worker was started with.
    resource.setrlimit(resource.RLIMIT_NOFILE, setup["descriptors"])
    installed = len(sys.path)
    use_environment(setup["environment"], behind=installed)
    import_fresh()
    try:
        barrier = Barrier(confine=setup["confine"], run_as=setup["run_as"])
        for name in setup["preload"]:
            preload(name, setup["environment"])
        barrier.try_out(setup["environment"], setup["runs"])
    except (PreloadRefused, NoBarrier) as refused:
        control.send(json.dumps({"unusable": str(refused)}).encode())
        return
    sys.argv = ["pyoco-run"]
    warm_up(_WARM_TIMES)
    # What is there now is never garbage: the collector would only touch, and so copy, the pages shared with children.
    gc.collect()
    gc.freeze()
    listener = barrier.filter_calls()
    control.send(json.dumps({"ready": os.getpid()}).encode())
    Guardian(control, forking(control, setup, installed, barrier), listener).watch()


def forking(
    control: socket.socket, setup: dict[str, Any], installed: int, barrier: Barrier
) -> Callable[[list[int], Iterable[int]], int]:
    """Return what forks a child for runs.

    Args:
        control: Closed in the child.
        setup: From the worker.
        installed: How many entries of ``sys.path`` are the worker's own.
        barrier: Put up in the child.
    """
    guardian = os.getpid()

    def fork(descriptors: list[int], private: Iterable[int]) -> int:
        barrier.give_streams(descriptors[1:])
        pid = os.fork()
        if pid == 0:
            try:
                control.close()
                for descriptor in private:
                    os.close(descriptor)
                _begin_life(guardian, barrier)
                Runner.on(descriptors, setup, installed).serve()
            except BaseException:  # noqa: BLE001 - nothing may unwind into the guardian's loop
                traceback.print_exc()
            finally:
                os._exit(1)
        return pid

    return fork


def _begin_life(guardian: int, barrier: Barrier) -> None:
    """Become a process of its own: session, user, signals, and an end no later than its guardian's."""
    os.setsid()
    barrier.change_user()  # before the next line, which another user does away with
    _prctl(_PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0)  # also while user code holds the interpreter
    if os.getppid() != guardian:
        os._exit(1)
    for number, handler in _HANDLERS:
        signal.signal(number, handler)
    with contextlib.suppress(OSError):  # where memory gets short, the run is to go and not the worker
        descriptor = os.open("/proc/self/oom_score_adj", os.O_WRONLY)
        os.write(descriptor, _MOST_LIKELY_VICTIM)
        os.close(descriptor)
    barrier.put_up()
    # NumPy's generator is the one in use that does not notice a fork: all runs would draw the same numbers.
    if (numpy_random := sys.modules.get("numpy.random")) is not None:
        numpy_random.seed()


def preload(name: str, environment: str | None) -> None:
    """Import a module for all runs to come.

    Args:
        name: Of the module.
        environment: Directory of the wheel environment.

    Raises:
        PreloadRefused: it cannot be imported, may change while the worker runs, or starts threads, which no fork has.
    """
    try:
        module = importlib.import_module(name)
    except BaseException as error:
        raise PreloadRefused(f"--preload {name}: importing it raised {type(error).__name__}: {error}") from error
    file = getattr(module, "__file__", None)
    fixed = [Path(place) for place in (sys.prefix, sys.base_prefix, environment) if place]
    if file is not None and not any(place in Path(file).parents for place in fixed):
        raise PreloadRefused(
            f"--preload {name}: {file} is not part of an installed environment, and would not be seen when it changes"
        )
    if threading.active_count() > 1:
        names = sorted(thread.name for thread in threading.enumerate() if thread is not threading.main_thread())
        raise PreloadRefused(f"--preload {name}: importing it starts threads ({', '.join(names)}), which a fork loses")
    if _native_threads() > 1:
        # Libraries that know of forks (OpenBLAS) end their threads before one, and start new ones when needed.
        if (pid := os.fork()) == 0:
            os._exit(0)
        os.waitpid(pid, 0)
        if _native_threads() > 1:
            raise PreloadRefused(f"--preload {name}: importing it starts threads that do not survive a fork")


def _native_threads() -> int:
    return len(list(Path("/proc/self/task").iterdir()))
