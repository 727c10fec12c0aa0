"""No part of a system outlives the process that started it."""

import ctypes
import os
import resource
import signal
import sys
from collections.abc import Callable

from pyoco_server.process import descriptors

_PR_SET_PDEATHSIG = 1


def die_with_parent() -> Callable[[], None] | None:
    """Give a ``preexec_fn`` that has Linux stop a child when this process dies, even by SIGKILL.

    The child may have as many descriptors open as we might when we were started: it raises its limit itself.

    Start the child from a thread that lives as long as the process: Linux watches the thread.
    """
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)  # loaded before the fork: afterwards it might wait for a lock nobody holds
    parent = os.getpid()
    given = descriptors.given()

    def ask() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, given)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it died before we asked
            os._exit(1)

    return ask
