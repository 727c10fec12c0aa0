"""A silent worker is dead only while NATS itself is heard."""

import time
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pyoco_server.model.run import RunRecord, RunStatus, claim
from pyoco_server.model.worker import WorkerRecord
from pyoco_server.settings.environment import Settings
from pyoco_server.worker.owners import Owners
from pyoco_server.worker.registration import Registration

pytestmark = pytest.mark.anyio

SETTINGS = Settings(_env_file=None)
BEAT = SETTINGS.worker_heartbeat_interval_sec


class Clock:
    """A monotonic clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock)
    return clock


def owners_and_registration() -> tuple[Owners, Registration]:
    async def silent(worker_id: str) -> Any:
        return SimpleNamespace(record=WorkerRecord(worker_id="other", instance_id="o", last_heartbeat_at=1.0))

    store = cast(Any, SimpleNamespace(get=silent))
    registration = Registration(SETTINGS, store, "me", ["t"], 1)
    connection = cast(Any, SimpleNamespace(settings=SETTINGS, returned_at=None))
    return Owners(connection, store, registration), registration


def held_by_another() -> RunRecord:
    record = claim(RunRecord(run_id="r", flow_name="f"), worker_id="other", instance_id="o", job_seq=1)
    return record.evolve(start_time=1.0, status=RunStatus.RUNNING)


async def test_a_silent_worker_is_dead_while_our_own_heartbeats_arrive(clock: Clock) -> None:
    owners, registration = owners_and_registration()
    assert await owners.patience_with(held_by_another()) == 0  # a worker that has just started knows no better
    for _ in range(3):
        registration._note_beat(clock.now)
        clock.now += BEAT
    assert await owners.patience_with(held_by_another()) == 0


async def test_nobody_is_dead_while_nats_stands_still_and_shortly_after(clock: Clock) -> None:
    owners, registration = owners_and_registration()
    registration._note_beat(clock.now)
    clock.now += 3 * BEAT  # NATS stands still
    assert await owners.patience_with(held_by_another()) > BEAT
    registration._note_beat(clock.now)  # it goes on: the others have as much time as we had
    assert await owners.patience_with(held_by_another()) > BEAT
    for _ in range(3):
        clock.now += BEAT
        registration._note_beat(clock.now)
    assert await owners.patience_with(held_by_another()) == 0
