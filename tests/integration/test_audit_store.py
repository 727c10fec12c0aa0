"""The audit trail in a real stream."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from nats.js.errors import APIError

from pyoco_server.model.audit import AuditAction, AuditEntry, AuditOutcome, AuditTarget
from pyoco_server.model.provenance import Actor
from pyoco_server.settings.environment import Settings
from pyoco_server.store import audit, topology
from pyoco_server.store.audit import AuditTrail
from pyoco_server.store.nats.connection import Connection

pytestmark = pytest.mark.anyio


@pytest.fixture
async def connection(settings: Settings) -> AsyncIterator[Connection]:
    settings = settings.model_copy(update={"audit_max_msgs": 100})
    connection = await Connection(settings, "test").start()
    assert await connection.wait_up(10)
    await topology.ensure(connection)
    yield connection
    await connection.close()


def entry(
    n: int, tenant: str | None, action: AuditAction = AuditAction.RUN_SUBMIT, key: str | None = "k", **fields: Any
) -> AuditEntry:
    target = AuditTarget(kind=action.kind, id=str(n), tenant_id=tenant)
    return AuditEntry(action=action, actor=Actor(tenant_id=tenant, api_key_id=key), target=target, **fields)


async def ids(trail: AuditTrail, limit: int = 100, **query: Any) -> list[str | None]:
    """Read everything, page by page."""
    seen: list[str | None] = []
    before = None
    while True:
        page, before = await trail.list(limit=limit, before=before, **query)
        seen += [one.target.id for one in page]
        assert before is None or len(page) == limit
        if before is None:
            return seen


async def test_an_entry_comes_back_as_it_was_and_once(connection: Connection) -> None:
    trail = AuditTrail(connection)
    wrote = entry(1, "acme", outcome=AuditOutcome.REFUSED, status=404, details={"x": [1]})
    await trail.store(wrote)
    await trail.store(wrote)
    assert await trail.list(limit=5) == ([wrote], None)


@pytest.mark.parametrize("limit", [1, 3, 100])
async def test_pages_hold_what_is_asked_for_and_nothing_else(connection: Connection, limit: int) -> None:
    trail = AuditTrail(connection)
    odd = "näme. of *another* > program"
    tenants = ["a", "b", None, odd]
    for n in range(16):
        action = AuditAction.RUN_CANCEL if n % 3 == 0 else AuditAction.RUN_SUBMIT
        outcome = AuditOutcome.REFUSED if n % 5 == 0 else AuditOutcome.DONE
        await trail.store(entry(n, tenants[n % 4], action, key=f"k{n % 2}", outcome=outcome))
    wanted = {
        (): range(16),
        ("tenants", ("a",)): [0, 4, 8, 12],
        ("tenants", ("a", None)): [0, 2, 4, 6, 8, 10, 12, 14],
        ("tenants", (odd,)): [3, 7, 11, 15],
        ("tenants", ("c",)): [],
        ("action", AuditAction.RUN_CANCEL): [0, 3, 6, 9, 12, 15],
        ("actor", "k1"): range(1, 16, 2),
        ("actor", "*"): [],
        ("outcome", AuditOutcome.REFUSED): [0, 5, 10, 15],
        ("target", "1"): [1, 10, 11, 12, 13, 14, 15],
        ("target", "x"): [],
    }
    for query, numbers in wanted.items():
        found = await ids(trail, limit, **dict([query] if query else []))
        assert found == [str(n) for n in reversed(numbers)], query


async def test_one_page_looks_at_a_bounded_number_for_a_target(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "_LOOKED_AT", 5)
    trail = AuditTrail(connection)
    await trail.store_all([entry(n, "a", key=f"k{n}") for n in range(12)])
    pages, before = [], None
    while True:
        page, before = await trail.list(limit=3, before=before, target="1")
        pages.append([one.target.id for one in page])
        if before is None:
            break
    assert pages == [["11", "10"], [], ["1"]]


async def test_one_key_doing_one_thing_pushes_out_nothing_else(connection: Connection) -> None:
    trail = AuditTrail(connection)
    await trail.store(entry(0, "a", AuditAction.KEY_CREATE, key=None))
    for n in range(1, 31):
        await trail.store(entry(n, "a"))
    assert await ids(trail) == [*(str(n) for n in range(30, 20, -1)), "0"]


async def test_nothing_can_be_taken_out(connection: Connection) -> None:
    trail = AuditTrail(connection)
    await trail.store(entry(1, "a"))
    stream = connection.settings.audit_stream
    for change in (connection.js.purge_stream(stream), connection.js.delete_msg(stream, 1)):
        with pytest.raises(APIError):
            await change
    assert await ids(trail) == ["1"]


async def test_what_cannot_be_read_hides_nothing(connection: Connection) -> None:
    trail = AuditTrail(connection)
    for n in range(3):
        await trail.store(entry(n, "a"))
        await connection.js.publish(trail._subject(entry(n, "a")), b'{"action": "moon.fly"}')
    seen, before = [], None
    for _ in range(6):
        page, before = await trail.list(limit=1, before=before)
        seen += [one.target.id for one in page]
    assert (seen, before) == (["2", "1", "0"], None)
