"""What a delivery means while NATS's answers get lost."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pyoco_server.errors import RevisionConflict, StoreUnavailable
from pyoco_server.model.job import Job
from pyoco_server.model.run import RunRecord
from pyoco_server.settings.environment import Settings
from pyoco_server.store.runs import StoredRun
from pyoco_server.worker import claims as claims_module
from pyoco_server.worker.claims import Claims
from pyoco_server.worker.machine.directories import Machine
from pyoco_server.worker.machine.fitness import Fitness
from pyoco_server.worker.slot import Slot

pytestmark = pytest.mark.anyio

SETTINGS = Settings(_env_file=None)
GIVEN_BACK: list[float] = []


async def give_back(delay: float = 0.0) -> None:
    GIVEN_BACK.append(delay)


DELIVERY = cast(
    Any,
    SimpleNamespace(
        data=Job(run_id="r", flow_name="f", recorded=True).to_json(), seq=1, num_delivered=1, tag="t", subject="s.t",
        give_back=give_back,
    ),
)  # fmt: skip


class Runs:
    """A store of one run, whose answers to the first ``lost`` writes are lost; ``written`` tells which arrived."""

    may_be_late = False
    contradicts = False
    """Whether writes are refused although they are stored."""

    def __init__(self, *lost: bool) -> None:
        self.stored = StoredRun(RunRecord(run_id="r", flow_name="f"), 1)
        self._lost = list(lost)

    async def get(self, run_id: str, *, salvaged: bool = False) -> StoredRun:
        return self.stored

    async def update(self, record: RunRecord, revision: int) -> StoredRun:
        if not self._lost:
            return self._write(record, revision)
        if self._lost.pop(0):
            self._write(record, revision)
        raise StoreUnavailable("no answer")

    def _write(self, record: RunRecord, revision: int) -> StoredRun:
        if revision != self.stored.revision:
            raise RevisionConflict("somebody else wrote first")
        # What is read later went through JSON.
        self.stored = StoredRun(RunRecord.from_json(record.to_json()), revision + 1)
        if self.contradicts:
            raise RevisionConflict("a leader of the past knows nothing of it")
        return self.stored


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims_module, "_CONFIRM_PAUSES", (0.0, 0.0))
    GIVEN_BACK.clear()


def claims(runs: Runs) -> Claims:
    stores = (cast(Any, runs), cast(Any, None), cast(Any, None))  # nobody holds the run, and no letter is written
    return Claims(SETTINGS, *stores, worker_id="w", instance_id="i")


@pytest.mark.parametrize("lost", [(), (False,), (True,), (False, True)])
async def test_a_claim_whose_answer_is_lost_costs_one_attempt(lost: tuple[bool, ...]) -> None:
    runs = Runs(*lost)
    claimed = await claims(runs).take(DELIVERY)
    assert claimed is not None
    assert (claimed.stored.record.attempt, claimed.stored.revision) == (1, 2)
    assert runs.stored == claimed.stored


async def test_a_claim_that_is_never_answered_is_given_up() -> None:
    with pytest.raises(StoreUnavailable):
        await claims(Runs(False, False, False, False)).take(DELIVERY)


async def test_a_claim_that_one_leader_refused_and_another_stored_costs_one_attempt() -> None:
    runs = Runs()
    runs.contradicts = True
    claimed = await claims(runs).take(DELIVERY)
    assert claimed is not None and claimed.stored == runs.stored
    assert runs.stored.record.attempt == 1


async def test_a_record_that_is_missing_among_replicas_is_looked_for_again() -> None:
    class Nothing(Runs):
        may_be_late = True

        async def get(self, run_id: str, *, salvaged: bool = False) -> Any:
            return None

    refused: list[str] = []
    here = claims(Nothing())

    async def refuse(_: Any, error: str, __: Any) -> None:
        refused.append(error)

    here._refuse = refuse  # type: ignore[method-assign]
    for number in range(1, 4):
        delivery = SimpleNamespace(**{**vars(DELIVERY), "num_delivered": number})
        assert await here.take(cast(Any, delivery)) is None
    assert GIVEN_BACK == [2.0, 2.0] and refused == ["there is no record of run r"]


async def test_a_job_that_could_not_be_claimed_is_given_back_and_not_kept_alive(tmp_path: Path) -> None:
    async def next_job(wait: float, *stop: asyncio.Event) -> Any:
        return DELIVERY

    async def nothing(*_: Any) -> None:
        """There is a child already, and nothing to wait for."""

    slot = Slot(
        SETTINGS,
        puller=cast(Any, SimpleNamespace(next=next_job, last_round_trip=1.0)),
        claims=claims(Runs(False, False, False)),
        runs=cast(Any, None),
        flows=cast(Any, None),
        logs=cast(Any, None),
        registration=cast(Any, SimpleNamespace(last_pull_at=None)),
        resolver=None,
        fitness=Fitness(Machine(tmp_path, Path.cwd()), slots=1, report=lambda _: None),
        max_runs_per_child=1,
    )
    slot.prepare = nothing  # type: ignore[method-assign,assignment]
    stop = asyncio.Event()
    assert await slot.run_one(0.1, stop) is None
    assert slot.delivery is None
    assert GIVEN_BACK == [2.0]  # later each time


async def test_one_last_attempt_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    here = claims(Runs())
    assert here._wait_for_last("a") == 0
    assert here._wait_for_last("a") == 0  # its own job again
    assert 0 < here._wait_for_last("b") <= 5
    here.ended("b")  # not the one that is waited for
    assert here._wait_for_last("b") > 0
    here.ended("a")
    assert here._wait_for_last("b") == 0
    monkeypatch.setattr(claims_module, "_PROBATION", 0.0)
    assert here._wait_for_last("c") == 0  # the one before has run for long enough
