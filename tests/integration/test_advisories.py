"""Jobs that NATS gave up: the real server's advisories, and what gateways make of them."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from nats.aio.msg import Msg
from nats.errors import TimeoutError as NothingThere
from structlog.testing import capture_logs

from pyoco_server.errors import StoreUnavailable
from pyoco_server.model.run import EndReason as End
from pyoco_server.model.run import RunRecord, RunStatus, claim, request_cancel, settle
from pyoco_server.model.worker import WorkerRecord
from pyoco_server.process.waiting import first_event
from pyoco_server.settings.environment import Settings
from pyoco_server.store import topology
from pyoco_server.store.deadletters import StoredLetter
from pyoco_server.store.nats.connection import Connection
from pyoco_server.store.queue.job_queue import JobQueue
from tests.integration.test_deadletters import spoil
from tests.integration.test_gateway import DEADLINE, Running, running
from tests.integration.test_gateway_away import Nats, ready, stop

pytestmark = pytest.mark.anyio


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(
        update={"consumer_max_deliver": 1, "consumer_ack_wait_sec": 1.0, "ack_progress_interval_sec": 0.3}
    )


@pytest.fixture
async def here(settings: Settings) -> AsyncIterator[Running]:
    async with running(settings) as server:
        yield server


class Queue:
    """A tag's consumer, pulled from as any worker might."""

    def __init__(self, subscription: Any) -> None:
        self._subscription = subscription

    async def pull(self, wait: float = DEADLINE) -> Msg | None:
        with contextlib.suppress(NothingThere):
            return (await self._subscription.fetch(1, timeout=wait))[0]  # type: ignore[no-any-return]
        return None

    async def exhaust(self) -> Msg:
        """Take a job and give it back: its consumer allows one delivery."""
        message = await self.pull()
        assert message is not None
        await message.nak()
        return message


async def queue_of(connection: Connection, tag: str = "default") -> Queue:
    jobs = JobQueue(connection)
    await jobs.ensure_consumer(tag)
    stream = connection.settings.work_stream
    return Queue(await connection.js.pull_subscribe_bind(jobs.consumer_name(tag), stream))


async def change(here: Running, run_id: str, **steps: Any) -> RunRecord:
    """Write a run's record as its worker would."""
    stored = await here.gateway.runs.get(run_id)
    assert stored is not None
    record = claim(stored.record, worker_id="w", instance_id="i", job_seq=steps.get("job_seq", 1))
    record = record.evolve(attempt=steps.get("attempt", 1))
    if steps.get("cancel"):
        record = request_cancel(record, by=None, reason="no")
    if "end" in steps:
        record = settle(record, steps["end"], End.TASK_FAILED, "e")
    await here.gateway.runs.update(record, stored.revision)
    return record


async def letters(here: Running) -> list[StoredLetter]:
    return await here.gateway.letters.list(tag=None, before=None, limit=50)


async def jobs(here: Running) -> int:
    return int((await here.gateway.connection.js.stream_info(here.gateway.settings.work_stream)).state.messages)


async def pause(deadline: float) -> None:
    """Wait a moment for something that offers no event."""
    assert time.monotonic() < deadline, "it never came true"
    await first_event(0.01, asyncio.Event())


async def ended(here: Running, run_id: str, status: str) -> dict[str, Any]:
    async with here.watch(run_id, timeout_sec=10) as watched:
        async for event in watched:
            if event.get("event") == "snapshot" and event["data"]["snapshot"]["status"] == status:
                return dict(event["data"]["snapshot"])
    raise AssertionError(f"it never became {status}")


async def test_a_job_handed_back_too_often_is_queued_anew(here: Running) -> None:
    run_id = await here.submit()
    queue = await queue_of(here.gateway.connection)
    first = await queue.exhaust()
    again = await queue.pull()  # the pull makes the server notice, and the gateway's new job answers it
    assert again is not None and (again.data, again.metadata.sequence.stream) == (first.data, 2)
    deadline = time.monotonic() + DEADLINE
    while await jobs(here) != 1:  # the old one is removed last
        await pause(deadline)
    stored = await here.gateway.runs.get(run_id)
    assert stored is not None and (stored.record.status, stored.record.attempt) == (RunStatus.PENDING, 0)
    assert await letters(here) == []


async def test_what_happened_while_no_gateway_ran_is_dealt_with_by_one_of_two(settings: Settings) -> None:
    async with running(settings) as here:
        run_id = await here.submit(max_attempts=2)
        await change(here, run_id, attempt=2)
    connection = await Connection(settings, "test").start()
    assert await connection.wait_up(10)
    queue = await queue_of(connection)
    await queue.exhaust()
    assert await queue.pull(0.3) is None
    deadline = time.monotonic() + DEADLINE
    while (await connection.js.stream_info(settings.advisory_stream)).state.messages != 1:
        await pause(deadline)
    await connection.close()
    async with running(settings) as one, running(settings) as two:
        run = await ended(two, run_id, "FAILED")
        assert (run["end_reason"], run["worker_id"]) == ("worker_lost", "w")
        assert "attempt 2 of 2" in run["error"]
        js, deadline = one.gateway.connection.js, time.monotonic() + DEADLINE
        while (await js.stream_info(settings.advisory_stream)).state.messages or await jobs(one):
            await pause(deadline)
        [shown] = (await one.http.get("/dlq")).json()
        assert (shown["reason"], shown["run_id"], shown["num_delivered"]) == ("attempts_exhausted", run_id, 1)


async def test_where_a_run_goes_whose_job_is_stuck(here: Running) -> None:
    cases: list[tuple[dict[str, Any], str, int, str | None]] = [
        ({"attempt": 3}, "FAILED", 0, "attempts_exhausted"),
        ({"attempt": 3, "cancel": True}, "CANCELLED", 0, None),
        ({"end": RunStatus.COMPLETED}, "COMPLETED", 0, None),
        ({"end": RunStatus.FAILED}, "FAILED", 0, "execution_error"),
        ({"job_seq": 777}, "RUNNING", 0, None),  # another job has the run
        ({"attempt": 1}, "PENDING", 1, None),
    ]
    for seq, (steps, status, left, reason) in enumerate(cases, start=1):
        run_id = await here.submit(tag="unserved")
        await change(here, run_id, **{"job_seq": seq, **steps})
        # Several gateways at once, and once more after all of it.
        assert all(await asyncio.gather(*(here.gateway.backstop.settle(seq, 20) for _ in range(5))))
        assert await here.gateway.backstop.settle(seq, 20)
        stored = await here.gateway.runs.get(run_id)
        assert stored is not None and stored.record.status.value == status
        assert await jobs(here) == left, steps
        shown = (await here.http.get("/dlq")).json()
        assert [letter["reason"] for letter in shown if letter["run_id"] == run_id] == ([reason] if reason else [])
    message = await (await queue_of(here.gateway.connection, "unserved")).pull()
    assert message is not None and message.metadata.sequence.stream == len(cases) + 1
    assert (stored.record.attempt, stored.record.worker_id) == (1, None)


async def test_a_live_owner_is_left_alone(here: Running) -> None:
    run_id = await here.submit()
    record = await change(here, run_id, attempt=3)
    worker = WorkerRecord(worker_id="w", instance_id="i").seen([run_id], None)
    await here.gateway.workers.put(worker)
    assert await here.gateway.backstop.settle(1, 20) is False
    stored = await here.gateway.runs.get(run_id)
    assert stored is not None and stored.record == record and await jobs(here) == 1
    for gone in (worker.evolve(last_heartbeat_at=1.0), worker.seen([], None), worker.evolve(instance_id="other")):
        await here.gateway.workers.put(gone)
        assert not await here.gateway.backstop._is_held(record, 1)
    assert await here.gateway.backstop.settle(1, 20) is True
    assert (await here.http.get(f"/runs/{run_id}")).json()["status"] == "FAILED"


async def test_a_stuck_job_that_nobody_could_run_becomes_a_letter(here: Running) -> None:
    js, prefix = here.gateway.connection.js, here.gateway.settings.work_subject_prefix
    for raw in (b"rubbish", b'{"run_id":"nobody","flow_name":"f","params":{"x":1}}'):
        ack = await js.publish(f"{prefix}.cpu", raw)
        assert all(await asyncio.gather(*(here.gateway.backstop.settle(ack.seq, 20) for _ in range(3))))
    shown = (await here.http.get("/dlq?tag=cpu")).json()
    assert [(letter["reason"], letter.get("run_id")) for letter in shown] == [
        ("invalid_job", "nobody"),
        ("invalid_job", None),
    ]
    assert await jobs(here) == 0


async def test_a_job_taken_off_by_others_leaves_a_letter_and_one_of_ours_no_second(here: Running) -> None:
    await here.submit()
    await here.submit()
    connection = here.gateway.connection
    queue = await queue_of(connection)
    for reason in (b"dead letter 7: invalid job", b"not mine"):
        message = await queue.pull()
        assert message is not None
        await connection.client.publish(message.reply, b"+TERM " + reason)
    deadline = time.monotonic() + DEADLINE
    while not (shown := (await here.http.get("/dlq")).json()):
        await pause(deadline)
    [letter] = shown
    assert (letter["reason"], letter["tag"], letter["num_delivered"]) == ("invalid_job", "default", 1)
    assert "not mine" in letter["error"]


async def test_a_job_deleted_while_it_is_delivered_leaves_no_letter(here: Running) -> None:
    gone = await here.submit()
    await here.submit()
    connection = here.gateway.connection
    queue = await queue_of(connection)
    assert await queue.pull() is not None
    assert (await here.http.post(f"/runs/{gone}/cancel")).json()["status"] == "CANCELLED"  # deletes the job
    message = await queue.pull()
    assert message is not None
    await connection.client.publish(message.reply, b"+TERM no")
    deadline = time.monotonic() + DEADLINE
    while not (found := await letters(here)):  # advisories come in order
        await pause(deadline)
    assert [b": no" in letter.raw for letter in found] == [True]


async def test_an_advisory_that_makes_no_sense_holds_nothing_up(here: Running) -> None:
    settings, js = here.gateway.settings, here.gateway.connection.js
    await js.publish(f"{topology.MAX_DELIVERIES}.{settings.work_stream}.c", b"{")
    run_id = await here.submit()
    await change(here, run_id, attempt=3)
    queue = await queue_of(here.gateway.connection)
    with capture_logs() as lines:
        await queue.exhaust()
        assert await queue.pull(0.3) is None
        assert (await ended(here, run_id, "FAILED"))["end_reason"] == "worker_lost"
        deadline = time.monotonic() + DEADLINE
        while not await letters(here):  # it comes after the line
            await pause(deadline)
    [told] = [line for line in lines if line["log_level"] == "error" and line["event"] == "run failed"]
    assert (told["run_id"], told["end_reason"]) == (run_id, "worker_lost")


@pytest.mark.parametrize(("attempt", "left", "status"), [(1, 1, "PENDING"), (3, 0, "FAILED")])
async def test_whichever_call_fails_the_next_try_completes_it(
    here: Running, attempt: int, left: int, status: str
) -> None:
    gateway = here.gateway
    last = (gateway.queue, "publish_again") if left else (gateway.letters, "publish")
    calls: list[tuple[Any, str]] = [
        (gateway.queue, "look"),
        (gateway.runs, "get"),
        (gateway.workers, "get"),
        (gateway.runs, "update"),
        last,
        (gateway.queue, "remove"),
    ]
    seq = 0
    for count, (store, method) in enumerate([call for call in calls for _ in range(2)], start=1):
        run_id = await here.submit(tag="unserved")
        seq += 1
        await change(here, run_id, attempt=attempt, job_seq=seq)
        with pytest.MonkeyPatch.context() as patch:
            called = spoil(patch, store, method, executed=bool(count % 2))
            with pytest.raises(StoreUnavailable):
                await gateway.backstop.settle(seq, 20)
            assert called
        assert await gateway.backstop.settle(seq, 20)
        seq += left
        assert (await here.http.get(f"/runs/{run_id}")).json()["status"] == status, method
        assert (await jobs(here), len(await letters(here))) == (count * left, count * (1 - left)), method


async def test_advisories_are_heard_again_soon_after_natss_return(tmp_path: Path, settings: Settings) -> None:
    nats = Nats(tmp_path / "nats")
    await nats.start()
    settings = settings.model_copy(update={"nats_url": nats.url, "worker_heartbeat_interval_sec": 0.1})
    async with running(settings) as here:
        assert nats.server is not None
        os.kill(nats.server.pid, signal.SIGKILL)  # one that is stopped in order ends open requests itself
        await stop(nats, here)
        await nats.start()
        await ready(here)
        run_id = await here.submit()
        await change(here, run_id, attempt=3)
        queue = await queue_of(here.gateway.connection)
        await queue.exhaust()
        assert await queue.pull(0.3) is None
        # Within half of the time that the request from before would have been waited for.
        assert (await ended(here, run_id, "FAILED"))["end_reason"] == "worker_lost"
    await nats.stop()
