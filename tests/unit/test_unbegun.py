"""A process that ends before the run has begun in it: the run is handed back, and its worker's machine is at fault."""

import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pyoco_server.model.job import Job
from pyoco_server.model.run import RunRecord, RunStatus, claim
from pyoco_server.model.worker import WorkerTrouble
from pyoco_server.settings.environment import Settings
from pyoco_server.store.queue.job_queue import Delivery
from pyoco_server.store.runs import StoredRun
from pyoco_server.worker.child.output.outputpipes import OutputPipes
from pyoco_server.worker.child.process import ChildEnd
from pyoco_server.worker.child.reports import Received
from pyoco_server.worker.claims import Claimed
from pyoco_server.worker.logs.runlog import NoRunLog
from pyoco_server.worker.machine.directories import Machine, MachineFault, no_process
from pyoco_server.worker.machine.fitness import Fitness
from pyoco_server.worker.slot import Slot

pytestmark = pytest.mark.anyio

SHOT = ChildEnd(-signal.SIGKILL)
RECORD = claim(RunRecord(run_id="r", flow_name="f"), worker_id="w", instance_id="i", job_seq=1)


class Child:
    """Says what it is told to, then ends."""

    is_alive = True
    environment = None

    def __init__(self, words: list[str], end: ChildEnd, runs: int = 0) -> None:
        self.output = OutputPipes(NoRunLog())
        self._words = words
        self._end = end
        self.runs = runs

    def begin(self, _: float) -> None:
        self.runs += 1

    rest = renew = kill = lambda *_: None

    async def send(self, _: Any) -> None:
        """It takes everything."""

    async def receive(self, longest: int) -> Received | None:
        assert longest > 256 * 1024
        return Received({"type": self._words.pop(0), "run_id": "r", "attempt": 1}, 50) if self._words else None

    async def wait_end(self) -> ChildEnd:
        return self._end


class Children:
    """Has the one child, or none."""

    def __init__(self, child: Child | MachineFault) -> None:
        self._child = child

    async def take(self, _: RunRecord) -> Child:
        if isinstance(self._child, MachineFault):
            raise self._child
        return self._child

    async def give_back(self, *_: object, buried: Callable[[], Awaitable[None]], **__: object) -> None:
        await buried()


class World:
    """A slot with what it talks to."""

    def __init__(self, folder: Path, child: Child | MachineFault) -> None:
        self.written: list[RunRecord] = []
        self.told: list[WorkerTrouble | None] = []
        self.answers: list[str] = []
        self.machine = Machine(folder / "runs", Path.cwd())
        nothing = SimpleNamespace(started=lambda *_: None, ended=lambda *_: None, read=None, bury=self._bury)
        none = cast(Any, nothing)
        self.slot = Slot(
            Settings(_env_file=None), puller=none, claims=none, runs=cast(Any, self), flows=none, logs=none,
            registration=none, resolver=None, max_runs_per_child=10,
            fitness=Fitness(self.machine, slots=1, report=self.told.append),
        )  # fmt: skip
        self.slot._children = cast(Any, Children(child))

    max_bytes = 1 << 18

    async def update(self, record: RunRecord, revision: int) -> StoredRun:
        self.written.append(record)
        return StoredRun(record, revision + 1)

    async def _bury(self, *_: object) -> None:
        """Letters are not looked at here."""

    async def run(self, num_delivered: int = 1) -> None:
        async def answer(payload: bytes) -> None:
            self.answers.append(payload.decode())

        delivery = SimpleNamespace(
            num_delivered=num_delivered, give_back=lambda: answer(b"back"), ack=lambda: answer(b"done")
        )
        job = Job(run_id="r", flow_name="f")
        await self.slot._execute(cast(Delivery, delivery), Claimed(job, StoredRun(RECORD, 1)))


@pytest.mark.parametrize("end", [SHOT, ChildEnd(1), ChildEnd(0)])
async def test_the_run_waits_again_at_no_cost(tmp_path: Path, end: ChildEnd) -> None:
    world = World(tmp_path, Child([], end))
    await world.run()
    [record] = world.written
    assert (record.status, record.attempt, world.answers) == (RunStatus.PENDING, 0, ["back"])
    assert world.told[0] is not None and world.told[0].reason == f"the process for a run {end} before the run began"
    assert list(world.machine.runs.iterdir()) == []


async def test_what_has_begun_is_the_runs_own(tmp_path: Path) -> None:
    world = World(tmp_path, Child(["begun"], SHOT))
    await world.run()
    [record] = world.written
    assert (record.status, record.end_reason) == (RunStatus.FAILED, "child_killed_by_signal")
    assert (world.told, world.answers) == ([], ["done"])


async def test_a_run_that_never_begins_anywhere_is_to_blame_in_the_end(tmp_path: Path) -> None:
    world = World(tmp_path, Child([], SHOT))
    await world.run(num_delivered=10)
    [record] = world.written
    assert record.status is RunStatus.FAILED and world.told == []


async def test_a_kept_process_that_an_earlier_run_broke_says_nothing_of_the_machine(tmp_path: Path) -> None:
    world = World(tmp_path, Child([], SHOT, runs=3))
    await world.run()
    assert (world.written[0].status, world.told, world.answers) == (RunStatus.PENDING, [], ["back"])


@pytest.mark.parametrize("fault", [no_process(BlockingIOError(11, "Resource temporarily unavailable"))])
async def test_no_process_can_be_had(tmp_path: Path, fault: MachineFault) -> None:
    world = World(tmp_path, fault)
    await world.run()
    assert (world.written[0].status, world.written[0].attempt, world.answers) == (RunStatus.PENDING, 0, ["back"])
    assert world.told[0] is not None
    assert world.told[0].reason == ("no process for a run can be started: Resource temporarily unavailable (EAGAIN)")
    assert list(world.machine.runs.iterdir()) == []


async def test_no_directory_can_be_had(tmp_path: Path) -> None:
    (tmp_path / "runs").touch()
    world = World(tmp_path, Child([], SHOT))
    await world.run()
    assert (world.written[0].status, world.answers) == (RunStatus.PENDING, ["back"])
    assert world.told[0] is not None and "ENOTDIR" in world.told[0].reason
    assert world.slot._fitness.unfit.is_set()
