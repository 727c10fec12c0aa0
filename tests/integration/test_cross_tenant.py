"""Thousands of random requests over every path, and nothing of another tenant in any answer."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from pyoco_server.gateway.deadletters import letters
from pyoco_server.gateway.index import listing, worker_view
from pyoco_server.gateway.monitoring.run_metrics import RunMetrics
from pyoco_server.gateway.routes import wheels
from pyoco_server.gateway.submitting.cancelling import Cancelling
from pyoco_server.model.access import Caller
from pyoco_server.model.run import RunRecord, request_cancel
from pyoco_server.settings.environment import Settings
from pyoco_server.store.audit import AuditTrail
from tests.integration.callers import tenants_at
from tests.integration.stranger_requests import Findings, Stranger
from tests.integration.strangers import World, make_world

pytestmark = pytest.mark.anyio

_AT_ONCE = 8


@pytest.fixture
async def world(settings: Settings, tmp_path: Path) -> AsyncIterator[World]:
    # Nobody works on these runs: the reconciler shall not settle them.
    settings = settings.model_copy(update={"reconcile_after_sec": 1e6})
    async with tenants_at(settings) as site:
        yield await make_world(site, tmp_path)


async def ask(stranger: Stranger, count: int) -> Findings:
    """Ask so many times, some at a time, until something leaks."""
    left = iter(range(count))

    async def some() -> None:
        for _ in left:
            await stranger.ask()
            if stranger.findings.leaks:
                return

    await asyncio.gather(*(some() for _ in range(_AT_ONCE)))
    return stranger.findings


async def test_some_requests_leak_nothing(world: World) -> None:
    found = await ask(Stranger(world, seed=1), 500)
    assert found.leaks == [], "\n".join(found.leaks)
    assert sum(found.strange.values()) > 100
    assert await world.changed_canaries() == []


@pytest.mark.slow
@pytest.mark.timeout(1800)
async def test_ten_thousand_requests_leak_nothing(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    found = await ask(Stranger(world, seed=2), 10_000)
    assert found.leaks == [], "\n".join(found.leaks)
    assert found.asked.total() == 10_000
    routes = {f"{method.upper()} {path}" for path, methods in world.document["paths"].items() for method in methods}
    named = {route for route in routes if "{run_id}" in route or "{letter_id}" in route}
    assert {route for route in named if not found.strange[route]} == set()
    assert {route for route in routes if not found.answered[route]} == set()
    assert await world.changed_canaries() == []
    with capsys.disabled():
        print(f"10000 requests, {found.strange.total()} for another's run or letter: 0 leaks", end=" ")


def _cancel_unasked(self: Cancelling, record: RunRecord) -> RunRecord:
    asked = request_cancel(record, by=self._who.key_id, reason=self._reason)
    self.happened = asked is not record
    return asked


HOLES: dict[str, tuple[object, str, Any]] = {
    "a record is for everybody": (Caller, "sees", lambda self, tenant_id: True),
    "a list is everybody's": (listing, "_tenants", lambda where: [[]]),
    "a cancel asks nobody": (Cancelling, "_ask", _cancel_unasked),
    "letters are for everybody": (letters, "seen", None),
    "workers tell of all runs": (worker_view, "seen", lambda index, who, items: items),
    "the history of wheels tells everybody who it was": (wheels, "_shown_to", lambda who, event: event),
    "metrics name all flows": (RunMetrics, "told", None),
    "the audit trail is everybody's": (AuditTrail, "list", None),
}


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("hole", HOLES)
async def test_a_hole_is_found(world: World, monkeypatch: pytest.MonkeyPatch, hole: str) -> None:
    """Each check is taken out once; the requests find out."""
    owner, name, replacement = HOLES[hole]
    monkeypatch.setattr(owner, name, replacement or _opened(name))
    found = await ask(Stranger(world, seed=3), 5000)
    assert found.leaks != []
    assert not any(": 500 " in leak for leak in found.leaks)  # it was seen, and is not only broken


def _opened(name: str) -> Any:
    """Make the function without its check."""
    if name == "seen":

        async def seen(here: Any, who: Any, found: list[Any]) -> list[Any]:
            return found

        return seen
    if name == "told":
        told = RunMetrics.told
        return lambda self, tenants: told(self, None)
    trail = AuditTrail.list
    return lambda self, **query: trail(self, **{**query, "tenants": None})
