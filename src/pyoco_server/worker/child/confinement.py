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
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pyoco_server.worker.child.landlock import SIGNALS_ABI, landlock_abi, make_ruleset, restrict_self
from pyoco_server.worker.child.linux import prctl, set_dumpable
from pyoco_server.worker.child.seccomp import CallFilter

_PR_SET_NO_NEW_PRIVS = 38
_CAPABILITIES_3 = 0x20080522
# CHOWN, DAC_OVERRIDE, FOWNER, FSETID, NET_BIND_SERVICE: what root does to files, and low ports.
_KEPT = 1 << 0 | 1 << 1 | 1 << 3 | 1 << 4 | 1 << 10
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
    if not CallFilter.is_there():
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
        self._filter = CallFilter() if CallFilter.is_there() else None
        self._traceable = abi > 0

    def enter(self, hand_over: Callable[[int], None] | None) -> None:
        """Shut this process off, which has one thread, with all that it will start.

        Args:
            hand_over: Gives the guardian the descriptor on which it is asked about calls; ``None`` without a guardian.

        Raises:
            OSError: it cannot be.
        """
        # Debuggers among its own processes may see it; others are kept out by Landlock, or else by this.
        set_dumpable(self._traceable)
        drop_capabilities()
        prctl(_PR_SET_NO_NEW_PRIVS, 1)
        if self._ruleset is not None:
            restrict_self(self._ruleset)
            os.close(self._ruleset)
        if self._filter is not None:
            listener = self._filter.enter(asking=hand_over is not None)
            if listener is not None and hand_over is not None:
                try:
                    hand_over(listener)
                finally:
                    os.close(listener)


def drop_capabilities() -> None:
    """Give up what a process may do beyond the files of its user, for good."""
    header = struct.pack("<Ii", _CAPABILITIES_3, 0)
    found = ctypes.create_string_buffer(24)
    if _capget(header, found) != 0:
        raise OSError(ctypes.get_errno(), "capget")
    low, permitted, _, high, more, _ = struct.unpack("<6I", found.raw)
    kept = (low & _KEPT, permitted & _KEPT, 0, 0, 0, 0)
    if (high or more or kept[:2] != (low, permitted)) and _capset(header, struct.pack("<6I", *kept)) != 0:
        raise OSError(ctypes.get_errno(), "capset")
