"""Whose wheels a caller lists, fetches, changes and hears of: each role, of its own tenant, another, and all."""

import io
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from pyoco_server.model.access import Role
from pyoco_server.model.provenance import Actor
from pyoco_server.model.wheels.event import WheelAction, WheelEvent
from pyoco_server.model.worker import WorkerRecord, WorkerState
from pyoco_server.settings.environment import Settings
from tests.integration.callers import Tenants, tenants_at
from tests.integration.test_gateway import running, until
from tests.integration.test_wheels import upload
from tests.wheels import make_wheel

pytestmark = pytest.mark.anyio

SHARED, ALPHA, BETA = None, "alpha", "beta"


@pytest.fixture
async def site(settings: Settings) -> AsyncIterator[Tenants]:
    async with tenants_at(settings) as made:
        yield made


async def operator_of(site: Tenants) -> httpx2.AsyncClient:
    return await site.client("ops", Role.OPERATOR)


async def fill(site: Tenants, folder: Path, package: str = "tool") -> dict[str | None, bytes]:
    """Store a wheel of one name three times: shared, alpha's and beta's; the answer is their bytes."""
    operator, made = await operator_of(site), {}
    for number, tenant in enumerate((SHARED, ALPHA, BETA)):
        place = folder / f"{package}-{number}"
        place.mkdir()
        path = make_wheel(place, package, "1.0", {"tool.py": f"VALUE = {tenant!r}\n"})
        form = {} if tenant is None else {"tenant": tenant}
        answer = await upload(operator, path, **form)
        assert (answer.status_code, answer.json()["tenant_id"]) == (200, tenant), answer.text
        made[tenant] = path.read_bytes()
    return made


NAME = "tool-1.0-py3-none-any.whl"


@pytest.mark.parametrize("role", list(Role))
async def test_who_sees_and_changes_what(site: Tenants, tmp_path: Path, role: Role) -> None:
    stored = await fill(site, tmp_path)
    client = await site.client(ALPHA, role)
    everything = role is Role.OPERATOR
    changes_own = role.allows(Role.MEMBER)
    listed = [entry["tenant_id"] for entry in (await client.get("/wheels")).json()]
    assert listed == [SHARED, ALPHA, BETA] if everything else listed == [SHARED, ALPHA]
    events = (await client.get("/wheels/history", params={"wheel_name": NAME})).json()
    assert [event["tenant_id"] for event in events] == ([BETA] if everything else []) + [ALPHA, SHARED]
    assert (await client.get("/wheels/history")).json() == events
    assert all((event["actor"]["tenant_id"] == "ops") is everything for event in events)
    for owner in (ALPHA, SHARED, BETA):
        query = {"tenant": owner or ""}
        sees, changes = everything or owner is not BETA, everything or (changes_own and owner == ALPHA)
        got = await client.get(f"/wheels/{NAME}", params=query)
        assert (got.status_code, got.content) == (200, stored[owner]) if sees else got.status_code == 404
        for method, path in (
            ("POST", f"/wheels/{NAME}/pin"),
            ("POST", "/wheels/tool==1.0/pin"),
            ("DELETE", "/wheels/tool/pin"),
            ("DELETE", f"/wheels/{NAME}"),
        ):
            answer = await client.request(method, path, params=query)
            expected = 200 if changes else 404 if role.allows(Role.MEMBER) and not sees else 403
            assert answer.status_code == expected, (owner, method, path, answer.text)
            if expected == 404:  # as for a name that nobody has
                ghost = await client.request(method, path.replace("tool", "ghost"), params=query)
                assert answer.text.replace("tool", "ghost") == ghost.text
    left = {entry["tenant_id"] for entry in (await (await operator_of(site)).get("/wheels")).json()}
    assert left == (
        {SHARED, BETA} if changes_own and not everything else set() if everything else {SHARED, ALPHA, BETA}
    )


async def test_without_a_tenant_ones_own_is_meant_and_then_what_all_share(site: Tenants, tmp_path: Path) -> None:
    stored = await fill(site, tmp_path)
    member, operator = await site.client(ALPHA), await operator_of(site)
    assert (await member.get(f"/wheels/{NAME}")).content == stored[ALPHA]
    assert (await operator.get(f"/wheels/{NAME}")).content == stored[SHARED]
    assert (await member.delete(f"/wheels/{NAME}")).status_code == 200
    assert (await member.get(f"/wheels/{NAME}")).content == stored[SHARED]
    refused = await member.delete(f"/wheels/{NAME}")
    assert (refused.status_code, refused.json()["code"]) == (403, "role_too_low")
    assert "operator" in refused.json()["hint"]
    assert (await operator.delete(f"/wheels/{NAME}")).status_code == 200
    gone = await operator.delete(f"/wheels/{NAME}")
    assert gone.status_code == 404 and "--tenant beta" in gone.json()["hint"]
    for name in (f"{NAME}@beta", f"{NAME}%40beta"):  # what its object is called is no way to it
        assert (await member.get(f"/wheels/{name}")).status_code == 404
        assert (await operator.delete(f"/wheels/{name}")).status_code == 404
    assert (await operator.get(f"/wheels/{NAME}", params={"tenant": BETA})).content == stored[BETA]


async def test_who_uploads_for_whom(site: Tenants, tmp_path: Path) -> None:
    path = make_wheel(tmp_path, "a", "1")
    member, admin, viewer = [await site.client(ALPHA, role) for role in (Role.MEMBER, Role.ADMIN, Role.VIEWER)]
    operator = await operator_of(site)
    for client, form, expected in (
        (viewer, {}, 403),
        (member, {"tenant": BETA}, 403),
        (admin, {"tenant": BETA}, 403),
        (member, {"tenant": "no tenant"}, 422),
        (operator, {"tenant": "a.b"}, 422),
        (member, {"tags": "cpu", "replace": "true"}, ALPHA),
        (operator, {}, SHARED),
        (operator, {"tenant": BETA}, BETA),
    ):
        answer = await upload(client, path, **form)
        if isinstance(expected, int):
            assert answer.status_code == expected, answer.text
        else:
            assert (answer.status_code, answer.json()["tenant_id"]) == (200, expected), answer.text
    assert (await upload(admin, make_wheel(tmp_path, "a", "2"), tenant=ALPHA)).json()["tenant_id"] == ALPHA


async def test_versions_and_pins_are_a_tenants_own(site: Tenants, tmp_path: Path) -> None:
    old, new = make_wheel(tmp_path, "a", "1.0"), make_wheel(tmp_path, "a", "2.0")
    alpha, beta, operator = await site.client(ALPHA), await site.client(BETA), await operator_of(site)
    for client in (alpha, operator):
        assert (await upload(client, new)).status_code == 200
        assert (await upload(client, old)).status_code == 409
    assert (await upload(beta, old)).status_code == 200
    assert (await upload(beta, new)).status_code == 200
    for client in (operator, beta):
        assert (await client.post(f"/wheels/{new.name}/pin")).status_code == 200
    assert (await beta.post("/wheels/a==1.0/pin")).json()["unpinned"] == [new.name]
    pins = {(entry["tenant_id"], entry["version"]): entry["pinned_at"] is not None
            for entry in (await operator.get("/wheels")).json()}  # fmt: skip
    assert pins == {(SHARED, "2.0"): True, (ALPHA, "2.0"): False, (BETA, "1.0"): True, (BETA, "2.0"): False}
    missing = await alpha.post("/wheels/a==1.0/pin")
    assert missing.status_code == 404 and "1.0" not in missing.json()["hint"]  # beta has it


async def test_the_audit_trail_names_the_wheels_tenant(site: Tenants, tmp_path: Path) -> None:
    await fill(site, tmp_path)
    member = await site.client(ALPHA)
    assert (await member.delete(f"/wheels/{NAME}", params={"tenant": ""})).status_code == 403
    assert (await member.delete(f"/wheels/{NAME}", params={"tenant": BETA})).status_code == 404
    assert (await member.delete(f"/wheels/{NAME}")).status_code == 200
    trail = site.here.gateway.trail

    async def told() -> list[tuple[str, str, str | None]]:
        entries, _ = await trail.list(limit=20)
        return [(entry.action.value, entry.outcome.value, entry.target.tenant_id) for entry in reversed(entries)]

    while len(await told()) < 6:
        pass
    assert await told() == [
        ("wheel.upload", "done", SHARED),
        ("wheel.upload", "done", ALPHA),
        ("wheel.upload", "done", BETA),
        ("wheel.delete", "refused", ALPHA),
        ("wheel.delete", "refused", ALPHA),
        ("wheel.delete", "done", ALPHA),
    ]


async def test_ones_own_history_is_not_pushed_out_by_others(site: Tenants) -> None:
    history = site.here.gateway.wheel_history

    async def add(tenant: str | None, name: str, count: int) -> None:
        for _ in range(count):
            actor = Actor(tenant_id=tenant)
            await history.add(WheelEvent(action=WheelAction.PIN, wheel_name=name, tenant_id=tenant, actor=actor))

    await add(ALPHA, "mine.whl", 2)
    await add(BETA, "secret.whl", 12)
    await add(SHARED, "ours.whl", 1)
    await history._bucket.put(  # as another program writes it
        "of-another-program", WheelEvent(action=WheelAction.UPLOAD, wheel_name="other.whl").model_dump_json().encode()
    )
    member = await site.client(ALPHA)
    events = (await member.get("/wheels/history", params={"limit": 4})).json()
    assert [event["wheel_name"] for event in events] == ["other.whl", "ours.whl", "mine.whl", "mine.whl"]
    assert (await member.get("/wheels/history", params={"wheel_name": "secret.whl"})).json() == []
    assert len((await member.get("/wheels/history", params={"action": "pin"})).json()) == 3
    assert len((await (await operator_of(site)).get("/wheels/history", params={"action": "pin"})).json()) == 15


async def test_without_keys_all_share_all(settings: Settings, tmp_path: Path) -> None:
    async with running(settings) as here:
        path = make_wheel(tmp_path, "a", "1")
        assert (await upload(here.http, path)).json()["tenant_id"] is None
        refused = await upload(here.http, make_wheel(tmp_path, "b", "1"), tenant=ALPHA)
        assert refused.status_code == 422 and "API keys" in refused.json()["detail"]
        info = await here.gateway.connection.js.object_store(settings.wheel_object_store_bucket)
        assert [one.name for one in await info.list()] == [path.name]
        for method, place in (("POST", "/pin"), ("DELETE", "/pin"), ("DELETE", "")):
            assert (await here.http.request(method, f"/wheels/{path.name}{place}")).status_code == 200


async def test_wheels_from_before_are_shared_and_programs_without_tenants_pass_a_tenants_over(
    site: Tenants, tmp_path: Path
) -> None:
    gateway = site.here.gateway
    bucket = await gateway.connection.js.object_store(gateway.settings.wheel_object_store_bucket)
    old = make_wheel(tmp_path, "old", "1")
    with old.open("rb") as file:  # as every earlier version and other programs store one
        await bucket.put(old.name, io.BytesIO(file.read()))
    member, operator = await site.client(ALPHA), await operator_of(site)
    [entry] = (await member.get("/wheels")).json()
    assert (entry["name"], entry["tenant_id"], entry["package"]) == (old.name, None, "old")
    assert (await member.delete(f"/wheels/{old.name}")).status_code == 403
    new = make_wheel(tmp_path, "old", "0.5")  # an older version than the shared one: the rule is the tenant's own
    assert (await upload(member, new, tags="cpu")).status_code == 200
    [found] = [one for one in await bucket.list() if one.name != old.name]
    assert not found.name.endswith(".whl")  # what an existing worker takes for a wheel does
    assert found.headers["x-pyoco-wheel-tags"] not in ("", "cpu")
    assert (await operator.delete(f"/wheels/{old.name}")).status_code == 200


async def test_an_object_that_names_two_tenants_is_nobodys(site: Tenants, tmp_path: Path) -> None:
    gateway = site.here.gateway
    member = await site.client(ALPHA)
    assert (await upload(member, make_wheel(tmp_path, "a", "1"))).status_code == 200
    meta = (await gateway.wheels._find("a-1-py3-none-any.whl", ALPHA))[0]
    for changed in ({"x-pyoco-wheel-tenant": BETA}, {}):
        body = {**meta.body, "headers": {**meta.body["headers"], **changed}}
        if not changed:
            del body["headers"]["x-pyoco-wheel-tenant"]
        seq = await gateway.wheels._objects.put_meta(meta.name, body, seq=meta.seq)
        meta = type(meta)(body, seq, meta.stored_at)
        assert [entry.tenant_id for entry in await gateway.wheels.list() if entry.package] == []


async def test_what_a_worker_has_of_others_wheels_is_not_told(site: Tenants) -> None:
    gateway = site.here.gateway
    own = {
        tenant: {"last_result": "partial", "last_error": f"{tenant}-secret is broken", "environment": "e", "x": 1,
                 "installed_wheels": [{"package_name": f"{tenant}-secret", "wheel_name": f"{tenant}-secret.whl"}]}
        for tenant in (ALPHA, BETA)
    }  # fmt: skip
    sync = {"enabled": True, "installed_wheels": [{"package_name": "s", "wheel_name": "ours.whl"}], "tenants": own,
            "what_a_newer_version_tells": "beta-secret"}  # fmt: skip
    now = 4e9
    record = WorkerRecord(worker_id="w", tags=["cpu"], state=WorkerState.IDLE, last_seen_at=now,
                          last_heartbeat_at=now, wheel_sync=sync)  # fmt: skip
    await gateway.workers.put(record)
    await until(lambda: len(gateway.worker_index.states()) == 1)
    for role in (Role.VIEWER, Role.MEMBER, Role.ADMIN):
        client = await site.client(ALPHA, role)
        [shown] = (await client.get("/workers")).json()
        assert list(shown["wheel_sync"]["tenants"]) == [ALPHA] and "ours.whl" in json.dumps(shown)
        for path in ("/workers", "/doctor", "/overview", "/metrics"):
            assert "beta-secret" not in (await client.get(path)).text, (role, path)
        async with client.stream("GET", "/events") as stream:
            await gateway.workers.put(record.evolve(updated_at=now))
            async for line in stream.aiter_lines():
                if line.startswith("data:") and '"w"' in line:
                    assert "beta" not in line and ALPHA in line
                    break
    [shown] = (await (await operator_of(site)).get("/workers")).json()
    assert sorted(shown["wheel_sync"]["tenants"]) == [ALPHA, BETA]


async def test_why_names_a_tenants_own_wheels_alone(site: Tenants) -> None:
    from pyoco_server.gateway.why.diagnosis import Facts, explain

    def told(tenant: str | None) -> dict[str, Any]:
        own = {BETA: {"installed_wheels": [{"package_name": "p", "wheel_name": "beta.whl"}], "last_error": None},
               ALPHA: {"installed_wheels": [], "last_error": "alpha.whl: broken"}}  # fmt: skip
        shared = [{"package_name": "p", "wheel_name": "shared.whl"}, {"package_name": "q", "wheel_name": "q.whl"}]
        record = WorkerRecord(worker_id="w", tags=["cpu"], last_seen_at=1.0, last_heartbeat_at=1.0, wheel_sync={
            "enabled": True, "last_error": None, "installed_wheels": shared, "tenants": own})  # fmt: skip
        facts = Facts(now=2.0, cancel_grace_sec=1.0, max_attempts=3, default_ack_wait_sec=1.0, nats_url="n",
                      holder=(record, WorkerState.IDLE))  # fmt: skip
        snapshot = {"run_id": "r", "status": "FAILED", "end_reason": "dependency_missing", "error": "no", "tag": "cpu",
                    "tenant_id": tenant}  # fmt: skip
        return explain(snapshot, facts).details()

    assert told(None)["wheels"] == ["shared.whl", "q.whl"]
    assert told("gamma")["wheels"] == ["shared.whl", "q.whl"]
    assert told(BETA)["wheels"] == ["beta.whl", "q.whl"]
    assert told(ALPHA)["wheels_error"] == "alpha.whl: broken"
