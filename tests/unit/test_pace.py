"""What the index's triggers count of runs that end, against the runs themselves."""

import random
import time
from pathlib import Path
from typing import Any

import pytest

from pyoco_server.gateway.index import hourly_stats as pace
from pyoco_server.gateway.index.hourly_stats import MINUTES, Spans, Stretch
from pyoco_server.gateway.index.queue_depths import SAMPLES, Depths
from pyoco_server.gateway.index.run_index import RunIndex
from pyoco_server.store.nats.feed import Change

from .test_index import change

NOW = 1_800_000_030.0


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time of day, to be moved."""
    times = [NOW]
    monkeypatch.setattr(time, "time", lambda: times[0])
    return times


@pytest.fixture
def index(tmp_path: Path) -> RunIndex:
    return RunIndex(tmp_path, "runs")


def ended(run_id: str, revision: int, ago: float = 0.0, status: str = "COMPLETED", **fields: Any) -> Change:
    return change(run_id, revision, NOW - ago, status=status, end_time=NOW - ago, **fields)


def hour(index: RunIndex, *tenants: str | None) -> dict[str, int]:
    whole = index.pace.read(tenants or None)[2]
    return {status: runs for status, runs in whole.ended.items() if runs}


def test_minutes_and_the_hour(index: RunIndex) -> None:
    began, minutes, whole = index.pace.read()
    assert (began, len(minutes)) == ((NOW // 60 - MINUTES + 1) * 60, MINUTES)
    assert whole == Stretch(dict.fromkeys(pace.ENDED, 0), {"wait": Spans(None, None), "run": Spans(None, None)})
    index.apply([
        ended("a", 1, queue_wait_ms=100, run_ms=1000), ended("b", 2, 59, "FAILED", queue_wait_ms=300),
        ended("c", 3, 58 * 60), change("waits", 4, NOW),
    ])  # fmt: skip
    _, minutes, whole = index.pace.read()
    assert [minute.ended["COMPLETED"] for minute in minutes] == [0, 1, *[0] * 57, 1]
    assert (minutes[-2].ended["FAILED"], minutes[-2].spans["run"]) == (1, Spans(None, None))
    assert whole.spans["wait"].p50 == pytest.approx(100, rel=0.05)
    assert whole.spans["wait"].p95 == pytest.approx(300, rel=0.05)
    assert whole.spans["run"].p50 == pytest.approx(1000, rel=0.05)


def test_a_run_counts_once_and_as_it_is_now(index: RunIndex) -> None:
    index.apply([change("a", 1, NOW, status="RUNNING"), ended("a", 2), ended("a", 3, run_ms=5)])
    assert hour(index) == {"COMPLETED": 1}
    index.apply([ended("a", 4, status="FAILED", run_ms=7_000)])
    assert hour(index) == {"FAILED": 1}
    assert index.pace.read()[2].spans["run"].p50 == pytest.approx(7_000, rel=0.05)
    index.apply([ended("a", 2, status="CANCELLED")])  # late: it changes nothing
    assert hour(index) == {"FAILED": 1}


def test_what_retention_removes_has_ended_all_the_same(index: RunIndex) -> None:
    index.apply([ended("a", 1), Change("a", None, 2)])
    assert (hour(index), index.count()) == ({"COMPLETED": 1}, 0)
    index.clear()
    assert hour(index) == {}


def test_what_ended_long_ago_and_what_will_end_count_nothing(index: RunIndex, clock: list[float]) -> None:
    index.apply([ended("old", 1, 3601), ended("odd", 2, -1e15), ended("soon", 3, -120), ended("now", 4)])
    assert hour(index) == {"COMPLETED": 1}
    clock[0] += 180
    assert hour(index) == {"COMPLETED": 2}


def test_old_minutes_are_forgotten(index: RunIndex, clock: list[float]) -> None:
    index.apply([ended("a", 1)])
    clock[0] += 3601
    assert hour(index) == {}
    index.apply([change("b", 2)])
    assert index._db.execute("SELECT count(*) FROM pace").fetchone() == (0,)


def test_each_tenant_has_its_own(index: RunIndex) -> None:
    index.apply([ended("a", 1, tenant_id="a"), ended("b", 2, tenant_id="b"), ended("none", 3)])
    assert hour(index) == {"COMPLETED": 3}
    assert [hour(index, *who) for who in (("a",), ("a", None), ("c",))] == [{"COMPLETED": 1}, {"COMPLETED": 2}, {}]


@pytest.mark.parametrize("stored", ["soon", True, -5, 10**400, None])
def test_records_of_other_programs(index: RunIndex, stored: Any) -> None:
    index.apply([ended("a", 1, run_ms=stored, queue_wait_ms=stored)])
    assert hour(index) == {"COMPLETED": 1}


def test_percentiles_agree_with_a_look(index: RunIndex) -> None:
    chance = random.Random(3)
    spans = [chance.lognormvariate(6, 2) + 1 for _ in range(1000)]
    index.apply([ended(f"r{n}", n + 1, chance.uniform(0, 3000), run_ms=ms) for n, ms in enumerate(spans)])
    found = index.pace.read()[2].spans["run"]
    spans.sort()
    assert found.p50 == pytest.approx(spans[499], rel=0.05)
    assert found.p95 == pytest.approx(spans[949], rel=0.05)


def test_they_are_kept_with_the_file(tmp_path: Path) -> None:
    first = RunIndex(tmp_path, "runs")
    first.apply([ended("a", 1)], "created")
    first.close()
    again = RunIndex(tmp_path, "runs")
    assert hour(again) == {"COMPLETED": 1}
    again.close()


def test_only_the_asked_minutes_of_the_asked_tenants_are_read(index: RunIndex) -> None:
    query = "SELECT runs FROM pace WHERE minute IN (?,?) AND tenant IN (?,?)"
    plan = " ".join(row[3] for row in index._db.execute(f"EXPLAIN QUERY PLAN {query}", (1, 2, "a", "b")))
    assert "SEARCH pace USING PRIMARY KEY (minute=? AND tenant=?)" in plan, plan


def test_depths_are_remembered_for_a_while(tmp_path: Path) -> None:
    index = RunIndex(tmp_path, "runs", by_tenant=True)
    depths = Depths(index.totals, None)  # type: ignore[arg-type] - it is not run
    index.apply([change("a", 1, tag="cpu", tenant_id="a"), change("b", 2, tag="cpu", tenant_id="b")])
    depths.look()
    index.apply([change("a2", 3, tag="cpu", tenant_id="a"), change("g", 4, tag="gpu")])
    depths.look()
    assert depths.of(["cpu", "gpu", "io"], None) == {"cpu": [2, 3], "gpu": [0, 1], "io": [0, 0]}
    assert depths.of(["cpu", "gpu"], ("a",)) == {"cpu": [1, 2], "gpu": [0, 0]}
    assert depths.of(["gpu"], ("a", None)) == {"gpu": [0, 1]}
    for _ in range(SAMPLES + 5):
        depths.look()
    assert len(depths.of(["cpu"], None)["cpu"]) == SAMPLES


def test_waiting_runs_of_tenants(tmp_path: Path) -> None:
    index = RunIndex(tmp_path, "runs", by_tenant=True)
    index.apply([
        change("a1", 1, tag="cpu", tenant_id="a", submitted_at=5.0),
        change("a2", 2, tag="cpu", tenant_id="a", submitted_at=4.0),
        change("b", 3, tag="cpu", tenant_id="b", submitted_at=3.0),
        change("none", 4, tag="gpu", submitted_at=1.0),
    ])  # fmt: skip

    def waiting(*tenants: str | None) -> list[tuple[str, int, float | None, str | None]]:
        return [(one.tag, one.runs, one.oldest, one.oldest_run_id) for one in index.totals.waiting(9, tenants or None)]

    assert waiting() == [("cpu", 3, 3.0, "b"), ("gpu", 1, 1.0, "none")]
    assert waiting("a") == [("cpu", 2, 4.0, "a2")]
    assert waiting("a", None) == [("cpu", 2, 4.0, "a2"), ("gpu", 1, 1.0, "none")]
    assert [index.totals.tags_waiting(who) for who in (None, ("a",), ("c",))] == [2, 1, 0]
    for tenant, owner in (("tenants", "tenant_id IS 'a' AND"), ("runs", "")):
        query = (
            f"SELECT submitted_at, run_id FROM runs INDEXED BY {tenant}_waiting WHERE {owner} status='PENDING' "
            "AND tag='cpu' AND submitted_at>0 ORDER BY submitted_at LIMIT 1"
        )
        plan = " ".join(row[3] for row in index._db.execute(f"EXPLAIN QUERY PLAN {query}"))
        assert "SEARCH" in plan and "TEMP B-TREE" not in plan, plan


def test_failures_are_counted_up_to_a_bound(index: RunIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    index.apply([ended(f"f{n}", n + 1, n, "FAILED") for n in range(5)])
    assert index.listing.changed_since("FAILED", NOW - 2.5, None) == (3, True)
    monkeypatch.setattr("pyoco_server.gateway.index.listing.COUNTED", 2)
    assert index.listing.changed_since("FAILED", NOW - 2.5, None) == (2, False)
