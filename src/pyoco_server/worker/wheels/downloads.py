"""The wheels that this machine has fetched: by digest, checked against it before every use."""

import asyncio
import contextlib
import hashlib
import os
import shutil
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import BinaryIO

import structlog

from pyoco_server.errors import PyocoError, StoreUnavailable
from pyoco_server.model.wheels.wheel import WheelEntry
from pyoco_server.worker.wheels.installer import BuildFailed, is_machines
from pyoco_server.worker.wheels.locks import try_lock, wait_lock
from pyoco_server.worker.wheels.plugins import WheelFile, WheelsBroken
from pyoco_server.worker.wheels.trees import make_folder, remove_tree

log = structlog.get_logger(__name__)

_PIECE = 1 << 20
_WAIT = 600.0
"""Seconds that another worker of this machine may take to fetch a wheel."""
_YOUNG = 3600.0
"""Seconds for which a download that no environment has yet is left alone: it may be about to get one."""


class Downloads:
    """The files of one sync directory.

    Args:
        directory: The sync directory.
        read: Writes a stored wheel's bytes to a file.
        stop: Ends waiting.
    """

    def __init__(
        self, directory: Path, read: Callable[[WheelEntry, BinaryIO], Awaitable[None]], stop: asyncio.Event
    ) -> None:
        self._files, self._locks = (directory.absolute() / name for name in ("files", "locks"))
        self._read = read
        self._stop = stop

    async def fetch_all(
        self, entries: Sequence[WheelEntry], max_bytes: int, ask: Callable[[], Awaitable[object]]
    ) -> list[WheelFile]:
        """Return the files of wheels.

        Args:
            entries: The wheels.
            max_bytes: Largest wheel that is taken.
            ask: Raises ``StoreUnavailable`` if the registry does not answer.

        Raises:
            WheelsBroken: some cannot be fetched, though the registry and this machine are in order.
            StoreUnavailable: NATS is away.
            BuildFailed: another worker has been fetching one for too long.
            OSError: the disk is full, or the directory cannot be written.
        """
        files: list[WheelFile] = []
        lost: dict[str, str] = {}
        for entry in entries:
            try:
                if entry.size_bytes > max_bytes:
                    text = f"it has {entry.size_bytes} bytes; this worker takes {max_bytes} (PYOCO_WHEEL_MAX_BYTES)"
                    raise WheelsBroken({entry.name: text})
                files.append(await self.fetch(entry))
            except WheelsBroken as error:
                lost |= error.reasons
            except StoreUnavailable as error:
                await ask()  # it is the wheel's own trouble only if NATS answers
                lost[entry.name] = error.message
            except OSError as error:
                if is_machines(error):
                    raise
                lost[entry.name] = f"it cannot be kept on the disk: {error.strerror or error}"
            except BuildFailed:
                raise
            except Exception as error:  # whatever another program stored: it must not hold up the others
                log.exception("a wheel could not be fetched, unexpectedly", wheel=entry.name)
                lost[entry.name] = f"{type(error).__name__}: {error}"
        if lost:
            raise WheelsBroken(lost)
        return files

    async def fetch(self, entry: WheelEntry) -> WheelFile:
        """Give a wheel's file, whose bytes have its digest now.

        Raises:
            WheelsBroken: the registry's bytes are not those that were uploaded.
            StoreUnavailable: NATS is away.
            BuildFailed: another worker has been fetching it for too long.
            OSError: the disk is full, or the directory cannot be written.
        """
        folder = self._files / entry.sha256_hex
        path = folder / entry.name
        for made in (self._files, folder, self._locks):
            make_folder(made)
        lock = await wait_lock(self._locks / f"{entry.sha256_hex}.file", _WAIT, stopped=self._stop.is_set)
        if lock is None:
            raise BuildFailed(f"another worker has been fetching {entry.name} for {_WAIT:g} s")
        with lock:
            if not await asyncio.to_thread(has_digest, path, entry.sha256_hex):
                await self._download(entry, path)
        os.utime(folder)
        return WheelFile(
            entry.name, entry.sha256_hex, entry.package or "", entry.version or "", path, entry.modified, entry.claims
        )

    async def sweep(self, kept: set[str]) -> None:
        """Remove downloads that no environment has, but not the youngest."""
        await asyncio.to_thread(self._sweep, kept)

    async def _download(self, entry: WheelEntry, path: Path) -> None:
        for left in path.parent.iterdir():  # of a fetch that was cut off, or of somebody who changed it
            if left.is_dir() and not left.is_symlink():
                remove_tree(left)
            else:
                left.unlink()
        part = path.with_name(f".{uuid.uuid4().hex[:8]}.part")
        try:
            with part.open("wb") as file:
                await self._read(entry, file)
            if not await asyncio.to_thread(has_digest, part, entry.sha256_hex):
                raise WheelsBroken({entry.name: f"its bytes in the registry do not have the digest {entry.digest}"})
            part.rename(path)
        except StoreUnavailable:
            raise
        except PyocoError as error:
            raise WheelsBroken({entry.name: error.message}) from error
        finally:
            part.unlink(missing_ok=True)

    def _sweep(self, kept: set[str]) -> None:
        if not self._files.is_dir():
            return
        for folder in self._files.iterdir():
            if folder.name in kept or time.time() - folder.stat().st_mtime < _YOUNG:
                continue
            lock = try_lock(self._locks / f"{folder.name}.file")
            if lock is not None:
                shutil.rmtree(folder, ignore_errors=True)
                lock.remove()


def has_digest(path: Path, sha256_hex: str) -> bool:
    """Tell whether a file is there and has a digest."""
    digest = hashlib.sha256()
    with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
        return digest.hexdigest() == sha256_hex
    return False
