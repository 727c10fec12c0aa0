"""Between worker and child: ends every process of a run, also when the worker dies or stands still.

A process of its own, forked before anything large is loaded, so that user code can neither block it nor stand in for
it. Orphans of the run become its children (Linux's "subreaper"), so that not even a daemon escapes. The run's lease is
kept here too: a worker that was stopped cannot stop its run, and NATS gives the run to another one meanwhile.
"""

import contextlib
import ctypes
import json
import os
import select
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

from pyoco_server.errors import PyocoError

_PR_SET_CHILD_SUBREAPER = 36
_SWEEP_PAUSE = 0.005
_SWEEP_LIMIT = 30.0
"""Seconds after which a process that survives SIGKILL (one that hangs in the kernel) is left behind, and told."""
_MOST_LIKELY_VICTIM = "500"
_CGROUPS = Path("/sys/fs/cgroup")


class Guardian:
    """Watches one child.

    Args:
        control: Socket to the worker: commands come in as lines, one report goes out at the end.
        child: The child's process id, which is (or is about to be) its process group too.
    """

    def __init__(self, control: socket.socket, child: int) -> None:
        self._control = control
        self._child = child
        self._pidfd = os.pidfd_open(child)
        self._unread = b""
        self._lease = 0.0
        self._lease_ends = float("inf")
        self._oom_before = oom_kills()
        self._killed = False
        self._fenced = False

    def watch(self) -> None:
        """Serve until the child has ended; then end what it left behind and report."""
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        poll.register(self._pidfd, select.POLLIN)
        while True:
            left = self._lease_ends - time.monotonic()
            ready = {descriptor for descriptor, _ in poll.poll(None if left == float("inf") else max(0, left) * 1000)}
            if self._pidfd in ready:
                break
            # First the lease: after both have stood still, the worker's word may come before we look at the time.
            if time.monotonic() >= self._lease_ends:
                self._fenced = True
                self._kill()
            if self._control.fileno() in ready and not self._obey():
                poll.unregister(self._control)
                self._kill()
        # Without reaping it yet, so that its number cannot become another process's before the group is killed.
        self._signal_group(signal.SIGKILL)
        _, status, usage = os.wait4(self._child, 0)
        left_behind = self._sweep()
        self._report(
            code=os.waitstatus_to_exitcode(status),
            fenced=self._fenced,
            killed=self._killed,
            out_of_memory=oom_kills() > self._oom_before,
            left_behind=left_behind,
            max_rss_bytes=usage.ru_maxrss * 1024,
        )

    def _obey(self) -> bool:
        """Take commands; ``False`` when the worker is gone."""
        try:
            data = self._control.recv(4096)
        except OSError:
            data = b""
        *lines, self._unread = (self._unread + data).split(b"\n")
        for line in lines:
            word, _, argument = line.partition(b" ")
            if word == b"run":
                self._oom_before = oom_kills()
                self._lease = float(argument)
                self._renew()
            elif word == b"alive":
                self._renew()
            elif word == b"idle":
                self._lease_ends = float("inf")
            elif word == b"term":
                self._signal_group(signal.SIGTERM)
            elif word == b"kill":
                self._kill()
        return bool(data)

    def _renew(self) -> None:
        if not self._killed:
            self._lease_ends = time.monotonic() + self._lease

    def _kill(self) -> None:
        self._killed = True
        self._lease_ends = float("inf")
        self._signal_group(signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._child, signal.SIGKILL)  # it may not have its own group yet

    def _signal_group(self, sig: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._child, sig)

    def _sweep(self) -> int:
        """Kill whatever the run started and did not end; its number is the answer."""
        found: set[int] = set()
        deadline = time.monotonic() + _SWEEP_LIMIT
        while time.monotonic() < deadline:
            try:
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            except ChildProcessError:
                break
            import psutil  # noqa: PLC0415 - only for runs that leave something behind

            for process in psutil.Process().children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    found.add(process.pid)
                    process.kill()
            time.sleep(_SWEEP_PAUSE)
        return len(found)

    def _report(self, **facts: Any) -> None:
        with contextlib.suppress(OSError):  # the worker is gone
            self._control.sendall(json.dumps(facts).encode() + b"\n")


def oom_kills() -> int:
    """Count the processes that the kernel killed for want of memory, here or in our control group."""
    return sum(_read_counter(file) for file in _counter_files())


def _counter_files() -> list[Path]:
    files = [Path("/proc/vmstat")]
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers:
                files.append(_CGROUPS / path.lstrip("/") / "memory.events")
            elif "memory" in controllers.split(","):
                files.append(_CGROUPS / "memory" / path.lstrip("/") / "memory.oom_control")
    return files


def _read_counter(file: Path) -> int:
    with contextlib.suppress(OSError, ValueError):
        for line in file.read_text().splitlines():
            name, _, value = line.partition(" ")
            if name == "oom_kill":
                return int(value)
    return 0


def main() -> None:
    """Entry point: ``argv`` holds the descriptors of the child's socket and of the guardian's."""
    child_socket, control = int(sys.argv[1]), int(sys.argv[2])
    if ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise PyocoError("Linux does not let this process adopt the orphans of runs")
    guardian = os.getpid()
    child = os.fork()
    if child == 0:
        os.close(control)
        os.setsid()
        with contextlib.suppress(OSError):  # where memory gets short, the run is to go and not the worker
            Path("/proc/self/oom_score_adj").write_text(_MOST_LIKELY_VICTIM)
        from pyoco_server.worker.child import runner as inside  # noqa: PLC0415 - large; the guardian stays small

        inside.main(child_socket, guardian)
        return
    os.close(child_socket)
    for sig in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(sig, signal.SIG_IGN)  # it ends with its child, whoever asks
    Guardian(socket.socket(fileno=control), child).watch()
