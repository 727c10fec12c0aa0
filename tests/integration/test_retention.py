"""What is not kept any longer: runs that expire, runs beyond a number, and what hangs on runs that are gone."""

import asyncio
import contextlib
import json
import sqlite3
import time
from typing import Any

import pytest
from nats.js import api

from pyoco_server.gateway.maintenance import census, retention, spent_logs
from pyoco_server.model.deadletter import DeadLetterReason, key_of_run, letter_of_run
from pyoco_server.model.run import EndReason, RunRecord, RunStatus, claim, settle
from pyoco_server.model.runlog import LogChunk
from pyoco_server.settings.environment import Settings
from pyoco_server.store.nats.connection import Connection
from pyoco_server.store.nats.direct import purge_subject

from .test_gateway import DEADLINE, FLOW, Running, running, until

pytestmark = pytest.mark.anyio


@pytest.fixture
def quick(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setattr(retention, "_LATE_SEC", 0.0)
    monkeypatch.setattr(retention, "_YOUNG_SEC", 0.0)
    return settings.model_copy(update={"retention_interval_sec": 0.05})


async def ended(
    here: Running, status: RunStatus = RunStatus.COMPLETED, run_id: str | None = None, **fields: Any
) -> str:
    """Make a run as a worker leaves it."""
    run_id = run_id or await here.submit(**fields)
    await here.gateway.runs.change(run_id, lambda run: claim(run, worker_id="w", instance_id="i", job_seq=1))
    await here.gateway.runs.change(run_id, lambda run: settle(run, status, EndReason.TASK_FAILED, None))
    return run_id


async def time_to_live(here: Running, run_id: str) -> str | None:
    bucket = here.gateway.runs._bucket
    found = await here.gateway.connection.js.get_msg(bucket.stream, subject=bucket.subject(run_id))
    return (found.headers or {}).get("Nats-TTL")


async def listed(here: Running) -> list[str]:
    return sorted(item["run_id"] for item in (await here.http.get("/runs")).json())


def totals(here: Running) -> dict[str, int]:
    return {status: runs for status, runs in here.gateway.index.totals.by_status().items() if runs}


async def eventually(holds: Any, timeout: float = DEADLINE) -> None:
    deadline = time.monotonic() + timeout
    while not await holds():
        assert time.monotonic() < deadline, "it never came true"
        await asyncio.sleep(0.02)


# The server's own expiry


async def test_only_the_end_of_a_run_is_given_a_time_to_live_by_its_status(settings: Settings) -> None:
    kept = {"run_retention_sec": 60.4, "run_retention_failed_sec": 0.0, "run_retention_cancelled_sec": 5.0}
    async with running(settings.model_copy(update=kept)) as here:
        waiting = await here.submit()
        assert await time_to_live(here, waiting) is None
        await here.gateway.runs.change(waiting, lambda run: claim(run, worker_id="w", instance_id="i", job_seq=1))
        assert await time_to_live(here, waiting) is None
        assert await time_to_live(here, await ended(here)) == "61"
        assert await time_to_live(here, await ended(here, RunStatus.FAILED)) is None
        cancelled = await here.submit()
        assert (await here.http.post(f"/runs/{cancelled}/cancel")).json()["status"] == "CANCELLED"
        assert await time_to_live(here, cancelled) == "5"
        await here.http.post(f"/runs/{waiting}/cancel")
        assert await time_to_live(here, waiting) is None  # CANCELLING


async def test_what_has_expired_is_forgotten_everywhere_and_its_key_makes_a_new_run(settings: Settings) -> None:
    kept = settings.model_copy(update={"run_retention_completed_sec": 2.0})  # it is asked for once before
    async with running(kept) as here, running(kept) as second:
        failed, waiting = await ended(here, RunStatus.FAILED), await here.submit()
        first = await ended(here, idempotency_key="k")
        assert (await here.http.post("/runs", json={"flow_name": "f", "idempotency_key": "k"})).json() == {
            "run_id": first, "status": "COMPLETED", "created": False,
        }  # fmt: skip
        for gateway in (here, second):
            await until(lambda: gateway.gateway.index.count() == 2)  # noqa: B023
            assert await listed(gateway) == sorted([failed, waiting])
            assert totals(gateway) == {"FAILED": 1, "PENDING": 1}
        assert (await here.http.get(f"/runs/{first}")).status_code == 404
        assert 'pyoco_runs_total{status="COMPLETED"} 0.0' in (await here.http.get("/metrics")).text
        assert 'pyoco_runs_ended_total{end_reason="task_failed"} 2.0' in (await here.http.get("/metrics")).text

        again = (await second.http.post("/runs", json={"flow_name": "f", "idempotency_key": "k"})).json()
        assert again == {"run_id": first, "status": "PENDING", "created": True}
        last = await here.gateway.connection.js.get_last_msg(
            kept.work_stream, f"{kept.work_subject_prefix}.{kept.default_tag}"
        )
        assert json.loads(last.data or b"")["run_id"] == first  # its job was not dropped as the first one's repeat
        assert last.seq == second.gateway.index.jobs.seq_of(first) == 4
        await until(lambda: here.gateway.index.count() == 3)
        # It fails this time: its letter is not the repeat of one that its predecessor may have left.
        assert key_of_run(await record(here, first), DeadLetterReason.EXECUTION_ERROR).count(":") == 3


async def record(here: Running, run_id: str) -> RunRecord:
    stored = await here.gateway.runs.get(run_id)
    assert stored is not None
    return stored.record


async def test_a_key_can_be_made_over_every_kind_of_removal(settings: Settings) -> None:
    async with running(settings) as here:
        bucket = here.gateway.runs._bucket
        for _ in range(2):
            revision = await bucket.create("a", b"1")
            await bucket.purge("a", revision)
        first = await bucket.create("b", b"1")
        await bucket.update("b", b"2", first, expires=1)

        async def expired() -> bool:
            return await bucket.get("b") is None

        await eventually(expired)
        await bucket.create("b", b"3")
        entry = await bucket.get("b")
        assert entry is not None and entry.value == b"3"


async def test_a_bucket_without_expiry_takes_every_write_and_the_gateway_removes(
    quick: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    name = quick.runs_kv_bucket
    connection = await Connection(quick, "old").start()
    assert await connection.wait_up(DEADLINE)
    await connection.js.add_stream(  # as nats-py and the existing system make it
        api.StreamConfig(
            name=f"KV_{name}", subjects=[f"$KV.{name}.>"], max_msgs_per_subject=1, discard=api.DiscardPolicy.NEW,
            allow_rollup_hdrs=True, deny_delete=True, allow_direct=False,
        )
    )  # fmt: skip
    async with running(quick.model_copy(update={"run_retention_sec": 1.0})) as here:
        first, _ = await ended(here), await ended(here)
        await until(lambda: here.gateway.index.count() == 0)
        assert (await here.http.get(f"/runs/{first}")).status_code == 404
        assert capsys.readouterr().out.count("was made without expiry") == 1
        # Once it is allowed, it is used.
        info = await connection.js.stream_info(f"KV_{name}")
        info.config.allow_msg_ttl = True
        await connection.js.update_stream(info.config)
        here.gateway.runs._bucket._no_expiry_until = 1.0  # a minute later
        assert await time_to_live(here, await ended(here)) == "1"
    await connection.close()


# What gateways remove


async def test_the_oldest_beyond_a_number_go_and_only_ended_ones(quick: Settings) -> None:
    async with contextlib.AsyncExitStack() as stack:
        plain = await stack.enter_async_context(running(quick))
        waiting, busy = await plain.submit(), await plain.submit(tag="gpu")
        await plain.gateway.runs.change(busy, lambda run: claim(run, worker_id="w", instance_id="i", job_seq=1))
        runs = [await ended(plain, status) for status in (RunStatus.COMPLETED, RunStatus.FAILED) * 6]
        runs.append(await plain.submit())
        await plain.http.post(f"/runs/{runs[-1]}/cancel")
        bounded = quick.model_copy(update={"run_retention_max_runs": 5})
        gateways = [await stack.enter_async_context(running(bounded)) for _ in range(2)]
        for here in (plain, *gateways):
            await until(lambda: here.gateway.index.roll.ended() == 5)  # noqa: B023
            assert await listed(here) == sorted([waiting, busy, *runs[-5:]])
            assert totals(here) == {"PENDING": 1, "RUNNING": 1, "COMPLETED": 2, "FAILED": 2, "CANCELLED": 1}
        another = await ended(plain)
        await until(lambda: runs[-5] not in gateways[0].gateway.index.roll.known(runs))
        assert another in await listed(gateways[0])


async def test_a_run_that_ended_just_now_is_spared(quick: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "_YOUNG_SEC", 60.0)
    async with running(quick.model_copy(update={"run_retention_max_runs": 1})) as here:
        runs = [await ended(here) for _ in range(3)]
        await until(lambda: here.gateway.index.roll.ended() == 3)
        await here.gateway.retention.round()
        assert await listed(here) == sorted(runs)


async def test_runs_that_ended_under_other_settings_go_by_their_age(quick: Settings) -> None:
    async with running(quick) as here:
        failed, done = await ended(here, RunStatus.FAILED), await ended(here)
        waiting = await here.submit()
    async with running(quick.model_copy(update={"run_retention_completed_sec": 1.0})) as here:
        await until(lambda: done not in here.gateway.index.roll.known([done]))
        assert await listed(here) == sorted([failed, waiting])


async def test_a_run_that_began_anew_is_never_removed_by_what_is_known_of_the_old_one(quick: Settings) -> None:
    async with running(quick) as here:
        run_id = await ended(here, idempotency_key="k")
        await until(lambda: here.gateway.index.roll.ended() == 1)
        old = here.gateway.index.roll.first_ended(time.time() + 60, 10)
        stored = await here.gateway.runs.get(run_id)
        assert stored is not None
        await here.gateway.runs.remove(run_id, stored.revision)
        assert (await here.http.post("/runs", json={"flow_name": "f", "idempotency_key": "k"})).json()["created"]
        assert await here.gateway.retention._remove(old) == 0
        assert (await record(here, run_id)).status is RunStatus.PENDING
        assert await listed(here) == [run_id]


# What the index may have missed


async def vanish(here: Running, run_id: str) -> None:
    """Take a run out so that no mark tells of it, as if the mark had expired too."""
    bucket = here.gateway.runs._bucket
    assert await purge_subject(here.gateway.connection, bucket.stream, bucket.subject(run_id), through=1 << 40) == 1


@pytest.mark.parametrize("away", [census._OUT_OF_STEP_SEC + 1, -60.0])
async def test_an_index_that_was_away_for_long_forgets_what_it_missed(quick: Settings, away: float) -> None:
    async with running(quick) as here:
        runs = [await ended(here) for _ in range(5)]
        await until(lambda: here.gateway.index.roll.in_step_at is not None)
        await until(lambda: here.gateway.index.roll.ended() == 5)
    async with running(quick.model_copy(update={"state_dir": quick.state_dir / "other"})) as other:
        await vanish(other, runs[1])
        await vanish(other, runs[3])
        late = [await ended(other), await ended(other)]
        for name in "abc":  # marks are messages too: the number of messages alone tells nothing
            await other.gateway.runs._bucket.purge(name, await other.gateway.runs._bucket.create(name, b"{}"))
        file = sqlite3.connect(quick.state_dir / "index" / f"{quick.runs_kv_bucket}.sqlite3", isolation_level=None)
        file.execute("UPDATE meta SET value=? WHERE name='in_step_at'", (str(time.time() - away),))
        file.close()
        async with running(quick) as here:
            await until(lambda: here.gateway.index.count() == 5)
            assert await listed(here) == sorted([runs[0], runs[2], runs[4], *late])
            assert totals(here) == {"COMPLETED": 5}


async def test_an_index_with_more_rows_than_the_store_has_messages_looks_anew(quick: Settings) -> None:
    async with running(quick) as here:
        runs = [await ended(here) for _ in range(3)]
        await until(lambda: here.gateway.index.roll.ended() == 3)
        await vanish(here, runs[0])
        await until(lambda: here.gateway.index.count() == 2)
        assert await listed(here) == sorted(runs[1:])


# Flows


async def submit_flow(here: Running, text: str) -> tuple[str, str]:
    answer = await here.http.post("/runs/yaml", data={"flow_name": "main"}, files={"workflow": ("f", text.encode())})
    run_id = answer.json()["run_id"]
    sha256 = (await record(here, run_id)).workflow_yaml_sha256
    assert sha256 is not None
    return run_id, sha256


async def test_flows_go_when_neither_run_nor_letter_nor_anybody_else_needs_them(
    quick: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pyoco_server.gateway.maintenance.unused_flows._TURN_SEC", 0.0)
    bounded = quick.model_copy(update={"flow_retention_sec": 1.0, "run_retention_max_runs": 1})
    async with running(bounded) as here, running(bounded):
        flows = here.gateway.flows
        (old, loose), (failed, dead), (last, used) = [await submit_flow(here, f"# {n}\n{FLOW}") for n in range(3)]
        dead_run = await record(here, await ended(here, RunStatus.FAILED, run_id=failed))
        letter = letter_of_run(dead_run, DeadLetterReason.EXECUTION_ERROR, tag="default")
        letter_id = await here.gateway.letters.publish(letter, "key")
        for run_id in (old, last):
            await ended(here, run_id=run_id)
        await until(lambda: here.gateway.index.roll.ended() == 1)

        async def gone(*shas: str) -> bool:
            return not any([await flows.get(sha) for sha in shas])

        await eventually(lambda: gone(loose))
        here.gateway.retention._loose_flows._after = 0
        await here.gateway.retention._loose_flows.round(time.time() + 60)
        assert not await gone(dead) and not await gone(used)

        replayed = (await here.http.post(f"/dlq/{letter_id}/replay")).json()["run_id"]
        assert (await record(here, replayed)).workflow_yaml_sha256 == dead
        await here.http.post(f"/runs/{replayed}/cancel")
        await ended(here)
        await eventually(lambda: gone(dead, used))

        # The same text again: it is stored again, whatever this gateway remembers of it.
        again, sha256 = await submit_flow(here, f"# 0\n{FLOW}")
        assert sha256 == loose and not await gone(loose)
        await here.http.post(f"/runs/{again}/rerun")


async def test_a_flow_that_is_put_again_in_the_same_moment_stays(quick: Settings) -> None:
    bounded = quick.model_copy(update={"flow_retention_sec": 0.0, "retention_interval_sec": 1000.0})
    async with running(bounded) as here:
        flows = here.gateway.flows
        await flows.put(b"text", "sha")
        seen = await flows._bucket.get("sha")
        assert seen is not None
        await flows.put(b"text", "sha")
        assert not await flows.remove("sha", seen.revision)
        assert await flows.keep("sha") is False  # not its hash; but it is there
        entry = await flows._bucket.get("sha")
        assert entry is not None
        assert await flows.remove("sha", entry.revision)
        assert await here.gateway.retention._loose_flows.round(time.time()) == 0


# Logs


async def chunks(here: Running, run_id: str) -> int:
    return len(await here.gateway.logs.read(run_id, after=0))


async def test_the_log_of_a_run_that_is_gone_goes_too(quick: Settings) -> None:
    async with running(quick.model_copy(update={"run_retention_completed_sec": 1.0})) as here:
        kept, expiring = await ended(here, RunStatus.FAILED), await here.submit()
        for run_id in (kept, expiring):
            for number in range(3):
                await here.gateway.logs.publish(run_id, LogChunk(1, number, []), str(number))
        await ended(here, run_id=expiring)

        async def removed() -> bool:
            return await chunks(here, expiring) == 0

        await eventually(removed)
        assert await chunks(here, kept) == 3


@pytest.mark.parametrize("made_before_it_is_looked_for", [True, False])
async def test_the_log_of_a_new_run_with_the_same_id_stays(
    quick: Settings, monkeypatch: pytest.MonkeyPatch, made_before_it_is_looked_for: bool
) -> None:
    async with running(quick) as here:
        logs, runs = here.gateway.logs, here.gateway.runs
        await logs.publish("r", LogChunk(1, 0, []), "old")
        spent = spent_logs.SpentLogs(runs, logs)
        spent.add(["r"])
        look = runs.get_raw

        async def begin() -> None:
            await runs.create(RunRecord(run_id="r", flow_name="f"))
            await logs.publish("r", LogChunk(2, 0, []), "new")

        async def get_raw(run_id: str) -> Any:
            if made_before_it_is_looked_for:
                await begin()
                return await look(run_id)
            found = await look(run_id)
            await begin()
            return found

        monkeypatch.setattr(runs, "get_raw", get_raw)
        await spent.bite()
        left = [chunk.attempt for _, chunk in await logs.read("r", after=0)]
        assert left == ([1, 2] if made_before_it_is_looked_for else [2])


async def test_logs_go_as_fast_as_runs_do(quick: Settings) -> None:
    async with running(quick.model_copy(update={"retention_interval_sec": 1000.0})) as here:
        logs, runs = here.gateway.logs, [f"r{number:03}" for number in range(600)]
        for start in range(0, 600, 50):
            some = runs[start : start + 50]
            await asyncio.gather(*(logs.publish(run_id, LogChunk(1, 0, []), "1") for run_id in some))
        here.gateway.spent_logs.add(runs)  # without waiting for a round of anything

        async def removed() -> bool:
            state = await here.gateway.connection.js.stream_info(quick.logs_stream)
            return state.state.messages == 0

        await eventually(removed)
