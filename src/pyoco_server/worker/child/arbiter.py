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

from pyoco_server.worker.child.seccomp import CALLS

_REQUEST, _ANSWER = struct.Struct("<QIIiIQ6Q"), struct.Struct("<QqiI")
_RECEIVE = 3 << 30 | _REQUEST.size << 16 | 0x21 << 8
_SEND = 3 << 30 | _ANSWER.size << 16 | 0x21 << 8 | 1
_CONTINUE = 1
_ONE, _GROUP = 0, 1
_DEEPEST = 10_000
"""So many generations are looked through."""


class Arbiter:
    """Answers the calls of one run's processes.

    Args:
        listener: The descriptor on which they come.
        pid: The run's first process.
    """

    def __init__(self, listener: int, pid: int) -> None:
        self.listener = listener
        self._pid = pid

    def answer(self, others: Collection[int]) -> None:
        """Answer the call that waits.

        Args:
            others: Children of this process that belong to other runs.
        """
        request = bytearray(_REQUEST.size)
        try:
            fcntl.ioctl(self.listener, _RECEIVE, request)
        except OSError:
            return  # the caller is gone
        number, _, _, call, arch, _, *arguments = _REQUEST.unpack(request)
        passes = self._passes(call, arch, arguments, others)
        answer = _ANSWER.pack(number, 0, 0 if passes else -errno.EPERM, _CONTINUE if passes else 0)
        with contextlib.suppress(OSError):
            fcntl.ioctl(self.listener, _SEND, answer)

    def close(self) -> None:
        """Let go of it; nobody is left to call."""
        os.close(self.listener)

    def _passes(self, call: int, arch: int, arguments: list[int], others: Collection[int]) -> bool:
        calls = CALLS.get(arch)
        if calls is None:
            return False
        if call == calls.prlimit and not arguments[2]:
            return True  # it only asks
        if call not in (calls.setpriority, calls.ioprio):
            return self._is_of_run(arguments[0] & 0xFFFFFFFF, others, gone=True)
        kind = (arguments[0] & 0xFFFFFFFF) - (1 if call == calls.ioprio else 0)
        who = arguments[1] & 0xFFFFFFFF
        if kind == _ONE:
            return self._is_of_run(who, others, gone=True)
        return kind == _GROUP and (not who or self._is_of_run(who, others, gone=False))

    def _is_of_run(self, thread: int, others: Collection[int], *, gone: bool) -> bool:
        """Whether a process, or a thread of it, belongs to the run; ``gone``: the answer for one that is not there."""
        here = os.getpid()
        pid = _field(thread, b"Tgid:")
        if pid is None:
            return gone
        for _ in range(_DEEPEST):
            if pid == self._pid:
                return True
            parent = _field(pid, b"PPid:")
            if not parent:
                return False
            if parent == here:
                return pid not in others  # an orphan: this process is the parent of what the run left
            pid = parent
        return False


def _field(pid: int, name: bytes) -> int | None:
    try:
        with open(f"/proc/{pid}/status", "rb") as file:  # noqa: PTH123 - on the way of a system call
            for line in file:
                if line.startswith(name):
                    return int(line.split()[1])
    except OSError:
        return None
    return None
