"""What ordinary code does with processes of its own: all of it works where tasks are confined. Runs import it."""

import getpass
import multiprocessing
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import shared_memory
from pathlib import Path

import psutil


def square(x: int) -> int:
    """Return a square, in a process of a pool."""
    return x * x


def rest(seconds: float) -> None:
    """Do nothing, for a while."""
    time.sleep(seconds)


def who() -> dict[str, object]:
    """Return as whom this runs, and where."""
    Path("made").write_text("x")
    here = Path().stat()
    return {
        "user": getpass.getuser(), "ids": os.getresuid(), "group": os.getgid(), "home": os.environ["HOME"],
        "own": here.st_uid, "mode": here.st_mode & 0o777, "tmp": tempfile.gettempdir(),
    }  # fmt: skip


def readable(places: list[str]) -> list[str]:
    """Return which of some files and directories can be read."""
    return [place for place in places if os.access(place, os.R_OK)]


def _pool(method: str) -> list[int]:
    with multiprocessing.get_context(method).Pool(2) as pool:
        return pool.map(square, [1, 2, 3])


def _executor() -> list[int]:
    with ProcessPoolExecutor(2) as executor:
        return list(executor.map(square, [1, 2, 3]))


def _manager() -> dict[int, int]:
    with multiprocessing.Manager() as manager:
        shared = manager.dict()
        shared[1] = 2
        return dict(shared)


def _memory() -> None:
    memory = shared_memory.SharedMemory(create=True, size=10)
    memory.buf[0] = 1
    memory.close()
    memory.unlink()


def _stopped_and_ended() -> int:
    with subprocess.Popen(["sleep", "60"]) as child:
        for number in (signal.SIGSTOP, signal.SIGCONT, signal.SIGTERM):
            child.send_signal(number)
        return child.wait()


def _groups() -> None:
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as child:
        os.killpg(child.pid, signal.SIGKILL)
    os.killpg(0, signal.SIGUSR1)
    os.killpg(os.getpgid(0), signal.SIGUSR1)


def _threads() -> None:
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    over = threading.Event()
    thread = threading.Thread(target=over.wait)
    thread.start()
    try:
        signal.pthread_kill(thread.ident or 0, signal.SIGUSR2)
        os.sched_setaffinity(thread.native_id or 0, os.sched_getaffinity(0))  # as OpenMP places its threads
        os.setpriority(os.PRIO_PROCESS, thread.native_id or 0, 1)
    finally:
        over.set()
        thread.join()
    signal.raise_signal(signal.SIGUSR2)


def _limits_of_a_child() -> bytes:
    with subprocess.Popen(["sleep", "60"]) as child:
        seen = psutil.Process(child.pid)
        seen.nice(1)
        seen.cpu_affinity(list(os.sched_getaffinity(0)))
        seen.rlimit(psutil.RLIMIT_NOFILE, (100, 100))
        seen.ionice(psutil.IOPRIO_CLASS_IDLE)
        os.sched_setscheduler(child.pid, os.SCHED_BATCH, os.sched_param(0))
        os.setpriority(os.PRIO_PGRP, 0, 1)
        environment = Path(f"/proc/{child.pid}/environ").read_bytes()
        child.kill()
        return environment


def _limits_of_oneself() -> None:
    code = (
        "import os, psutil, resource; psutil.Process().nice(2); os.nice(1)\n"
        "resource.prlimit(os.getpid(), resource.RLIMIT_NOFILE, (100, 100))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 500), hard))
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _an_orphan() -> None:
    command = "sleep 60 >/dev/null 2>&1 & echo $!"
    said = subprocess.run(["sh", "-c", command], stdout=subprocess.PIPE, text=True, check=True).stdout
    os.setpriority(os.PRIO_PROCESS, int(said), 3)
    os.kill(int(said), signal.SIGKILL)


def _everybody() -> list[dict[str, object]]:
    return [process.info for process in psutil.process_iter(["pid", "name", "username", "memory_info", "cmdline"])]


def _alarm() -> None:
    rang = threading.Event()
    signal.signal(signal.SIGALRM, lambda *_: rang.set())
    signal.setitimer(signal.ITIMER_REAL, 0.01)
    while not rang.is_set():
        time.sleep(0.01)


def _files() -> None:
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        first, second = Path(one, "x"), Path(other, "y")
        first.write_text("1")
        first.rename(second)
        first.hardlink_to(second)
        first.chmod(0o600)
    Path("in-the-run").write_text("1")
    Path("in-the-run").unlink()
    Path("/dev/stdout").open("w").close()


def _sockets() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()):
        pass
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind(f"\0pyoco-test-{os.getpid()}")
        server.listen()
        client.connect(server.getsockname())


DOINGS: dict[str, Callable[[], object]] = {
    "fork": lambda: _pool("fork"),
    "spawn": lambda: _pool("spawn"),
    "forkserver": lambda: _pool("forkserver"),
    "executor": _executor,
    "manager": _manager,
    "shared memory": _memory,
    "signals to a child": _stopped_and_ended,
    "signals to groups": _groups,
    "signals and places of threads": _threads,
    "limits of a child": _limits_of_a_child,
    "limits of oneself": _limits_of_oneself,
    "an orphan": _an_orphan,
    "a look at everybody": _everybody,
    "an alarm": _alarm,
    "files": _files,
    "sockets": _sockets,
}


def fail() -> dict[str, str]:
    """Return what does not work, and why."""
    failed: dict[str, str] = {}
    for name, doing in DOINGS.items():
        try:
            doing()
        except Exception as error:  # noqa: BLE001 - it is told
            failed[name] = repr(error)
    return failed
