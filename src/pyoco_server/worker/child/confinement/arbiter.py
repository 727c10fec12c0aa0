"""Says which calls of a run about other processes pass: those about processes of the run itself.

The filter of a run's process (``seccomp``) hands them over. Only numbers are looked at, which the caller cannot change
meanwhile; what they name is looked up in /proc.
"""

import contextlib
import errno
import fcntl
import os
import struct
from collections.abc import Collection

from pyoco_server.worker.child.confinement.seccomp import CALLS

_REQUEST, _ANSWER = struct.Struct("<QIIiIQ6Q"), struct.Struct("<QqiI")
_RECEIVE = 3 << 30 | _REQUEST.size << 16 | 0x21 << 8
_SEND = 3 << 30 | _ANSWER.size << 16 | 0x21 << 8 | 1
_CONTINUE = 1
_ONE, _GROUP = 0, 1
_INT = 0xFFFFFFFF
_ORPHAN = -1
"""Left by the one run that there is: its parent has ended, and the guardian took its place."""
_DEEPEST = 10_000
"""So many generations are looked through."""


class Arbiter:
    """Answers the calls of runs' processes.

    Args:
        listener: The descriptor on which they come.
    """

    def __init__(self, listener: int) -> None:
        self.listener = listener

    def answer(self, runs: Collection[int]) -> None:
        """Answer the call that waits.

        Args:
            runs: The first processes of runs; all of them are children of this process.
        """
        request = bytearray(_REQUEST.size)
        try:
            fcntl.ioctl(self.listener, _RECEIVE, request)
        except OSError:
            return  # the caller is gone
        number, caller, _, call, arch, _, *arguments = _REQUEST.unpack(request)
        passes = self._passes(call, arch, arguments, caller, runs)
        answer = _ANSWER.pack(number, 0, 0 if passes else -errno.EPERM, _CONTINUE if passes else 0)
        with contextlib.suppress(OSError):
            fcntl.ioctl(self.listener, _SEND, answer)

    @staticmethod
    def _passes(call: int, arch: int, arguments: list[int], caller: int, runs: Collection[int]) -> bool:
        calls = CALLS.get(arch)
        if calls is None:
            return False
        if call == calls.prlimit and not arguments[2]:
            return True  # it only asks
        if call not in (calls.setpriority, calls.ioprio):
            return _are_of_one_run(arguments[0] & _INT, caller, runs, gone=True)
        kind = (arguments[0] & _INT) - (1 if call == calls.ioprio else 0)
        who = arguments[1] & _INT
        if kind == _ONE:
            return _are_of_one_run(who, caller, runs, gone=True)
        return kind == _GROUP and (not who or _are_of_one_run(who, caller, runs, gone=False))


def _are_of_one_run(target: int, caller: int, runs: Collection[int], *, gone: bool) -> bool:
    """Whether two threads belong to one run; ``gone``: the answer where there is no such target."""
    pid = _field(target, b"Tgid:")
    if pid is None:
        return gone
    run = _run_of(pid, runs)
    if run is None:
        return False
    other = _run_of(_field(caller, b"Tgid:") or 0, runs)
    return run == other or _ORPHAN in (run, other)


def _run_of(pid: int, runs: Collection[int]) -> int | None:
    """Return the first process of the run to which a process belongs; ``None`` if it belongs to none."""
    here = os.getpid()
    for _ in range(_DEEPEST):
        if pid in runs:
            return pid
        parent = _field(pid, b"PPid:")
        if not parent:
            return None
        if parent == here:
            return _ORPHAN
        pid = parent
    return None


def _field(pid: int, name: bytes) -> int | None:
    try:
        with open(f"/proc/{pid}/status", "rb") as file:  # noqa: PTH123 - on the way of a system call
            for line in file:
                if line.startswith(name):
                    return int(line.split()[1])
    except OSError:
        return None
    return None
