"""Who is at the other end of a local socket: a command of our user, or a process of a run."""

import contextlib
import os
import select
import socket
import struct
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

_TEMPLATE = b"pyoco_server.worker.child.template"
"""Stands in the command line of each process that runs are forked from."""
_SO_PEERPIDFD = 77
_TRIES = 5
_DEEP = 1000


class Process(NamedTuple):
    """A process; no other one is ever taken for it.

    Args:
        pid: Its id, which may be another one's later.
        started: When it was started, in the kernel's ticks since its own start.
    """

    pid: int
    started: int


class PeerRefused(Exception):
    """A peer that gets nothing; the text says why."""


class _NotRead(PeerRefused):
    """What stands in ``/proc`` could not be read: perhaps a process has ended meanwhile."""


class Peer:
    """The process at the other end.

    Args:
        connection: A connected local socket.

    Raises:
        PeerRefused: it is gone, in another container, or another user's.
    """

    def __init__(self, connection: socket.socket) -> None:
        self.pid, uid, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        if uid not in (os.geteuid(), 0):
            raise PeerRefused("it belongs to another user")
        if self.pid <= 0:
            raise PeerRefused("it is in another container")
        try:
            self._pidfd = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD)
        except OSError:  # before Linux 6.5
            try:
                self._pidfd = os.pidfd_open(self.pid)
            except OSError:
                raise PeerRefused("it is gone") from None

    def close(self) -> None:
        """Let go of it."""
        os.close(self._pidfd)

    def examine(self, workers: Collection[Process]) -> Process:
        """Say which process it is, if none above it runs tasks.

        Args:
            workers: Processes of which every descendant is taken for a run's. The peer itself may be one.

        Raises:
            PeerRefused: it is a process of a run, or nobody can say.
        """
        for _ in range(_TRIES - 1):  # a shell that has started it may end at any moment
            with contextlib.suppress(_NotRead):
                return self._judge(workers)
        return self._judge(workers)

    def _judge(self, workers: Collection[Process]) -> Process:
        if _ended(self._pidfd):  # its number may be another's by now
            raise PeerRefused("it is gone")
        me, *above = _lineage(self.pid)
        if _ended(self._pidfd):
            raise PeerRefused("it is gone")
        if not set(workers).isdisjoint(above) or any(_forks_runs(process.pid) for process in above):
            raise PeerRefused("it is a process of a run")
        if _confined(me.pid) and not _confined(os.getpid()):
            # What a task leaves behind may outlive all that stood above it; this it cannot shake off.
            raise PeerRefused("it has fewer rights than its user (no_new_privs), as the processes of runs have")
        return me


def identify(pid: int) -> Process:
    """Say which process has an id now.

    Raises:
        PeerRefused: none has.
    """
    return Process(pid, _stat(pid)[1])


def _lineage(pid: int) -> list[Process]:
    """Return a process and all above it, as they are at one moment."""
    found = _climb(pid)
    if found != _climb(pid):  # one was given another parent meanwhile
        raise _NotRead("a process above it has just ended")
    return found


def _climb(pid: int) -> list[Process]:
    found: list[Process] = []
    while pid and len(found) < _DEEP:
        parent, started = _stat(pid)
        if found and started > found[-1].started:
            raise _NotRead("its parent has just ended")
        found.append(Process(pid, started))
        pid = parent
    if pid:
        raise PeerRefused("too many processes stand above it")
    return found


def _stat(pid: int) -> tuple[int, int]:
    """Read the parent and the start of a process."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        raise _NotRead(
            f"who started it cannot be read in /proc (process {pid}; is /proc mounted with hidepid?)"
        ) from None
    return int(fields[1]), int(fields[19])


def _ended(pidfd: int) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


def _forks_runs(pid: int) -> bool:
    """Whether it is a process that runs are forked from, of whichever worker."""
    try:
        return _TEMPLATE in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        raise _NotRead("a process above it has just ended") from None


def _confined(pid: int) -> bool:
    try:
        return b"\nNoNewPrivs:\t1\n" in Path(f"/proc/{pid}/status").read_bytes()
    except OSError:
        raise PeerRefused("it is gone") from None
