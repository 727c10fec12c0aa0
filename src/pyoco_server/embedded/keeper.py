"""Keeps a part of the system running: when it dies it is started again, ever later, and that is told of."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from typing import Protocol

import structlog

from pyoco_server.errors import CommandFailed
from pyoco_server.model.parts import Part, exit_text
from pyoco_server.process.waiting import first_event

log = structlog.get_logger(__name__)

_FIRST_SEC, _LONGEST_SEC = 0.5, 30.0
_WELL_SEC = 60.0
"""A part that has run for so long is started again as soon as at its first death."""
_BEGIN_SEC = 10.0
_REFUSALS = {1, 2, 4}
"""Exit codes of a command that cannot use what it was given, or is not let in: it would say the same again."""


class Running(Protocol):
    """A process that was started."""

    @property
    def pid(self) -> int:
        """Its id."""
        ...

    async def wait(self) -> int:
        """Wait until it ends; its exit code is the answer, negative for a signal."""
        ...


class Keeper:
    """Keeps one part running.

    Args:
        part: Where its deaths are noted.
        start: Starts it.
        may_end: Whether it may end in order, by exit code 0, and then stays ended.
        may_refuse: Whether it may refuse to run at all, as a command does whose settings cannot be used.
    """

    def __init__(
        self, part: Part, start: Callable[[], Awaitable[Running]], *, may_end: bool = False, may_refuse: bool = False
    ) -> None:
        self._part = part
        self._start = start
        self._may_end = may_end
        self._may_refuse = may_refuse
        self._stopping = asyncio.Event()
        self._pause = _FIRST_SEC
        self._has_run = False
        self.running: Running | None = None
        """The process; ``None`` while there is none."""

    async def begin(self) -> None:
        """Start the part for the first time.

        Raises:
            CommandFailed: it does not start.
        """
        self._note(await self._start())

    def stop(self) -> None:
        """Start the part no more."""
        self._stopping.set()

    async def keep(self) -> None:
        """Keep the part running, until it ends in order or ``stop`` is called and it ends.

        Raises:
            CommandFailed: it refuses to run.
        """
        while self.running is not None:
            began = time.monotonic()
            code = await self.running.wait()
            self.running = None
            lived = time.monotonic() - began
            if self._stopping.is_set():
                return
            if code == 0 and self._may_end:
                self._part.pid = None
                log.warning("a part has stopped in order; the rest goes on without it", part=self._part.name)
                return
            self._judge(code, lived)
            await self._start_again()

    def _judge(self, code: int, lived: float) -> None:
        self._has_run = self._has_run or lived >= _BEGIN_SEC or code < 0
        if self._may_refuse and code in _REFUSALS and not self._has_run:
            raise CommandFailed(f"the {self._part.name} refuses to run ({exit_text(code)})", hint="Its log says why.")
        if lived >= _WELL_SEC:
            self._pause = _FIRST_SEC
        self._note_death(code)

    def _note_death(self, code: int) -> None:
        self._part.died(code, self._pause)
        log.error(
            "a part has died; starting it again", part=self._part.name, exit=self._part.last_exit,
            deaths=self._part.deaths, in_sec=self._pause,
        )  # fmt: skip

    async def _start_again(self) -> None:
        while True:
            await first_event(self._pause, self._stopping)
            self._pause = min(self._pause * 2, _LONGEST_SEC)
            if self._stopping.is_set():
                return
            try:
                self._note(await self._start())
            except (CommandFailed, OSError) as error:
                reason = error.message if isinstance(error, CommandFailed) else str(error)
                self._part.next_start = time.time() + self._pause
                log.error("a part cannot be started again", part=self._part.name, reason=reason, in_sec=self._pause)
                continue
            log.warning("a part is started again", part=self._part.name, pid=self._part.pid, deaths=self._part.deaths)
            return

    def _note(self, running: Running) -> None:
        self.running = running
        self._part.runs(running.pid)


async def end(process: asyncio.subprocess.Process, timeout: float) -> None:
    """Have a process stop in order, by force after ``timeout`` seconds."""
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        await asyncio.wait_for(process.wait(), timeout)
    except asyncio.TimeoutError:
        log.error("a worker does not stop; killing it", pid=process.pid)
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
