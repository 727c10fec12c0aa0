"""Templates and the processes that they fork for runs, from the worker's side."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from pyoco_server.errors import CommandFailed
from pyoco_server.process import descriptors
from pyoco_server.settings.environment import without_secrets
from pyoco_server.worker.child.output.outputpipes import OutputPipes
from pyoco_server.worker.child.protocol import Message, encode
from pyoco_server.worker.child.reports import Nonsense, Received, read_packet, read_report
from pyoco_server.worker.logs.runlog import NoRunLog
from pyoco_server.worker.machine.apart import TOGETHER, Apart
from pyoco_server.worker.wheels.environments import Environment

log = structlog.get_logger(__name__)

_START_TIMEOUT = 60.0
_KILL_TIMEOUT = 10.0
_LINGER = 1.0
_MAX_PACKET = 64 * 1024
# The working directory must not shadow the standard library; a child puts it at the end of the path.
_BOOT = """\
import sys
sys.path[:1] == [''] and sys.path.pop(0)
from pyoco_server.worker.child.template import main
main()
"""


@dataclass(frozen=True)
class ChildEnd:
    """How a child ended, as its guardian saw it.

    Args:
        code: Exit code; negative for a signal.
        killed: The guardian killed it, on our word or on its own.
        fenced: It was killed because we had been silent for longer than the run's lease.
        out_of_memory: The kernel killed processes for want of memory meanwhile.
        left_behind: How many processes of the run had to be killed after it.
        max_rss_bytes: The largest memory that it had.
        grown: Its template has grown, and had better be replaced.
    """

    code: int
    killed: bool = False
    fenced: bool = False
    out_of_memory: bool = False
    left_behind: int = 0
    max_rss_bytes: int = 0
    grown: bool = False

    def __str__(self) -> str:
        if self.code < 0:
            return f"killed by signal {-self.code} ({signal.Signals(-self.code).name})"
        return f"ended with exit code {self.code}"


class Unusable(CommandFailed):
    """How the worker was started keeps its processes from starting: a module to preload, or its flow resolver."""


class NotForked(CommandFailed):
    """A template could not fork: this machine has no room for another process."""


class Template:
    """A process that forks the processes of runs, and guards them.

    Args:
        environment: What runs import from beside the worker's own packages; not removed before this process.
        isolation: ``shared`` where its processes serve several runs.
        preload: Modules of it, or of the worker, that are imported once for all runs.
        apart: What keeps its processes from others.
    """

    def __init__(
        self,
        environment: Environment | None,
        *,
        isolation: str = "process",
        preload: Sequence[str] = (),
        apart: Apart = TOGETHER,
    ) -> None:
        self.environment = environment
        self._apart = apart
        self._isolation = isolation
        self._preload = preload
        self._process: asyncio.subprocess.Process | None = None
        self._control: socket.socket | None = None
        self._ready: asyncio.Future[Message] | None = None
        self._ending: asyncio.Task[None] | None = None
        self._children: dict[int, ChildProcess] = {}
        self._born = 0
        self.moves = 0
        """How often the start directory had been replaced when this process was made: it stays in that one."""
        self.grown = False
        """Whether it takes more memory than it should."""

    @property
    def is_alive(self) -> bool:
        """Whether it can fork."""
        return self._ending is not None and not self._ending.done()

    async def launch(self) -> None:
        """Start the process: it imports what every run needs, and then waits for ``start`` to say the rest.

        Raises:
            OSError: no process can be started.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        self._control = ours
        with theirs:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-u", "-c", _BOOT, str(theirs.fileno()),
                env=without_secrets(os.environ),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=sys.__stderr__.fileno() if sys.__stderr__ else None,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )  # fmt: skip
        loop = asyncio.get_running_loop()
        self._ready = loop.create_future()
        loop.add_reader(ours.fileno(), self._hear)
        self._ending = asyncio.create_task(self._await_end(self._process), name="template-end")

    async def start(self, directory: str) -> None:
        """Start the process, if it was not launched before, and wait until it can fork.

        Args:
            directory: Where the worker was started; runs import from it too.

        Raises:
            Unusable: a module to preload is refused.
            CommandFailed: the process ends at once.
            OSError: no process can be started.
        """
        if self._process is None:
            await self.launch()
        environment = str(self.environment.directory) if self.environment else None
        self._tell(
            {
                "environment": environment,
                "directory": directory,
                "isolation": self._isolation,
                "preload": list(self._preload),
                "descriptors": descriptors.given(),
                **self._apart.for_children(),
            }
        )
        if self._ready is not None:
            await asyncio.wait({self._ready}, timeout=_START_TIMEOUT)
        answer = self._ready.result() if self._ready is not None and self._ready.done() else {}
        if "ready" not in answer:
            code = self._process.returncode if self._process is not None else None
            await self.end()
            told = "the process that forks the processes of runs did not start"
            if "unusable" in answer:
                raise Unusable(f"{told}: {answer['unusable']}")
            ended = f"it {ChildEnd(code)}" if code is not None else "it did not answer in time"
            raise CommandFailed(f"{told}: {ended}", hint="What it said stands above, on the worker's standard error.")

    def fork(self) -> "ChildProcess":
        """Return a fresh process for a run; its ``born`` says when it is there.

        Raises:
            OSError: there are no descriptors left to talk to it.
        """
        self._born += 1
        child = ChildProcess(self, self._born)
        self._children[self._born] = child
        packet = json.dumps({"do": "fork", "child": self._born}).encode()
        try:
            if self._control is None:
                raise OSError("there is no template")
            socket.send_fds(self._control, [packet], child.descriptors)
        except OSError as error:
            child.note_refusal(f"it cannot be asked: {error}")
        child.begin_life()
        return child

    def tell(self, number: int, word: str, **more: Any) -> None:
        """Command something about a child."""
        if self._control is not None and self.is_alive:
            self._tell({"do": word, "child": number, **more})

    async def end(self) -> None:
        """Kill what is left, and wait for the end."""
        if self._control is not None:
            asyncio.get_running_loop().remove_reader(self._control.fileno())
            self._control.close()
            self._control = None
        if self._ending is not None:
            await asyncio.wait({self._ending}, timeout=_KILL_TIMEOUT)
        await self.destroy()

    async def destroy(self) -> None:
        """End a process that does not obey; its children die with it."""
        if self.is_alive and self._process is not None and self._ending is not None:
            log.error("a template does not obey; ending it and its runs", pid=self._process.pid)
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await asyncio.wait({self._ending}, timeout=_KILL_TIMEOUT)

    def _tell(self, packet: Message) -> None:
        if self._control is not None:
            # One that is gone shows by its end; one that does not read is ended when it does not obey.
            with contextlib.suppress(OSError):
                self._control.send(json.dumps(packet).encode())

    def _hear(self) -> None:
        """Take what the guardian reports."""
        while self._control is not None:
            try:
                packet = self._control.recv(_MAX_PACKET)
            except BlockingIOError:
                return
            except OSError:
                packet = b""
            if not packet:
                asyncio.get_running_loop().remove_reader(self._control.fileno())
                return
            self._take(json.loads(packet))

    def _take(self, report: Message) -> None:
        if self._ready is not None and not self._ready.done():
            self._ready.set_result(report)
        elif (number := report.get("forked")) is not None and number in self._children:
            self._children[number].note_birth(report["pid"])
        elif (number := report.pop("refused", None)) is not None and number in self._children:
            self._children.pop(number).note_refusal(report["error"])
        elif (number := report.pop("ended", None)) is not None and number in self._children:
            end = ChildEnd(**report)
            self.grown = self.grown or end.grown
            self._children.pop(number).note_end(end)

    async def _await_end(self, process: asyncio.subprocess.Process) -> None:
        await process.wait()
        self._hear()  # its last reports
        if self._ready is not None and not self._ready.done():
            self._ready.set_result({})
        for child in self._children.values():
            # Killed itself, by user code or the kernel. Its children die with it (PDEATHSIG), their groups through us.
            log.error("the guardian of a run's process was killed", pid=child.pid)
            with contextlib.suppress(ProcessLookupError, PermissionError):
                if child.pid:
                    os.killpg(child.pid, signal.SIGKILL)
            child.note_end(ChildEnd(-signal.SIGKILL))
        self._children.clear()


class ChildProcess:
    """A process for runs: its own session and process group, a socket to talk, pipes for what it prints.

    Args:
        template: What forks it.
        number: Its name there.
    """

    def __init__(self, template: Template, number: int) -> None:
        self.template = template
        self._number = number
        self.output = OutputPipes(NoRunLog())
        """What it prints."""
        try:
            self._ours, self._theirs = socket.socketpair()
        except OSError:
            self.output.close()
            raise
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        loop = asyncio.get_running_loop()
        self._birth: asyncio.Future[str | None] = loop.create_future()
        self._end: asyncio.Future[ChildEnd] = loop.create_future()
        self.pid = 0
        """The child's process id, which is its process group too."""
        self.runs = 0

    @property
    def descriptors(self) -> list[int]:
        """What goes to the child: its socket, and the pipes for frames, stdout and stderr."""
        output = self.output
        return [self._theirs.fileno(), output.frames_end, output.stdout_end, output.stderr_end]

    @property
    def environment(self) -> Environment | None:
        """What it imports from beside the worker's own packages."""
        return self.template.environment

    @property
    def is_alive(self) -> bool:
        """Whether the process runs, as far as is known."""
        return not self._end.done()

    def begin_life(self) -> None:
        """Let go of the child's ends: it has them now."""
        self._theirs.close()
        self.output.start()

    def note_birth(self, pid: int) -> None:
        """Note that it was forked."""
        self.pid = pid
        if not self._birth.done():
            self._birth.set_result(None)

    def note_refusal(self, reason: str) -> None:
        """Note that it could not be forked."""
        if not self._birth.done():
            self._birth.set_result(reason)
        self.note_end(ChildEnd(1))

    def note_end(self, end: ChildEnd) -> None:
        """Note how it ended."""
        if not self._birth.done():
            self._birth.set_result("its template has ended")
        if not self._end.done():
            self._end.set_result(end)

    async def born(self) -> None:
        """Wait until it is there.

        Raises:
            NotForked: it could not.
        """
        await asyncio.wait({self._birth}, timeout=_START_TIMEOUT)
        reason = self._birth.result() if self._birth.done() else "it did not come up in time"
        if reason is not None:
            await self.end()
            raise NotForked(f"no process could be forked for a run: {reason}")
        if self._reader is None:
            self._reader, self._writer = await asyncio.open_connection(sock=self._ours)

    async def send(self, message: Message) -> None:
        """Send a message; a child that is gone shows on the reading side."""
        if self._writer is not None:
            with contextlib.suppress(ConnectionError):
                self._writer.write(encode(message))
                await self._writer.drain()

    async def receive(self, longest: int) -> Received | None:
        """Read the next message; ``None`` when the child is gone.

        Args:
            longest: Bytes that it may have.

        Raises:
            Nonsense: what came is none of a child's, or is longer.
        """
        packet = await read_packet(self._reader, longest) if self._reader else None
        return None if packet is None else read_report(packet)

    async def ask(self, message: Message, timeout: float) -> Message | None:
        """Send a message and return the answer; ``None`` where none comes within ``timeout`` seconds."""
        try:
            answer = await asyncio.wait_for(self._exchange(message), timeout)
        except (asyncio.TimeoutError, Nonsense):
            return None
        return None if answer is None else answer.message

    async def _exchange(self, message: Message) -> Received | None:
        await self.send(message)
        return await self.receive(_MAX_PACKET)

    def begin(self, lease: float) -> None:
        """Begin a run: its processes are killed when ``renew`` is not called for ``lease`` seconds."""
        self.runs += 1
        self.template.tell(self._number, "run", lease=lease)

    def renew(self) -> None:
        """Say that this worker is alive, and its run with it."""
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

    async def leave(self) -> ChildEnd:
        """Wait for the end of a child that has said its last word; one that lingers is killed."""
        await asyncio.wait({self._end}, timeout=_LINGER)
        return await self.end()

    async def end(self) -> ChildEnd:
        """Kill what is left, and wait for the end."""
        self.kill()
        end = await self._ended(_KILL_TIMEOUT)
        self.output.close()
        if self._writer is not None:
            self._writer.close()
        else:
            self._ours.close()
        return end

    async def wait_end(self) -> ChildEnd:
        """Wait for the end of a child that closed its socket; one that lingers is killed."""
        await asyncio.wait({self._end}, timeout=_LINGER)
        self.kill()
        return await self._ended(_KILL_TIMEOUT)

    async def _ended(self, timeout: float) -> ChildEnd:
        await asyncio.wait({self._end}, timeout=timeout)
        if not self._end.done():
            await self.template.destroy()
        if not self._end.done():
            log.error("a child process survives SIGKILL", pid=self.pid)
            return ChildEnd(-signal.SIGKILL, killed=True)
        return self._end.result()

    def _tell(self, word: str) -> None:
        if self.is_alive:
            self.template.tell(self._number, word)
