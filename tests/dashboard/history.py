"""An hour of runs, written as workers write them: what charts are drawn from."""

import asyncio
import random
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import nats

from pyoco_server.model.run import EndReason, RunRecord, RunStatus, claim, new_run_id, settle
from pyoco_server.model.worker import WorkerRecord
from tests.acceptance.conftest import System

_RUNS, _WORKERS = "$KV.pyoco_runs", "$KV.pyoco_workers"
_ENDS = (
    (RunStatus.COMPLETED, EndReason.COMPLETED, 0.94),
    (RunStatus.FAILED, EndReason.TASK_FAILED, 0.045),
    (RunStatus.CANCELLED, EndReason.CANCELLED, 0.015),
)


def ended(chance: random.Random, end: float) -> RunRecord:
    """Give a run that ended then (unix seconds), more often well than not."""
    waited, ran = chance.lognormvariate(-0.7, 0.9), chance.lognormvariate(0.9, 0.8)
    status, reason, _ = chance.choices(_ENDS, [share for *_, share in _ENDS])[0]
    waits = RunRecord(run_id=new_run_id(), flow_name="main", tag="cpu", submitted_at=end - ran - waited)
    record = settle(claim(waits, worker_id="cpu-1", instance_id="i", job_seq=1), status, reason, None)
    return record.model_copy(
        update={
            "start_time": end - ran, "end_time": end, "updated_at": end,
            "queue_wait_ms": waited * 1000, "run_ms": ran * 1000,
        }
    )  # fmt: skip


def waiting(tag: str, since_sec: float) -> RunRecord:
    """Give a run that has waited so long."""
    since = time.time() - since_sec
    return RunRecord(run_id=new_run_id(), flow_name="main", tag=tag, submitted_at=since, updated_at=since)


def write(system: System, *workers: WorkerRecord, runs: int, others: Sequence[RunRecord] = ()) -> None:
    """Write runs that ended in the last hour, more of them lately; other runs; and workers."""
    chance, now = random.Random(7), time.time()
    records = [ended(chance, now - 3500 * chance.random() ** 1.4) for _ in range(runs)] + list(others)

    async def publish() -> None:
        client = await nats.connect(system.nats_url)
        stream = client.jetstream()
        await asyncio.gather(*(stream.publish(f"{_RUNS}.{one.run_id}", one.to_json()) for one in records))
        await asyncio.gather(*(stream.publish(f"{_WORKERS}.{one.worker_id}", one.to_json()) for one in workers))
        await client.close()

    with ThreadPoolExecutor(1) as thread:  # Playwright has an event loop in this one
        thread.submit(asyncio.run, publish()).result()
