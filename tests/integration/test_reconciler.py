"""What nobody else can move any more: waiting runs without jobs, claimed runs without workers."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs

from pyoco_server.errors import StoreUnavailable
from pyoco_server.gateway.maintenance import lost_jobs
from pyoco_server.model.job import Job
from pyoco_server.model.run import RunRecord, RunStatus, claim, hand_back, request_cancel
from pyoco_server.model.worker import WorkerRecord, WorkerState
from pyoco_server.settings.environment import Settings
from pyoco_server.store import topology
from pyoco_server.store.nats.direct import DirectReader, remove_message
from pyoco_server.store.queue import queued_jobs as jobs

from .test_gateway import Running, running, until

pytestmark = pytest.mark.anyio

HEARTBEAT = 0.1


@pytest.fixture
def quick(settings: Settings) -> Settings:
    return settings.model_copy(
        update={
            "reconcile_interval_sec": 0.05,
            "reconcile_after_sec": 0.3,
            "worker_heartbeat_interval_sec": HEARTBEAT,
            "worker_disconnect_timeout_sec": 5.0,
        }
    )


@pytest.fixture
async def here(quick: Settings) -> AsyncIterator[Running]:
    async with running(quick) as server:
        yield server


async def make(here: Running, run_id: str, **fields: Any) -> RunRecord:
    """Create a record only, as a gateway leaves it that dies before it queues the job."""
    now = time.time()
    record = RunRecord(run_id=run_id, flow_name="f", submitted_at=now, updated_at=now, **fields)
    await here.gateway.runs.create(record)
    return record


async def queued(here: Running) -> list[str | None]:
    reader = DirectReader(here.gateway.connection, here.gateway.settings.work_stream)
    prefix = here.gateway.settings.work_subject_prefix
    return [json.loads(job.data)["run_id"] for job in await reader.read(start=1, subject=f"{prefix}.>", limit=1000)]


async def status(here: Running, run_id: str) -> RunStatus:
    stored = await here.gateway.runs.get(run_id)
    assert stored is not None
    return stored.record.status


async def eventually(holds: Any, timeout: float = 10.0) -> None:
    deadline = time.monotonic() + timeout
    while not await holds():
        assert time.monotonic() < deadline, "it never came true"
        await asyncio.sleep(0.01)


async def rounds(here: Running, count: int = 3) -> None:
    """Wait until the reconciler has made so many whole rounds."""
    reconciler, done = here.gateway.reconciler, asyncio.Event()
    left, whole = count, reconciler.round

    async def round() -> None:
        nonlocal left
        await whole()
        left -= 1
        if left <= 0:
            done.set()

    reconciler.round = round  # type: ignore[method-assign]
    await asyncio.wait_for(done.wait(), 10)
    reconciler.round = whole  # type: ignore[method-assign]


async def worker(here: Running, *runs: str, instance_id: str = "i", **fields: Any) -> None:
    """Write a worker's heartbeat."""
    record = WorkerRecord(worker_id="w", instance_id=instance_id, heartbeat_interval_sec=HEARTBEAT)
    await here.gateway.workers.put(record.seen(list(runs), None).evolve(**fields))


async def claimed(here: Running, run_id: str, attempt: int = 1, worker_id: str = "w", **fields: Any) -> int:
    """Make a run that a worker has claimed; the sequence of its job is the answer."""
    record = await make(here, run_id, **fields)
    seq = await here.gateway.queue.publish(Job.of(record), record.tag)
    for _ in range(attempt):
        await here.gateway.runs.change(
            run_id, lambda run: claim(run, worker_id=worker_id, instance_id="i", job_seq=seq)
        )
    return seq


async def lose_job(here: Running, seq: int) -> None:
    assert await remove_message(here.gateway.connection, here.gateway.settings.work_stream, seq)


# Waiting runs


async def test_a_run_without_a_job_gets_one_from_two_gateways_once(quick: Settings) -> None:
    async with running(quick) as here, running(quick) as second:
        whole = await here.submit()
        await make(here, "lost")
        await make(here, "other", tag="gpu")
        await until(lambda: second.gateway.index.waiting("default") == 2)
        await eventually(lambda: has_jobs(here, 3))
        await rounds(here)
        await rounds(second)
        assert sorted(map(str, await queued(here))) == sorted([whole, "lost", "other"])
        await until(lambda: all(server.gateway.index.jobs.seq_of("lost") for server in (here, second)))


async def has_jobs(here: Running, count: int) -> bool:
    return len(await queued(here)) >= count


async def test_a_job_that_is_there_is_looked_for_once(
    quick: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    reads = []
    async with running(quick) as here:
        kind = type(here.gateway.jobs)
        page = kind.page

        async def counted(jobs: Any, *arguments: Any) -> Any:
            if jobs is not here.gateway.jobs:
                reads.append(arguments)
            return await page(jobs, *arguments)

        monkeypatch.setattr(kind, "page", counted)  # before the second one runs: it may look at once
        for _ in range(5):
            await here.submit()
        other = quick.model_copy(update={"state_dir": tmp_path / "other"})
        async with running(other) as second:  # has not made these runs itself, and must look
            ledger = second.gateway.index.jobs
            await until(lambda: len(ledger.with_job(0, 10)) == 5)
            await rounds(second, 5)
            assert len(reads) == 1
            assert len(await queued(here)) == 5


async def test_a_backlog_is_read_in_pages(here: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lost_jobs, "PAGE", 4)
    monkeypatch.setattr("pyoco_server.store.queue.queued_jobs.PAGE", 4)
    monkeypatch.setattr(lost_jobs, "_PAGES_A_ROUND", 2)
    records = []
    for number in range(30):
        records.append(await make(here, f"r{number}"))
        if number % 5:
            await here.gateway.queue.publish(Job.of(records[-1]), "default")
    await eventually(lambda: has_jobs(here, 30))
    await rounds(here)
    assert sorted(map(str, await queued(here))) == sorted(record.run_id for record in records)


async def test_jobs_that_vanish_are_queued_again(here: Running) -> None:
    ids = [await here.submit() for _ in range(3)]
    gone = await here.submit(tag="gpu")
    await rounds(here)
    await lose_job(here, here.gateway.index.jobs.seq_of(gone) or 0)
    await eventually(lambda: has_jobs(here, 4))
    await here.gateway.connection.js.purge_stream(here.gateway.settings.work_stream)
    await eventually(lambda: has_jobs(here, 4))
    await here.gateway.connection.js.delete_stream(here.gateway.settings.work_stream)
    await topology.ensure(here.gateway.connection)
    await eventually(lambda: has_jobs(here, 4))
    await rounds(here)
    assert sorted(map(str, await queued(here))) == sorted([*ids, gone])


async def test_a_run_that_was_handed_back_has_its_old_job(here: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "_CLOCKS_APART", timedelta(0))  # it is older than the record now says
    await claimed(here, "r")
    await here.gateway.runs.change("r", hand_back)
    await until(lambda: bool(here.gateway.index.jobs.seq_of("r")))
    assert await queued(here) == ["r"]


async def test_records_of_other_programs_are_left_alone(here: Running) -> None:
    for key, value in {
        "text": b"{", "half": b'{"status":"PENDING"}', "tag": b'{"run_id":"tag","flow_name":"f","tag":"a.*"}',
        "name": b'{"run_id":"another","flow_name":"f","status":"PENDING"}',
    }.items():  # fmt: skip
        await here.store(key, value)
    await rounds(here, 12)
    ledger = here.gateway.index.jobs
    assert ledger.without_job(time.time() + 1, 10) == []
    assert await queued(here) == []


async def test_nothing_is_decided_right_after_natss_return(here: Running) -> None:
    here.gateway.connection.up_since = time.monotonic() + 60
    await make(here, "r")
    await rounds(here, 12)
    assert await queued(here) == []
    here.gateway.connection.up_since = time.monotonic() - 60
    await eventually(lambda: has_jobs(here, 1))


# Claimed runs


async def test_a_run_whose_worker_and_job_are_gone_waits_for_its_next_attempt(here: Running) -> None:
    await worker(here, "r")
    await lose_job(here, await claimed(here, "r"))
    await rounds(here, 8)
    assert await status(here, "r") is RunStatus.RUNNING  # its worker names it
    await worker(here)
    await eventually(lambda: has_status(here, "r", RunStatus.PENDING))
    stored = await here.gateway.runs.get("r")
    assert stored is not None
    assert (stored.record.attempt, stored.record.worker_id, stored.record.job_seq) == (1, None, None)
    await eventually(lambda: has_jobs(here, 1))
    await rounds(here)
    assert await queued(here) == ["r"]


async def has_status(here: Running, run_id: str, wanted: RunStatus) -> bool:
    return await status(here, run_id) is wanted


async def test_a_worker_has_two_heartbeats_to_name_a_run(here: Running) -> None:
    await worker(here, heartbeat_interval_sec=60)
    await lose_job(here, await claimed(here, "r"))
    await rounds(here, 12)
    assert await status(here, "r") is RunStatus.RUNNING
    await worker(here, heartbeat_interval_sec=HEARTBEAT)
    await eventually(lambda: has_status(here, "r", RunStatus.PENDING))


async def test_whatever_became_of_the_worker(here: Running) -> None:
    long_ago = time.time() - 60
    await worker(here, state=WorkerState.STOPPED_GRACEFUL)
    await worker(here, "silent", worker_id="silent", last_seen_at=long_ago, last_heartbeat_at=long_ago)
    await worker(here, worker_id="another", instance_id="new")
    for name in ("never", "w", "silent", "another"):
        await lose_job(here, await claimed(here, name, worker_id=name))
    for name in ("never", "w", "silent", "another"):
        await eventually(lambda name=name: has_status(here, name, RunStatus.PENDING))  # type: ignore[misc]


async def test_without_attempts_left_it_fails_with_one_letter(quick: Settings) -> None:
    with capture_logs() as lines:
        async with running(quick) as here, running(quick):
            await lose_job(here, await claimed(here, "r", attempt=2, max_attempts=2, tag="gpu"))
            await eventually(lambda: has_status(here, "r", RunStatus.FAILED))
            await its_one_letter(here)
    [told] = [line for line in lines if line["event"] == "run failed"]
    assert (told["log_level"], told["run_id"], told["attempt"], told["tag"]) == ("error", "r", 2, "gpu")
    assert (told["end_reason"], told["lost_worker"]) == ("worker_lost", "w")


async def its_one_letter(here: Running) -> None:
    run = (await here.http.get("/runs/r")).json()
    assert run["end_reason"] == "worker_lost" and "attempt 2 of 2" in run["error"] and "w" in run["error"]
    await eventually(lambda: has_letters(here))
    await rounds(here)
    letters = await here.gateway.letters.list(tag="gpu", before=None, limit=10)
    assert len(letters) == 1 and b"attempts_exhausted" in letters[0].raw
    assert await queued(here) == []


async def has_letters(here: Running) -> bool:
    return bool(await here.gateway.letters.list(tag=None, before=None, limit=10))


async def test_a_letter_that_cannot_be_sent_is_sent_later(here: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    letters = here.gateway.letters
    tries = []
    publish = letters.publish

    async def failing(*arguments: Any) -> int:
        tries.append(arguments)
        if len(tries) < 3:
            raise StoreUnavailable("NATS did not answer (a test)")
        return await publish(*arguments)

    monkeypatch.setattr(letters, "publish", failing)
    await lose_job(here, await claimed(here, "r", max_attempts=1))
    await eventually(lambda: has_letters(here))
    assert len(tries) == 3


async def test_a_job_on_the_queue_is_natss_to_deliver(here: Running) -> None:
    await claimed(here, "r")
    await rounds(here, 12)
    assert await status(here, "r") is RunStatus.RUNNING
    assert await queued(here) == ["r"]


async def test_a_cancelled_run_without_a_worker_ends(here: Running) -> None:
    await worker(here, "r")
    await claimed(here, "r")
    await here.gateway.runs.change("r", lambda run: request_cancel(run, by=None, reason="enough"))
    await rounds(here, 8)
    assert await status(here, "r") is RunStatus.CANCELLING
    await worker(here)
    await eventually(lambda: has_status(here, "r", RunStatus.CANCELLED))
    assert (await here.http.get("/runs/r")).json()["error"] == "enough"


async def test_two_gateways_settle_a_run_once(quick: Settings) -> None:
    async with running(quick) as here, running(quick) as second:
        await lose_job(here, await claimed(here, "r"))
        revisions = set()
        with contextlib.ExitStack() as stack:
            mailbox = stack.enter_context(second.gateway.index.subscribe("r"))
            await eventually(lambda: has_status(here, "r", RunStatus.PENDING))
            await rounds(here, 4)
            await rounds(second, 4)
            if latest := mailbox.take():
                revisions.add(latest[1])
        stored = await here.gateway.runs.get("r")
        assert stored is not None and revisions <= {stored.revision} and stored.record.attempt == 1
        assert await queued(here) == ["r"]


# What was answered 503, and what was cancelled


async def test_what_was_answered_503_is_taken_back_when_nats_answers(
    here: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = here.gateway

    async def away(*_: Any, **__: Any) -> Any:
        raise StoreUnavailable("NATS did not answer (a test)")

    with monkeypatch.context() as patch:
        patch.setattr(gateway.queue, "publish", away)
        patch.setattr(gateway.runs, "remove", away)
        assert (await here.http.post("/runs", json={"flow_name": "f"})).status_code == 503
    await until(lambda: gateway.index.count() == 0)
    await rounds(here, 8)
    assert await queued(here) == []


async def test_a_cancelled_waiting_run_leaves_the_queue(here: Running) -> None:
    kept, known, looked_for = [await here.submit() for _ in range(3)]
    assert (await here.http.post(f"/runs/{known}/cancel")).json()["status"] == "CANCELLED"
    assert await queued(here) == [kept, looked_for]
    here.gateway.index.jobs.forget(None, 10)
    assert (await here.http.post(f"/runs/{looked_for}/cancel")).json()["status"] == "CANCELLED"
    assert await queued(here) == [kept]
