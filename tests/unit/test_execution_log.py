"""Whoever sees the end of a run finds its whole log: the log is stored first."""

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pyoco_server.errors import StoreUnavailable
from pyoco_server.model.job import Job
from pyoco_server.model.run import RunRecord, claim
from pyoco_server.settings.environment import Settings
from pyoco_server.store.logs import LogStore
from pyoco_server.store.runs import StoredRun
from pyoco_server.worker import slot as slot_module
from pyoco_server.worker.child.output.frames import Kind, encode
from pyoco_server.worker.child.output.outputpipes import OutputPipes
from pyoco_server.worker.child.reports import Received
from pyoco_server.worker.claims import Claimed
from pyoco_server.worker.logs.runlog import NoRunLog
from pyoco_server.worker.machine.directories import Machine
from pyoco_server.worker.machine.fitness import Fitness
from pyoco_server.worker.slot import Slot

pytestmark = pytest.mark.anyio


class Child:
    """Prints a line and is done."""

    is_alive = True
    runs = 0
    environment = None

    def __init__(self) -> None:
        self.output = OutputPipes(NoRunLog())

    def begin(self, _: float) -> None:
        """Nothing dies here."""

    rest = renew = kill = lambda *_: None

    async def send(self, _: Any) -> None:
        os.write(self.output.frames_end, encode(Kind.STDOUT, "t", 1.0, b"the last line"))

    async def receive(self, longest: int) -> Received:
        assert longest > 256 * 1024
        last = {"type": "finished", "run_id": "r", "attempt": 1, "outcome": "completed", "reusable": True}
        return Received(last, 80)


@pytest.mark.parametrize("away", [False, True])
async def test_the_log_is_stored_before_the_end_unless_it_takes_too_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, away: bool
) -> None:
    monkeypatch.setattr(slot_module, "_LOG_SEC", 0.2)
    told: list[str] = []

    class Logs(LogStore):
        def __init__(self) -> None:
            """In no NATS."""

        async def publish(self, run_id: str, chunk: Any, message_id: str) -> None:
            if away and "end" not in told:
                raise StoreUnavailable("away")
            told.extend(line.text for line in chunk.lines)

    class Runs:
        max_bytes = 1 << 18

        async def update(self, record: RunRecord, revision: int) -> StoredRun:
            told.append("end")
            return StoredRun(record, revision + 1)

    slot = Slot(
        Settings(_env_file=None),
        puller=cast(Any, None),
        claims=cast(Any, SimpleNamespace(ended=lambda _: None)),
        runs=cast(Any, Runs()),
        flows=cast(Any, SimpleNamespace(read=None)),
        logs=Logs(),
        registration=cast(Any, SimpleNamespace(started=lambda *_: None, ended=lambda *_: None)),
        resolver=None,
        fitness=Fitness(Machine(tmp_path, Path.cwd()), slots=1, report=lambda _: None),
        max_runs_per_child=10,
    )
    child = Child()

    async def take(_: RunRecord) -> Any:
        return child

    monkeypatch.setattr(slot._children, "take", take)
    monkeypatch.setattr(slot._children, "give_back", lambda *_, **__: _nothing())
    run = claim(RunRecord(run_id="r", flow_name="f"), worker_id="w", instance_id="i", job_seq=1)
    monkeypatch.setattr(slot, "_finish", lambda *_: _nothing())
    await slot._execute(
        cast(Any, SimpleNamespace(num_delivered=1)), Claimed(Job(run_id="r", flow_name="f"), StoredRun(run, 1))
    )
    assert told == (["end", "the last line"] if away else ["the last line", "end"])
    child.output.close()


async def _nothing() -> None:
    """The queue needs no word here."""
