"""When a worker takes no runs because of its machine, for how long, and what it says of it."""

import asyncio
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyoco_server.model.worker import TroubleKind, WorkerRecord, WorkerTrouble
from pyoco_server.worker.machine import fitness as module
from pyoco_server.worker.machine.directories import Machine, MachineFault
from pyoco_server.worker.machine.fitness import LONGEST_SEC, Fitness
from pyoco_server.worker.wheels import wheel_failures as troubles

pytestmark = pytest.mark.anyio

DISK = MachineFault(TroubleKind.STATE_DIRECTORY, "the disk is full")
FORK = MachineFault(TroubleKind.PROCESS, "no process can be started")
WAIT = 10.0


class Place(Machine):
    """A machine that says what it is told."""

    def __init__(self) -> None:
        super().__init__(Path("/runs"), Path.cwd())
        self.faults: list[MachineFault] = []
        self.looks = 0

    def probe(self, environment: object = None) -> None:
        self.looks += 1
        if self.faults:
            raise self.faults.pop(0)

    def look_for(self, environment: object) -> None:
        """Everything is there."""

    def make_run_directory(self, run_id: str, attempt: int) -> Path:
        return self.run_directory(run_id, attempt)


class Crew:
    """A worker's fitness, and what it told."""

    def __init__(self, slots: int = 1, first: float = 0.02, longest: float = 0.08) -> None:
        self.place = Place()
        self.told: list[WorkerTrouble | None] = []
        self.fitness = Fitness(self.place, slots=slots, report=self.told.append, first=first, longest=longest)
        self.stop = asyncio.Event()
        self.refusals: list[MachineFault] = []
        self.prepared = 0

    async def prepare(self) -> None:
        if self.refusals:
            raise self.refusals.pop(0)
        self.prepared += 1

    async def fit(self, slot: object = "a", wait: float = WAIT) -> bool:
        return await self.fitness.fit(slot, self.prepare, wait, self.stop)


@pytest.fixture
def crew() -> Crew:
    return Crew()


async def test_a_machine_that_is_well_is_looked_at_now_and_then(crew: Crew) -> None:
    assert [await crew.fit() for _ in range(5)] == [True] * 5
    assert (crew.place.looks, crew.prepared, crew.told) == (1, 5, [])


async def test_nothing_is_taken_until_a_look_goes_well(crew: Crew) -> None:
    crew.place.faults = [DISK, DISK, DISK]
    before = time.time()
    assert await crew.fit()
    *held, last = crew.told
    assert [trouble.reason for trouble in held if trouble] == ["the disk is full"] * 3
    assert last is None
    assert len({trouble.since for trouble in held if trouble}) == 1  # it is one trouble, seen three times
    for trouble in held:
        assert trouble and trouble.next_try_at and before <= trouble.since <= trouble.next_try_at
    assert crew.fitness.trouble is None and not crew.fitness.unfit.is_set()


async def test_who_waits_for_so_long_and_no_longer_is_told(crew: Crew) -> None:
    slow = Crew(first=60, longest=60)
    slow.place.faults = [DISK]
    assert not await slow.fit(wait=0.01)
    assert slow.fitness.unfit.is_set()
    assert not await slow.fit(wait=0.01)
    assert (slow.place.looks, slow.prepared) == (1, 0)
    waiting = asyncio.create_task(slow.fit(wait=WAIT))
    await asyncio.sleep(0)
    slow.stop.set()
    assert not await waiting


async def test_one_slot_looks_for_all(crew: Crew) -> None:
    crowd = Crew(slots=20)
    crowd.place.faults = [DISK, DISK]
    assert await asyncio.gather(*(crowd.fit(f"slot {number}") for number in range(20))) == [True] * 20
    assert crowd.place.looks == 3
    assert [trouble.slots if trouble else 0 for trouble in crowd.told] == [20, 20, 0]


async def test_a_slot_without_a_process_holds_only_itself() -> None:
    crew = Crew(slots=2, first=60, longest=60)
    crew.refusals = [FORK]
    assert not await crew.fit("a", wait=0.01)
    assert await crew.fit("b")
    trouble = crew.fitness.trouble
    assert trouble is not None and (trouble.kind, trouble.slots) == ("process", 1)
    assert not crew.fitness.unfit.is_set()
    record = WorkerRecord(worker_id="w", slots=2, trouble=trouble)
    assert (record.is_unfit, record.takes_runs, record.unfit_slots) == (False, True, 1)
    crew.refusals = [FORK]
    assert not await crew.fit("c", wait=0.01)
    record = record.evolve(trouble=crew.fitness.trouble)
    assert (record.is_unfit, record.takes_runs, record.unfit_slots) == (True, False, 2)


@pytest.mark.parametrize("fault", [DISK, FORK])
async def test_after_a_run_that_could_not_begin_no_look_before_it_counts(crew: Crew, fault: MachineFault) -> None:
    assert await crew.fit()
    crew.fitness.note(fault, "a")
    assert crew.fitness.unfit.is_set() is (fault is DISK)  # then all requests for jobs end
    assert await crew.fit()  # after its time
    assert crew.place.looks == 2


async def test_what_fails_behind_a_look_is_not_tried_at_full_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    crew = Crew(first=2.0, longest=60.0)
    waits = []
    for _ in range(8):
        crew.fitness.note(DISK)
        trouble = crew.fitness.trouble
        assert trouble is not None and trouble.next_try_at is not None
        waits.append(round(trouble.next_try_at - clock.now))
        clock.now += waits[-1]
        await crew.fitness.look()
        assert crew.fitness.trouble is None
    assert waits == [2, 4, 8, 16, 32, 60, 60, 60]
    await crew.fitness.prepare_run("r", 1)  # a run has begun
    crew.fitness.note(DISK)
    assert crew.fitness.trouble is not None and crew.fitness.trouble.next_try_at == clock.now + 2
    clock.now += 2 + LONGEST_SEC + 1
    crew.fitness.note(DISK)  # long after: another one
    assert crew.fitness.trouble.next_try_at == clock.now + 2


async def test_a_file_system_that_does_not_answer(crew: Crew, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_ANSWER_SEC", 0.05)
    crew = Crew()
    hung = threading.Event()
    monkeypatch.setattr(crew.place, "probe", lambda _: hung.wait(WAIT))
    try:
        assert not await crew.fit(wait=0.01)
        trouble = crew.fitness.trouble
        assert trouble is not None and "/runs (PYOCO_STATE_DIR) does not answer" in trouble.reason
    finally:
        hung.set()
    assert await crew.fit()


async def test_no_thread_is_left_to_look(crew: Crew, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as short:
        short.setattr(threading.Thread, "start", refuse)
        assert not await crew.fit(wait=0.01)
        trouble = crew.fitness.trouble
        assert trouble is not None and trouble.reason == "no process for a run can be started: can't start new thread"
        with pytest.raises(MachineFault):
            await crew.fitness.prepare_run("r", 1)
    assert await crew.fit()


async def test_wheels_that_are_gone_are_made_anew(crew: Crew) -> None:
    class Wheels:
        environment = None
        looks = 0

        def look(self) -> None:
            self.looks += 1

    wheels = Wheels()
    crew.fitness.watch(wheels)
    crew.place.faults = [DISK, MachineFault(TroubleKind.ENVIRONMENT, "gone")]
    assert await crew.fit()
    assert wheels.looks == 1


async def test_a_fault_at_the_start_is_noted(crew: Crew) -> None:
    with crew.fitness.noting():
        raise DISK
    assert crew.fitness.trouble is not None
    with pytest.raises(ZeroDivisionError), crew.fitness.noting():
        _ = 1 / 0


class Clock:
    """Time that passes only when told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1_000_000.0
        for place in (module, troubles):
            monkeypatch.setattr(place, "time", self)

    def time(self) -> float:
        return self.now

    monotonic = time


SLOTS = {"a": object(), "b": object()}
steps = st.lists(st.tuples(st.sampled_from(["disk", "fork a", "fork b", "look", "fit a", "fit b"]), st.floats(0, 200)))


@given(steps=steps)
def test_what_is_told_is_what_holds(steps: list[tuple[str, float]]) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        asyncio.run(walk(Clock(monkeypatch), steps))


async def walk(clock: Clock, steps: list[tuple[str, float]]) -> None:
    crew = Crew(slots=2, first=2.0, longest=60.0)
    fitness = crew.fitness
    for what, later in steps:
        word, _, name = what.partition(" ")
        slot = SLOTS.get(name)
        if word == "disk":
            fitness.note(DISK, SLOTS["a"])
        elif word == "fork":
            fitness.note(FORK, slot)
        elif word == "look":
            await fitness.look()
        else:
            assert await crew.fit(slot, wait=0) is (slot not in held(fitness))
        trouble: Any = fitness.trouble
        assert (crew.told[-1] if crew.told else None) == trouble
        assert fitness.unfit.is_set() is (trouble is not None and trouble.kind == "state_directory")
        if trouble is not None:
            assert trouble.since <= clock.now and trouble.next_try_at <= clock.now + 60
            assert 1 <= trouble.slots <= 2
        clock.now += later


def held(fitness: Fitness) -> set[object]:
    """Name the slots that must wait now."""
    return {
        slot for slot in SLOTS.values() if max(fitness._next_in("machine"), fitness._next_in(module._key(slot))) > 0
    }
