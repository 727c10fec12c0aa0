"""The n-th call to NATS fails, or is executed and never answered: for every n of submit, claim and settle."""

import asyncio
import functools
import hashlib
import shutil
import signal
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pyoco_server.model.run import RunRecord, new_run_id, request_cancel
from pyoco_server.settings.environment import Settings
from pyoco_server.store import topology
from pyoco_server.store.control import ControlChannel
from pyoco_server.store.flows import FlowStore
from pyoco_server.store.nats.connection import Connection
from pyoco_server.store.queue.job_maker import JobMaker
from pyoco_server.store.queue.job_queue import JobQueue
from pyoco_server.store.runs import RunStore
from pyoco_server.store.submissions import Submissions
from pyoco_server.worker.worker import Worker
from tests.acceptance.conftest import Process

from .cluster import FLOW, TASKS, Cluster, until
from .conftest import Figure
from .faulty import Fault, FaultyConnection, Mode
from .history import TERMINAL, History, Journal
from .witness import Witness

pytestmark = [pytest.mark.faults, pytest.mark.anyio, pytest.mark.timeout(120)]

ENOUGH = 60
"""No path makes so many calls; a sweep that gets here does not end by itself."""
END = 20.0


@dataclass
class Bench:
    """A worker with a faulty connection, and a clean connection beside it."""

    settings: Settings
    fault: Fault
    worker: Worker
    connection: Connection
    witness: Witness
    journal: Journal

    @property
    def runs(self) -> RunStore:
        return RunStore(self.connection)

    async def submit(self, task: str, **fields: Any) -> str:
        """Make a run over the clean connection."""
        text = FLOW.format(task=task).encode()
        sha256 = hashlib.sha256(text).hexdigest()
        await FlowStore(self.connection).put(text, sha256)
        record = RunRecord(run_id=new_run_id(), flow_name=task, workflow_yaml_sha256=sha256, **fields)
        await Submissions(self.runs, JobMaker(JobQueue(self.connection), FlowStore(self.connection))).submit(record)
        self.journal.note("answered", record.run_id)
        return record.run_id

    async def until(self, run_id: str, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Wait until the witness has seen something of a run."""
        deadline = asyncio.get_running_loop().time() + END
        while not holds(self.witness.newest.get(run_id, {"status": None})):
            if asyncio.get_running_loop().time() > deadline:
                record = self.witness.newest.get(run_id)
                raise AssertionError(f"after {self.fault.spoiled}: the run stays {record}; calls: {self.fault.calls}")
            await asyncio.sleep(0.01)
        return self.witness.newest[run_id]

    async def end(self, run_id: str) -> dict[str, Any]:
        """Wait for a run's end."""
        return await self.until(run_id, lambda record: record["status"] in TERMINAL)

    async def one_letter(self, run_id: str, reason: str) -> None:
        """Wait for the one dead letter of a run, and see that no second one follows with the job's end."""
        deadline = asyncio.get_running_loop().time() + END
        while not (found := await self._letters(run_id)) or await self._waiting_jobs():
            assert asyncio.get_running_loop().time() < deadline, f"{len(found)} dead letters after {self.fault.spoiled}"
            await asyncio.sleep(0.05)
        assert [letter["reason"] for letter in await self._letters(run_id)] == [reason], self.fault.spoiled

    async def _letters(self, run_id: str) -> list[dict[str, Any]]:
        found = await asyncio.to_thread(self.witness.letters)
        return [letter for letter in found if letter.get("run_id") == run_id]

    async def _waiting_jobs(self) -> int:
        return int((await self.connection.js.stream_info(self.settings.work_stream)).state.messages)


@pytest.fixture
async def bench(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    settings = settings.model_copy(
        update={
            "consumer_ack_wait_sec": 1.0,
            "ack_progress_interval_sec": 0.25,
            "run_heartbeat_interval_sec": 0.1,
            "worker_heartbeat_interval_sec": 0.5,
            "cancel_grace_period_sec": 0.5,
        }
    )
    shutil.copy(TASKS, tmp_path)
    monkeypatch.chdir(tmp_path)
    fault = Fault(settings)
    monkeypatch.setattr("pyoco_server.worker.worker.Connection", FaultyConnection.with_fault(fault))
    clean = await Connection(settings, "clean").start()
    assert await clean.wait_up(10)
    await topology.ensure(clean)
    worker = Worker(settings)
    with Witness(settings).watching() as witness:
        await worker.start()
        serving = asyncio.create_task(worker.run(drain_sec=5))
        yield Bench(settings, fault, worker, clean, witness, Journal(tmp_path / "journal.jsonl"))
        worker.stopping.set()
        await serving
        await worker.close()
        await clean.close()


async def sweep(bench: Bench, one: Callable[[], Any], modes: tuple[Mode, ...]) -> int:
    """Try ``one`` with each of its calls spoiled in each way; the number of faults is the answer."""
    tried = 0
    for mode in modes:
        for number in range(1, ENOUGH):
            bench.fault.arm(number, mode)
            await one()
            if bench.fault.spoiled is None:
                break
            tried += 1
        else:
            raise AssertionError(f"it makes ever more calls: {bench.fault.calls}")
    bench.fault.arm(None, Mode.REFUSED)
    return tried


def check(bench: Bench, records: dict[str, dict[str, Any]]) -> None:
    """Check the history of everything tried."""
    History(bench.journal.read(), records, list(bench.witness.sightings)).check()


LIVE = (Mode.REFUSED, Mode.UNANSWERED, Mode.VANISHED)
DEADLY = (Mode.DIES_BEFORE, Mode.DIES_AFTER)


async def records(bench: Bench) -> dict[str, dict[str, Any]]:
    """Read every record as it is now."""
    return await asyncio.to_thread(bench.witness.records)


@pytest.mark.parametrize(
    ("task", "status"),
    [
        ("work", "COMPLETED"),
        ("raises", "FAILED"),
    ],
)
async def test_claim_and_settle(bench: Bench, figure: Figure, task: str, status: str) -> None:
    async def one() -> None:
        run_id = await bench.submit(task, params={"seconds": 0.1} if task == "work" else {})
        record = await bench.end(run_id)
        assert (record["status"], record["attempt"]) == (status, 1), (bench.fault.spoiled, record)
        if status == "FAILED":
            await bench.one_letter(run_id, "execution_error")

    faults = await sweep(bench, one, LIVE)
    check(bench, await records(bench))
    figure(f"{faults} faults, one in each call to NATS: each run ended {status} in its first attempt, all rules hold")


async def test_a_run_without_attempts_left(bench: Bench, figure: Figure) -> None:
    async def one() -> None:
        run_id = await bench.submit("work", params={"seconds": 0}, max_attempts=2, attempt=2, status="RUNNING")
        record = await bench.end(run_id)
        assert (record["status"], record["end_reason"]) == ("FAILED", "worker_lost"), bench.fault.spoiled
        await bench.one_letter(run_id, "attempts_exhausted")

    faults = await sweep(bench, one, LIVE)
    check(bench, await records(bench))
    figure(f"{faults} faults, one in each call to NATS: each run ended worker_lost with one dead letter")


async def test_a_cancelled_run(bench: Bench, figure: Figure) -> None:
    async def one() -> None:
        run_id = await bench.submit("stubborn")
        # With a fault in the claim's read it has not started yet when the cancel comes: CANCELLED at once then.
        await bench.until(run_id, lambda record: record["status"] == "RUNNING")
        stored = await bench.runs.change(run_id, lambda record: request_cancel(record, by=None, reason=None))
        assert stored is not None
        bench.journal.note("cancel", run_id, status=stored.record.status.value)
        await ControlChannel(bench.connection).tell(run_id)
        assert (await bench.end(run_id))["status"] == "CANCELLED", bench.fault.spoiled

    faults = await sweep(bench, one, LIVE)
    check(bench, await records(bench))
    figure(f"{faults} faults, one in each call to NATS: each cancelled run ended CANCELLED")


def test_a_worker_that_dies_at_any_call(cluster: Cluster, figure: Figure) -> None:
    root = str(Path(__file__).parents[2])
    dying = []
    for number in range(1, 11):
        for mode in DEADLY:
            tag = f"t{number}-{mode.name[5:].lower()}"
            run_id = cluster.submit("work", {"seconds": 0.1}, tag=tag)
            arguments = [str(Path(__file__).with_name("dying_worker.py")), str(number), mode.value]
            command = ["python", *arguments, "--nats-url", cluster.nats_url, "--worker-id", tag, "--tags", tag]
            begin = functools.partial(Process, command, cluster.folder, PYTHONPATH=root, **cluster.environment)
            dying.append((cluster.member(tag, begin, lambda _: None), run_id, tag))
    for member, run_id, tag in dying:
        until(
            lambda member=member, run_id=run_id: (
                not member.is_alive  # type: ignore[misc]
                or cluster.witness.newest.get(run_id, {}).get("status") in TERMINAL
            ),
            f"worker {tag} has died or finished",
            60,
        )
    died = sum(member.process.popen.poll() == -signal.SIGKILL for member, _, _ in dying)
    cluster.worker("--concurrency", "2", name="clean", tags=",".join(tag for _, _, tag in dying))
    ended = cluster.ends([run_id for _, run_id, _ in dying], 60)
    cluster.history().check()
    assert {run["status"] for run in ended} == {"COMPLETED"}
    assert died >= 10, "the workers outlived their faults"
    figure(f"{died} workers killed before or after one of their calls to NATS: every run was finished by another one")
