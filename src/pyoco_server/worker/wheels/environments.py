"""Wheel environments on this machine: one directory per set of wheels, built once, never changed afterwards.

Several workers may share a sync directory::

    envs/<digest>/          an environment; its manifest is the last file that was written before it got this name
    building/<digest>-…/    what is being built, or was being built when its builder died
    files/<sha256>/<name>   downloads (downloads.py)
    locks/                  <digest>.build: held while building; <digest>.use: shared by the workers that import from it

A digest names the wheels, this interpreter's binary interface and, where dependencies are fetched, what they were
limited by. So whoever finds a directory of that name finds what it would have built.
"""

import asyncio
import contextlib
import ctypes
import hashlib
import json
import os
import stat
import sys
import sysconfig
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog

from pyoco_server.worker.machine.apart import TOGETHER, Apart
from pyoco_server.worker.wheels.assembly import Assembly
from pyoco_server.worker.wheels.installer import CACHE, BuildFailed, own_constraints
from pyoco_server.worker.wheels.locks import FileLock, try_lock, wait_lock
from pyoco_server.worker.wheels.plugins import WheelFile
from pyoco_server.worker.wheels.trees import PRIVATE, SHARED, fingerprint, make_folder, remove_tree, seal

log = structlog.get_logger(__name__)

KEPT = 3
"""Environments that stay beside those in use, the last used first: a roll back needs no build."""
_INTERPRETER = str(sysconfig.get_config_var("SOABI") or sys.implementation.cache_tag)
_MANIFEST = "pyoco-environment.json"
_RULES = "sealed, and free of conflicts"
"""Environments that were built by other rules are built anew."""
_TRASH = "removed"
_PASS = 0o011
_LOOK_SHARE = 20
"""How many times as long as a look whether anything was changed it takes until the next one."""
_CLEANER_WAIT = 5.0


@dataclass(frozen=True)
class Environment:
    """A directory to import from. It is not removed while anybody holds this object."""

    digest: str
    directory: Path
    wheels: list[dict[str, str]] = field(repr=False, compare=False)
    plugins: list[dict[str, Any]] = field(repr=False, compare=False)
    lock: FileLock = field(repr=False, compare=False)
    fingerprint: str = field(repr=False, compare=False)
    _looked: list[float] = field(default_factory=lambda: [0.0], init=False, repr=False, compare=False)

    def flaw(self) -> str | None:
        """Return whether somebody has removed it from the disk or changed it; ``None`` if not.

        It is looked at as a whole, but a large one not each time: it blocks, as long as the disk needs.
        """
        began = time.monotonic()
        try:
            if not (self.directory / _MANIFEST).is_file():
                return "is gone"
            if began < self._looked[0]:
                return None
            found = fingerprint(self.directory, but=_MANIFEST)
        except OSError:  # where we may not look any more, for one
            return "is gone"
        if found != self.fingerprint:
            return "was changed"
        ended = time.monotonic()
        self._looked[0] = ended + _LOOK_SHARE * (ended - began)
        return None


class Environments:
    """The environments of one sync directory.

    Args:
        directory: The sync directory.
        timeout: Seconds that one installation may take, and one check.
        with_dependencies: Fetch what the wheels need from an index.
        stop: Ends what is under way.
        apart: What keeps code of wheels from other processes.
        max_bytes: Largest wheel that is taken; sets how much one may unpack to.
    """

    def __init__(
        self,
        directory: Path,
        *,
        timeout: float,
        with_dependencies: bool,
        stop: asyncio.Event,
        apart: Apart = TOGETHER,
        max_bytes: int = 512 * 1024 * 1024,
    ) -> None:
        self._root = directory.absolute()
        self._mode = SHARED if apart.user is not None else PRIVATE
        self._envs, self._building, self._locks = (
            directory.absolute() / name for name in ("envs", "building", "locks")
        )
        self._timeout = timeout
        self._with_dependencies = with_dependencies
        self._stop = stop
        self._assembly = Assembly(
            timeout=timeout, with_dependencies=with_dependencies, stop=stop, max_bytes=max_bytes, apart=apart
        )
        self._known: dict[str, tuple[int, str]] = {}
        """Inode and first fingerprint of each environment: what the manifest says now may have been changed, too."""

    def digest_of(self, set_digest: str) -> str:
        """Give the digest of the environment that a set of wheels makes here."""
        parts = [set_digest, _INTERPRETER, _RULES]
        if self._with_dependencies:
            parts += ["with dependencies", *own_constraints()]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    async def obtain(self, set_digest: str, wheels: Sequence[WheelFile]) -> Environment:
        """Give the environment of a set of wheels, built if it is not there.

        However many workers ask at the same moment, one of them builds.

        Raises:
            WheelsBroken: some of the wheels cannot be used.
            BuildFailed: no environment can be made now; perhaps later.
            OSError: the disk is full, or the directory cannot be written.
        """
        digest = self.digest_of(set_digest)
        self.prepare()
        use = await self._use(digest)
        found = await asyncio.to_thread(self._load, digest, use)
        if found is None:
            patience = 3 * self._timeout  # the one that builds may install, check and look for the culprit
            lock = await wait_lock(self._lock(digest, "build"), patience, stopped=self._stop.is_set)
            if lock is None:
                raise BuildFailed(f"another worker has been building environment {digest[:12]} for {patience:g} s")
            with lock:
                found = await asyncio.to_thread(self._load, digest, use)
                found = found or await self._build(digest, wheels, use)
        os.utime(use.path)
        return found

    def find(self, digest: str) -> Environment | None:
        """Give an environment that is there; ``None`` if it is not, or is being removed."""
        if not (self._envs / digest).is_dir():
            return None
        use = try_lock(self._lock(digest, "use"), shared=True)
        return self._load(digest, use) if use is not None else None

    async def sweep(self) -> set[str]:
        """Remove environments that nobody uses but the last few, and what dead builders left.

        Returns:
            The digests of the wheels in what is left.
        """
        return await asyncio.to_thread(self._sweep)

    def prepare(self) -> None:
        """Make the directories that are not there, or not any more.

        Raises:
            OSError: they cannot be made.
        """
        if not self._root.is_dir():
            make_folder(self._root, self._mode)
        elif self._mode == SHARED:  # otherwise its rights are the operator's choice
            self._root.chmod(stat.S_IMODE(self._root.stat().st_mode) | _PASS)
        make_folder(self._envs, self._mode)
        make_folder(self._building, self._mode)  # where plug-ins are tried
        make_folder(self._locks)

    async def _use(self, digest: str) -> FileLock:
        lock = await wait_lock(self._lock(digest, "use"), _CLEANER_WAIT, shared=True)
        if lock is None:
            raise BuildFailed(f"environment {digest[:12]} has been locked for {_CLEANER_WAIT:g} s")
        return lock

    def _lock(self, digest: str, what: str) -> Path:
        return self._locks / f"{digest}.{what}"

    def _load(self, digest: str, use: FileLock) -> Environment | None:
        directory = self._envs / digest
        try:
            manifest = json.loads((directory / _MANIFEST).read_text())
            if manifest["digest"] != digest or manifest["interpreter"] != _INTERPRETER:
                return None
            found = fingerprint(directory, but=_MANIFEST)
            inode = directory.stat().st_ino
            known = self._known.get(digest)
            if found != (known[1] if known is not None and known[0] == inode else manifest["fingerprint"]):
                log.warning("a wheel environment was changed, and is built anew", environment=digest)
                return None
            self._known[digest] = inode, found
            return Environment(digest, directory.absolute(), manifest["wheels"], manifest["plugins"], use, found)
        except (OSError, ValueError, LookupError, TypeError, RecursionError):
            return None

    async def _build(self, digest: str, wheels: Sequence[WheelFile], use: FileLock) -> Environment:
        """Build aside and rename into place; the caller holds the lock."""
        began = time.monotonic()
        place = self._building / f"{digest}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        try:
            await asyncio.to_thread(self._clear, digest, place)
            plugins = await self._assembly.make(wheels, place, place / "env")
            manifest = {
                "digest": digest,
                "interpreter": _INTERPRETER,
                "wheels": [
                    {
                        "package_name": wheel.package,
                        "package_version": wheel.version,
                        "wheel_name": wheel.name,
                        "sha256": wheel.sha256,
                    }
                    for wheel in wheels
                ],
                "plugins": plugins,
                "built_at": time.time(),
            }
            await asyncio.to_thread(self._put_in_place, digest, place / "env", manifest)
        finally:
            await asyncio.to_thread(remove_tree, place)
        found = await asyncio.to_thread(self._load, digest, use)
        if found is None:
            raise BuildFailed(f"environment {digest[:12]} was built and cannot be read")
        seconds = round(time.monotonic() - began, 3)
        log.info(
            "wheel environment built", environment=digest, wheels=[wheel.name for wheel in wheels], seconds=seconds
        )
        return found

    def _put_in_place(self, digest: str, target: Path, manifest: dict[str, Any]) -> None:
        (target / ".lock").unlink(missing_ok=True)  # uv's
        remove_tree(target.parent / CACHE)  # which has other names of the same files: their end would pass for a change
        seal(target)
        found = fingerprint(target, but=_MANIFEST)
        (target / _MANIFEST).write_text(json.dumps({**manifest, "fingerprint": found}))
        (target / _MANIFEST).chmod(0o444)
        _flush(target)  # a name that survives a power cut must not stand for files that did not
        make_folder(self._envs, self._mode)
        place = self._envs / digest
        target.rename(place)
        place.chmod(0o555)
        self._known[digest] = place.stat().st_ino, found
        _flush(self._envs)

    def _clear(self, digest: str, place: Path) -> None:
        """Remove what earlier builders left, and a directory that is no environment; the caller holds the lock."""
        for left in self._building.glob(f"{digest}-*"):
            remove_tree(left)
        make_folder(place, self._mode)
        broken = self._envs / digest
        if os.path.lexists(broken):
            _move(broken, place / _TRASH)  # it goes with the place, so the new one has another inode

    def _sweep(self) -> set[str]:
        if not self._envs.is_dir():
            return set()
        for left in self._building.glob("*-*"):
            digest = left.name.partition("-")[0]
            if (lock := try_lock(self._lock(digest, "build"))) is not None:
                with lock:
                    remove_tree(left)
        for digest in to_remove({path.name: self._last_use(path.name) for path in self._envs.iterdir()}):
            self._remove(digest)
        kept: set[str] = set()
        for path in self._envs.iterdir():
            with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
                kept |= {wheel["sha256"] for wheel in json.loads((path / _MANIFEST).read_text())["wheels"]}
        return kept

    def _last_use(self, digest: str) -> float:
        try:
            return self._lock(digest, "use").stat().st_mtime
        except FileNotFoundError:
            return 0.0

    def _remove(self, digest: str) -> None:
        """Remove an environment that nobody uses or builds."""
        build = try_lock(self._lock(digest, "build"))
        use = try_lock(self._lock(digest, "use")) if build is not None else None
        if build is None or use is None:
            if build is not None:
                build.release()
            return
        trash = self._building / f"{digest}-{_TRASH}-{uuid.uuid4().hex[:8]}"
        make_folder(self._building, self._mode)
        with contextlib.suppress(FileNotFoundError):
            _move(self._envs / digest, trash)
        use.remove()
        remove_tree(trash)
        self._known.pop(digest, None)
        build.remove()
        log.info("wheel environment removed", environment=digest)


def to_remove(last_used: dict[str, float]) -> list[str]:
    """Choose the environments that may go, if nobody uses them: all but the last few.

    Args:
        last_used: Unix seconds by digest.
    """
    return sorted(last_used, key=lambda digest: last_used[digest], reverse=True)[KEPT:]


def _move(directory: Path, to: Path) -> None:
    """Rename a sealed directory; whoever is not root needs the right to write into it for that."""
    if directory.is_dir() and not directory.is_symlink():
        directory.chmod(PRIVATE)
    directory.rename(to)


def _flush(directory: Path) -> None:
    """Write everything of the file system to the disk: one call, however many files a wheel has."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(descriptor) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(directory))
    finally:
        os.close(descriptor)
