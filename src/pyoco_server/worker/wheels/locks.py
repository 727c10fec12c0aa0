"""Locks between processes of one machine: files under ``flock``, which the kernel lets go of when their holder dies."""

import asyncio
import contextlib
import fcntl
import os
import random
import time
import weakref
from collections.abc import Callable
from pathlib import Path

from pyoco_server.worker.wheels.trees import make_folder

_PAUSE = 0.02


class FileLock:
    """A lock that is held from its making until ``release``, or until nobody refers to it any more."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._let_go = weakref.finalize(self, os.close, descriptor)

    def release(self) -> None:
        """Let go; a second time does nothing."""
        self._let_go()

    def remove(self) -> None:
        """Remove the lock's file while it is held, and let go. Whoever waits for it makes a new one."""
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()
        self.release()

    def __enter__(self) -> "FileLock":
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def try_lock(path: Path, *, shared: bool = False) -> FileLock | None:
    """Take a lock if nobody holds it (exclusively, where ``shared``); ``None`` if somebody does.

    Raises:
        OSError: the file cannot be made.
    """
    while True:
        # Never handed to a process that we start: what the kernel releases on our death must be ours alone.
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except FileNotFoundError:  # somebody tidied up
            make_folder(path.parent)
            continue
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except OSError:
            os.close(descriptor)
            raise
        if _is_still(path, descriptor):
            return FileLock(path, descriptor)
        os.close(descriptor)  # its holder removed the file before we had it


async def wait_lock(
    path: Path, timeout: float, *, shared: bool = False, stopped: Callable[[], bool] = lambda: False
) -> FileLock | None:
    """Wait for a lock; ``None`` if it is not free within ``timeout`` seconds, or when ``stopped`` says so."""
    deadline = time.monotonic() + timeout
    while (lock := try_lock(path, shared=shared)) is None:
        if time.monotonic() >= deadline or stopped():
            return None
        await asyncio.sleep(_PAUSE * (0.5 + random.random()))  # noqa: S311 - so that fifty do not look in step
    return lock


def _is_still(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
