"""What belongs to another tenant is not there, on every path."""

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from pyoco_server.gateway.deadletters import letters as letter_pages
from pyoco_server.model.access import Role
from pyoco_server.model.deadletter import DeadLetter, DeadLetterReason, key_of_run, letter_of_run, letter_reason
from pyoco_server.model.idempotency import run_id_of
from pyoco_server.model.run import EndReason, RunStatus, claim, settle
from pyoco_server.model.runlog import LogChunk
from pyoco_server.settings.environment import Settings
from tests.integration.callers import Tenants, tenants_at
from tests.integration.test_gateway import FLOW, events, until

pytestmark = pytest.mark.anyio

MISSING = "00000000-0000-4000-8000-000000000000"
RUN_PATHS = [
    ("GET", "/runs/{}"), ("GET", "/runs/{}?include=full"), ("GET", "/runs/{}/tasks"), ("GET", "/runs/{}/watch"),
    ("GET", "/runs/{}/why"), ("GET", "/runs/{}/logs"), ("GET", "/runs/{}/logs?follow=true"),
    ("POST", "/runs/{}/cancel"), ("POST", "/runs/{}/rerun"),
]  # fmt: skip
LETTER_PATHS = [("GET", "/dlq/{}"), ("POST", "/dlq/{}/replay"), ("DELETE", "/dlq/{}")]


@pytest.fixture
async def site(settings: Settings) -> AsyncIterator[Tenants]:
    async with tenants_at(settings) as tenants:
        yield tenants


async def submit(client: httpx2.AsyncClient, **fields: Any) -> str:
    answer = await client.post("/runs", json={"flow_name": "f", **fields})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["run_id"])


async def store(site: Tenants, run_id: str, tenant: Any = None, **fields: Any) -> str:
    """Store a record as another program would."""
    record = {"run_id": run_id, "status": "PENDING", "flow_name": "f", "updated_at": 5.0, "tenant_id": tenant, **fields}
    await site.here.store(run_id, json.dumps(record).encode())
    return run_id


async def bury(site: Tenants, run_id: str) -> int:
    """Let a run fail as its worker would; its letter's id is the answer."""
    gateway = site.here.gateway
    stored = await gateway.runs.get(run_id)
    assert stored is not None
    ended = settle(
        claim(stored.record, worker_id="w", instance_id="i", job_seq=1), RunStatus.FAILED, EndReason.TASK_FAILED, "no"
    )
    revision = (await gateway.runs.update(ended, stored.revision)).revision
    reason = letter_reason(ended, execution_errors=True)
    assert reason is not None
    letter_id = await gateway.letters.publish(letter_of_run(ended, reason, tag=ended.tag), key_of_run(ended, reason))
    await until(lambda: gateway.run_feed.revision >= revision)
    return letter_id


def anonymous(answer: httpx2.Response, *ids: object) -> tuple[Any, ...]:
    """Give an answer without what may differ: ids that were asked for, the time."""
    body = answer.text
    for one in ids:
        body = body.replace(str(one), "<id>")
    return answer.status_code, body, {name: value for name, value in answer.headers.items() if name != "date"}


def expected(role: Role, method: str, code: str) -> tuple[int, str]:
    """Give the answer to who asks for what is not there; a viewer may not even try to change it."""
    return (403, "role_too_low") if role is Role.VIEWER and method != "GET" else (404, code)


async def test_anothers_run_answers_as_one_that_is_missing(site: Tenants) -> None:
    theirs = await submit(await site.client("a"))
    await site.here.gateway.logs.publish(theirs, LogChunk(1, 1, []), "1")
    for role in Role:
        mine = await site.client("b", role)
        for method, path in RUN_PATHS:
            found, missing = [
                anonymous(await mine.request(method, path.format(run_id)), run_id) for run_id in (theirs, MISSING)
            ]
            assert found == missing
            assert (found[0], json.loads(found[1])["code"]) == expected(role, method, "run_not_found")
        assert (await mine.get("/runs")).json() == []
    stored = await site.here.gateway.runs.get(theirs)
    assert stored is not None and stored.record.status is RunStatus.PENDING


async def test_anothers_letter_answers_as_one_that_is_missing(site: Tenants) -> None:
    owner = await site.client("a")
    run_id = await submit(owner)
    letter_id = await bury(site, run_id)
    for role in Role:
        mine = await site.client("b", role)
        for method, path in LETTER_PATHS:
            found, missing = [anonymous(await mine.request(method, path.format(one)), one) for one in (letter_id, 9)]
            assert found == missing
            assert (found[0], json.loads(found[1])["code"]) == expected(role, method, "dead_letter_not_found")
        assert (await mine.get("/dlq")).json() == (await mine.get("/dlq", params={"run_id": run_id})).json() == []
    [shown] = (await owner.get("/dlq")).json()
    assert (await owner.get("/dlq", params={"run_id": run_id})).json() == [shown]
    assert (shown["id"], shown["tenant_id"]) == (letter_id, "a")
    assert (await owner.post(f"/dlq/{letter_id}/replay")).status_code == 200


async def test_the_owner_sees_and_changes_its_own(site: Tenants) -> None:
    member, viewer = await site.client("a"), await site.client("a", Role.VIEWER)
    run_id = await submit(member)
    for method, path in RUN_PATHS:
        if method == "GET" and "watch" not in path and "follow" not in path:
            assert (await viewer.get(path.format(run_id))).status_code == 200, path
    shown = (await viewer.get(f"/runs/{run_id}")).json()
    assert (shown["tenant_id"], shown["api_key_id"] is not None) == ("a", True)
    assert [item["run_id"] for item in (await viewer.get("/runs")).json()] == [run_id]
    cancelled = (await member.post(f"/runs/{run_id}/cancel")).json()
    assert (cancelled["status"], cancelled["cancel_requested_by"]) == ("CANCELLED", f"api_key:{shown['api_key_id']}")
    again = (await member.post(f"/runs/{run_id}/rerun")).json()
    shown = (await viewer.get(f"/runs/{again['run_id']}")).json()
    assert (shown["tenant_id"], shown["rerun_of"]) == ("a", run_id)


async def test_lists_filters_and_cursors_hold_ones_own_alone(site: Tenants) -> None:
    a, b = await site.client("a"), await site.client("b")
    ids: dict[str, set[str]] = {"a": set(), "b": set()}
    for n in range(12):
        client, name = (a, "a") if n % 3 == 0 else (b, "b")
        ids[name].add(await submit(client, tag="cpu", flow_name="same"))
    files = {"workflow": ("f.yaml", FLOW)}
    sent = await b.post("/runs/yaml", files=files, data={"flow_name": "main"})
    sha256 = (await b.get(f"/runs/{sent.json()['run_id']}")).json()["workflow_yaml_sha256"]
    queries = [{}, {"tag": "cpu"}, {"flow": "same"}, {"status": "PENDING"}, {"flow": "same", "include": "full"}]
    for query in queries:
        for limit in (1, 3, 200):
            seen: list[str] = []
            cursor: str | None = ""
            while cursor is not None:
                page = (await a.get("/runs", params={**query, "cursor": cursor, "limit": limit})).json()
                seen += [item["run_id"] for item in page["items"]]
                cursor = page["next_cursor"]
            assert (set(seen), len(seen)) == (ids["a"], 4)
    assert (await a.get(f"/runs?workflow_yaml_sha256={sha256}")).json() == {"items": [], "next_cursor": None}
    # A cursor of another tenant is no more than a time to begin from.
    theirs = (await b.get("/runs", params={"cursor": "", "limit": 1})).json()["next_cursor"]
    page = (await a.get("/runs", params={"cursor": theirs})).json()
    assert {item["run_id"] for item in page["items"]} <= ids["a"] and page["next_cursor"] is None


async def test_what_belongs_to_nobody_is_the_operators(site: Tenants) -> None:
    """Made before there were keys, or by another program: also one that writes an odd tenant."""
    member, operator = await site.client("a"), await site.client("a", Role.OPERATOR)
    made = {await store(site, "old"), await store(site, "odd", 5), await store(site, "empty", "")}
    for client in (member, await site.client("a", Role.ADMIN)):
        assert (await client.get("/runs")).json() == []
    assert {item["run_id"] for item in (await operator.get("/runs")).json()} == made
    for run_id in made:
        assert (await member.get(f"/runs/{run_id}")).status_code == 404
        assert (await operator.get(f"/runs/{run_id}")).status_code == 200
    assert (await member.post("/runs/old/rerun")).status_code == 404
    again = (await operator.post("/runs/old/rerun")).json()["run_id"]
    shown = (await member.get(f"/runs/{again}")).json()
    assert (shown["tenant_id"], shown["rerun_of"]) == ("a", "old")
    assert (await operator.post("/runs/old/cancel")).json()["status"] == "CANCELLED"


async def test_without_authentication_everything_is_seen_and_keeps_its_tenant(site: Tenants) -> None:
    owner, anybody = await site.client("a"), await site.anybody()
    run_id = await submit(owner, idempotency_key="k")
    assert (await anybody.get(f"/runs/{run_id}")).json()["tenant_id"] == "a"
    again = (await anybody.post(f"/runs/{run_id}/rerun", headers={"Idempotency-Key": "x"})).json()["run_id"]
    shown = (await owner.get(f"/runs/{again}")).json()
    assert (again, shown["tenant_id"], shown["api_key_id"]) == (run_id_of("a", "x"), "a", None)
    assert await submit(anybody, idempotency_key="k") != run_id


async def test_one_key_of_two_tenants_makes_two_runs(site: Tenants) -> None:
    a, b = await site.client("a"), await site.client("b")
    of_a, of_b = await submit(a, idempotency_key="k"), await submit(b, idempotency_key="k")
    assert of_a != of_b
    assert (await submit(a, idempotency_key="k"), await submit(b, idempotency_key="k")) == (of_a, of_b)
    reruns = [
        (await client.post(f"/runs/{run_id}/rerun", headers={"Idempotency-Key": "again"})).json()["run_id"]
        for client, run_id in ((a, of_a), (b, of_b))
    ]
    assert len(set(reruns)) == 2


async def test_a_run_of_another_tenant_under_ones_own_key_is_not_told_of(site: Tenants) -> None:
    """No way of ours leads there: another program has written it."""
    run_id = await store(site, run_id_of("b", "k"), "a", idempotency_key="k")
    answer = await (await site.client("b")).post("/runs", json={"flow_name": "f", "idempotency_key": "k"})
    assert (answer.status_code, answer.json()["code"]) == (409, "idempotency_key_reused")
    assert run_id not in answer.text


async def test_an_open_watch_ends_when_the_run_is_anothers(site: Tenants) -> None:
    mine = await site.client("a")
    run_id = await submit(mine)
    async with mine.stream("GET", f"/runs/{run_id}/watch?timeout_sec=600") as answer:
        received = events(answer)
        assert (await anext(received))["data"]["snapshot"]["tenant_id"] == "a"
        await store(site, run_id, "b", flow_name="secret")
        rest = [event async for event in received]
    assert "secret" not in json.dumps(rest)


async def test_letters_of_older_versions_belong_to_the_tenants_of_their_runs(site: Tenants) -> None:
    a, b, operator = await site.client("a"), await site.client("b"), await site.client("a", Role.OPERATOR)
    letters = site.here.gateway.letters
    run_id = await submit(a)
    revision = site.here.gateway.index.revision
    old = await letters.publish(DeadLetter(reason=DeadLetterReason.EXECUTION_ERROR, tag="t", run_id=run_id), "1")
    lost = await letters.publish(DeadLetter(reason=DeadLetterReason.INVALID_JOB, tag="t", payload="?"), "2")
    odd = await letters.publish(
        DeadLetter(reason=DeadLetterReason.EXECUTION_ERROR, tag="t", run_id=run_id, tenant_id="b"), "3"
    )
    assert revision >= 0

    async def seen(client: httpx2.AsyncClient) -> list[int]:
        return [item["id"] for item in (await client.get("/dlq?tag=t")).json()]

    assert (await seen(a), await seen(b), await seen(operator)) == ([old], [odd], [lost, old])
    # It says that it is b's, but the run that it names is a's: b gets nothing of it.
    assert (await b.post(f"/dlq/{odd}/replay")).status_code == 404
    assert (await a.delete(f"/dlq/{lost}")).status_code == 404
    assert (await operator.delete(f"/dlq/{lost}")).status_code == 200
    assert (await a.post(f"/dlq/{old}/replay")).json()["rerun_of"] == run_id


async def test_a_letter_of_nobody_becomes_one_run_of_one_operators_tenant(site: Tenants) -> None:
    a, b = await site.client("a", Role.OPERATOR), await site.client("b", Role.OPERATOR)
    await store(site, "old")
    letters = site.here.gateway.letters
    body = DeadLetter(reason=DeadLetterReason.EXECUTION_ERROR, tag="t", run_id="old")
    letter_id = await letters.publish(body, "1")
    with pytest.MonkeyPatch.context() as patch:  # a's gateway dies before it takes the letter out
        patch.setattr(letters, "remove", _nothing)
        first = (await a.post(f"/dlq/{letter_id}/replay")).json()
    refused = await b.post(f"/dlq/{letter_id}/replay")
    assert (refused.status_code, refused.json()["code"]) == (404, "dead_letter_not_found")
    assert first["run_id"] not in refused.text
    second = (await a.post(f"/dlq/{letter_id}/replay")).json()
    assert (second["run_id"], second["created"]) == (first["run_id"], False)
    assert (await a.get(f"/runs/{first['run_id']}")).json()["tenant_id"] == "a"


async def _nothing(_: int) -> bool:
    return True


async def test_pages_of_letters_go_on_over_what_is_anothers(site: Tenants, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(letter_pages, "_LOOKED_AT", 20)
    monkeypatch.setattr(letter_pages, "_AT_ONCE", 10)
    a = await site.client("a")
    letters, mine = site.here.gateway.letters, []
    for n in range(120):
        owner = "a" if n in (0, 1, 2, 40, 99, 100) else "b"
        body = DeadLetter(reason=DeadLetterReason.EXECUTION_ERROR, tag="t", tenant_id=owner)
        letter_id = await letters.publish(body, str(n))
        mine += [letter_id] if owner == "a" else []
    for limit in (1, 2, 50):
        seen, requests = [], 0
        cursor: str | None = ""
        while cursor is not None:
            page = (await a.get("/dlq", params={"limit": limit, "cursor": cursor})).json()
            assert len(page["items"]) <= limit
            seen += [item["id"] for item in page["items"]]
            cursor, requests = page["next_cursor"], requests + 1
        assert seen == mine[::-1] and requests <= 120 / 20 + len(mine) + 1
    assert [item["id"] for item in (await a.get("/dlq?limit=5")).json()] == [101]
    assert (await a.get("/dlq?cursor=x")).status_code == 422


async def test_without_tenants_a_page_of_letters_has_a_cursor_too(site: Tenants) -> None:
    letters = site.here.gateway.letters
    ids = [
        await letters.publish(DeadLetter(reason=DeadLetterReason.EXECUTION_ERROR, tag="t"), str(n)) for n in range(5)
    ]
    anybody = await site.anybody()
    page = (await anybody.get("/dlq?limit=2&cursor=")).json()
    assert ([item["id"] for item in page["items"]], page["next_cursor"]) == (ids[:2:-1], str(ids[3]))
    page = (await anybody.get("/dlq", params={"limit": 3, "cursor": page["next_cursor"]})).json()
    assert ([item["id"] for item in page["items"]], page["next_cursor"]) == (ids[2::-1], None)


async def test_jobs_and_letters_carry_the_tenant(site: Tenants) -> None:
    run_id = await submit(await site.client("a"))
    stream = site.here.gateway.settings.work_stream
    job = json.loads((await site.here.gateway.connection.js.get_msg(stream, 1)).data or b"")
    assert (job["run_id"], job["tenant_id"]) == (run_id, "a") and job["api_key_id"]
