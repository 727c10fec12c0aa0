"""Every change leaves an entry: in the log at once, in the trail soon."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from structlog.testing import capture_logs

from pyoco_server.gateway.access.guard import doors
from pyoco_server.gateway.app import create_app
from pyoco_server.gateway.audit import log as audit_log
from pyoco_server.gateway.audit.middleware import declared
from pyoco_server.model.access import Role
from pyoco_server.model.audit import AuditAction
from pyoco_server.model.worker import WorkerRecord
from pyoco_server.settings.environment import Settings
from tests.integration.callers import Tenants, tenants_at
from tests.integration.test_gateway import DEADLINE, FLOW, Running, running, until
from tests.integration.test_gateway_away import Nats, nats, ready, stop
from tests.integration.test_tenants import bury, submit
from tests.integration.test_wheels import upload
from tests.wheels import make_wheel

__all__ = ["nats"]  # a fixture

pytestmark = pytest.mark.anyio

SECRET = "s3cr3t-p4r4m"
FROM_THE_COMMAND = {AuditAction.KEY_CREATE, AuditAction.KEY_REVOKE}


@pytest.fixture
async def site(settings: Settings) -> AsyncIterator[Tenants]:
    async with tenants_at(settings) as tenants:
        yield tenants


async def trail(client: httpx2.AsyncClient, count: int, **query: Any) -> list[dict[str, Any]]:
    """Read the trail when it has so many entries, and give them, the oldest first."""
    deadline = time.monotonic() + DEADLINE
    while True:
        answer = await client.get("/audit", params=query)
        assert answer.status_code == 200, answer.text
        items: list[dict[str, Any]] = answer.json()["items"]
        if len(items) >= count or time.monotonic() > deadline:
            assert len(items) == count, [item["action"] for item in items]
            return items[::-1]


def key_id(client: httpx2.AsyncClient) -> str:
    return client.headers["X-API-Key"].partition(".")[0].removeprefix("pyoco_")


def test_every_route_that_changes_something_says_what(settings: Settings) -> None:
    reading = {"GET", "HEAD", "OPTIONS", None}
    changing = {
        f"{method} {door.route.path}": declared(door.route.endpoint)
        for door in doors(create_app(settings))
        for method in door.methods or {None}
        if method not in reading
    }
    assert [name for name, does in changing.items() if does is None] == []
    # What the path names is what is changed.
    assert [
        name for name, does in changing.items() if does and does.parameter and f"{{{does.parameter}}}" not in name
    ] == []
    assert [name for name, does in changing.items() if does and not does.parameter and "{" in name] == []
    assert {does.action for does in changing.values() if does} == set(AuditAction) - FROM_THE_COMMAND


async def test_all_that_is_done_is_told(site: Tenants, tmp_path: Path) -> None:
    member, operator = await site.client("a"), await site.client("a", Role.OPERATOR)
    for client in (member, operator):
        client.headers["User-Agent"] = "tester"
    with capture_logs() as lines:
        first = await submit(member, params={"x": SECRET}, tag="cpu")
        files, form = {"workflow": ("f.yaml", FLOW)}, {"flow_name": "main", "params": json.dumps({"x": SECRET})}
        second = (await member.post("/runs/yaml", files=files, data=form)).json()["run_id"]
        await member.post(f"/runs/{first}/cancel", json={"reason": SECRET})
        third = (await member.post(f"/runs/{first}/rerun")).json()["run_id"]
        letter = await bury(site, second)
        fourth = (await member.post(f"/dlq/{letter}/replay")).json()["run_id"]
        other = await bury(site, third)
        await member.delete(f"/dlq/{other}")
        wheel = make_wheel(tmp_path, "task-cpu", "0.1.0")
        assert (await upload(member, wheel)).status_code == 200
        assert (await member.post("/wheels/task-cpu==0.1.0/pin")).status_code == 200
        assert (await member.delete("/wheels/task-cpu/pin")).status_code == 200
        assert (await member.delete(f"/wheels/{wheel.name}")).status_code == 200
        now = time.time()
        await site.here.gateway.workers.put(WorkerRecord(worker_id="w1", last_seen_at=now, last_heartbeat_at=now))
        assert (await operator.patch("/workers/w1", json={"hidden": True})).status_code == 200
        for _ in range(2):  # the second wish changes nothing
            assert (await operator.post("/workers/w1/drain", json={"reason": SECRET})).status_code == 200
        entries = await trail(operator, 12)
        admin = await site.client("a", Role.ADMIN)  # of what all share the trail tells those who run it
        assert await trail(admin, 10) == [entry for entry in entries if entry["target"]["tenant_id"] == "a"]
    told = [(entry["action"], entry["target"]["id"], entry["target"]["tenant_id"]) for entry in entries]
    assert told == [
        ("run.submit", first, "a"),
        ("run.submit", second, "a"),
        ("run.cancel", first, "a"),
        ("run.rerun", first, "a"),
        ("letter.replay", str(letter), "a"),
        ("letter.delete", str(other), "a"),
        ("wheel.upload", wheel.name, "a"),
        ("wheel.pin", "task-cpu==0.1.0", "a"),
        ("wheel.unpin", "task-cpu", "a"),
        ("wheel.delete", wheel.name, "a"),
        ("worker.patch", "w1", None),
        ("worker.drain", "w1", None),
    ]
    details = {entry["action"]: entry["details"] for entry in entries}
    assert details["run.rerun"] == {"run_id": third} and details["letter.replay"] == {"run_id": fourth}
    assert details["wheel.pin"] == {"pinned": [wheel.name], "unpinned": []}
    assert details["worker.patch"] == {"hidden": True}
    for entry in entries:
        assert (entry["outcome"], entry["status"]) == ("done", 200)
        does = operator if entry["action"].startswith("worker.") else member
        assert entry["actor"] == {"tenant_id": "a", "api_key_id": key_id(does)}
        assert (entry["source"]["remote_addr"], entry["source"]["user_agent"]) == ("127.0.0.1", "tester")
    # The log has had them first, and with the same content.
    logged = [line for line in lines if line.get("_event") == "audit"]
    assert [line["event_id"] for line in logged] == [entry["event_id"] for entry in entries]
    assert SECRET not in json.dumps([entries, logged]) and "pyoco_" not in json.dumps([entries, logged])


async def test_what_is_refused_is_told_to_ones_own_admins(site: Tenants) -> None:
    a, viewer = await site.client("a"), await site.client("b", Role.VIEWER)
    of_a, of_b = await site.client("a", Role.ADMIN), await site.client("b", Role.ADMIN)
    member, operator = await site.client("b"), await site.client("b", Role.OPERATOR)
    run_id = await submit(a)
    assert (await viewer.post(f"/runs/{run_id}/cancel")).status_code == 403
    assert (await member.post(f"/runs/{run_id}/cancel")).status_code == 404
    assert (await member.post("/runs/nothing/cancel")).status_code == 404
    assert (await member.delete("/wheels/nothing-1-py3-none-any.whl")).status_code == 404
    seen = [
        (entry["action"], entry["status"], entry["target"]["id"], entry["actor"]["api_key_id"])
        for entry in await trail(operator, 4, outcome="refused")
    ]
    # Nothing tells a run of another tenant from one that nobody has.
    assert seen == [
        ("run.cancel", 403, run_id, key_id(viewer)),
        ("run.cancel", 404, run_id, key_id(member)),
        ("run.cancel", 404, "nothing", key_id(member)),
        ("wheel.delete", 404, "nothing-1-py3-none-any.whl", key_id(member)),
    ]
    assert [entry["action"] for entry in await trail(of_a, 1)] == ["run.submit"]
    shown = [entry["target"]["id"] for entry in await trail(of_b, 4)]
    assert shown == [run_id, run_id, "nothing", "nothing-1-py3-none-any.whl"]
    for client in (a, viewer):
        answer = await client.get("/audit")
        assert (answer.status_code, answer.json()["code"]) == (403, "role_too_low")


async def test_what_changes_nothing_leaves_nothing(site: Tenants) -> None:
    member, admin = await site.client("a"), await site.client("a", Role.ADMIN)
    run_id = await submit(member, idempotency_key="k")
    assert await submit(member, idempotency_key="k") == run_id
    assert (await member.post("/runs", json={"flow_name": "g", "idempotency_key": "k"})).status_code == 409
    assert (await member.post("/runs", json={"flow_name": ""})).status_code == 422
    for _ in range(2):
        assert (await member.post(f"/runs/{run_id}/cancel")).json()["status"] == "CANCELLED"
    assert (await site.here.http.post(f"/runs/{run_id}/cancel")).status_code == 401
    await submit(member)
    assert [entry["action"] for entry in await trail(admin, 3)] == ["run.submit", "run.cancel", "run.submit"]


async def test_pages_and_filters(site: Tenants) -> None:
    one, two, admin = await site.client("a"), await site.client("a"), await site.client("a", Role.ADMIN)
    runs = [await submit(client) for client in (one, two, one, two, one)]
    await one.post(f"/runs/{runs[0]}/cancel")
    await trail(admin, 6)
    seen, cursor = [], ""
    while cursor is not None:
        page = (await admin.get("/audit", params={"limit": 4, "cursor": cursor})).json()
        seen += [item["target"]["id"] for item in page["items"]]
        cursor = page["next_cursor"]
    assert seen == [runs[0], *runs[::-1]]
    assert [item["target"]["id"] for item in await trail(admin, 2, actor=key_id(two))] == runs[1::2]
    assert len(await trail(admin, 1, action="run.cancel")) == 1
    for query in ({"action": "run.fly"}, {"cursor": "x"}, {"limit": 0}, {"outcome": "good"}):
        assert (await admin.get("/audit", params=query)).status_code == 422


async def test_without_keys_there_is_an_address(settings: Settings) -> None:
    async with running(settings) as here:
        run_id = await here.submit()
        [entry] = await trail(here.http, 1)
        assert entry["actor"] == {"tenant_id": None, "api_key_id": None}
        assert (entry["target"]["id"], entry["source"]["remote_addr"]) == (run_id, "127.0.0.1")


async def test_what_was_told_last_is_stored_when_the_server_stops(settings: Settings) -> None:
    async with running(settings) as here:
        runs = [await here.submit() for _ in range(3)]
    async with running(settings) as here:
        assert [entry["target"]["id"] for entry in await trail(here.http, 3)] == runs


async def test_what_happens_while_nats_is_away_is_stored_later(
    nats: Nats, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_log, "_MOST_WAITING", 3)
    monkeypatch.setattr(audit_log, "_TELL_SEC", 0.0)
    await nats.start()
    async with running(settings.model_copy(update={"nats_url": nats.url})) as here:
        run_id = await here.submit()
        await trail(here.http, 1)
        await until(lambda: not here.gateway.audit._waiting)  # that it is stored is heard a moment later
        await stop(nats, here)
        with capture_logs() as lines:
            for _ in range(5):
                assert (await here.http.post(f"/runs/{run_id}/cancel")).status_code == 503
            assert await lost(here) == 2
            assert len([line for line in lines if line.get("_event") == "audit"]) == 5
            assert any("cannot be stored" in line["event"] and line["log_level"] == "error" for line in lines)
        await nats.start()
        await ready(here)
        entries = await trail(here.http, 4)
        assert [entry["outcome"] for entry in entries] == ["done", *["unknown"] * 3]
        assert entries[-1]["status"] == 503


async def lost(here: Running) -> int:
    lines = (await here.http.get("/metrics")).text.splitlines()
    return int(float(next(line.split()[1] for line in lines if line.startswith("pyoco_audit_lost_total"))))


async def test_nobody_waits_for_the_trail(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(settings) as here:
        here_for_ever = asyncio.Event()
        monkeypatch.setattr(here.gateway.trail, "store_all", lambda _: here_for_ever.wait())
        runs = [await here.submit() for _ in range(20)]
        assert len(set(runs)) == 20
        await until(lambda: len(here.gateway.audit._waiting) == 20)
        monkeypatch.setattr(audit_log, "_LAST_SEC", 0.1)
