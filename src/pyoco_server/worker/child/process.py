"""A child process from outside: start, talk, watch, kill. Between it and us stands its guardian."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

import structlog

from pyoco_server.errors import CommandFailed
from pyoco_server.settings import without_secrets
from pyoco_server.worker.child.outputpipes import OutputPipes
from pyoco_server.worker.child.protocol import Message, encode, read_message
from pyoco_server.worker.environments import Environment
from pyoco_server.worker.runlog import NoRunLog

log = structlog.get_logger(__name__)

_START_TIMEOUT = 60.0
_KILL_TIMEOUT = 5.0
_LINGER = 1.0
# The working directory must not shadow the standard library; the child puts it at the end of the path.
_BOOT = (
    "import sys; sys.path[:1] == [''] and sys.path.pop(0); from pyoco_server.worker.child.guardian import main; main()"
)


@dataclass(frozen=True)
class ChildEnd:
    """How a child ended, as its guardian saw it.

    Args:
        code: Exit code; negative for a signal.
        killed: The guardian killed it, on our word or on its own.
        fenced: It was killed because we had been silent for longer than the run's lease.
        out_of_memory: The kernel killed processes for want of memory meanwhile.
        left_behind: How many processes of the run had to be killed after it.
    """

    code: int
    killed: bool = False
    fenced: bool = False
    out_of_memory: bool = False
    left_behind: int = 0
    max_rss_bytes: int = 0

    def __str__(self) -> str:
        if self.code < 0:
            return f"killed by signal {-self.code} ({signal.Signals(-self.code).name})"
        return f"ended with exit code {self.code}"


class ChildProcess:
    """One child: its own session and process group, a socket to talk, pipes for what it prints.

    Args:
        resolver: The flow resolver's spec, or ``None``.
        max_value_bytes: Largest input or output value that the child sends.
        max_log_bytes: Output of one run that the child sends.
    """

    def __init__(self, resolver: str | None, max_value_bytes: int, max_log_bytes: int) -> None:
        self.environment: Environment | None = None
        """What it imports from beside the worker's own packages, from ``start`` on; not removed before the child."""
        self._setup: Message = {
            "type": "setup",
            "resolver": resolver,
            "max_value_bytes": max_value_bytes,
            "max_log_bytes": max_log_bytes,
        }
        self.output = OutputPipes(NoRunLog())
        """What it prints."""
        self._guardian: asyncio.subprocess.Process | None = None
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._control: socket.socket | None = None
        self._reports: asyncio.StreamWriter | None = None
        self._ending: asyncio.Task[ChildEnd] | None = None
        self.pid = 0
        """The child's process id, which is its process group too."""
        self.runs = 0

    @property
    def is_alive(self) -> bool:
        """Tell whether the process runs."""
        return self._ending is not None and not self._ending.done()

    async def launch(self) -> None:
        """Start the process: it imports what every child needs, and then waits for ``start`` to say the rest."""
        ours, theirs = socket.socketpair()
        control, guardians = socket.socketpair()
        with theirs, guardians:
            self._guardian = await asyncio.create_subprocess_exec(
                sys.executable, "-u", "-c", _BOOT, str(theirs.fileno()), str(guardians.fileno()),
                env=without_secrets(os.environ),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=self.output.stdout_end,
                stderr=self.output.stderr_end,
                pass_fds=(theirs.fileno(), guardians.fileno(), self.output.frames_end),
                start_new_session=True,
            )  # fmt: skip
        self._reader, self._writer = await asyncio.open_connection(sock=ours)
        # Commands go past asyncio: a failed write there would take the guardian's last report from the reader.
        self._control = control.dup()
        reports, self._reports = await asyncio.open_connection(sock=control)
        self._ending = asyncio.create_task(self._await_end(reports), name="child-end")
        self._setup["output"] = self.output.frames_end
        self.output.start()

    async def start(self) -> None:
        """Start the process, if it was not launched before, and wait until it can take a job.

        Raises:
            CommandFailed: it cannot: the flow resolver does not load, or the process ends at once.
        """
        if self._guardian is None:
            await self.launch()
        self._setup["environment"] = str(self.environment.directory) if self.environment else None
        await self.send(self._setup)
        try:
            answer = await asyncio.wait_for(self.receive(), _START_TIMEOUT)
        except asyncio.TimeoutError:
            answer = None
        if answer is None or answer["type"] != "ready":
            end = await self.end()
            reason = (answer or {}).get("error") or ("it did not answer in time" if end.killed else f"it {end}")
            raise CommandFailed(
                f"the process for running flows did not start: {reason}",
                hint="The resolver's file and what it imports must load in a plain Python process.",
            )
        self.pid = answer["pid"]

    async def send(self, message: Message) -> None:
        """Send a message; a child that is gone shows on the reading side."""
        if self._writer is not None:
            with contextlib.suppress(ConnectionError):
                self._writer.write(encode(message))
                await self._writer.drain()

    async def receive(self) -> Message | None:
        """Read the next message; ``None`` when the child is gone."""
        return await read_message(self._reader) if self._reader else None

    def begin(self, lease: float) -> None:
        """Begin a run: its processes are killed when ``renew`` is not called for ``lease`` seconds."""
        self.runs += 1
        self._tell(f"run {lease}")

    def renew(self) -> None:
        """Tell that this worker is alive, and its run with it."""
        self._tell("alive")

    def rest(self) -> None:
        """The run has ended; there is no lease until the next one."""
        self._tell("idle")

    def terminate(self) -> None:
        """Send SIGTERM to the whole process group."""
        self._tell("term")

    def kill(self) -> None:
        """Kill every process of the run."""
        self._tell("kill")

    async def end(self) -> ChildEnd:
        """Kill what is left, and wait for the end."""
        self.kill()
        end = await self._ended(_KILL_TIMEOUT)
        self.output.close()
        for writer in (self._writer, self._reports, self._control):
            if writer is not None:
                writer.close()
        return end

    async def wait_end(self) -> ChildEnd:
        """Wait for the end of a child that closed its socket; one that lingers is killed."""
        if self._ending is not None:
            await asyncio.wait({self._ending}, timeout=_LINGER)
        self.kill()
        return await self._ended(_KILL_TIMEOUT)

    async def _ended(self, timeout: float) -> ChildEnd:
        if self._ending is None:
            return ChildEnd(0)
        done, _ = await asyncio.wait({self._ending}, timeout=timeout)
        if not done and self._guardian is not None:
            log.error("a child's guardian does not obey; ending both", pid=self.pid)
            with contextlib.suppress(ProcessLookupError):
                self._guardian.kill()
            done, _ = await asyncio.wait({self._ending}, timeout=timeout)
        if not done:
            log.error("a child process survives SIGKILL", pid=self.pid)
            return ChildEnd(-signal.SIGKILL, killed=True)
        return self._ending.result()

    async def _await_end(self, reports: asyncio.StreamReader) -> ChildEnd:
        """Read the guardian's report, its only line."""
        try:
            line = await reports.readline()
        except ConnectionError:
            line = b""
        if self._guardian is not None:
            await self._guardian.wait()
        try:
            return ChildEnd(**json.loads(line))
        except (ValueError, TypeError):
            # Killed itself, by user code or the kernel. Its child dies with it (PDEATHSIG), the group through us.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                if self.pid:
                    os.killpg(self.pid, signal.SIGKILL)
            log.error("a child's guardian was killed", pid=self.pid)
            return ChildEnd(-signal.SIGKILL)

    def _tell(self, command: str) -> None:
        if self._control is not None and self.is_alive:
            # One that is gone has sent its report; one that does not read is ended when it does not obey.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError, BlockingIOError):
                self._control.send(command.encode() + b"\n")


def run_directory(root: Path, run_id: str, attempt: int) -> Path:
    """Give the working directory of one attempt."""
    return root / f"{run_id}-{attempt}"
