"""A system call filter for what Landlock leaves open: limits and priorities of other processes.

``prlimit`` on a process of the same user can end it (a limit of CPU time), and a priority can starve it. Both are also
used by programs on their own threads and subprocesses, whose numbers no filter knows. So calls about oneself pass, and
those that name a process are left to the guardian (``arbiter``), which knows what belongs to the run. It is under the
filter itself, for a filter costs less to inherit than to make; it makes no such calls.
"""

import ctypes
import errno
import platform
import struct
from typing import NamedTuple

from pyoco_server.worker.child.confinement.linux import syscall

_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_ALLOW, _ERRNO, _NOTIFY = 0x7FFF0000, 0x00050000, 0x7FC00000
_SET_MODE_FILTER = 1
_SPEC_ALLOW, _NEW_LISTENER = 1 << 2, 1 << 3
_AT_NUMBER, _AT_ARCH, _AT_ARGUMENTS = 0, 4, 16
_X32 = 0x40000000
_PRIO_PROCESS, _IOPRIO_WHO_PROCESS = 0, 1


class Calls(NamedTuple):
    """The calls of an architecture that are looked at.

    Args:
        arch: How the kernel calls it (``AUDIT_ARCH_…``).
        prlimit: The number of ``prlimit64``.
        scheduling: Of ``sched_setparam``, ``sched_setscheduler``, ``sched_setaffinity``, ``sched_setattr``.
        setpriority: Of ``setpriority``.
        ioprio: Of ``ioprio_set``.
    """

    arch: int
    prlimit: int
    scheduling: tuple[int, ...]
    setpriority: int
    ioprio: int


_X86_64 = Calls(0xC000003E, 302, (142, 144, 203, 314), 141, 251)
_I386 = Calls(0x40000003, 340, (154, 156, 241, 351), 97, 289)
_AARCH64 = Calls(0xC00000B7, 261, (118, 119, 122, 274), 140, 30)
_ARM = Calls(0x40000028, 369, (154, 156, 241, 380), 97, 314)
_MACHINES = {"x86_64": ((_X86_64, _I386), 317), "aarch64": ((_AARCH64, _ARM), 277)}
_OF_MACHINE, _SECCOMP = _MACHINES.get(platform.machine(), ((), 0))
CALLS = {calls.arch: calls for calls in _OF_MACHINE}


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_char_p)]


def filter_is_known() -> bool:
    """Whether the calls of this machine are known."""
    return bool(_OF_MACHINE)


def filter_calls(*, asking: bool) -> int | None:
    """Filter the calls of this process, which has one thread, and of all that it starts.

    ``PR_SET_NO_NEW_PRIVS`` must be set.

    Args:
        asking: Whether somebody will decide on calls about others: not this process.

    Returns:
        A descriptor from which those calls are read; ``None`` where another filter around this one, a container's
        perhaps, has that already, or nobody is to be asked.

    Raises:
        OSError: there are no filters.
    """
    if asking:
        try:
            return _install(_assemble(_NOTIFY), _NEW_LISTENER)
        except OSError as error:
            if error.errno not in (errno.EBUSY, errno.EINVAL):  # there is one; the kernel is older than that
                raise
    # Without somebody to ask: limits, which can end a process, are refused, priorities are not.
    _install(_assemble(None), 0)
    return None


def _install(code: bytes, flag: int) -> int:
    program = _Program(len(code) // 8, code)
    return syscall(_SECCOMP, _SET_MODE_FILTER, _SPEC_ALLOW | flag, ctypes.byref(program))


def _assemble(about_others: int | None) -> bytes:
    """Return the filter.

    Args:
        about_others: What happens to calls about another process; ``None``: refused, or let through.
    """
    code = bytearray()

    def add(operation: int, value: int, yes: int = 0, no: int = 0) -> None:
        code.extend(struct.pack("<HBBI", operation, yes, no, value & 0xFFFFFFFF))

    def add_call(number: int, decided: int, argument: int = 0, one_process: int | None = None) -> None:
        """Add a call, the argument that names a process, and what the first one says where it may name many."""
        add(_EQUAL, number, 0, 4 if one_process is None else 6)
        if one_process is not None:
            add(_LOAD, _AT_ARGUMENTS)
            add(_EQUAL, one_process, 0, 2)
        add(_LOAD, _AT_ARGUMENTS + 8 * argument)
        add(_EQUAL, 0, 1, 0)
        add(_RETURN, decided)
        add(_RETURN, _ALLOW)

    add(_LOAD, _AT_ARCH)
    for calls in _OF_MACHINE:
        ending, slowing = (about_others, about_others) if about_others is not None else (_ERRNO | errno.EPERM, _ALLOW)
        begin = len(code)
        add(_EQUAL, calls.arch, 0, 0)
        add(_LOAD, _AT_NUMBER)
        if calls is _X86_64:
            add(_AT_LEAST, _X32, 0, 1)  # a third set of numbers, which nobody uses
            add(_RETURN, _ERRNO | errno.ENOSYS)
        add_call(calls.prlimit, ending)
        for number in calls.scheduling:
            add_call(number, slowing)
        add_call(calls.setpriority, slowing, 1, _PRIO_PROCESS)
        add_call(calls.ioprio, slowing, 1, _IOPRIO_WHO_PROCESS)
        add(_RETURN, _ALLOW)
        code[begin + 3] = (len(code) - begin) // 8 - 1  # where another architecture goes on
    add(_RETURN, _ERRNO | errno.ENOSYS)  # of no architecture that this machine runs
    return bytes(code)
