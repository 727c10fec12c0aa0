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
import shutil
import sys
import sysconfig
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import structlog
from packaging.utils import canonicalize_name

from pyoco_server.worker.apart import TOGETHER, Apart
from pyoco_server.worker.wheels.installer import BuildFailed, Helper, InstallFailed, install, own_constraints
from pyoco_server.worker.wheels.locks import FileLock, try_lock, wait_lock
from pyoco_server.worker.wheels.plugins import WheelFile, WheelsBroken, check_plugins, offer_plugins, start_check

log = structlog.get_logger(__name__)

KEPT = 3
"""Environments that stay beside those in use, the last used first: a roll back needs no build."""
_INTERPRETER = str(sysconfig.get_config_var("SOABI") or sys.implementation.cache_tag)
_MANIFEST = "pyoco-environment.json"
_TRASH = "removed"
_CLEANER_WAIT = 5.0


@dataclass(frozen=True)
class Environment:
    """A directory to import from. It is not removed while anybody holds this object."""

    digest: str
    directory: Path
    wheels: list[dict[str, str]] = field(repr=False, compare=False)
    plugins: list[dict[str, Any]] = field(repr=False, compare=False)
    lock: FileLock = field(repr=False, compare=False)

    @property
    def is_there(self) -> bool:
        """Whether nobody has removed it from the disk."""
        try:
            return (self.directory / _MANIFEST).is_file()
        except OSError:  # where we may not look any more, for one
            return False


class Environments:
    """The environments of one sync directory.

    Args:
        directory: The sync directory.
        timeout: Seconds that one installation may take, and one check.
        with_dependencies: Fetch what the wheels need from an index.
        stop: Ends what is under way.
        apart: What keeps code of wheels from other processes.
    """

    def __init__(
        self,
        directory: Path,
        *,
        timeout: float,
        with_dependencies: bool,
        stop: asyncio.Event,
        apart: Apart = TOGETHER,
    ) -> None:
        self._apart = apart
        self._envs, self._building, self._locks = (
            directory.absolute() / name for name in ("envs", "building", "locks")
        )
        self._timeout = timeout
        self._with_dependencies = with_dependencies
        self._stop = stop

    def digest_of(self, set_digest: str) -> str:
        """Give the digest of the environment that a set of wheels makes here."""
        parts = [set_digest, _INTERPRETER]
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
        for folder in (self._envs, self._building, self._locks):
            folder.mkdir(parents=True, exist_ok=True)
        use = await self._use(digest)
        found = self._load(digest, use)
        if found is None:
            patience = 3 * self._timeout  # the one that builds may install, check and look for the culprit
            lock = await wait_lock(self._lock(digest, "build"), patience, stopped=self._stop.is_set)
            if lock is None:
                raise BuildFailed(f"another worker has been building environment {digest[:12]} for {patience:g} s")
            with lock:
                found = self._load(digest, use) or await self._build(digest, wheels, use)
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
            return Environment(digest, directory.absolute(), manifest["wheels"], manifest["plugins"], use)
        except (OSError, ValueError, LookupError, TypeError):
            return None

    async def _build(self, digest: str, wheels: Sequence[WheelFile], use: FileLock) -> Environment:
        """Build aside and rename into place; the caller holds the lock."""
        began = time.monotonic()
        place = self._building / f"{digest}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        target = place / "env"
        check: Helper | None = None
        try:
            await asyncio.to_thread(self._clear, digest)
            target.mkdir(parents=True)
            if self._with_dependencies or await asyncio.to_thread(offer_plugins, wheels):
                check = await start_check(place, self._apart)  # it imports pyoco while uv works
            await self._install(wheels, place, target)
            _require_all(wheels, target)
            plugins = (
                await check_plugins(check, target, wheels, timeout=self._timeout, stop=self._stop) if check else []
            )
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
            await asyncio.to_thread(self._put_in_place, digest, target, manifest)
        finally:
            if check is not None:
                await check.drop()
            await asyncio.to_thread(shutil.rmtree, place, True)
        found = self._load(digest, use)
        if found is None:
            raise BuildFailed(f"environment {digest[:12]} was built and cannot be read")
        seconds = round(time.monotonic() - began, 3)
        log.info(
            "wheel environment built", environment=digest, wheels=[wheel.name for wheel in wheels], seconds=seconds
        )
        return found

    async def _install(self, wheels: Sequence[WheelFile], place: Path, target: Path) -> None:
        try:
            await self._run_uv(wheels, place, target)
        except InstallFailed as error:
            if len(wheels) > 1:
                raise WheelsBroken(await self._culprits(wheels, place) or _suspect(wheels, str(error))) from error
            raise WheelsBroken({wheels[0].name: str(error)}) from error

    async def _culprits(self, wheels: Sequence[WheelFile], place: Path) -> dict[str, str]:
        """Try each wheel alone."""
        reasons = {}
        for number, wheel in enumerate(wheels):
            alone = place / f"alone-{number}"
            alone.mkdir()
            try:
                await self._run_uv([wheel], place, alone)
            except InstallFailed as error:
                reasons[wheel.name] = str(error)
            await asyncio.to_thread(shutil.rmtree, alone, True)
        return reasons

    async def _run_uv(self, wheels: Sequence[WheelFile], place: Path, target: Path) -> None:
        await install(
            [wheel.path for wheel in wheels],
            target,
            scratch=place,
            timeout=self._timeout,
            stop=self._stop,
            with_dependencies=self._with_dependencies,
        )

    def _put_in_place(self, digest: str, target: Path, manifest: dict[str, Any]) -> None:
        (target / ".lock").unlink(missing_ok=True)  # uv's
        (target / _MANIFEST).write_text(json.dumps(manifest))
        _flush(target)  # a name that survives a power cut must not stand for files that did not
        target.rename(self._envs / digest)
        _flush(self._envs)

    def _clear(self, digest: str) -> None:
        """Remove what earlier builders left, and a directory that is no environment; the caller holds the lock."""
        broken = self._envs / digest
        if broken.exists():
            broken.rename(self._building / f"{digest}-{_TRASH}-{uuid.uuid4().hex[:8]}")
        for left in self._building.glob(f"{digest}-*"):
            shutil.rmtree(left, ignore_errors=True)

    def _sweep(self) -> set[str]:
        if not self._envs.is_dir():
            return set()
        for left in self._building.glob("*-*"):
            digest = left.name.partition("-")[0]
            if (lock := try_lock(self._lock(digest, "build"))) is not None:
                with lock:
                    shutil.rmtree(left, ignore_errors=True)
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
        with contextlib.suppress(FileNotFoundError):
            (self._envs / digest).rename(trash)
        use.remove()
        shutil.rmtree(trash, ignore_errors=True)
        build.remove()
        log.info("wheel environment removed", environment=digest)


def to_remove(last_used: dict[str, float]) -> list[str]:
    """Choose the environments that may go, if nobody uses them: all but the last few.

    Args:
        last_used: Unix seconds by digest.
    """
    return sorted(last_used, key=lambda digest: last_used[digest], reverse=True)[KEPT:]


def _require_all(wheels: Sequence[WheelFile], target: Path) -> None:
    """Look whether every wheel left its metadata where ``importlib.metadata`` looks for it.

    Raises:
        WheelsBroken: some did not.
    """
    there: dict[str, str] = {
        canonicalize_name(found.metadata["Name"] or ""): found.version for found in distributions(path=[str(target)])
    }
    missing = {
        wheel.name: f"after its installation {wheel.package} {wheel.version} is not there"
        for wheel in wheels
        if there.get(wheel.package) != wheel.version
    }
    if missing:
        raise WheelsBroken(missing)


def _suspect(wheels: Sequence[WheelFile], error: str) -> dict[str, str]:
    """Blame the last one: each can be installed, but not all together."""
    return {wheels[-1].name: f"it cannot be installed together with the others: {error}"}


def _flush(directory: Path) -> None:
    """Write everything of the file system to the disk: one call, however many files a wheel has."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(descriptor) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(directory))
    finally:
        os.close(descriptor)
