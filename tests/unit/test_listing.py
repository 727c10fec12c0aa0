"""Lists of runs by several filters, and what they count."""

from pathlib import Path
from typing import Any

import pytest

from pyoco_server.gateway.index import listing
from pyoco_server.gateway.index.listing import RunFilter
from pyoco_server.gateway.index.run_index import RunIndex

from .test_index import change, shown

STATUSES = ("PENDING", "RUNNING", "COMPLETED", "FAILED")


@pytest.fixture
def index(tmp_path: Path) -> RunIndex:
    return filled(RunIndex(tmp_path, "runs"))


def filled(index: RunIndex) -> RunIndex:
    index.apply([
        change(f"{'ab'[n % 2]}{n:03}", n + 1, updated_at=float(n // 3), status=STATUSES[n % 4],
               tag=("cpu", "gpu")[n % 2], flow_name=f"f{n % 3}",
               worker_id=f"w{n % 5}" if n % 4 else None, tenant_id=("x", "y", None)[n % 3],
               rerun_of="old" if n == 7 else None)
        for n in range(60)
    ])  # fmt: skip
    return index


def by_looking(index: RunIndex, wanted: dict[str, Any], prefix: str = "") -> list[str]:
    items, _ = index.listing.page(RunFilter(), cursor=None, limit=200)
    return [
        item["run_id"]
        for item in items
        if item["run_id"].startswith(prefix) and all(item[name] in values for name, values in wanted.items())
    ]


@pytest.mark.parametrize(
    ("where", "wanted"),
    [
        (RunFilter(statuses=("RUNNING", "FAILED")), {"status": ("RUNNING", "FAILED")}),
        (RunFilter(worker_id="w1"), {"worker_id": ("w1",)}),
        (RunFilter(rerun_of="old"), {"rerun_of": ("old",)}),
        (RunFilter(tag="gpu", flow_name="f1", statuses=("FAILED",)),
         {"tag": ("gpu",), "flow_name": ("f1",), "status": ("FAILED",)}),
        (RunFilter(tenants=("x",), tag="cpu"), {"tenant_id": ("x",), "tag": ("cpu",)}),
        (RunFilter(tenants=("x", None), statuses=("PENDING", "RUNNING")),
         {"tenant_id": ("x", None), "status": ("PENDING", "RUNNING")}),
        (RunFilter(worker_id="nobody"), {"worker_id": ()}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("limit", [1, 4, 200])
def test_filters(index: RunIndex, where: RunFilter, wanted: dict[str, Any], limit: int) -> None:
    seen: list[str] = []
    cursor: str | None = None
    while True:
        items, cursor = index.listing.page(where, cursor=cursor, limit=limit)
        seen += [item["run_id"] for item in items]
        if cursor is None:
            break
    assert seen == by_looking(index, wanted)


@pytest.mark.parametrize("few", [0, 1000])
def test_the_beginning_of_an_id(index: RunIndex, monkeypatch: pytest.MonkeyPatch, few: int) -> None:
    monkeypatch.setattr(listing, "_FEW", few)
    assert shown(index, RunFilter(id_prefix="a00")) == by_looking(index, {}, "a00") != []
    assert shown(index, RunFilter(id_prefix="a0", tag="cpu", statuses=("PENDING",))) == by_looking(
        index, {"status": ("PENDING",)}, "a0"
    )
    assert shown(index, RunFilter(id_prefix="c")) == []


@pytest.mark.parametrize(
    "where",
    [
        RunFilter(),
        RunFilter(tag="cpu"),
        RunFilter(tag="gpu", flow_name="f1"),
        RunFilter(worker_id="w1", updated_after=3.0),
        RunFilter(id_prefix="a0"),
        RunFilter(tenants=("x",)),
        RunFilter(tenants=("x", None), tag="cpu"),
        RunFilter(tag="none", statuses=("FAILED",)),
    ],
)
def test_counts_agree_with_the_list(index: RunIndex, where: RunFilter) -> None:
    items, _ = index.listing.page(RunFilter(**{**vars(where), "statuses": ()}), cursor=None, limit=200)
    counts = index.listing.counts(where)
    assert counts.complete
    assert {status: runs for status, runs in counts.by_status.items() if runs} == {
        status: runs for status in STATUSES if (runs := sum(item["status"] == status for item in items))
    }


def test_what_a_run_does_not_have_lets_it_through_no_filter(tmp_path: Path) -> None:
    index = RunIndex(tmp_path, "runs")
    index.apply([change("r", 1, rerun_of="old")])
    counted = index.listing.counts(RunFilter(rerun_of="old", sha256="x"))
    assert set(counted.by_status.values()) == {0} and counted.complete


def test_counts_follow_a_run_to_another_tenant_and_status(index: RunIndex) -> None:
    index.apply([change("a000", 100, status="DREAMING", tenant_id="z")])
    assert index.listing.counts(RunFilter(tenants=("z",))).by_status["other"] == 1
    index.apply([change("a000", 101, status="FAILED", tenant_id="z")])
    counted = index.listing.counts(RunFilter(tenants=("z",))).by_status
    assert (counted["other"], counted["FAILED"]) == (0, 1)


def test_a_count_that_looked_at_too_few_says_so(index: RunIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "COUNTED", 10)
    counts = index.listing.counts(RunFilter(tag="cpu"))
    assert (sum(counts.by_status.values()), counts.complete) == (10, False)
    counts = index.listing.counts(RunFilter(tag="cpu", worker_id="w1"))
    assert counts.complete  # the worker has fewer
    assert not index.listing.counts(RunFilter(flow_name="f1", tag="none")).complete


WIDE = RunFilter(tag="cpu", flow_name="f1", statuses=("PENDING", "COMPLETED"), tenants=("y", None), updated_after=2.0)


@pytest.mark.parametrize("by_tenant", [True, False])
@pytest.mark.parametrize("few", [0, 1, 12, 1000])
@pytest.mark.parametrize(
    "where",
    [WIDE, RunFilter(tag="gpu", worker_id="w1"), RunFilter(statuses=STATUSES, flow_name="f0", tenants=("x", "y")),
     RunFilter(id_prefix="a0", statuses=("PENDING", "FAILED"), tenants=("y",)), RunFilter(id_prefix="b", tag="gpu")],
)  # fmt: skip
def test_whichever_way_is_taken_the_list_and_the_counts_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: RunFilter, few: int, by_tenant: bool
) -> None:
    monkeypatch.setattr(listing, "_FEW", few)
    index = filled(RunIndex(tmp_path, "runs", by_tenant=by_tenant))
    wanted: dict[str, Any] = {
        name: (getattr(where, name),) for name in ("tag", "flow_name", "worker_id") if getattr(where, name)
    }
    if where.statuses:
        wanted["status"] = where.statuses
    if where.tenants:
        wanted["tenant_id"] = where.tenants
    found = [
        run_id
        for run_id in by_looking(index, wanted, where.id_prefix or "")
        if where.updated_after is None or int(run_id[1:]) // 3 > where.updated_after
    ]
    assert shown(index, where) == found != []
    counted = index.listing.counts(where)
    assert sum(runs for status, runs in counted.by_status.items() if status in where.statuses) in (
        len(found) if where.statuses else 0,
    )
    index.close()


def test_a_list_by_filters_that_let_much_through_looks_up_only_what_it_shows(
    index: RunIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    index._db.set_trace_callback(asked.append)
    for few, way in ((1000, "runs_status"), (10, "runs_worker"), (3, "runs_order")):
        monkeypatch.setattr(listing, "_FEW", few)
        asked.clear()
        shown(index, RunFilter(statuses=("FAILED",), tag="cpu", worker_id="w1"))
        assert f"FROM runs INDEXED BY {way} " in asked[-1], few
    index._db.set_trace_callback(None)
    everything = " AND ".join(f"{column}='x'" for column in listing._INDEXES)
    plans = index._db.execute(
        f"EXPLAIN QUERY PLAN SELECT updated_at, run_id FROM runs INDEXED BY runs_order WHERE {everything} "
        "ORDER BY updated_at DESC, run_id DESC"
    ).fetchall()
    assert ["COVERING INDEX" in plan[3] for plan in plans] == [True]


@pytest.mark.parametrize("field", ["flow_name", "tag", "worker_id", "rerun_of"])
def test_a_count_by_one_filter_looks_at_no_row(index: RunIndex, field: str) -> None:
    plans: list[str] = []
    real = index._db

    class Explained:
        def execute(self, query: str, values: list[Any]) -> Any:
            plans.extend(row[3] for row in real.execute(f"EXPLAIN QUERY PLAN {query}", values))
            return real.execute(query, values)

    index.listing._db = Explained()  # type: ignore[assignment]
    index.listing.counts(RunFilter(**{field: "x"}))
    assert any("USING COVERING INDEX" in plan for plan in plans), plans


@pytest.mark.parametrize("by_tenant", [True, False])
def test_what_workers_have_is_counted_by_tag_and_what_failed_for_everybody(tmp_path: Path, by_tenant: bool) -> None:
    index = filled(RunIndex(tmp_path, "runs", by_tenant=by_tenant))
    index.apply([change("c", 1000, status="CANCELLING", tag="gpu", tenant_id="x")])
    items, _ = index.listing.page(RunFilter(), cursor=None, limit=200)
    for tenants in (("x",), ("y", None), None, ("nobody",)):
        own = [item for item in items if tenants is None or item["tenant_id"] in tenants]
        tags = [item["tag"] for item in own if item["status"] in ("RUNNING", "CANCELLING")]
        assert index.listing.running(tenants) == {tag: tags.count(tag) for tag in set(tags)}
        failed = [item for item in own if item["status"] == "FAILED" and item["updated_at"] > 5.0]
        assert index.listing.changed_since("FAILED", 5.0, tenants) == (len(failed), True)


@pytest.mark.parametrize("by_tenant", [True, False])
def test_figures_walk_along_an_index(tmp_path: Path, by_tenant: bool) -> None:
    index = filled(RunIndex(tmp_path, "runs", by_tenant=by_tenant))
    asked: list[str] = []
    index._db.set_trace_callback(asked.append)
    for tenants in (("x", None), None) if by_tenant else (None,):
        index.listing.running(tenants)
        index.listing.changed_since("FAILED", 5.0, tenants)
        index.ahead("cpu", 5.0, tenants)
    index._db.set_trace_callback(None)
    assert len(asked) >= 4
    plans = [row[3] for query in asked for row in index._db.execute(f"EXPLAIN QUERY PLAN {query}")]
    assert [plan for plan in plans if plan.startswith("SCAN runs") or ("runs USING" in plan and "(" not in plan)] == []
