"""Calls to Linux that Python has no functions for; made ready before a fork, so that a child need not load anything."""

import ctypes
import os
from typing import Any

_LIBC = ctypes.CDLL(None, use_errno=True)
_prctl, _syscall = _LIBC.prctl, _LIBC.syscall
_syscall.restype = ctypes.c_long
_PR_SET_DUMPABLE = 4


def prctl(option: int, value: int = 0, more: int = 0) -> int:
    """Call ``prctl``.

    Raises:
        OSError: Linux refuses it.
    """
    result: int = _prctl(option, value, more, 0, 0)
    if result < 0:
        raise _last_error()
    return result


def syscall(number: int, *arguments: Any) -> int:
    """Make a system call.

    Raises:
        OSError: Linux refuses it, or does not know it.
    """
    result: int = _syscall(number, *arguments)
    if result < 0:
        raise _last_error()
    return result


def set_dumpable(dumpable: bool) -> None:
    """Let other processes of this user look into this one, or not: ``ptrace``, its memory and environment in /proc."""
    prctl(_PR_SET_DUMPABLE, int(dumpable))


def _last_error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))
