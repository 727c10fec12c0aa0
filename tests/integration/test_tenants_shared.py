"""What tenants share (workers, wheels, metrics), and what they do not see of each other in it."""

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from pyoco_server.model.access import Role
from pyoco_server.model.run import EndReason, RunStatus
from pyoco_server.model.worker import WorkerRecord, WorkerState
from pyoco_server.settings import Settings
from tests.integration.callers import Tenants, tenants_at
from tests.integration.test_gateway import DEADLINE, events, until
from tests.integration.test_metrics import claimed, ends, move
from tests.integration.test_tenants import submit
from tests.integration.test_wheels import upload
from tests.wheels import make_wheel

pytestmark = pytest.mark.anyio

LAST = ("last_run_id", "last_run_status", "last_run_started_at", "last_run_finished_at")


@pytest.fixture
async def site(settings: Settings) -> AsyncIterator[Tenants]:
    async with tenants_at(settings) as tenants:
        yield tenants


async def worker(site: Tenants, **fields: Any) -> None:
    now = time.time()
    record = WorkerRecord(worker_id="w", last_seen_at=now, last_heartbeat_at=now, state=WorkerState.RUNNING, **fields)
    revision = await site.here.gateway.workers.put(record)
    await until(lambda: site.here.gateway.worker_feed.revision >= revision)


async def test_a_worker_shows_each_tenant_its_own_runs(site: Tenants) -> None:
    a, b = await site.client("a"), await site.client("b")
    admin, viewer = await site.client("a", Role.ADMIN), await site.client("c", Role.VIEWER)
    anybody = await site.anybody()
    of_a, of_b, nobodys = await submit(a), await submit(b), await submit(anybody)
    await until(lambda: site.here.gateway.index.count() == 3)
    last = {"last_run_id": of_b, "last_run_status": "FAILED", "last_run_started_at": 1.0, "last_run_finished_at": 2.0}
    await worker(
        site, current_run_id=of_b, current_run_ids=[of_b, of_a, nobodys, "unknown"], slots=4, tags=["x"],
        of_a_newer_version=[of_b], **last,
    )  # fmt: skip
    wanted = {a: [of_a], b: [of_b], admin: [of_a, nobodys], viewer: list[str]()}
    for client, runs in wanted.items():
        [shown] = (await client.get("/workers")).json()
        assert (shown["current_run_ids"], shown["current_run_id"]) == (runs, next(iter(runs), None))
        assert {name: shown[name] for name in LAST} == (last if client is b else dict.fromkeys(LAST))
        assert (shown["state"], shown["slots"], shown["tags"]) == ("RUNNING", 4, ["x"])
        assert "of_a_newer_version" not in shown
    async with viewer.stream("GET", "/events") as answer:
        async for event in events(answer):
            if event["event"] == "workers":
                [shown] = event["data"]["items"]
                assert (shown["worker_id"], shown["current_run_ids"], shown["last_run_id"]) == ("w", [], None)
                break
            if event["event"] == "hello":
                await worker(site, current_run_id=of_b, current_run_ids=[of_b], **last)
    deadline = time.monotonic() + DEADLINE
    while [item["current_run_ids"] for item in (await anybody.get("/workers")).json()] != [[of_b]]:
        assert time.monotonic() < deadline  # the other gateway hears of it a moment later


async def test_the_history_of_wheels_tells_its_tenant_and_operators_who_it_was(site: Tenants, tmp_path: Path) -> None:
    a, b = await site.client("a"), await site.client("b", Role.VIEWER)
    admin, operator = await site.client("c", Role.ADMIN), await site.client("c", Role.OPERATOR)
    anybody = await site.anybody()
    path = make_wheel(tmp_path, "task-cpu", "0.1.0")
    owner = await site.client("a", Role.OPERATOR)  # of what all share
    assert (await upload(owner, path)).status_code == 200
    assert (await owner.post(f"/wheels/{path.name}/pin")).status_code == 200
    assert (await owner.delete(f"/wheels/{path.name}/pin")).status_code == 200
    assert (await owner.delete(f"/wheels/{path.name}")).status_code == 200
    assert (await upload(anybody, make_wheel(tmp_path, "other", "1"))).status_code == 200

    async def history(client: httpx2.AsyncClient) -> list[tuple[str, str | None, bool, bool]]:
        events = (await client.get("/wheels/history")).json()
        return [
            (
                event["action"],
                event["actor"]["tenant_id"],
                event["actor"]["api_key_id"] is not None,
                any(event["source"].values()),
            )
            for event in events
        ]

    actions = ["delete", "unpin", "pin", "upload"]
    seen = [(action, "a", True, True) for action in actions]
    unseen = [(action, None, False, False) for action in actions]
    anybodys = ("upload", None, False)
    assert await history(a) == [(*anybodys, False), *seen]
    assert await history(b) == await history(admin) == [(*anybodys, False), *unseen]
    assert await history(operator) == await history(anybody) == [(*anybodys, True), *seen]


async def test_metrics_name_flows_to_admins_alone(site: Tenants) -> None:
    a, anybody = await site.client("a"), await site.anybody()
    run_id = await submit(a, flow_name="secret-flow", tag="cpu")
    await move(site.here, run_id, claimed, ends(RunStatus.FAILED, EndReason.TASK_FAILED))
    for client in (a, await site.client("b", Role.VIEWER)):
        text = (await client.get("/metrics")).text
        assert 'pyoco_runs_total{status="FAILED"} 1.0' in text
        assert "secret-flow" not in text and "pyoco_run_wait_seconds" not in text
    for client in (await site.client("b", Role.ADMIN), anybody):
        deadline = time.monotonic() + DEADLINE
        while 'pyoco_run_duration_seconds_count{flow="secret-flow",tag="cpu"} 1.0' not in (
            text := (await client.get("/metrics")).text
        ):
            assert time.monotonic() < deadline, text  # the other gateway hears of it a moment later
