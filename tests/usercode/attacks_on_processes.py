"""What a task may try to do to the processes around it; each returns what it got, or raises.

They are given the ids of processes that are not the run's. Imported inside of runs.
"""

import ctypes
import fcntl
import os
import resource
import signal
import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)
_ATTACH, _SEIZE, _INTERRUPT, _DETACH = 16, 0x4206, 0x4207, 17
_MACHINE = os.uname().machine
_READV, _TGKILL, _TKILL, _SIGQUEUE = {
    "x86_64": (310, 234, 200, 129),
    "aarch64": (270, 131, 130, 138),
}.get(_MACHINE, (0, 0, 0, 0))
_GETFD = 438


def _checked(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def _trace(request: int, pid: int) -> str:
    _checked(_libc.ptrace(request, pid, None, None))
    if request == _SEIZE:
        _libc.ptrace(_INTERRUPT, pid, None, None)
    os.waitpid(pid, 0)
    _libc.ptrace(_DETACH, pid, None, None)
    return "traced"


def _read_memory(pid: int) -> str:
    class Span(ctypes.Structure):
        _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]

    # Wherever it is: what does not exist there is told apart from what may not be read.
    buffer = ctypes.create_string_buffer(8)
    here, there = Span(ctypes.addressof(buffer), 8), Span(ctypes.addressof(buffer), 8)
    one, nothing = ctypes.c_ulong(1), ctypes.c_ulong(0)
    result = _libc.syscall(_READV, pid, ctypes.byref(here), one, ctypes.byref(there), one, nothing)
    if result < 0 and ctypes.get_errno() != 14:  # EFAULT: it was let in
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return "read"


def _send_by_pidfd(pid: int) -> str:
    signal.pidfd_send_signal(os.pidfd_open(pid), signal.SIGCONT)
    return "sent"


def _send_by_proc(pid: int) -> str:
    signal.pidfd_send_signal(os.open(f"/proc/{pid}", os.O_DIRECTORY), signal.SIGCONT)
    return "sent"


def _own_signal(pid: int) -> str:
    """Have the kernel send a signal when there is something to read."""
    # The kernel says nothing where it sends nothing: the victim's counter of pending and caught signals cannot be
    # seen, so the test asks whether the owner could be set and a signal of ours would be let through.
    ours, theirs = socket.socketpair()
    signal.signal(signal.SIGIO, signal.SIG_IGN)
    fcntl.fcntl(ours, fcntl.F_SETOWN, pid)
    fcntl.fcntl(ours, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
    theirs.send(b"x")
    time.sleep(0.05)
    os.kill(pid, 0)
    return "owned"


def _limit(pid: int) -> str:
    soft, hard = resource.prlimit(pid, resource.RLIMIT_CORE)
    resource.prlimit(pid, resource.RLIMIT_CORE, (soft, hard))
    return "limited"


def _attribute(pid: int) -> str:
    attribute = struct.pack("<IIQiIQQQ", 48, 0, 0, 0, 0, 0, 0, 0)
    number = {"x86_64": 314, "aarch64": 274}[_MACHINE]
    _checked(_libc.syscall(number, pid, attribute, 0))
    return "scheduled"


def _io_priority(pid: int) -> str:
    number = {"x86_64": 251, "aarch64": 30}[_MACHINE]
    _checked(_libc.syscall(number, 1, pid, 2 << 13 | 7))
    return "slowed"


def _niced(which: int, who: int) -> str:
    os.setpriority(which, who, os.getpriority(os.PRIO_PROCESS, 0))
    return "slowed"


def _write(path: str, text: str) -> str:
    with Path(path).open("w") as file:
        file.write(text)
    return "written"


ATTACKS: dict[str, Callable[[int], object]] = {
    "kill": lambda pid: os.kill(pid, signal.SIGCONT),
    "killpg": lambda pid: os.killpg(os.getpgid(pid), signal.SIGCONT),
    "tgkill": lambda pid: _checked(_libc.syscall(_TGKILL, pid, pid, signal.SIGCONT)),
    "tkill": lambda pid: _checked(_libc.syscall(_TKILL, pid, signal.SIGCONT)),
    "sigqueue": lambda pid: _checked(_libc.sigqueue(pid, signal.SIGCONT, None)),
    "pidfd": _send_by_pidfd,
    "proc as pidfd": _send_by_proc,
    "ptrace attach": lambda pid: _trace(_ATTACH, pid),
    "ptrace seize": lambda pid: _trace(_SEIZE, pid),
    "process_vm_readv": _read_memory,
    "pidfd_getfd": lambda pid: _checked(_libc.syscall(_GETFD, os.pidfd_open(pid), 1, 0)),
    "environ": lambda pid: Path(f"/proc/{pid}/environ").read_bytes() or "nothing in it",
    "mem": lambda pid: os.close(os.open(f"/proc/{pid}/mem", os.O_RDONLY)),
    "maps": lambda pid: Path(f"/proc/{pid}/maps").read_text(),
    "fd": lambda pid: Path(f"/proc/{pid}/fd/1").readlink(),
    "cwd": lambda pid: Path(f"/proc/{pid}/cwd").readlink(),
    "root": lambda pid: list(Path(f"/proc/{pid}/root").iterdir()),
    "prlimit": _limit,
    "sched_setattr": _attribute,
    "sched_setscheduler": lambda pid: os.sched_setscheduler(pid, os.SCHED_OTHER, os.sched_param(0)),
    "sched_setparam": lambda pid: os.sched_setparam(pid, os.sched_param(0)),
    "sched_setaffinity": lambda pid: os.sched_setaffinity(pid, os.sched_getaffinity(0)),
    "setpriority": lambda pid: _niced(os.PRIO_PROCESS, pid),
    "setpriority of the group": lambda pid: _niced(os.PRIO_PGRP, os.getpgid(pid)),
    "ioprio_set": _io_priority,
    "F_SETOWN": _own_signal,
}
"""Only the last one does harm where it succeeds."""
OF_THE_MACHINE: dict[str, Callable[[], object]] = {
    "setpriority of the user": lambda: _niced(os.PRIO_USER, os.getuid()),
    "setpriority of this user": lambda: _niced(os.PRIO_USER, 0),
    "ioprio_set of this user": lambda: _checked(_libc.syscall({"x86_64": 251, "aarch64": 30}[_MACHINE], 3, 0, 2 << 13)),
    "core_pattern": lambda: os.close(os.open("/proc/sys/kernel/core_pattern", os.O_WRONLY)),
    "sysrq": lambda: os.close(os.open("/proc/sysrq-trigger", os.O_WRONLY)),
    "oom of init": lambda: _write("/proc/1/oom_score_adj", "0"),
    "freezer": lambda: next(
        os.close(os.open(path, os.O_WRONLY)) for path in Path("/sys/fs/cgroup").rglob("cgroup.procs")
    ),
    "mounts": lambda: _checked(_libc.unshare(0x20000)),
    "setuid": lambda: os.setuid(os.getuid() + 1),
    "mknod": lambda: os.mknod("/tmp/pyoco-test-device", 0o020600, os.makedev(1, 1)),
    "chroot": lambda: os.chroot("/"),
    "module": lambda: _checked(_libc.syscall({"x86_64": 175, "aarch64": 105}[_MACHINE], None, 0, b"")),
    "hostname": lambda: _checked(_libc.sethostname(os.uname().nodename.encode(), len(os.uname().nodename))),
}


def succeed(victims: dict[str, int]) -> dict[str, list[str]]:
    """Return which attacks on processes succeed, by victim."""
    worked: dict[str, list[str]] = {}
    for who, pid in victims.items():
        for name, attack in ATTACKS.items():
            if _succeeds(lambda attack=attack, pid=pid: attack(pid)):  # type: ignore[misc]
                worked.setdefault(who, []).append(name)
    return worked


def succeed_on_the_machine() -> list[str]:
    """Return which attacks on everything succeed; call it only where none should."""
    return [name for name, attack in OF_THE_MACHINE.items() if _succeeds(attack)]


def _succeeds(attack: Callable[[], object]) -> bool:
    try:
        attack()
    except (OSError, StopIteration):
        return False
    return True
