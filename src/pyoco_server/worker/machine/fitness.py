"""Whether this machine can begin runs, and when to try again where it cannot.

A run that has not begun is not to blame for its worker's machine. So a worker looks before it asks for a job, hands
back what it cannot begin, says why in its record, and takes nothing until another look, or another start of a process,
went well.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Protocol, TypeVar

import structlog

from pyoco_server.model.run import RunRecord
from pyoco_server.model.worker import TroubleKind, WorkerTrouble
from pyoco_server.process.waiting import first_event
from pyoco_server.store.runs import RunStore, StoredRun
from pyoco_server.worker.machine.bounded_thread import NoThread, Sideline
from pyoco_server.worker.machine.directories import Machine, MachineFault, drop_run_directory, no_process
from pyoco_server.worker.recorder import Recorder
from pyoco_server.worker.wheels.environments import Environment
from pyoco_server.worker.wheels.wheel_failures import Troubles

log = structlog.get_logger(__name__)

FIRST_SEC, LONGEST_SEC = 2.0, 60.0
"""Between two tries: at first, and at most."""
_FRESH_SEC = 5.0
"""So long a look that went well counts: an idle worker need not write to its disk with every request for a job."""
_ANSWER_SEC = 10.0
"""How long a file system may take: one on a network may never answer."""
_ALL = "machine"
_Result = TypeVar("_Result")


class Wheels(Protocol):
    """What is needed of the wheel sync."""

    @property
    def environment(self) -> Environment | None:
        """What the next run imports from."""

    def look(self) -> None:
        """Begin a round now: it makes an environment anew that is gone."""


class Fitness:
    """Keeps the slots of a worker from taking what its machine cannot begin.

    Args:
        machine: What is looked at.
        slots: How many slots there are.
        report: Called with the worker record's ``trouble`` whenever it changes.
        first: Seconds until the second try; each further one waits twice as long.
        longest: Seconds between two tries at most.
    """

    def __init__(
        self,
        machine: Machine,
        *,
        slots: int,
        report: Callable[[WorkerTrouble | None], None],
        first: float = FIRST_SEC,
        longest: float = LONGEST_SEC,
    ) -> None:
        self.machine = machine
        self.unfit = asyncio.Event()
        """Set while no slot can begin a run: requests for jobs end then."""
        self._slots = slots
        self._wheels: Wheels | None = None
        self._report = report
        self._longest = longest
        self._troubles = Troubles(first, longest)
        self._shown: dict[str, WorkerTrouble] = {}
        self._looking = asyncio.Lock()
        self._probe = Sideline(lambda: self.machine.probe(self._environment), _ANSWER_SEC)
        self._fresh_until = 0.0

    def watch(self, wheels: Wheels) -> None:
        """Look at their environment too."""
        self._wheels = wheels

    @contextlib.contextmanager
    def noting(self) -> Iterator[None]:
        """Note a fault that the block raises, and go on behind it."""
        try:
            yield
        except MachineFault as fault:
            self.note(fault)

    @property
    def trouble(self) -> WorkerTrouble | None:
        """What keeps slots from taking runs: first what keeps all of them."""
        if _ALL in self._shown:
            return self._shown[_ALL].evolve(slots=self._slots)
        of_slots = list(self._shown.values())
        return of_slots[0].evolve(slots=len(of_slots)) if of_slots else None

    async def fit(
        self, slot: object, prepare: Callable[[], Awaitable[object]], wait: float, stop: asyncio.Event
    ) -> bool:
        """Wait until a slot can begin a run, with its process ready for it.

        Args:
            slot: Whose process it is.
            prepare: Makes the process ready; raises ``MachineFault`` where the machine does not let it.
            wait: Seconds to wait at most, unless ``prepare`` takes longer.
            stop: Ends the wait.

        Returns:
            Whether it can.
        """
        key, deadline = _key(slot), time.monotonic() + wait
        while not stop.is_set():
            if (pause := max(self._next_in(_ALL), self._next_in(key))) > 0:
                left = deadline - time.monotonic()
                await first_event(min(pause, max(left, 0.0)), stop)
                if pause > left:
                    return False
                continue
            try:
                await self.look()
                if _ALL in self._shown:
                    continue  # another slot has looked meanwhile
                await prepare()
            except MachineFault as fault:
                self.note(fault, slot)
            else:
                self._clear(key)
                return True
        return False

    async def look(self) -> None:
        """Look at the machine, unless that was done a moment ago or is not yet due again; one slot looks for all.

        Raises:
            MachineFault: no run can begin here. It is not noted yet.
        """
        async with self._looking:
            if self._next_in(_ALL) > 0 or time.monotonic() < self._fresh_until:
                return
            await self._answer(self._probe)
            self._fresh_until = time.monotonic() + _FRESH_SEC
            self._clear(_ALL)

    async def prepare_run(self, run_id: str, attempt: int) -> Path:
        """Make the working directory of an attempt, if nothing else is missing by now either.

        Raises:
            MachineFault: the run cannot begin here.
        """

        def make() -> Path:
            self.machine.look_for(self._environment)
            return self.machine.make_run_directory(run_id, attempt)

        place = await self._answer(Sideline(make, _ANSWER_SEC))
        self._troubles.forget(_ALL)
        return place

    async def drop_run(self, run_id: str, attempt: int) -> None:
        """Remove the working directory of an attempt that left nothing in it, if the file system answers."""
        place = self.machine.run_directory(run_id, attempt)
        try:
            await self._answer(Sideline(lambda: drop_run_directory(place), _ANSWER_SEC))
        except MachineFault as fault:
            log.info("an empty directory of a run stays behind", run_id=run_id, reason=fault.message)

    def note(self, fault: MachineFault, slot: object | None = None) -> None:
        """Take no more runs for a while.

        Args:
            fault: Why.
            slot: The only one that is concerned, if no process could be started: others may have theirs.
        """
        key = _key(slot) if slot is not None and fault.kind is TroubleKind.PROCESS else _ALL
        before = self._troubles.get(key)
        if before is not None and time.monotonic() > before.again_at + self._longest:
            self._troubles.forget(key)  # long over: this is another one
        self._troubles.note(key, fault.kind.value, fault.message)
        known = self._shown.get(key)
        if known is None or known.reason != fault.message:
            log.error("this machine cannot begin runs; trying again by itself", kind=fault.kind.value,
                      reason=fault.message)  # fmt: skip
        now, again = time.time(), self._troubles.next_try_in(key)
        self._shown[key] = WorkerTrouble(
            kind=fault.kind.value,
            reason=fault.message,
            since=known.since if known else now,
            next_try_at=now + again,
        )
        self._fresh_until = 0.0  # what was seen before does not count any more
        if key == _ALL:
            self.unfit.set()
        if fault.kind is TroubleKind.ENVIRONMENT and self._wheels is not None:
            self._wheels.look()
        self._report(self.trouble)

    def _clear(self, key: str) -> None:
        known = self._shown.pop(key, None)
        if known is None:
            return
        # How often it was tried stays known until a run has begun: what fails behind a look is not tried at full speed.
        seconds = round(time.time() - known.since, 1)
        log.info("this machine can begin runs again", kind=known.kind, after_sec=seconds)
        if key == _ALL:
            self.unfit.clear()
        self._report(self.trouble)

    def _next_in(self, key: str) -> float:
        return self._troubles.next_try_in(key) if key in self._shown else 0.0

    @property
    def _environment(self) -> Environment | None:
        return self._wheels.environment if self._wheels is not None else None

    async def _answer(self, call: Sideline[_Result]) -> _Result:
        try:
            return await call.ask()
        except NoThread as error:
            raise no_process(error) from error
        except TimeoutError as late:
            where = f"{self.machine.runs} (PYOCO_STATE_DIR)"
            raise MachineFault(
                TroubleKind.STATE_DIRECTORY, f"{where} does not answer: nothing was written within {_ANSWER_SEC:g} s"
            ) from late


async def hand_back(runs: RunStore, claimed: StoredRun) -> RunRecord | None:
    """Make a claimed run that has not begun wait again, as if it had never been claimed.

    Returns:
        The record as it is now: one that was cancelled meanwhile has ended; ``None`` if the run is not ours any more.
    """
    recorder = Recorder(runs, claimed, interval=1.0, on_cancel=lambda: None, on_lost=lambda: None)
    return await recorder.hand_back()


def _key(slot: object) -> str:
    return f"slot-{id(slot)}"
