"""Landlock: a process shuts itself, and all that it starts, off from what is outside.

Inside of a domain no signal reaches a process outside, and nothing outside can be traced or looked into; nothing needs
to be configured for it, and root is not excepted. It came in parts (ABI): tracing with Linux 5.13, signals with 6.12.
"""

import contextlib
import ctypes
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from pyoco_server.worker.child.confinement.linux import syscall

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION = 1
_RULE_PATH_BENEATH = 1
_EXECUTE, _WRITE_FILE, _REFER, _TRUNCATE = 1 << 0, 1 << 1, 1 << 13, 1 << 14
_OF_FILES = _EXECUTE | _WRITE_FILE | _TRUNCATE
_SCOPES = 1 << 0 | 1 << 1
"""Abstract sockets, which ask nobody who connects, and signals."""
SIGNALS_ABI = 6
_REFER_ABI, _TRUNCATE_ABI = 2, 3
_KERNEL_FILES = {
    "proc",
    "sysfs",
    "cgroup",
    "cgroup2",
    "debugfs",
    "tracefs",
    "securityfs",
    "configfs",
    "bpf",
    "efivarfs",
}


class _Attributes(ctypes.Structure):
    _fields_ = [("files", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64)]


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = [("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32)]


def landlock_abi() -> int:
    """Return what this kernel has of Landlock; 0 for nothing."""
    try:
        return syscall(_CREATE_RULESET, None, 0, _VERSION)
    except OSError:
        return 0


def make_ruleset(abi: int, *, root: bool) -> int | None:
    """Return a descriptor for ``restrict_self``; ``None`` where this kernel has nothing of use.

    Args:
        abi: What the kernel has.
        root: Whether it is for processes of root: they own the files in /proc and /sys by which every process can be
            frozen, or the kernel told to run a program, so those become read-only.
    """
    scoped = _SCOPES if abi >= SIGNALS_ABI else 0
    if root and abi >= _REFER_ABI:
        handled = _WRITE_FILE | _REFER | (_TRUNCATE if abi >= _TRUNCATE_ABI else 0)
        ruleset = _create(abi, handled, scoped)
        for place in _outside_of_kernel_files():
            _allow(ruleset, place, handled)
        return ruleset
    if scoped:
        return _create(abi, 0, scoped)
    if abi < _REFER_ABI:
        return None  # it would keep files from being moved
    # There is no ruleset about nothing: this one allows what it is about.
    ruleset = _create(abi, _EXECUTE | _REFER, 0)
    _allow(ruleset, "/", _EXECUTE | _REFER)
    return ruleset


def restrict_self(ruleset: int) -> None:
    """Enter a domain of one's own; there is no way out. ``PR_SET_NO_NEW_PRIVS`` must be set.

    Raises:
        OSError: it cannot be entered.
    """
    syscall(_RESTRICT_SELF, ruleset, 0)


def _create(abi: int, files: int, scoped: int) -> int:
    attributes = _Attributes(files, 0, scoped)
    size = ctypes.sizeof(attributes) if abi >= SIGNALS_ABI else 8
    ruleset = syscall(_CREATE_RULESET, ctypes.byref(attributes), ctypes.c_size_t(size), 0)
    os.set_inheritable(ruleset, False)
    return ruleset


def _allow(ruleset: int, place: str, allowed: int) -> None:
    try:
        descriptor = os.open(place, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # it is not there any more, and if it comes back: not allowed
    try:
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            allowed &= _OF_FILES
        rule = _PathBeneath(allowed, descriptor)
        syscall(_ADD_RULE, ruleset, _RULE_PATH_BENEATH, ctypes.byref(rule), 0)
    finally:
        os.close(descriptor)


def _outside_of_kernel_files() -> list[str]:
    """Return places that hold everything but the kernel's own file systems: rules can only allow."""
    excluded = set()
    for line in Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines():
        words = line.split()
        if words[words.index("-") + 1] in _KERNEL_FILES:
            excluded.add(words[4].encode().decode("unicode_escape"))
    return list(_around("/", excluded))


def _around(folder: str, excluded: set[str]) -> Iterator[str]:
    begin = folder.rstrip("/") + "/"
    if not any(place.startswith(begin) for place in excluded):
        yield folder
        return
    with contextlib.suppress(OSError):
        for entry in os.scandir(folder):
            if entry.path not in excluded and not entry.is_symlink():
                if entry.is_dir(follow_symlinks=False):
                    yield from _around(entry.path, excluded)
                else:
                    yield entry.path
