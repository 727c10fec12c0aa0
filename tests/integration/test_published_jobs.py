"""Jobs that another program puts on the queue, with a record or without one."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pyoco_server.model.job import Job
from pyoco_server.model.run import RunRecord
from pyoco_server.settings.environment import Settings
from pyoco_server.store.client import PyocoNatsClient
from pyoco_server.store.deadletters import DeadLetterStore
from pyoco_server.store.nats.connection import Connection
from pyoco_server.store.runs import RunStore
from pyoco_server.worker import claims
from pyoco_server.worker.embedding import PyocoNatsWorker

pytestmark = pytest.mark.anyio

RESOLVER = """
import time
from pyoco import Flow, task
@task
def twice(x=0, sec=0):
    time.sleep(sec)
    return 2 * x
def resolve(name):
    return Flow(name) >> twice
"""
FLOW = """\
version: 1
flow: {graph: add_one}
tasks: {add_one: {callable: "pyoco_server._workflow_test_tasks:add_one", inputs: {x: $ctx.params.x}}}
"""


@dataclass
class Queue:
    settings: Settings
    connection: Connection
    runs: RunStore
    worker: PyocoNatsWorker

    async def publish(self, **job: Any) -> None:
        raw = json.dumps({"run_id": "r", "flow_name": "main", **job}).encode()
        await self.connection.js.publish(f"{self.settings.work_subject_prefix}.default", raw)

    async def put(self, **fields: Any) -> None:
        """Write a record as a program does that does not look at what is there."""
        raw = json.dumps({"run_id": "r", "flow_name": "main", "status": "PENDING", "tag": "default", **fields})
        await self.connection.js.publish(f"$KV.{self.settings.runs_kv_bucket}.r", raw.encode())

    async def record(self, run_id: str = "r") -> RunRecord:
        stored = await self.runs.get(run_id)
        assert stored is not None, "there is no record"
        return stored.record

    async def until_letter(self) -> dict[str, Any]:
        """Let the worker look at jobs, none of which it runs, until there is a dead letter."""
        for _ in range(100):
            assert await self.worker.run_once(timeout=0.1) is None
            if found := await DeadLetterStore(self.connection).list(tag=None, before=None, limit=10):
                [letter] = found
                return dict(json.loads(letter.raw))
        raise AssertionError("no dead letter came")


@pytest.fixture
async def queue(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Queue]:
    monkeypatch.setattr(claims, "_RECORD_FOLLOWS", 0.01)
    (tmp_path / "flows.py").write_text(RESOLVER)
    client = await PyocoNatsClient.connect(settings)  # makes the streams
    await client.close()
    connection = await Connection(settings, "test").start()
    resolver = f"{tmp_path}/flows.py:resolve"
    worker = await PyocoNatsWorker.connect(config=settings, flow_resolver=resolver, tags=["default"])
    await connection.wait_up(10)
    try:
        yield Queue(settings, connection, RunStore(connection), worker)
    finally:
        await worker.close()
        await connection.close()


async def run_all(queue: Queue) -> list[str]:
    found = []
    for _ in range(10):
        run_id = await queue.worker.run_once(timeout=0.3 if found else 3)
        if run_id is None and found:
            break
        found += [run_id] if run_id else []
    return found


async def until_run(queue: Queue) -> None:
    for _ in range(5):
        if await queue.worker.run_once(timeout=3) is not None:
            return
    raise AssertionError("nothing was run")


async def test_a_job_without_a_record(queue: Queue) -> None:
    await queue.publish(params={"x": 21}, tags=["a", "b"], tenant_id="team", submitted_at=5.0)
    await until_run(queue)
    run = await queue.record()
    assert (run.status.value, run.task_records["twice"]["output"]) == ("COMPLETED", 42)
    assert (run.tag, run.tags, run.tenant_id, run.submitted_at) == ("default", ["a", "b"], "team", 5.0)
    assert run.attempt == 1


async def test_a_flow_in_a_job_without_a_record(queue: Queue) -> None:
    await queue.publish(params={"x": 4}, workflow_yaml=FLOW)
    await until_run(queue)
    run = await queue.record()
    assert (run.status.value, run.task_records["add_one"]["output"]) == ("COMPLETED", 5)


async def test_an_invalid_flow_ends_its_run(queue: Queue) -> None:
    await queue.publish(workflow_yaml="version: 1\nflow: {graph: nowhere}\ntasks: {}\n")
    await until_run(queue)
    run = await queue.record()
    assert (run.status.value, run.end_reason and run.end_reason.value) == ("FAILED", "invalid_flow")


async def test_a_job_twice_is_run_once(queue: Queue) -> None:
    await queue.publish(params={"x": 1})
    await queue.publish(params={"x": 1})
    assert await run_all(queue) == ["r"]
    assert (await queue.record()).attempt == 1


async def test_the_record_comes_after_the_job(queue: Queue) -> None:
    """Its publisher writes it over ours while the run runs; the run goes on, and its end stands."""
    await queue.publish(params={"x": 3, "sec": 1})
    running = asyncio.create_task(until_run(queue))
    for _ in range(500):
        stored = await queue.runs.get("r")
        if stored is not None and stored.record.status.value == "RUNNING":
            break
        await asyncio.sleep(0.01)
    await queue.put(params={"x": 3, "sec": 1})
    await running
    run = await queue.record()
    assert (run.status.value, run.task_records["twice"]["output"], run.attempt) == ("COMPLETED", 6, 1)


async def test_params_that_are_too_large(queue: Queue) -> None:
    await queue.publish(params={"x": "y" * 200_000})
    assert (await queue.until_letter())["reason"] == "invalid_job"
    run = await queue.record()
    assert (run.status.value, run.end_reason and run.end_reason.value) == ("FAILED", "invalid_job")
    assert "are accepted" in (run.error or "") and run.params == {}


@pytest.mark.parametrize(
    ("job", "record"),
    [
        ({"tags": "abc"}, None),
        ({"params": []}, None),
        ({"tenant_id": "not a tenant"}, None),
        ({"recorded": True}, None),
        ({"workflow_yaml": FLOW, "params": {"x": 1}}, {"workflow_yaml_sha256": "0" * 64}),
        ({"params": {"x": 1}}, {"params": {"x": 2}}),
    ],
)
async def test_jobs_that_are_refused(queue: Queue, job: dict[str, Any], record: dict[str, Any] | None) -> None:
    if record is not None:
        await queue.put(**record)
    await queue.publish(**job)
    letter = await queue.until_letter()
    assert letter["reason"] == "invalid_job" and letter["payload"]
    stored = await queue.runs.get("r")
    assert stored is None or stored.record.status.value == "PENDING"


async def test_our_worker_takes_a_run_over_from_one_of_the_existing_system(queue: Queue) -> None:
    await queue.put(flow_name="called", status="RUNNING", params={"x": 5}, start_time=4.0, heartbeat_at=4.0)
    await queue.publish(params={"x": 5}, submitted_at=3.0)
    await until_run(queue)
    run = await queue.record()
    assert (run.status.value, run.attempt, run.flow_name, run.submitted_at) == ("COMPLETED", 2, "main", 3.0)


def test_its_own_jobs_are_marked() -> None:
    assert Job.from_json(Job.of(RunRecord(run_id="r", flow_name="f")).to_json()).recorded
