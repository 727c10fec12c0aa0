"""What keeps a run's process from the processes around it: gateway, worker, guardian, NATS, and other runs.

A task runs as the user of its worker, or as root, and Linux lets a process do to others of its user whatever it likes.
So each run's process shuts itself off before any code of a user runs in it: it and all that it starts

* can send no signal to what is outside, nor trace it or look into its memory and environment (Landlock);
* can change neither limits nor priorities of what is outside (a system call filter);
* has of root's powers only those over files, and gets none by starting programs (no new privileges).

It reads and writes the files that its user may. Everything is made ready in the template; a fork has few calls to make.
"""

import ctypes
import os
import struct
from dataclasses import dataclass
from typing import Any

from pyoco_server.worker.child.confinement.landlock import SIGNALS_ABI, landlock_abi, make_ruleset, restrict_self
from pyoco_server.worker.child.confinement.linux import prctl, set_dumpable
from pyoco_server.worker.child.confinement.seccomp import filter_calls, filter_is_known

_PR_SET_NO_NEW_PRIVS = 38
_CAPABILITIES_3 = 0x20080522
# CHOWN, DAC_OVERRIDE, FOWNER, FSETID, NET_BIND_SERVICE: what root does to files, and low ports.
_KEPT = 1 << 0 | 1 << 1 | 1 << 3 | 1 << 4 | 1 << 10
_HEADER = ctypes.create_string_buffer(struct.pack("<Ii", _CAPABILITIES_3, 0), 8)
_capget: Any = ctypes.CDLL(None, use_errno=True).capget
_capset: Any = ctypes.CDLL(None, use_errno=True).capset


@dataclass(frozen=True)
class Support:
    """What this kernel has for it.

    Args:
        whole: Whether nothing is missing.
        missing: What is, in one sentence; empty if nothing is.
    """

    whole: bool
    missing: str = ""


def support() -> Support:
    """Find out what this kernel has."""
    abi, release = landlock_abi(), os.uname().release
    if not abi:
        text = f"Linux {release} has Landlock switched off, or none: tasks reach other processes of their user"
        return Support(False, text)
    if abi < SIGNALS_ABI:
        return Support(
            False,
            f"Linux {release} cannot keep signals in (Landlock ABI {abi}; {SIGNALS_ABI} came with Linux 6.12): "
            "tasks can stop other processes of their user",
        )
    if not filter_is_known():
        return Support(
            False, f"there is no system call filter for {os.uname().machine}: tasks can limit processes of their user"
        )
    return Support(True)


class Confinement:
    """Shuts processes off; one for all runs of a template, each in a domain of its own.

    Args:
        root: Whether they are root's.
    """

    def __init__(self, *, root: bool) -> None:
        abi = landlock_abi()
        self._ruleset = make_ruleset(abi, root=root)
        self._traceable = abi > 0
        self._capabilities = _capabilities(_KEPT if root else 0)

    def filter_calls(self, *, asking: bool) -> int | None:
        """Filter the calls of this process, and of those that it forks.

        Args:
            asking: Whether this process will decide on calls about others, from a descriptor that is the answer.

        Raises:
            OSError: they cannot be filtered.
        """
        prctl(_PR_SET_NO_NEW_PRIVS, 1)
        return filter_calls(asking=asking) if filter_is_known() else None

    def enter(self) -> None:
        """Shut this process off, which has one thread, with all that it will start.

        Raises:
            OSError: it cannot be.
        """
        # Debuggers among its own processes may see it; others are kept out by Landlock, or else by this.
        set_dumpable(self._traceable)
        if self._capabilities is not None:
            set_capabilities(self._capabilities)
        prctl(_PR_SET_NO_NEW_PRIVS, 1)
        if self._ruleset is not None:
            restrict_self(self._ruleset)
            os.close(self._ruleset)


def _capabilities(kept: int) -> Any | None:
    """Return what is to be left of this process's powers, for ``set_capabilities``; ``None`` if it has no others."""
    found = (ctypes.c_uint32 * 6)()
    if _capget(_HEADER, found) != 0:
        raise OSError(ctypes.get_errno(), "capget")
    effective, permitted, inheritable = found[0], found[1], found[2]
    left = (ctypes.c_uint32 * 6)(effective & kept, permitted & kept)
    return None if list(found) == list(left) and not inheritable else left


def set_capabilities(left: Any) -> None:
    """Return up all powers but some, for good.

    Raises:
        OSError: Linux refuses it.
    """
    if _capset(_HEADER, left) != 0:
        raise OSError(ctypes.get_errno(), "capset")
