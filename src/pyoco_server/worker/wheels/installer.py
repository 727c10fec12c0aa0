"""Runs uv, which unpacks wheels into a directory of their own. Nothing in a wheel is executed here."""

import asyncio
import contextlib
import errno
import importlib.metadata
import os
import re
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import uv
from packaging.utils import canonicalize_name

from pyoco_server.model.text.clean import clean_text
from pyoco_server.process.waiting import first_event
from pyoco_server.settings.environment import without_secrets

CACHE = "cache"
"""uv's, in the directory of a build."""
_OUTPUT_LIMIT = 256 * 1024
_TOLD = 800
_LINGER = 2.0
_SYSTEM_ERROR = re.compile(r"\(os error (\d+)\)")
_MACHINE = frozenset({
    errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN,
    errno.EACCES, errno.EPERM, errno.ESTALE, errno.ENODEV, errno.ENXIO,
})  # fmt: skip
"""What the system says when the machine is at fault. Others, such as ``File exists``, a wheel can cause."""


class BuildFailed(Exception):
    """An environment cannot be built now, and no single wheel is known to be the reason."""


class MachineFailed(BuildFailed):
    """The machine is at fault: no room, no right, no process."""


class InstallFailed(Exception):
    """uv refused the wheels: one of them, or their set, is at fault."""


@dataclass(frozen=True)
class Ended:
    """How a helper process ended."""

    code: int
    output: bytes
    errors: str
    timed_out: bool = False


def find_uv() -> str:
    """Give uv's path.

    Raises:
        BuildFailed: it is not installed.
    """
    try:
        return uv.find_uv_bin()
    except FileNotFoundError as error:
        raise MachineFailed(f"uv is not installed beside the worker: {error}") from error


async def install(
    wheels: Sequence[Path], target: Path, *, scratch: Path, timeout: float, stop: asyncio.Event, with_dependencies: bool
) -> None:
    """Install wheels into an empty directory.

    Args:
        wheels: The files; nothing else is read, unless ``with_dependencies``.
        target: The directory.
        scratch: A directory of this build alone, on the same file system, which is removed afterwards.
        timeout: Seconds.
        stop: Ends the installation.
        with_dependencies: Fetch what the wheels need from the index that uv is set up for.

    Raises:
        InstallFailed: uv refused the wheels.
        MachineFailed: it could not work.
        BuildFailed: it did not come to an end, or not in time.
    """
    command = [find_uv(), "pip", "install", "--quiet", "--no-progress", "--color", "never", "--python", sys.executable,
               "--no-python-downloads", "--target", str(target), "--only-binary", ":all:",
               "--compile-bytecode"]  # fmt: skip
    if with_dependencies:
        # uv's own cache is shared with other programs: its files are copied, so that no run can change them there.
        command += ["--link-mode", "copy", *_limits(scratch)]
        environment = without_secrets(os.environ)
    else:
        # Into a cache of our own, which goes with the build: the environment is then the only owner of its files.
        cache = str(scratch / CACHE)
        command += [
            "--no-deps",
            "--no-index",
            "--offline",
            "--no-config",
            "--cache-dir",
            cache,
            "--link-mode",
            "hardlink",
        ]
        environment = {name: value for name, value in without_secrets(os.environ).items() if not name.startswith("UV_")}
    helper = await Helper.start([*command, *map(str, wheels)], folder=scratch, environment=environment)
    ended = await helper.finish(timeout, stop)
    if ended.timed_out:
        raise BuildFailed(
            f"the installation took longer than {timeout:g} s (PYOCO_WHEEL_INSTALL_TIMEOUT_SEC) and was ended"
        )
    if stop.is_set():
        raise BuildFailed("the worker is stopping")
    if ended.code != 0:
        text = shorten(ended.errors) or f"uv ended with exit code {ended.code}"
        if _MACHINE.intersection(map(int, _SYSTEM_ERROR.findall(ended.errors))):
            raise MachineFailed(text)
        raise (BuildFailed if ended.code < 0 else InstallFailed)(text)


def is_machines(error: BaseException) -> bool:
    """Return whether the machine is at fault for an error, and not a wheel."""
    return isinstance(error, MachineFailed) or (isinstance(error, OSError) and error.errno in _MACHINE)


class Helper:
    """A process in a session of its own, all of which ends when its time is over."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._finished = False

    @classmethod
    async def start(cls, command: list[str], *, folder: Path, environment: dict[str, str]) -> "Helper":
        """Start it.

        Args:
            command: Program and arguments.
            folder: Its working directory.
            environment: Its variables.

        Raises:
            BuildFailed: it cannot be started.
        """
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                cwd=folder,
                env=environment,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            raise MachineFailed(f"{command[0]} cannot be started: {error.strerror}") from error
        return cls(process)

    async def drop(self) -> None:
        """End it without waiting for what it says; nothing happens if it has finished."""
        if not self._finished:
            await self.finish(0, asyncio.Event())

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    async def finish(self, timeout: float, stop: asyncio.Event, said: bytes = b"") -> Ended:
        """Wait for its end.

        Args:
            timeout: Seconds.
            stop: Ends it early.
            said: What it reads on its standard input.
        """
        process = self._process
        self._finished = True
        if process.stdin is not None:
            process.stdin.write(said)
            process.stdin.close()
        pipes = [asyncio.ensure_future(_read(pipe)) for pipe in (process.stdout, process.stderr)]
        ending = asyncio.ensure_future(process.wait())
        everything = asyncio.gather(*pipes, ending)
        over = asyncio.Event()
        everything.add_done_callback(lambda _: over.set())
        try:
            await first_event(timeout, over, stop)
            timed_out = not over.is_set() and not stop.is_set()
        finally:
            self._kill()  # what it started goes too, also after a good end
        await first_event(_LINGER, over)
        if not over.is_set():  # something that left the session holds the pipes
            everything.cancel()
            return Ended(-signal.SIGKILL, b"", "", timed_out)
        output, errors = pipes[0].result(), pipes[1].result()
        return Ended(ending.result(), output, clean_text(errors.decode("utf-8", "replace")), timed_out)


async def _read(pipe: asyncio.StreamReader | None) -> bytes:
    """Read to the end, and keep the last part."""
    kept = b""
    while pipe is not None and (piece := await pipe.read(64 * 1024)):
        kept = (kept + piece)[-_OUTPUT_LIMIT:]
    return kept


def shorten(text: str) -> str:
    """Give a helper's message in one line, the end of a long one: what it failed on is said last."""
    line = " ".join(text.split())
    return line if len(line) <= _TOLD else "… " + line[-_TOLD:]


def _limits(scratch: Path) -> list[str]:
    """Write what dependencies may not contradict: the versions that the worker itself has.

    Those come first on the path, so another version would be installed in vain. A package that is not from an index
    (a checkout of the worker, say) cannot be looked up there: it counts as given.
    """
    given = [
        canonicalize_name(found.metadata["Name"])
        for found in importlib.metadata.distributions()
        if found.metadata["Name"] and found.read_text("direct_url.json") is not None
    ]
    constraints, excludes = scratch / "constraints.txt", scratch / "excludes.txt"
    constraints.write_text("\n".join(own_constraints()) + "\n")
    excludes.write_text("\n".join(sorted(set(given))) + "\n")
    return ["--constraints", str(constraints), "--excludes", str(excludes)]


def own_packages() -> dict[str, str]:
    """Give what this process itself has installed: versions by canonical name."""
    found: dict[str, str] = {}
    for distribution in importlib.metadata.distributions():
        name = distribution.metadata["Name"]
        if name:
            found.setdefault(canonicalize_name(name), distribution.version)
    return found


def own_constraints() -> list[str]:
    """Give the same as ``NAME==VERSION``."""
    return sorted(f"{name}=={version}" for name, version in own_packages().items())
