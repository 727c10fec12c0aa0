"""The part of a template that user code never runs in: it ends every process of a run, also when the worker dies.

Orphans of a run become children of this process (Linux's "subreaper"), so that not even a daemon escapes. The run's
lease is kept here too: a worker that was stopped cannot stop its run, and NATS gives the run to another one meanwhile.
One run at a time: of two, nobody could say whose an orphan is.
"""

import contextlib
import json
import math
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyoco_server.worker.child.confinement.arbiter import Arbiter
from pyoco_server.worker.child.remains import end_all, kill_soon, own_children

_CGROUPS = "/sys/fs/cgroup"
_UNIFIED = Path(f"{_CGROUPS}/cgroup.controllers").exists()
_PAGE = os.sysconf("SC_PAGE_SIZE")
_MAX_PACKET = 64 * 1024
_DESCRIPTORS = 4
_GROWN_BYTES = 32 * 1024 * 1024
"""Growth after which the worker replaces this process."""


@dataclass
class Forked:
    """A process that was forked for runs.

    Args:
        number: The worker's name for it.
        pid: Its process id, which is (or is about to be) its process group and session too.
        pidfd: Becomes readable when it ends.
    """

    number: int
    pid: int
    pidfd: int
    lease: float = 0.0
    lease_ends: float = math.inf
    oom_before: int = 0
    killed: bool = False
    fenced: bool = False


class Guardian:
    """Forks children on the worker's word, and watches them.

    Args:
        control: Socket to the worker; each packet is a JSON object. Commands come in, reports go out.
        fork: Makes a child with the descriptors that came with the command; closes in it those that are named next;
            returns its process id.
        listener: On it come calls of children about other processes, if they are confined.
    """

    def __init__(
        self,
        control: socket.socket,
        fork: Callable[[list[int], Iterable[int]], int],
        listener: int | None = None,
    ) -> None:
        self._control = control
        self._fork = fork
        self._arbiter = Arbiter(listener) if listener is not None else None
        self._children: dict[int, Forked] = {}
        self._poll = select.poll()
        self._poll.register(control, select.POLLIN)
        if listener is not None:
            self._poll.register(listener, select.POLLIN)
        self._alone = False
        self._resident = _resident_bytes()

    def watch(self) -> None:
        """Serve until the worker is gone and every child has ended."""
        while self._children or not self._alone:
            ends = min((child.lease_ends for child in self._children.values()), default=math.inf)
            left = None if ends == math.inf else max(0.0, ends - time.monotonic()) * 1000
            ready = dict(self._poll.poll(left))
            if self._arbiter is not None and ready.get(self._arbiter.listener, 0) & select.POLLIN:
                self._arbiter.answer({child.pid for child in self._children.values()})
            for child in [child for child in self._children.values() if child.pidfd in ready]:
                self._bury(child)
            # First the lease: after both have stood still, the worker's word may come before we look at the time.
            for child in self._children.values():
                if time.monotonic() >= child.lease_ends:
                    child.fenced = True
                    self._kill(child)
            if self._control.fileno() in ready and not self._obey():
                self._poll.unregister(self._control)
                self._alone = True
                for child in self._children.values():
                    self._kill(child)

    @property
    def _private(self) -> list[int]:
        """Descriptors that no child may keep: with them it would answer its own calls."""
        pidfds = [child.pidfd for child in self._children.values()]
        return [*pidfds, self._arbiter.listener] if self._arbiter is not None else pidfds

    def _obey(self) -> bool:
        """Take a command; ``False`` when the worker is gone."""
        try:
            packet, descriptors, _, _ = socket.recv_fds(self._control, _MAX_PACKET, _DESCRIPTORS)
        except OSError:
            return False
        if not packet:
            return False
        command = json.loads(packet)
        if command["do"] == "fork":
            self._give_birth(command["child"], descriptors)
        elif (child := self._children.get(command["child"])) is not None:
            self._command(child, command)
        return True

    def _give_birth(self, number: int, descriptors: list[int]) -> None:
        try:
            pid = self._fork(descriptors, self._private)
            pidfd = os.pidfd_open(pid)
        except OSError as error:
            self._report(refused=number, error=f"{error.strerror}")
            return
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        self._children[number] = Forked(number, pid, pidfd)
        self._poll.register(pidfd, select.POLLIN)
        self._report(forked=number, pid=pid)

    def _command(self, child: Forked, command: dict[str, Any]) -> None:
        word = command["do"]
        if word == "run":
            child.oom_before = oom_kills()
            child.lease = float(command["lease"])
        if word in ("run", "alive") and not child.killed:
            child.lease_ends = time.monotonic() + child.lease
        elif word == "idle":
            child.lease_ends = math.inf
            self._end_orphans()
        elif word == "term":
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(child.pid, signal.SIGTERM)
        elif word == "kill":
            self._kill(child)

    def _kill(self, child: Forked) -> None:
        child.killed = True
        child.lease_ends = math.inf
        kill_soon(child.pid)

    def _end_orphans(self) -> int:
        """End what is neither a child that we forked nor below one; return how many that were."""
        spared = {child.pid for child in self._children.values()}
        return end_all(spared) if own_children() - spared else 0

    def _bury(self, child: Forked) -> None:
        """End what a child that has ended left behind, and report."""
        self._poll.unregister(child.pidfd)
        os.close(child.pidfd)
        del self._children[child.number]
        _, status, usage = os.wait4(child.pid, 0)
        left_behind = self._end_orphans()
        self._report(
            ended=child.number,
            code=os.waitstatus_to_exitcode(status),
            fenced=child.fenced,
            killed=child.killed,
            out_of_memory=oom_kills() > child.oom_before,
            left_behind=left_behind,
            max_rss_bytes=usage.ru_maxrss * 1024,
            grown=_resident_bytes() > self._resident + _GROWN_BYTES,
        )

    def _report(self, **facts: Any) -> None:
        with contextlib.suppress(OSError):  # the worker is gone
            self._control.send(json.dumps(facts).encode())


def oom_kills() -> int:
    """Count the processes that the kernel killed for want of memory, here or in our control group."""
    return sum(_read_counter(file) for file in ("/proc/vmstat", *_cgroup_files()))


def _cgroup_files() -> list[str]:
    for line in _read("/proc/self/cgroup").decode().splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers and _UNIFIED:
            return [f"{_CGROUPS}{path}/memory.events"]
        if "memory" in controllers.split(","):
            return [f"{_CGROUPS}/memory{path}/memory.oom_control"]
    return []


def _read_counter(file: str) -> int:
    _, found, rest = _read(file).partition(b"oom_kill ")
    return int(rest.split(None, 1)[0]) if found else 0


def _resident_bytes() -> int:
    return int(_read("/proc/self/statm").split()[1]) * _PAGE


def _read(file: str) -> bytes:
    """Read a small file of the kernel's, without what Python's own files do beside: it is on the way of each run."""
    try:
        descriptor = os.open(file, os.O_RDONLY)
    except OSError:
        return b""
    try:
        return os.read(descriptor, _MAX_PACKET)
    finally:
        os.close(descriptor)
