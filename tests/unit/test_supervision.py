"""Background tasks: whatever ends one, it is started again, and told of."""

import asyncio
import time
from collections.abc import Iterator

import pytest

from pyoco_server.errors import CommandFailed, StoreUnavailable
from pyoco_server.process import supervision
from pyoco_server.process.supervision import Supervised, Supervisor

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervision, "_FIRST_SEC", 0.01)
    monkeypatch.setattr(supervision, "_LONGEST_SEC", 0.02)


@pytest.fixture
def stop() -> Iterator[asyncio.Event]:
    event = asyncio.Event()
    yield event
    event.set()


class Step:
    """A step that does what its turn says, and at last nothing."""

    def __init__(self, *turns: BaseException) -> None:
        self.turns = list(turns)
        self.calls = 0
        self.went_well = asyncio.Event()

    async def __call__(self) -> None:
        self.calls += 1
        if self.turns:
            raise self.turns.pop(0)
        self.went_well.set()


async def well(step: Step) -> None:
    await asyncio.wait_for(step.went_well.wait(), 10)
    await asyncio.sleep(0)  # until its supervisor has noted that


async def test_a_step_is_repeated_at_its_period_and_when_it_is_woken(stop: asyncio.Event) -> None:
    supervisor, step, wake = Supervisor(stop), Step(), asyncio.Event()
    supervisor.every("t", step, lambda: 60.0, wake)
    await well(step)
    for calls in (2, 3):
        step.went_well.clear()
        wake.set()
        await well(step)
        assert step.calls == calls and not wake.is_set()
    stop.set()
    await supervisor.close(5)


@pytest.mark.parametrize("error", [ValueError("x"), asyncio.CancelledError(), KeyError("k"), CommandFailed("no")])
async def test_whatever_a_step_raises_it_is_repeated(stop: asyncio.Event, error: BaseException) -> None:
    supervisor, step = Supervisor(stop), Step(error, error)
    task = supervisor.every("t", step, 0.01)
    while not task.is_failing:
        await asyncio.sleep(0)
    why = "it was ended" if isinstance(error, asyncio.CancelledError) else type(error).__name__
    assert list(supervisor.failing()) == [task] and task.failing_since and why in task.reason
    await well(step)
    assert (task.failures, task.failures_in_a_row, task.is_failing) == (2, 0, False)
    assert not supervisor.lost.is_set()
    stop.set()
    await supervisor.close(5)


async def test_a_task_that_is_killed_comes_back(stop: asyncio.Event) -> None:
    supervisor, step = Supervisor(stop), Step()
    task = supervisor.every("victim", step, 0.01)
    await well(step)
    step.went_well.clear()
    next(one for one in asyncio.all_tasks() if one.get_name() == "victim").cancel()
    await well(step)
    assert task.failures == 1
    stop.set()
    await supervisor.close(5)


def test_a_program_that_leaves_its_loop_is_not_told_of_failures(capfd: pytest.CaptureFixture[str]) -> None:
    async def program() -> None:
        supervisor = Supervisor(asyncio.Event())
        supervisor.every("t", Step(), 0.01)
        supervisor.keep("u", asyncio.Event().wait)
        await asyncio.sleep(0.05)

    asyncio.run(program())
    assert capfd.readouterr() == ("", "")


async def test_nats_away_is_no_failure(stop: asyncio.Event) -> None:
    supervisor, step = Supervisor(stop), Step(StoreUnavailable("away"), StoreUnavailable("away"))
    task = supervisor.every("t", step, 0.01)
    await well(step)
    assert task.failures == 0 and step.calls == 3
    stop.set()
    await supervisor.close(5)


async def test_work_that_ends_by_itself_has_failed_unless_it_may(stop: asyncio.Event) -> None:
    supervisor, kept, once = Supervisor(stop), Step(), Step(ValueError("first"))
    task, done = supervisor.keep("kept", kept), supervisor.once("once", once)
    await well(once)
    while kept.calls < 3:
        await asyncio.sleep(0.005)
    assert task.is_failing and task.reason == "it was ended"
    assert (once.calls, done.failures, done.is_failing) == (2, 1, False)
    stop.set()
    await supervisor.close(5)


async def test_it_begins_when_it_may(stop: asyncio.Event) -> None:
    supervisor, step, made = Supervisor(stop), Step(), asyncio.Event()
    supervisor.every("t", step, 0.01, after=made)
    await asyncio.sleep(0.05)
    assert step.calls == 0
    made.set()
    await well(step)
    stop.set()
    await supervisor.close(5)


async def test_a_vital_task_without_hope_ends_the_process(stop: asyncio.Event, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervision, "_GIVE_UP_SEC", 0.05)
    told: list[bool] = []
    supervisor = Supervisor(stop, on_lost=lambda: told.append(True))
    step = Step(*(ValueError(str(n)) for n in range(100)))
    supervisor.every("not vital", Step(*(ValueError("x") for _ in range(100))), 0.01)
    vital = supervisor.every("vital", step, 0.01, vital=True)
    await asyncio.wait_for(supervisor.lost.wait(), 10)
    assert told == [True] and isinstance(supervisor.error, ValueError)
    assert vital.failures >= supervision._GIVE_UP_TRIES
    assert "'vital' has failed" in vital.sentence() and "in a row" in vital.sentence()
    stop.set()
    await supervisor.close(5)


async def test_a_fatal_error_ends_the_process_at_once(stop: asyncio.Event) -> None:
    supervisor = Supervisor(stop, fatal=(CommandFailed,))
    task = supervisor.every("t", Step(CommandFailed("the name is taken")), 0.01)
    await asyncio.wait_for(supervisor.lost.wait(), 10)
    assert isinstance(supervisor.error, CommandFailed) and task.failures == 1


async def test_work_that_does_not_stop_is_cancelled(stop: asyncio.Event) -> None:
    supervisor = Supervisor(stop)
    ended: list[bool] = []

    async def deaf() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(True)

    task = supervisor.keep("deaf", deaf)
    await asyncio.sleep(0)
    stop.set()
    await supervisor.close(0.05)
    assert ended == [True] and task.failures == 0


def test_a_failure_after_a_long_good_time_is_the_first_one() -> None:
    task = Supervised("t", began=time.monotonic() - 60)
    task.failures_in_a_row, task.failing_since, task.pause = 5, 1.0, 30.0
    assert not task.is_failing
    task.fails(ValueError("x"))
    assert task.failures_in_a_row == 1 and task.failing_since and task.failing_since > 1.0 and task.pause < 1.0
