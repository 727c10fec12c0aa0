"""Background tasks that are watched: one that fails is started again, ever later, and its failures are told of.

A task is a step that is repeated (``every``), or work that goes on by itself (``keep``). Whatever ends it before its
supervisor stops it is a failure: an exception, a return, a cancel from elsewhere.
"""

import asyncio
import functools
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

import structlog

from pyoco_server.errors import StoreUnavailable
from pyoco_server.process.waiting import first_event

log = structlog.get_logger(__name__)

Work = Callable[[], Awaitable[object]]
Seconds = float | Callable[[], float]

_FIRST_SEC, _LONGEST_SEC = 0.5, 30.0
_LOOK_SEC = 60.0
_CANCELLED_SEC = 0.05
_WELL_SEC = 15.0
"""Work that goes on for so long has recovered."""
_GIVE_UP_SEC, _GIVE_UP_TRIES = 60.0, 6
"""A vital task that has failed for so long, so many times in a row, is given up."""


class Periodic(Protocol):
    """What does its work in rounds."""

    async def round(self) -> object:
        """Do one round."""

    def pause(self) -> float:
        """Return the seconds until the next one."""
        ...


@dataclass
class Supervised:
    """One background task, and how it fares.

    Attributes:
        name: Of the task, for logs and metrics.
        vital: Whether the process is of no use without it.
        may_end: Whether its end is no failure.
        failures: How often it has failed in all.
        failures_in_a_row: How often since it last worked.
        failing_since: Unix seconds of the first of those; ``None`` while it works.
        reason: What its last failure said.
    """

    name: str
    vital: bool = False
    may_end: bool = False
    failures: int = 0
    failures_in_a_row: int = 0
    failing_since: float | None = None
    reason: str = ""
    pause: float = field(default_factory=lambda: _FIRST_SEC, repr=False)
    began: float | None = field(default=None, repr=False)
    """When it last began, by the monotonic clock; ``None`` while it waits to begin again."""

    def works(self) -> None:
        """Note that it has done what it is for."""
        self.failures_in_a_row, self.failing_since, self.pause = 0, None, _FIRST_SEC

    def fails(self, error: BaseException | None) -> None:
        """Note a failure; an ``error`` of ``None`` is an end that nobody asked for."""
        if self.is_well:
            self.works()
        self.began = None
        self.failures += 1
        self.failures_in_a_row += 1
        self.failing_since = self.failing_since or time.time()
        self.reason = f"{type(error).__name__}: {error}" if error is not None else "it was ended"

    @property
    def is_well(self) -> bool:
        """Whether it has gone on for long enough to be called recovered."""
        return self.began is not None and time.monotonic() - self.began >= _WELL_SEC

    @property
    def is_failing(self) -> bool:
        """Whether it has failed, and has not worked since."""
        return self.failures_in_a_row > 0 and not self.is_well

    @property
    def is_lost(self) -> bool:
        """Whether it is vital, and there is no hope left."""
        since = self.failing_since
        return (
            self.vital and since is not None
            and self.failures_in_a_row >= _GIVE_UP_TRIES and time.time() - since >= _GIVE_UP_SEC
        )  # fmt: skip

    def sentence(self) -> str:
        """Return what operators are told while it fails."""
        times = "once" if self.failures_in_a_row == 1 else f"{self.failures_in_a_row} times in a row"
        return f"the background task {self.name!r} has failed {times}: {self.reason}"


class Supervisor:
    """Runs the background tasks of a gateway or a worker until it is stopped.

    Args:
        stop: Set when the process stops; the tasks are expected to end then.
        fatal: Errors after which a task is not tried again: the process must end.
        on_lost: Called when it must.
    """

    def __init__(
        self,
        stop: asyncio.Event,
        *,
        fatal: tuple[type[Exception], ...] = (),
        on_lost: Callable[[], None] = lambda: None,
    ) -> None:
        self._stop = stop
        self._fatal = fatal
        self._on_lost = on_lost
        self._tasks: dict[asyncio.Task[None], Supervised] = {}
        self.known: list[Supervised] = []
        """Every task, in the order in which they were begun."""
        self.lost = asyncio.Event()
        """Set when the process can go on no longer; ``error`` says why."""
        self.error: BaseException | None = None

    def every(
        self,
        name: str,
        step: Work,
        period: Seconds,
        *wake: asyncio.Event,
        after: asyncio.Event | None = None,
        vital: bool = False,
    ) -> Supervised:
        """Repeat a step.

        ``StoreUnavailable`` is no failure of a step: NATS is away, its connection says so, and the next step follows.

        Args:
            name: Of the task.
            step: What is done.
            period: Seconds from the end of one step to the next, or a function that returns them.
            wake: Events that end the pause early; they are cleared before each step.
            after: Set when it can begin.
            vital: Whether the process is of no use without it.
        """
        of = Supervised(name, vital)

        async def repeat() -> None:
            while not self._stop.is_set():
                for event in wake:
                    event.clear()
                try:
                    await step()
                except StoreUnavailable as error:
                    log.debug("a background task waits for NATS", task=name, reason=error.message)
                else:
                    of.works()
                await first_event(period() if callable(period) else period, self._stop, *wake)

        return self._begin(of, repeat, after)

    def rounds(
        self,
        name: str,
        what: Periodic,
        *wake: asyncio.Event,
        after: asyncio.Event | None = None,
        vital: bool = False,
    ) -> Supervised:
        """Repeat the rounds of something; the arguments are those of ``every``."""

        async def step() -> None:
            await what.round()

        return self.every(name, step, what.pause, *wake, after=after, vital=vital)

    def keep(self, name: str, work: Work, *, after: asyncio.Event | None = None, vital: bool = False) -> Supervised:
        """Do work that goes on until the process stops.

        Args:
            name: Of the task.
            work: What is done; called again after a failure.
            after: Set when it can begin.
            vital: Whether the process is of no use without it.
        """
        return self._begin(Supervised(name, vital), work, after)

    def once(self, name: str, work: Work, *, after: asyncio.Event | None = None, vital: bool = False) -> Supervised:
        """Do work that comes to an end, again after each failure.

        Args:
            name: Of the task.
            work: What is done.
            after: Set when it can begin.
            vital: Whether the process is of no use without it.
        """
        return self._begin(Supervised(name, vital, may_end=True), work, after)

    def failing(self) -> Iterator[Supervised]:
        """Yield the tasks that have failed and have not worked since."""
        return (one for one in self.known if one.is_failing)

    async def close(self, timeout: float) -> None:
        """Wait for the tasks to end, ``timeout`` seconds at most; ``stop`` is set."""
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=timeout)
            for task in late:
                log.warning("a background task does not stop", task=task.get_name())
                task.cancel()
            if late:
                await asyncio.wait(late, timeout=timeout)

    def _begin(self, one: Supervised, work: Work, after: asyncio.Event | None) -> Supervised:
        async def begin() -> None:
            while after is not None and not (after.is_set() or self._stop.is_set()):
                await first_event(_LOOK_SEC, after, self._stop)
            if not self._stop.is_set():
                await work()

        self.known.append(one)
        self._start(one, begin, pause=0.0)
        return one

    def _start(self, one: Supervised, work: Work, pause: float) -> None:
        async def run() -> None:
            if pause:
                await first_event(pause, self._stop)
            if not self._stop.is_set():
                one.began = time.monotonic()
                await work()

        task = asyncio.create_task(run(), name=one.name)
        self._tasks[task] = one
        task.add_done_callback(functools.partial(self._ended, work))

    def _ended(self, work: Work, task: asyncio.Task[None]) -> None:
        one = self._tasks.pop(task)
        if task.cancelled():
            # A program that leaves its event loop without closing us cancels everything, and this call never comes.
            asyncio.get_running_loop().call_later(_CANCELLED_SEC, self._failed, one, work, None)
            return
        error = task.exception()
        if error is None and one.may_end:
            one.works()
        elif not self._stop.is_set():
            self._failed(one, work, error)
        elif error is not None:
            log.error("a background task failed while stopping", task=one.name, exc_info=error)

    def _failed(self, one: Supervised, work: Work, error: BaseException | None) -> None:
        if self._stop.is_set():
            return
        one.fails(error)
        if isinstance(error, self._fatal) or one.is_lost:
            log.error("a background task cannot be kept alive", task=one.name, reason=one.reason, exc_info=error)
            self.error = error
            self.lost.set()
            self._on_lost()
            return
        log.error(
            "a background task failed; starting it again", task=one.name, failures=one.failures, in_sec=one.pause,
            reason=one.reason, exc_info=error,
        )  # fmt: skip
        self._start(one, work, pause=one.pause)
        one.pause = min(one.pause * 2, _LONGEST_SEC)
