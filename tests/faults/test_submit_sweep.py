"""The n-th call of a submission to NATS fails, is never answered, or is the gateway's last: for every n."""

import asyncio
import shutil
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from pyoco_server.settings.environment import Settings
from pyoco_server.worker.worker import Worker
from tests.integration.test_gateway import running

from .cluster import FLOW, TASKS
from .conftest import Figure
from .faulty import Fault, FaultyConnection, Mode
from .history import TERMINAL, History, Journal
from .witness import Witness

pytestmark = [pytest.mark.faults, pytest.mark.anyio, pytest.mark.timeout(120)]

ENOUGH = 40
TRIES = 10
END = 30.0
YAML = {"files": {"workflow": ("flow.yaml", FLOW.format(task="work").encode())}}


@dataclass
class Gateways:
    """One gateway with a faulty connection, one with a clean one, and a worker that finishes what they take."""

    faulty: httpx2.AsyncClient
    clean: httpx2.AsyncClient
    fault: Fault
    witness: Witness
    journal: Journal

    async def submit(self, key: str | None) -> str:
        """Submit as a patient client does: again and again, at the other gateway when one fails."""
        headers = {"Idempotency-Key": key} if key else {}
        data = {"flow_name": "main", "params": '{"seconds": 0}'}
        for number in range(TRIES):
            client = (self.faulty, self.clean)[number % 2]
            answer = await client.post("/runs/yaml", data=data, headers=headers, **YAML)  # type: ignore[arg-type]
            if answer.status_code == 200:
                run_id = str(answer.json()["run_id"])
                self.journal.note("answered", run_id, key=key)
                return run_id
            assert answer.status_code == 503, answer.text
        raise AssertionError(f"never answered, after {self.fault.spoiled}")

    async def all_end(self) -> dict[str, dict[str, Any]]:
        """Wait until every run has ended, answered or not; the witness hears of the last one a moment later than we."""
        deadline = asyncio.get_running_loop().time() + END
        while True:
            records = await asyncio.to_thread(self.witness.records)
            waiting = [run_id for run_id, record in records.items() if record["status"] not in TERMINAL]
            waiting += [event["run_id"] for event in self.journal.read() if event["run_id"] not in records]
            if not waiting:
                return records
            assert asyncio.get_running_loop().time() < deadline, f"{len(waiting)} runs do not end: {waiting[:3]}"
            await asyncio.sleep(0.1)


@pytest.fixture
async def gateways(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Gateways]:
    settings = settings.model_copy(
        update={
            "consumer_ack_wait_sec": 1.0,
            "ack_progress_interval_sec": 0.25,
            "worker_heartbeat_interval_sec": 0.5,
            "reconcile_interval_sec": 0.5,
            "reconcile_after_sec": 2.0,
        }
    )
    shutil.copy(TASKS, tmp_path)
    monkeypatch.chdir(tmp_path)
    fault = Fault(settings)
    worker = Worker(settings)
    other = settings.model_copy(update={"state_dir": tmp_path / "other"})
    async with running(other) as clean:
        with monkeypatch.context() as patched:
            patched.setattr("pyoco_server.gateway.gateway.Connection", FaultyConnection.with_fault(fault))
            serving = running(settings)
            faulty = await serving.__aenter__()
        await worker.start()
        working = asyncio.create_task(worker.run(drain_sec=5))
        with Witness(settings).watching() as witness:
            yield Gateways(faulty.http, clean.http, fault, witness, Journal(tmp_path / "journal.jsonl"))
        fault.arm(None, Mode.REFUSED)
        await serving.__aexit__(None, None, None)
        worker.stopping.set()
        await working
        await worker.close()


@pytest.mark.parametrize("keyed", [True, False], ids=["with-a-key", "without-a-key"])
async def test_submit(gateways: Gateways, figure: Figure, keyed: bool) -> None:
    tried = 0
    for mode in (Mode.REFUSED, Mode.UNANSWERED, Mode.CUT_BEFORE, Mode.CUT_AFTER):
        for number in range(1, ENOUGH):
            gateways.fault.arm(number, mode)
            await gateways.submit(uuid.uuid4().hex if keyed else None)
            if gateways.fault.spoiled is None:
                break
            tried += 1
        else:
            raise AssertionError(f"it makes ever more calls: {gateways.fault.calls}")
    gateways.fault.arm(None, Mode.REFUSED)
    records = await gateways.all_end()
    history = History(gateways.journal.read(), records, list(gateways.witness.sightings))
    history.check()
    assert {record["status"] for record in records.values()} == {"COMPLETED"}
    extra = len(records) - len(history.answered)
    assert not keyed or extra == 0
    figure(
        f"{tried} faults, one in each call to NATS: {len(history.answered)} submissions answered, each run once and "
        f"COMPLETED; {extra} runs of unanswered requests left, none of them unfinished"
    )
