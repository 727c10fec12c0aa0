"""/metrics of a gateway that serves, over a real NATS, and while that is away."""

import asyncio
import os
import signal
import time
from typing import Any

import pytest

from pyoco_server.gateway.index.run_index import RunIndex
from pyoco_server.model.job import Job
from pyoco_server.model.run import EndReason, RunRecord, RunStatus, claim, requeue, settle
from pyoco_server.model.worker import WorkerRecord, WorkerState
from pyoco_server.settings.environment import Settings
from pyoco_server.store.nats.feed import Change
from tests.unit.test_metrics import one, read

from .test_gateway import DEADLINE, Running, here, running, until
from .test_gateway_away import Nats, nats, ready, stop

__all__ = ["here", "nats"]  # fixtures

pytestmark = pytest.mark.anyio


async def scrape(here: Running) -> Any:
    answer = await here.http.get("/metrics")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return read(answer.content)


async def move(here: Running, run_id: str, *steps: Any) -> RunRecord:
    """Write the next states of a run as a worker does, and wait until the index has seen them."""
    stored = await here.gateway.runs.get(run_id)
    assert stored is not None
    record, revision = stored.record, stored.revision
    for step in steps:
        record = step(record)
        revision = (await here.gateway.runs.update(record, revision)).revision
    await until(lambda: here.gateway.run_feed.revision >= revision)
    return record


def claimed(record: RunRecord) -> RunRecord:
    return claim(record, worker_id="w", instance_id="i", job_seq=1)


def ends(status: RunStatus, reason: EndReason) -> Any:
    return lambda record: settle(record, status, reason, None)


async def worker(here: Running, worker_id: str, **fields: Any) -> None:
    now = time.time()
    record = WorkerRecord(worker_id=worker_id, last_seen_at=now, last_heartbeat_at=now, updated_at=now, **fields)
    revision = await here.gateway.workers.put(record)
    await until(lambda: here.gateway.worker_feed.revision >= revision)


def fresh_nats_figures(here: Running) -> None:
    here.gateway.figures._asked_at = 0.0


async def test_a_fresh_gateway(here: Running) -> None:
    samples = await scrape(here)
    for status in RunStatus:
        assert one(samples, "pyoco_runs_total", status=status.value) == 0
    assert one(samples, "pyoco_workers_alive_total") == 0
    assert one(samples, "pyoco_dlq_messages_total") == 0
    assert (one(samples, "pyoco_nats_up"), one(samples, "pyoco_index_lag")) == (1, 0)
    assert one(samples, "pyoco_index_caught_up") == 1


async def test_runs_are_counted_through_their_lives(here: Running) -> None:
    first, second, third = [await here.submit(flow_name="main", tag="cpu") for _ in range(3)]
    samples = await scrape(here)
    assert one(samples, "pyoco_runs_total", status="PENDING") == 3
    assert one(samples, "pyoco_runs_waiting", tag="cpu") == 3
    assert one(samples, "pyoco_queue_depth", tag="cpu") == 3
    assert one(samples, "pyoco_workers_serving", tag="cpu") == 0
    assert 0 <= (one(samples, "pyoco_oldest_waiting_seconds", tag="cpu") or 0) < 60
    await move(here, first, claimed, ends(RunStatus.COMPLETED, EndReason.COMPLETED))
    await move(here, second, claimed, requeue, claimed, ends(RunStatus.FAILED, EndReason.TASK_FAILED))
    assert (await here.http.post(f"/runs/{third}/cancel")).json()["status"] == "CANCELLED"
    await until(lambda: here.gateway.index.totals.by_status()["CANCELLED"] == 1)
    samples = await scrape(here)
    counts = {status.value: one(samples, "pyoco_runs_total", status=status.value) for status in RunStatus}
    assert counts == {"PENDING": 0, "RUNNING": 0, "CANCELLING": 0, "COMPLETED": 1, "FAILED": 1, "CANCELLED": 1}
    assert one(samples, "pyoco_runs_ended_total", end_reason="completed") == 1
    assert one(samples, "pyoco_runs_ended_total", end_reason="task_failed") == 1
    assert one(samples, "pyoco_runs_ended_total", end_reason="cancelled") == 1
    assert (one(samples, "pyoco_attempts_total"), one(samples, "pyoco_attempts_lost_total")) == (3, 1)
    assert one(samples, "pyoco_run_wait_seconds_count", flow="main", tag="cpu") == 2
    assert one(samples, "pyoco_run_duration_seconds_count", flow="main", tag="cpu") == 2


async def test_workers_queue_and_dead_letters(here: Running) -> None:
    await worker(here, "w1", tags=["cpu", "gpu"], state=WorkerState.RUNNING)
    await worker(here, "w2", tags=["cpu"], hidden=True)
    await worker(here, "w3", tags=["cpu"], state=WorkerState.STOPPED_GRACEFUL)
    queue = here.gateway.queue
    await queue.ensure_consumer("cpu")
    for number in range(2):
        await queue.publish(Job(run_id=f"r{number}", flow_name="f"), "cpu")
    name = queue.consumer_name("cpu")
    subscription = await queue.connection.js.pull_subscribe_bind(name, here.gateway.settings.work_stream)
    first, _ = await subscription.fetch(2, timeout=DEADLINE)
    await first.nak()
    assert await subscription.fetch(1, timeout=DEADLINE)
    await queue.publish(Job(run_id="r2", flow_name="f"), "cpu")
    await queue.connection.js.publish(f"{here.gateway.settings.dlq_subject_prefix}.cpu", b"{}")
    deadline = time.monotonic() + DEADLINE
    fresh_nats_figures(here)
    while one(samples := await scrape(here), "pyoco_queue_depth", tag="cpu") != 1:
        assert time.monotonic() < deadline  # NATS counts for a consumer a moment after it has acknowledged
        fresh_nats_figures(here)
    assert one(samples, "pyoco_workers_alive_total") == 2
    assert one(samples, "pyoco_workers", state="STOPPED_GRACEFUL") == 1
    assert one(samples, "pyoco_workers_serving", tag="cpu") == 2
    assert one(samples, "pyoco_workers_serving", tag="gpu") == 1
    assert one(samples, "pyoco_queue_in_flight", tag="cpu") == 2
    assert one(samples, "pyoco_queue_redelivered", tag="cpu") == 1
    assert one(samples, "pyoco_queue_in_flight", tag="gpu") is None  # no worker has made its consumer
    assert one(samples, "pyoco_dlq_messages_total") == 1


async def test_requests_are_counted_by_route(here: Running) -> None:
    run_id = await here.submit()
    await here.http.get(f"/runs/{run_id}")
    for number in range(20):
        assert (await here.http.get(f"/runs/unknown-{number}")).status_code == 404
        assert (await here.http.get(f"/nothing/{number}")).status_code == 404
    await here.http.get("/static/app.js")
    assert (await here.http.post("/runs", json={})).status_code == 422
    await here.http.request("PURGE", "/runs")
    too_large = await here.http.post("/runs", content=bytes(2 << 20))
    assert too_large.status_code == 413
    samples = await scrape(here)
    requests = {labels: value for (name, labels), value in samples.items() if name == "pyoco_http_requests_total"}

    def count(method: str, route: str, code: str) -> float | None:
        return one(samples, "pyoco_http_requests_total", method=method, route=route, code=code)

    assert count("GET", "/runs/{run_id}", "200") == 1
    assert count("GET", "/runs/{run_id}", "404") == 20
    assert count("GET", "unmatched", "404") == 20
    assert count("POST", "/runs", "200") == 1
    assert count("GET", "/static", "200") == 1
    assert count("POST", "/runs", "422") == 1
    assert count("POST", "unmatched", "413") == 1
    assert not [labels for labels in requests if any(run_id in value or "PURGE" in value for _, value in labels)]
    assert one(samples, "pyoco_http_request_duration_seconds_count", method="GET", route="/runs/{run_id}") == 21


async def test_open_streams(here: Running) -> None:
    run_id = await here.submit()
    route = "/runs/{run_id}/watch"
    async with here.watch(run_id) as events:
        await anext(events)
        assert one(await scrape(here), "pyoco_http_streams_open", route=route) == 1
    deadline = time.monotonic() + DEADLINE
    while one(await scrape(here), "pyoco_http_streams_open", route=route) != 0:
        assert time.monotonic() < deadline
    assert one(await scrape(here), "pyoco_http_requests_total", method="GET", route=route, code="200") == 1


async def test_what_ended_before_the_start_is_history(settings: Settings) -> None:
    async with running(settings) as before:
        run_id = await before.submit(flow_name="main")
        await move(before, run_id, claimed, ends(RunStatus.COMPLETED, EndReason.COMPLETED))
    for state_dir in (settings.state_dir, settings.state_dir / "anew"):
        async with running(settings.model_copy(update={"state_dir": state_dir})) as here:
            samples = await scrape(here)
            assert one(samples, "pyoco_runs_total", status="COMPLETED") == 1
            assert one(samples, "pyoco_runs_ended_total", end_reason="completed") == 0
            assert one(samples, "pyoco_index_lag") == 0
            # the first change after a start counts, whether or not there was anything to read before
            failed = settle(
                claimed(RunRecord(run_id="another", flow_name="f")), RunStatus.FAILED, EndReason.TASK_FAILED, ""
            )
            revision = await here.gateway.runs.create(failed)
            await until(lambda seen=revision: here.gateway.run_feed.revision >= seen)
            assert one(await scrape(here), "pyoco_runs_ended_total", end_reason="task_failed") == 1
            # what is gone at the end of the stream is no lag for the next one
            await here.gateway.runs.remove("another", revision)
            bucket = here.gateway.settings.runs_kv_bucket
            js = here.gateway.connection.js
            assert await js.purge_stream(f"KV_{bucket}", subject=f"$KV.{bucket}.another")


async def test_nats_goes_and_returns(nats: Nats, settings: Settings) -> None:
    await nats.start()
    async with running(settings.model_copy(update={"nats_url": nats.url})) as here:
        run_id = await here.submit(tag="cpu")
        assert one(await scrape(here), "pyoco_nats_up") == 1
        await stop(nats, here)
        started = time.monotonic()
        samples = await scrape(here)
        assert time.monotonic() - started < 1
        assert one(samples, "pyoco_nats_up") == 0
        assert one(samples, "pyoco_runs_total", status="PENDING") == 1
        assert one(samples, "pyoco_runs_waiting", tag="cpu") == 1
        for name in ("pyoco_dlq_messages_total", "pyoco_index_lag"):
            assert one(samples, name) is None
        assert one(samples, "pyoco_queue_depth", tag="cpu") is None
        await nats.start()
        await ready(here)
        fresh_nats_figures(here)
        assert one(await scrape(here), "pyoco_nats_up") == 1
        await move(here, run_id, claimed, ends(RunStatus.COMPLETED, EndReason.COMPLETED))
        assert one(await scrape(here), "pyoco_runs_ended_total", end_reason="completed") == 1  # once, not again


async def test_a_nats_that_stands_still_is_waited_for_once(nats: Nats, settings: Settings) -> None:
    await nats.start()
    assert nats.server is not None
    pid = nats.server.pid
    async with running(settings.model_copy(update={"nats_url": nats.url})) as here:
        await here.submit(tag="cpu")
        os.kill(pid, signal.SIGSTOP)
        try:
            fresh_nats_figures(here)
            started = time.monotonic()
            many = await asyncio.gather(*[scrape(here) for _ in range(10)])
            assert time.monotonic() - started < 5
        finally:
            os.kill(pid, signal.SIGCONT)
        assert [one(samples, "pyoco_nats_up") for samples in many] == [0] * 10
        assert [one(samples, "pyoco_runs_total", status="PENDING") for samples in many] == [1] * 10


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_with_100_000_runs(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    index = RunIndex(settings.state_dir, settings.runs_kv_bucket)
    started = time.monotonic()
    record = RunRecord(run_id="", flow_name="main", tag="cpu", submitted_at=1.0, attempt=1, worker_id="w")
    for batch in range(100):
        changes = []
        for number in range(batch * 1000, batch * 1000 + 1000):
            status = RunStatus.PENDING if number % 10 == 0 else RunStatus.COMPLETED
            fields = {"run_id": f"r{number}", "status": status, "updated_at": float(number), "tag": f"t{number % 70}"}
            changes.append(Change(f"r{number}", record.model_copy(update=fields).to_json(), number + 1))
        index.apply(changes)
    filled = time.monotonic() - started
    index.close()
    async with running(settings) as here:
        for flow in range(100):  # as many labels as there may be
            for reason in ("completed", "task_failed"):
                here.gateway.metrics.run_ended(
                    {"flow_name": f"f{flow}", "tag": "cpu", "queue_wait_ms": 1, "run_ms": 5, "end_reason": reason,
                     "attempt": 1, "worker_id": "w"}
                )  # fmt: skip
        samples = await scrape(here)
        assert one(samples, "pyoco_runs_total", status="COMPLETED") == 90_000
        assert one(samples, "pyoco_runs_waiting", tag="t0") is not None
        took, steps = [], 0

        def count() -> int:
            nonlocal steps
            steps += 1
            return 0

        here.gateway.index._db.set_progress_handler(count, 1000)
        for _ in range(20):
            fresh_nats_figures(here)
            started = time.monotonic()
            answer = await here.http.get("/metrics")
            took.append((time.monotonic() - started) * 1000)
        took.sort()
        with capsys.disabled():
            print(
                f"\n100,000 runs, {len(samples)} samples, {len(answer.content) // 1024} KB, NATS asked each time:"
                f" /metrics took {took[10]:.0f} ms (median), {took[-1]:.0f} ms at most;"
                f" the index took them in at {100_000 / filled:,.0f} a second"
            )
        assert steps < 20 * 20, steps  # thousands of SQLite's instructions: a scan of the runs takes 900 each time
