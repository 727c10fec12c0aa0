"""``GET /overview``: what is wrong now and how the last hour went, of a real gateway; and for each tenant its own."""

import time
from typing import Any

import pytest

from pyoco_server.gateway.deadletters import letter_counts
from pyoco_server.model.access import Role
from pyoco_server.model.deadletter import DeadLetter, DeadLetterReason
from pyoco_server.model.run import EndReason, RunStatus
from pyoco_server.model.worker import WorkerRecord
from pyoco_server.settings.environment import Settings

from .callers import tenants_at
from .test_gateway import Running, here, put_workers, running, until
from .test_gateway_away import Nats, nats
from .test_metrics import claimed, ends, move
from .test_tenants import submit

__all__ = ["here", "nats"]  # fixtures
pytestmark = pytest.mark.anyio

FAILS = (claimed, ends(RunStatus.FAILED, EndReason.TASK_FAILED))


def worker(worker_id: str, **fields: Any) -> WorkerRecord:
    now = time.time()
    return WorkerRecord(worker_id=worker_id, last_seen_at=now, last_heartbeat_at=now, updated_at=now, **fields)


async def letter(here: Running, name: str, **fields: Any) -> None:
    await here.gateway.letters.publish(DeadLetter(reason=DeadLetterReason.INVALID_JOB, tag="t", **fields), name)
    here.gateway.figures._asked_at = 0.0


async def told(here: Running) -> dict[str, Any]:
    answer = await here.http.get("/overview")
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def test_nothing_yet(here: Running) -> None:
    found = await told(here)
    assert (found["nats_up"], found["index_caught_up"], found["queues"]) == (True, True, [])
    assert found["failed"] == {since: {"runs": 0, "complete": True} for since in ("hour", "day")}
    assert found["dead_letters"] == {"letters": 0, "complete": True}
    assert found["storage"]["accepts_submissions"] and found["storage"]["refusal"] is None
    pace = found["pace"]
    assert {len(column) for column in pace["ended"].values()} == {60} == {pace["minutes"]}
    assert pace["run_ms"]["p95"] == [None] * 60 and pace["hour"]["run_ms"] == {"p50": None, "p95": None}


async def test_the_last_hour_and_the_queues(here: Running) -> None:
    await put_workers(
        here,
        worker("free", tags=["cpu"], slots=2),
        worker("full", tags=["busy"], slots_in_use=1, current_run_ids=["x"]),
        worker("leaves", tags=["left"], draining=True),
    )
    failed = await here.submit(tag="cpu")
    await move(here, failed, *FAILS)
    first = {tag: await here.submit(tag=tag) for tag in ("cpu", "busy", "left", "gpu")}
    await here.submit(tag="gpu")
    await letter(here, "1")
    here.gateway.depths.look()
    found = await told(here)
    assert (found["failed"]["hour"], found["failed"]["day"]) == ({"runs": 1, "complete": True},) * 2
    assert (found["runs"]["PENDING"], found["runs"]["FAILED"]) == (5, 1)
    assert found["dead_letters"]["letters"] == 1
    assert sum(found["pace"]["ended"]["FAILED"]) == 1 == found["pace"]["hour"]["ended"]["FAILED"]
    assert found["pace"]["hour"]["run_ms"]["p50"] > 0
    queues = {queue["tag"]: queue for queue in found["queues"]}
    assert {tag: queue["why"] for tag, queue in queues.items()} == {
        "cpu": "starting", "busy": "all_busy", "left": "workers_draining", "gpu": "no_worker"
    }  # fmt: skip
    assert {tag: queue["oldest_run_id"] for tag, queue in queues.items()} == first
    assert {tag: queue["waiting"] for tag, queue in queues.items()} == {"cpu": 1, "busy": 1, "left": 1, "gpu": 2}
    assert (queues["cpu"]["workers"], queues["cpu"]["slots"], queues["cpu"]["free_slots"]) == (["free"], 2, 2)
    assert queues["gpu"]["depths"][-1] == 2 and queues["gpu"]["in_flight"] is None  # no worker made its consumer


async def test_it_answers_while_nats_is_away(settings: Settings, nats: Nats) -> None:
    await nats.start()
    async with running(settings.model_copy(update={"nats_url": nats.url})) as here:
        await here.submit(tag="gpu")
        await nats.stop()
        await until(lambda: not here.gateway.connection.is_up)
        found = await told(here)
        assert (found["nats_up"], found["dead_letters"]) == (False, None)
        assert [(queue["tag"], queue["waiting"]) for queue in found["queues"]] == [("gpu", 1)]


async def test_each_tenant_sees_its_own(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(letter_counts, "_FRESH_SEC", 0.0)
    async with tenants_at(settings) as site:
        here = site.here
        a, b, viewer = await site.client("a"), await site.client("b"), await site.client("c", Role.VIEWER)
        admin, operator = await site.client("c", Role.ADMIN), await site.client("c", Role.OPERATOR)
        anybody = await site.anybody()
        await put_workers(here, worker("w", tags=["shared"]))
        await move(here, await submit(a, tag="of-a"), *FAILS)
        of_a, of_b = await submit(a, tag="of-a"), await submit(b, tag="of-b")
        nobodys = await submit(anybody, tag="of-a")
        await until(lambda: here.gateway.index.count() == 4)
        await letter(here, "1", tenant_id="a")
        await letter(here, "2", tenant_id="a")
        here.gateway.depths.look()
        wanted = {
            a: (1, 2, {"shared": None, "of-a": of_a}),
            b: (0, 0, {"shared": None, "of-b": of_b}),
            viewer: (0, 0, {"shared": None}),
            admin: (0, 0, {"shared": None}),
            operator: (1, 2, {"shared": None, "of-a": None, "of-b": None}),  # how many and how long, and not which
        }
        for client, (failed, letters, oldest) in wanted.items():
            answer = await client.get("/overview")
            found = answer.json()
            ended = found["pace"]["hour"]["ended"]["FAILED"]
            assert (found["failed"]["day"]["runs"], ended, found["runs"]["FAILED"]) == (failed,) * 3
            assert found["dead_letters"] == {"letters": letters, "complete": True}
            assert {queue["tag"]: queue["oldest_run_id"] for queue in found["queues"]} == oldest
            waiting = {queue["tag"]: queue["waiting"] for queue in found["queues"]}
            assert waiting == {
                tag: 2 if (tag, client) == ("of-a", operator) else int(tag != "shared") for tag in oldest
            }
            assert {queue["tag"]: queue["depths"][-1] for queue in found["queues"]} == waiting
            assert all((queue["oldest_at"] is not None) == bool(queue["waiting"]) for queue in found["queues"])
            assert all(queue["redelivered"] is None for queue in found["queues"])
            others = {of_a, of_b, nobodys} - set(oldest.values())
            assert not any(run_id in answer.text for run_id in others)
        monkeypatch.setattr(letter_counts, "_COUNTED", 1)
        await letter(here, "3", tenant_id="a")
        assert (await a.get("/overview")).json()["dead_letters"] == {"letters": 1, "complete": False}
