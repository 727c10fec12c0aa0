"""Workers' records between a worker, gateways and NATS: drained, forgotten, back again."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from pyoco_server.errors import CommandFailed, RevisionConflict
from pyoco_server.model.run import claim
from pyoco_server.model.worker import WorkerRecord, WorkerState
from pyoco_server.settings.environment import Settings
from pyoco_server.store import topology
from pyoco_server.store.nats.connection import Connection
from pyoco_server.store.workers import WorkerStore
from pyoco_server.worker.embedding import PyocoNatsWorker
from pyoco_server.worker.registration import Registration

from .test_gateway import DEADLINE, JSON, Running, here, put_workers, running, until, worker
from .test_reconciler import eventually, rounds

__all__ = ["here"]  # a fixture

pytestmark = pytest.mark.anyio
GONE_SEC = 100.0


@contextlib.asynccontextmanager
async def worker_store(settings: Settings) -> AsyncIterator[WorkerStore]:
    """Give the records over a connection of their own, as a worker has one."""
    connection = await Connection(settings, "test").start()
    try:
        assert await connection.wait_up(DEADLINE)
        await topology.ensure(connection)
        yield WorkerStore(connection)
    finally:
        await connection.close()


def registration(settings: Settings, store: WorkerStore, worker_id: str = "w") -> Registration:
    return Registration(settings, store, worker_id, ["cpu"], 1)


async def stored(store: WorkerStore, worker_id: str = "w") -> WorkerRecord:
    found = await store.get(worker_id)
    assert found is not None
    return found.record


async def drain(here: Running, worker_id: str = "w", **options: Any) -> dict[str, Any]:
    answer = await here.http.post(f"/workers/{worker_id}/drain", **options)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def test_a_wish_to_drain_that_nobody_told_comes_with_the_next_heartbeat(here: Running) -> None:
    async with worker_store(here.gateway.settings) as store:  # nobody listens to the control channel
        mine = registration(here.gateway.settings, store)
        asked = asyncio.Event()
        mine.asked_to_drain = asked.set
        await mine.take_name()
        first = await drain(here, json={"reason": " new\n kernel "})
        assert first["draining"] is True and first["drain_reason"] == "new kernel"
        assert await drain(here, json={"reason": "another"}) == first
        assert not asked.is_set()
        mine.started("r1")
        stop = asyncio.Event()
        beating = asyncio.create_task(mine.beat(stop))
        await asyncio.wait_for(asked.wait(), DEADLINE)
        stop.set()
        await beating
        record = await stored(store)
        assert (record.draining, record.drain_reason, record.state) == (True, "new kernel", WorkerState.RUNNING)
        assert record.last_run_id == "r1"  # what was news while the write was refused
        await mine.say_goodbye("drained: new kernel")
        record = await stored(store)
        assert (record.draining, record.state, record.memory_bytes) == (False, WorkerState.STOPPED_GRACEFUL, None)
        # The next process of that name is another worker, and nobody asked that one.
        again = registration(here.gateway.settings, store)
        await again.take_name()
        record = await stored(store)
        assert (record.draining, record.drain_requested_at, record.drain_reason) == (False, None, None)


async def test_a_wish_to_drain_is_told_at_once_and_the_embedded_worker_ends_its_loop(here: Running) -> None:
    slow = here.gateway.settings.model_copy(update={"worker_heartbeat_interval_sec": 60.0})
    embedded = await PyocoNatsWorker.connect(config=slow, worker_id="w")
    try:
        embedded._registration.beat_at_least_every(60)
        await eventually_listed(here, memory_bytes=True)
        await drain(here)
        await asyncio.wait_for(embedded.stopping.wait(), DEADLINE)  # no heartbeat is due for a minute
        with pytest.raises(CommandFailed, match="takes no more runs: it is drained"):
            await embedded.run_once()
        await eventually_listed(here, draining=True)  # the worker may have heard of it before the gateway's list has
        assert (await listed(here))["state"] == "IDLE"
    finally:
        await embedded.close("the program ended")
    await until(lambda: here.gateway.worker_index.states()[0][1] is WorkerState.STOPPED_GRACEFUL)
    shown = await listed(here)
    assert (shown["stop_reason"], shown["draining"], shown["drain_reason"]) == ("drained", False, None)


async def listed(here: Running, worker_id: str = "w") -> dict[str, Any]:
    query = {"scope": "all", "include_hidden": "true", "worker_id": worker_id}
    (item,) = (await here.http.get("/workers", params=query)).json()
    return dict(item)


async def eventually_listed(here: Running, **truths: bool) -> None:
    async def holds() -> bool:
        item = await listed(here)
        return all(bool(item[name]) is truth for name, truth in truths.items())

    await eventually(holds)


async def test_what_cannot_be_drained_and_why(here: Running) -> None:
    now = time.time()
    await put_workers(
        here,
        worker("gone", state="STOPPED_GRACEFUL", stopped_at=now - 30, stop_reason="SIGTERM"),
        worker("lost", state="RUNNING", last_seen_at=now - 91),
    )
    cases = [
        ("nobody", {}, 404, "worker not found"),
        ("a b", {}, 404, "worker not found"),
        ("a..b", {}, 404, "worker not found"),
        ("gone", {}, 409, "worker gone is STOPPED_GRACEFUL: it stopped 3"),
        ("lost", {"json": {"reason": None}}, 409, "worker lost is DISCONNECTED: its last sign of life came 9"),
        ("lost", {"json": {"reason": 1}}, 422, "reason"),
        ("lost", {"json": {"reason": "x" * 501}}, 422, "reason"),
        ("lost", {"content": b"{", "headers": JSON}, 422, ""),
    ]
    for worker_id, options, status, said in cases:
        answer = await here.http.post(f"/workers/{worker_id}/drain", **options)
        assert (answer.status_code, said in answer.text) == (status, True), answer.text
    assert (await here.http.post("/workers/gone/drain")).json()["code"] == "worker_gone"
    assert (await listed(here, "gone"))["drain_requested_at"] is None


async def test_only_the_process_that_was_there_is_drained(here: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look and the write another process takes the name."""
    await put_workers(here, worker("w", instance_id="old"))
    store = here.gateway.workers
    write = store.update

    async def late(record: WorkerRecord, revision: int) -> int:
        monkeypatch.setattr(store, "update", write)
        await store.put(worker("w", instance_id="new"))
        return await write(record, revision)

    monkeypatch.setattr(store, "update", late)
    answer = await here.http.post("/workers/w/drain")
    assert answer.status_code == 409 and "was started anew in this moment" in answer.json()["detail"]
    assert (await stored(store)).draining is False


async def test_hiding_and_draining_do_not_undo_each_other(here: Running) -> None:
    async with worker_store(here.gateway.settings) as store:
        mine = registration(here.gateway.settings, store)
        await mine.take_name()
        assert (await here.http.patch("/workers/w", json={"hidden": True})).status_code == 200
        await drain(here)
        assert (await here.http.patch("/workers/w", json={"hidden": False})).status_code == 200
        await mine.say_goodbye("drained")
        record = await stored(store)
        assert (record.hidden, record.drain_requested_at is not None) == (False, True)


@pytest.fixture
def forgetful(settings: Settings) -> Settings:
    return settings.model_copy(
        update={"reconcile_interval_sec": 0.05, "reconcile_after_sec": 0.1, "worker_forget_after_sec": GONE_SEC}
    )


async def test_workers_that_are_gone_for_long_are_forgotten(forgetful: Settings) -> None:
    now = time.time()
    async with running(forgetful) as here, running(forgetful) as other:  # both do it
        long_ago = {"last_seen_at": now - GONE_SEC - 1}
        await put_workers(
            here,
            worker("stopped", state="STOPPED_GRACEFUL", **long_ago),
            worker("lost", state="RUNNING", current_run_ids=["r"], **long_ago),
            worker("just-stopped", state="STOPPED_GRACEFUL"),
            worker("just-lost", last_seen_at=now - GONE_SEC / 2),
            worker("there"),
        )
        kept = {"just-stopped", "just-lost", "there"}
        for gateway in (here, other):
            await until(lambda gateway=gateway: set(gateway.gateway.worker_index._records) == kept)  # type: ignore[misc]
            items = (await gateway.http.get("/workers?scope=all")).json()
            assert {item["worker_id"] for item in items} == kept
        assert (await here.http.post("/workers/stopped/drain")).status_code == 404
        assert await here.gateway.workers.get("lost") is None
        # A name that was forgotten can be had again, by a new process and by one that had been cut off.
        async with worker_store(forgetful) as store:
            mine = registration(forgetful, store, "stopped")
            await mine.take_name()
            found = await store.get("stopped")
            assert found is not None
            await store.forget("stopped", found.revision)
            await mine._write(mine.record.seen([], None))
            assert (await stored(store, "stopped")).instance_id == mine.instance_id
            await until(lambda: here.gateway.worker_index.get("stopped") is not None)


async def test_a_worker_that_comes_back_in_that_moment_is_not_forgotten(
    forgetful: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(forgetful) as here:
        store = here.gateway.workers
        forget, refused = store.forget, asyncio.Event()

        async def late(worker_id: str, revision: int) -> None:
            await store.put(worker("w"))
            try:
                await forget(worker_id, revision)
            except RevisionConflict:
                refused.set()
                raise

        monkeypatch.setattr(store, "forget", late)
        await store.put(worker("w", last_seen_at=time.time() - GONE_SEC - 1))
        await asyncio.wait_for(refused.wait(), DEADLINE)
        assert (await stored(store)).last_seen_at > time.time() - DEADLINE


async def test_a_gateway_that_did_not_hear_of_a_removal_finds_out(forgetful: Settings) -> None:
    async with running(forgetful) as here:
        gone = worker("w", last_seen_at=time.time() - GONE_SEC - 1)
        here.gateway.worker_index._records["w"] = gone  # the mark of its removal has long expired
        await until(lambda: here.gateway.worker_index.get("w") is None)


async def test_zero_forgets_nobody(forgetful: Settings) -> None:
    settings = forgetful.model_copy(update={"worker_forget_after_sec": 0.0})
    async with running(settings) as here:
        await put_workers(here, worker("w", state="STOPPED_GRACEFUL", last_seen_at=1.0))
        await rounds(here)
        assert await here.gateway.workers.get("w") is not None


async def test_a_run_of_a_forgotten_worker_still_answers(forgetful: Settings) -> None:
    settings = forgetful.model_copy(update={"reconcile_after_sec": 60.0})  # only to ask before it is moved on
    async with running(settings) as here:
        run_id = await here.submit(tag="cpu")
        await here.gateway.runs.change(run_id, lambda record: claim(record, worker_id="w", instance_id="i", job_seq=1))
        run = (await here.http.get(f"/runs/{run_id}")).json()
        assert (run["worker_id"], run["worker_alive"], run["worker_state"]) == ("w", False, "DISCONNECTED")
        why = (await here.http.get(f"/runs/{run_id}/why")).json()
        assert why["code"] == "worker_silent_no_other" and "worker w is lost" in why["message"]
        assert "no live worker takes runs of the tag cpu" in why["message"]


async def test_why_names_workers_that_drain(here: Running) -> None:
    run_id = await here.submit(tag="cpu")
    await put_workers(here, worker("w", tags=["cpu"]), worker("gone", tags=["cpu"], state="STOPPED_GRACEFUL"))
    await drain(here, json={"reason": "new kernel"})
    await until(lambda: here.gateway.worker_index.get("w").draining)  # type: ignore[union-attr]
    why = (await here.http.get(f"/runs/{run_id}/why")).json()
    assert why["code"] == "workers_draining" and "(workers: w); reason: new kernel" in why["message"]
    await put_workers(here, worker("w2", tags=["cpu"]))
    assert (await here.http.get(f"/runs/{run_id}/why")).json()["code"] == "starting"
