"""A child process from outside: start, talk, watch, kill."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import structlog

from pyoco_server.errors import CommandFailed
from pyoco_server.worker.protocol import Message, encode, read_message

log = structlog.get_logger(__name__)

_START_TIMEOUT = 60.0
_KILL_TIMEOUT = 5.0
_LINE_LIMIT = 64 * 1024
# The working directory must not shadow the standard library; the child puts it at the end of the path.
_BOOT = "import sys; sys.path[:1] == [''] and sys.path.pop(0); from pyoco_server.worker.child import main; main()"


class ChildProcess:
    """One child: its own session and process group, a socket to talk, pipes for what it prints.

    Args:
        resolver: The flow resolver's spec, or ``None``.
        max_value_bytes: Largest input or output value that the child sends.
        on_output: Called with the stream's name and one line that the child printed.
    """

    def __init__(self, resolver: str | None, max_value_bytes: int, on_output: Callable[[str, str], None]) -> None:
        self._setup: Message = {"type": "setup", "resolver": resolver, "max_value_bytes": max_value_bytes}
        self._on_output = on_output
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._printing: list[asyncio.Task[None]] = []
        self.runs = 0

    @property
    def pid(self) -> int:
        """The child's process id, which is its process group too."""
        return self._process.pid if self._process else 0

    @property
    def is_alive(self) -> bool:
        """Tell whether the process runs."""
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        """Start the process and wait until it can take a job.

        Raises:
            CommandFailed: it cannot: the flow resolver does not load, or the process ends at once.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-u", "-c", _BOOT, str(theirs.fileno()), str(os.getpid()),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                limit=_LINE_LIMIT,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )  # fmt: skip
        self._reader, self._writer = await asyncio.open_connection(sock=ours)
        for name, pipe in (("stdout", self._process.stdout), ("stderr", self._process.stderr)):
            if pipe is not None:
                self._printing.append(asyncio.create_task(self._print(name, pipe), name=f"child-{name}"))
        await self.send(self._setup)
        try:
            answer = await asyncio.wait_for(self.receive(), _START_TIMEOUT)
        except asyncio.TimeoutError:
            answer = None
        if answer is None or answer["type"] != "ready":
            await self.end()
            raise CommandFailed(
                f"the process for running flows did not start: {(answer or {}).get('error') or self.describe_end()}",
                hint="The resolver's file and what it imports must load in a plain Python process.",
            )

    async def send(self, message: Message) -> None:
        """Send a message; a child that is gone shows on the reading side."""
        if self._writer is not None:
            with contextlib.suppress(ConnectionError):
                self._writer.write(encode(message))
                await self._writer.drain()

    async def receive(self) -> Message | None:
        """Read the next message; ``None`` when the child is gone."""
        return await read_message(self._reader) if self._reader else None

    def kill(self, sig: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to the whole process group."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, sig)

    async def end(self) -> None:
        """Kill what is left of the process group, and reap the child."""
        self.kill()
        if self._process is not None:
            try:
                await asyncio.wait_for(self._process.wait(), _KILL_TIMEOUT)
            except asyncio.TimeoutError:
                log.error("a child process survives SIGKILL", pid=self.pid)
        if self._printing:
            # A process that left the group may hold the pipes open; what it prints is not waited for.
            _, late = await asyncio.wait(self._printing, timeout=1)
            for task in late:
                task.cancel()
        if self._writer is not None:
            self._writer.close()

    async def wait_exit(self) -> int:
        """Wait for the end of a child that closed its socket; one that lingers is killed.

        Returns:
            The exit code; negative for a signal.
        """
        if self._process is None:
            return 0
        try:
            await asyncio.wait_for(self._process.wait(), 1)
        except asyncio.TimeoutError:
            self.kill()
        return await self._process.wait()

    def describe_end(self) -> str:
        """Say how the process ended."""
        code = self._process.returncode if self._process else None
        if code is None:
            return "it did not answer in time"
        if code < 0:
            return f"killed by signal {-code} ({signal.Signals(-code).name})"
        return f"ended with exit code {code}"

    async def _print(self, name: str, pipe: asyncio.StreamReader) -> None:
        while True:
            try:
                line = await pipe.readuntil(b"\n")
            except asyncio.IncompleteReadError as end:
                line = end.partial
                if not line:
                    return
            except asyncio.LimitOverrunError as full:
                line = await pipe.readexactly(min(full.consumed, _LINE_LIMIT) or 1)
            self._on_output(name, line.decode("utf-8", "replace").rstrip("\r\n"))


def run_directory(root: Path, run_id: str, attempt: int) -> Path:
    """Give the working directory of one attempt."""
    return root / f"{run_id}-{attempt}"
