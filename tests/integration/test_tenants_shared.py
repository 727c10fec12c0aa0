"""What tenants share (workers, wheels, metrics), and what they do not see of each other in it."""

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from pyoco_server.gateway.deadletters import letter_counts
from pyoco_server.gateway.monitoring import doctor
from pyoco_server.model.access import Role
from pyoco_server.model.deadletter import DeadLetter, DeadLetterReason
from pyoco_server.model.findings.finding import Finding, FindingCode, warning
from pyoco_server.model.run import EndReason, RunStatus
from pyoco_server.model.worker import WorkerRecord, WorkerState
from pyoco_server.settings.environment import Settings
from tests.integration.callers import Tenants, tenants_at
from tests.integration.test_gateway import DEADLINE, events, until
from tests.integration.test_metrics import claimed, ends, move
from tests.integration.test_tenants import submit
from tests.integration.test_wheels import upload
from tests.unit.test_metrics import one, read
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
    operator = await site.client("a", Role.OPERATOR)
    anybody = await site.anybody()
    of_a, of_b, nobodys = await submit(a), await submit(b), await submit(anybody)
    await until(lambda: site.here.gateway.index.count() == 3)
    last = {"last_run_id": of_b, "last_run_status": "FAILED", "last_run_started_at": 1.0, "last_run_finished_at": 2.0}
    await worker(
        site, current_run_id=of_b, current_run_ids=[of_b, of_a, nobodys, "unknown"], slots=4, tags=["x"],
        of_a_newer_version=[of_b], **last,
    )  # fmt: skip
    wanted = {a: [of_a], b: [of_b], admin: [of_a], operator: [of_a, nobodys], viewer: list[str]()}
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


async def scraped(client: httpx2.AsyncClient) -> Any:
    answer = await client.get("/metrics")
    assert answer.status_code == 200, answer.text
    return read(answer.content)


async def told(client: httpx2.AsyncClient, name: str, value: float, **labels: str) -> Any:
    """Wait until a metric has a value: another gateway hears of what happened a moment later."""
    deadline = time.monotonic() + DEADLINE
    while one(samples := await scraped(client), name, **labels) != value:
        assert time.monotonic() < deadline, samples
    return samples


FAILS = (claimed, ends(RunStatus.FAILED, EndReason.TASK_FAILED))
SYSTEMS = (
    "pyoco_http_", "pyoco_logs_open", "pyoco_index_lag", "pyoco_queue_", "pyoco_audit_", "pyoco_dlq_received",
    "pyoco_dlq_letters", "process_",
)  # fmt: skip
"""What is counted over everybody's requests and runs alone."""


async def test_metrics_are_ones_own_and_everybodys_for_operators(site: Tenants) -> None:
    a, b, anybody = await site.client("a"), await site.client("b"), await site.anybody()
    for client, flow, runs in ((a, "flow-of-a", 3), (b, "flow-of-b", 2), (anybody, "nobodys-flow", 1)):
        for _ in range(runs):
            await move(site.here, await submit(client, flow_name=flow, tag="cpu"), *FAILS)
    await move(site.here, await submit(b, flow_name="flow-of-a", tag="cpu"), *FAILS)  # by chance of the same name
    await submit(a, tag="of-a"), await submit(b, tag="of-b"), await submit(b, tag="shared")
    await until(lambda: site.here.gateway.index.count() == 10)
    await worker(site, tags=["shared"])
    for role in (Role.VIEWER, Role.MEMBER, Role.ADMIN):
        samples = await scraped(await site.client("a", role))
        labels = {value for _, pairs in samples for name, value in pairs if name in ("flow", "tag")}
        assert labels == {"flow-of-a", "cpu", "of-a", "shared"}
        assert one(samples, "pyoco_runs_total", status="FAILED") == 3
        assert one(samples, "pyoco_runs_total", status="PENDING") == 1
        assert one(samples, "pyoco_runs_ended_total", end_reason="task_failed") == 3
        assert one(samples, "pyoco_attempts_total") == 3
        assert one(samples, "pyoco_run_duration_seconds_count", flow="flow-of-a", tag="cpu") == 3
        assert one(samples, "pyoco_runs_waiting", tag="of-a") == 1
        assert one(samples, "pyoco_runs_waiting", tag="shared") == 0  # a worker serves it; b's run is b's
        assert one(samples, "pyoco_oldest_waiting_seconds", tag="shared") == 0
        assert (one(samples, "pyoco_nats_up"), one(samples, "pyoco_workers_alive_total")) == (1, 1)
        assert [name for name, _ in samples if name.startswith(SYSTEMS)] == []
    stranger = await scraped(await site.client("c", Role.ADMIN))
    assert {value for _, pairs in stranger for name, value in pairs if name in ("flow", "tag")} == {"shared"}
    assert one(stranger, "pyoco_runs_ended_total", end_reason="task_failed") == 0
    assert one(stranger, "pyoco_attempts_total") == 0
    for client in (await site.client("c", Role.OPERATOR), anybody):
        samples = await told(client, "pyoco_runs_ended_total", 7, end_reason="task_failed")
        assert one(samples, "pyoco_run_duration_seconds_count", flow="flow-of-a", tag="cpu") == 4
        assert one(samples, "pyoco_run_duration_seconds_count", flow="nobodys-flow", tag="cpu") == 1
        assert one(samples, "pyoco_runs_total", status="FAILED") == 7
        assert one(samples, "pyoco_runs_waiting", tag="of-b") == one(samples, "pyoco_queue_depth", tag="of-b") == 1
        there = {name for name, _ in samples} | {"pyoco_dlq_letters"}  # which are counted seconds after the start
        assert [name for name in SYSTEMS if not any(one.startswith(name) for one in there)] == []
        assert not any("tenant" in dict(pairs) for _, pairs in samples)


async def test_dead_letters_are_counted_to_their_tenant(site: Tenants, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(letter_counts, "_FRESH_SEC", 0.0)
    for number, tenant in enumerate(("a", "a", "b", None)):
        letter = DeadLetter(reason=DeadLetterReason.INVALID_JOB, tag="t", tenant_id=tenant)
        await site.here.gateway.letters.publish(letter, str(number))
    site.here.gateway.figures._asked_at = 0.0
    for tenant, role, letters in (("a", Role.ADMIN, 2), ("b", Role.VIEWER, 1), ("c", Role.ADMIN, 0),
                                  ("c", Role.OPERATOR, 4)):  # fmt: skip
        client = await site.client(tenant, role)
        assert one(await scraped(client), "pyoco_dlq_messages_total") == letters
        assert (await client.get("/overview")).json()["dead_letters"]["letters"] == letters
        found = (await client.get("/doctor")).json()["findings"]
        assert [one["details"]["letters"] for one in found if one["code"] == "dead_letters"] == [letters][: letters > 0]


async def test_the_doctor_speaks_of_ones_own_tags_and_to_operators_of_the_system(
    site: Tenants, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = await site.client("a"), await site.client("b")
    await submit(a, tag="of-a"), await submit(b, tag="of-b"), await submit(b, tag="of-a")
    await until(lambda: site.here.gateway.index.count() == 3)
    monkeypatch.setattr(doctor, "_durability", _less_safe)

    async def asked(client: httpx2.AsyncClient) -> tuple[dict[str, int], str, bool]:
        answer = (await client.get("/doctor")).json()
        waiting = {one["details"]["tag"]: one["details"]["waiting"] for one in answer["findings"]
                   if one["code"] == "tag_without_worker"}  # fmt: skip
        return waiting, answer["scope"], any(one["code"] == "stream_less_safe" for one in answer["findings"])

    for role in (Role.VIEWER, Role.ADMIN):
        assert await asked(await site.client("a", role)) == ({"of-a": 1}, "tenant", False)
        assert await asked(await site.client("b", role)) == ({"of-a": 1, "of-b": 1}, "tenant", False)
        assert await asked(await site.client("c", role)) == ({}, "tenant", False)
    for client in (await site.client("c", Role.OPERATOR), await site.anybody()):
        deadline = time.monotonic() + DEADLINE
        while (found := await asked(client)) != ({"of-a": 2, "of-b": 1}, "everything", True):
            assert time.monotonic() < deadline, found


async def _less_safe(here: Any) -> list[Finding]:
    return [warning(FindingCode.STREAM_LESS_SAFE, stream="KV_x", reason="in memory")]


async def test_why_counts_ones_own_runs_ahead(site: Tenants) -> None:
    a, b = await site.client("a"), await site.client("b")
    first, *_ = [await submit(client, tag="nobody") for client in (a, b, b, b)]
    last = await submit(a, tag="nobody")
    await until(lambda: site.here.gateway.index.count() == 5)
    for run_id, own in ((first, 0), (last, 1)):
        answer = (await a.get(f"/runs/{run_id}/why")).json()
        assert answer["details"]["ahead"] == own
        assert answer["message"].endswith(f"runs ahead of it: {own} of its own tenant.")
    answer = (await a.get(f"/runs/{last}/why?lang=ja")).json()
    assert answer["message"].endswith("先に待っている実行: 1 (自テナント分)。")
    for client in (await site.client("a", Role.OPERATOR), await site.anybody()):
        deadline = time.monotonic() + DEADLINE
        while (answer := (await client.get(f"/runs/{last}/why")).json()).get("details", {}).get("ahead") != 4:
            assert time.monotonic() < deadline, answer
        assert answer["message"].endswith("runs ahead of it: 4.")


async def test_ready_counts_ones_own_runs(site: Tenants) -> None:
    a, b = await site.client("a"), await site.client("b", Role.ADMIN)
    await submit(a), await submit(a)
    await until(lambda: site.here.gateway.index.count() == 2)
    for client, runs, counts in ((a, 2, False), (b, 0, False), (await site.client("b", Role.OPERATOR), 2, True)):
        answer = (await client.get("/ready")).json()
        assert answer["index"]["runs"] == runs
        assert {stream["messages"] is not None for stream in answer["streams"].values()} == {counts}
        assert all("replicas" in stream for stream in answer["streams"].values())
