"""The index of runs over its SQLite file; no server."""

import base64
import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from pyoco_server.errors import InvalidInput
from pyoco_server.gateway.index.listing import RunFilter
from pyoco_server.gateway.index.run_index import RunIndex
from pyoco_server.store.nats.feed import Change

ALL = RunFilter()


def change(run_id: str, revision: int, updated_at: Any = 1.0, **fields: Any) -> Change:
    record = {"run_id": run_id, "status": "PENDING", "updated_at": updated_at, **fields}
    return Change(run_id, json.dumps(record).encode(), revision)


def shown(index: RunIndex, where: RunFilter = ALL, **options: Any) -> list[str]:
    items, _ = index.listing.page(where, **{"cursor": None, "limit": 200, **options})
    return [item["run_id"] for item in items]


@pytest.fixture
def index(tmp_path: Path) -> RunIndex:
    return RunIndex(tmp_path, "runs")


def test_only_newer_revisions_count(index: RunIndex) -> None:
    index.apply([change("a", 5, status="RUNNING")])
    index.apply([change("a", 4, status="PENDING")])
    assert shown(index, RunFilter(statuses=("RUNNING",))) == ["a"]
    index.apply([Change("a", None, 5)])
    assert shown(index) == ["a"]
    index.apply([Change("a", None, 6)])
    assert (shown(index), index.count()) == ([], 0)


def test_a_key_may_change_twice_in_one_batch(index: RunIndex) -> None:
    index.apply([change("a", 1), Change("a", None, 2), change("a", 3, status="RUNNING"), change("b", 4)])
    assert sorted(shown(index)) == ["a", "b"]
    index.apply([change("b", 5), Change("b", None, 6)])
    assert shown(index) == ["a"]


def test_filters_match_exactly_and_together(index: RunIndex) -> None:
    index.apply(
        [
            change("a", 1, status="FAILED", flow_name="f", tag="cpu", workflow_yaml_sha256="x"),
            change("b", 2, status="FAILED", flow_name="f2", tag="cpu"),
            change("c", 3, status="failed", flow_name="f", tag="gpu"),
        ]
    )
    assert shown(index, RunFilter(statuses=("FAILED",), flow_name="f")) == ["a"]
    assert shown(index, RunFilter(tag="cpu")) == ["b", "a"]
    assert shown(index, RunFilter(sha256="x")) == ["a"]
    assert shown(index, RunFilter(statuses=("NONSENSE",))) == []
    assert shown(index, RunFilter(updated_after=1.0)) == []


@pytest.mark.parametrize("limit", [1, 3, 7, 50])
def test_pages_have_no_gap_and_no_double(index: RunIndex, limit: int) -> None:
    index.apply([change(f"r{n:03}", n + 1, updated_at=float(n // 5)) for n in range(50)])  # five runs share each time
    seen: list[str] = []
    cursor: str | None = None
    while True:
        items, cursor = index.listing.page(ALL, cursor=cursor, limit=limit)
        seen += [item["run_id"] for item in items]
        if cursor is None:
            break
    assert seen == [f"r{n:03}" for n in reversed(range(50))]


def encoded(content: Any) -> str:
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    return base64.urlsafe_b64encode(raw).decode()


@pytest.mark.parametrize(
    "cursor",
    ["rubbish", "日本", "a", encoded([]), encoded(1), encoded({"u": 1}), encoded({"u": 1, "r": 2}), encoded(b"\xff"),
     encoded({"u": float("nan"), "r": "a"}), encoded({"u": 10**400, "r": "a"}), encoded({"u": 1, "r": "\ud800"}),
     encoded(b"[" * 30_000)],
)  # fmt: skip
def test_bad_cursors(index: RunIndex, cursor: str) -> None:
    with pytest.raises(InvalidInput, match="not a cursor"):
        index.listing.page(ALL, cursor=cursor, limit=1)


@pytest.mark.parametrize("raw", [b"", b"\xff{", b"[1]", b'"x"', b"1", b"null", b"[" * 5000])
def test_what_is_no_record_is_listed_as_that(index: RunIndex, raw: bytes) -> None:
    index.apply([Change("bad", raw, 1), change("good", 2, flow_name="f")], "id")
    [good, bad], _ = index.listing.page(ALL, cursor=None, limit=10)
    assert (good["run_id"], good["unreadable"]) == ("good", None)
    assert (bad["run_id"], bad["status"]) == ("bad", None) and bad["unreadable"]
    assert (index.revision, index.unreadable()) == (2, 1)


def test_what_was_known_of_a_run_outlives_its_record(index: RunIndex) -> None:
    index.apply([change("a", 1, flow_name="f", tenant_id="t", tag="cpu", status="RUNNING", worker_id="w")])
    index.apply([Change("a", b'{"run_id":"a","tenant_id":"other","x":[', 2)])
    [item], _ = index.listing.page(RunFilter(tenants=("t",)), cursor=None, limit=10)
    assert (item["status"], item["flow_name"], item["tag"], item["worker_id"]) == ("RUNNING", "f", "cpu", "w")
    assert item["unreadable"] and index.unreadable() == 1
    index.apply([change("a", 3, flow_name="f", tenant_id="t", status="CANCELLED")])
    assert index.unreadable() == 0


@pytest.mark.parametrize(
    "raw",
    [b"{}", b'{"updated_at":"x","status":5,"tag":["a"]}', b'{"updated_at":NaN}', b'{"updated_at":1e999}',
     b'{"updated_at":1' + b"0" * 400 + b"}", b'{"error":"\\ud800","heartbeat_at":Infinity}', b'{"run_id":"other"}'],
)  # fmt: skip
def test_odd_records_are_listed_with_what_can_be_read(index: RunIndex, raw: bytes) -> None:
    index.apply([Change("odd", raw, 1)])
    items, _ = index.listing.page(ALL, cursor=None, limit=10)
    assert items[0]["run_id"] == "odd"
    json.dumps(items, allow_nan=False).encode()


def test_it_goes_on_where_it_stopped(tmp_path: Path) -> None:
    first = RunIndex(tmp_path, "runs")
    first.apply([change("a", 7)], "created-1")
    first.apply([change("own", 9)])  # our own submission: it says nothing of what the feed has seen
    first.close()
    again = RunIndex(tmp_path, "runs")
    assert (again.revision, again.identity, sorted(shown(again))) == (7, "created-1", ["a", "own"])
    again.clear()
    again.close()
    empty = RunIndex(tmp_path, "runs")
    assert (empty.revision, empty.identity, shown(empty)) == (0, None, [])


def test_a_batch_that_fails_leaves_nothing(index: RunIndex) -> None:
    index.apply([change("a", 1)], "id")
    with pytest.raises(OverflowError):
        index.apply([change("b", 2), change("c", 2**70)], "id")
    assert (index.revision, shown(index)) == (1, ["a"])
    index.apply([change("b", 2)], "id")
    assert (index.revision, index.count()) == (2, 2)


@pytest.mark.parametrize("content", [b"no database" * 1000, b"SQLite format 3\x00" + b"\x99" * 8000])
def test_a_broken_file_is_built_anew(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "index").mkdir()
    (tmp_path / "index" / "runs.sqlite3").write_bytes(content)
    index = RunIndex(tmp_path, "runs")
    index.apply([change("a", 3)], "id")
    index.close()
    assert RunIndex(tmp_path, "runs").revision == 3


def test_a_file_of_another_version_is_built_anew(tmp_path: Path) -> None:
    index = RunIndex(tmp_path, "runs")
    index.apply([change("a", 3)], "id")
    index.close()
    with sqlite3.connect(tmp_path / "index" / "runs.sqlite3") as file:
        file.execute("PRAGMA user_version=99")
    file.close()
    assert RunIndex(tmp_path, "runs").revision == 0


def test_a_second_gateway_in_the_directory_keeps_its_own(tmp_path: Path) -> None:
    first, second = RunIndex(tmp_path, "runs"), RunIndex(tmp_path, "runs")
    first.apply([change("a", 1)], "id")
    second.apply([change("b", 2)], "id")
    assert (shown(first), shown(second)) == (["a"], ["b"])
    second.close()
    first.close()
    assert RunIndex(tmp_path, "runs").revision == 1


def test_without_a_directory_it_works_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    index = RunIndex(tmp_path / "file", "runs")
    index.apply([change("a", 1)], "id")
    assert shown(index) == ["a"]
    (tmp_path / "index" / "runs.sqlite3").mkdir(parents=True)  # the file cannot be made
    assert shown(RunIndex(tmp_path, "runs")) == []


def test_a_mailbox_holds_the_newest(index: RunIndex) -> None:
    with index.subscribe("a") as mailbox, index.subscribe("a") as other:
        index.apply([change("a", 1), change("b", 2), change("a", 3)])
        index.apply([change("a", 2)])  # late
        latest = mailbox.take()
        assert latest is not None
        assert latest[1] == 3
        assert mailbox.take() is None
        assert not mailbox.arrived.is_set()
        assert other.arrived.is_set()
        index.clear()
        assert mailbox.take() == (None, 0)
    index.apply([change("a", 4)])
    assert not mailbox.arrived.is_set()
    assert not index._mailboxes


def sorts(plan: str) -> bool:
    """Tell whether a query sorts more than runs of the very same moment."""
    return "TEMP B-TREE" in plan and "RIGHT PART OF ORDER BY" not in plan and "LAST TERM OF ORDER BY" not in plan


@pytest.mark.parametrize("column", [None, "status", "flow_name", "tag", "sha256"])
def test_no_list_sorts_or_scans(index: RunIndex, column: str | None) -> None:
    where = f"WHERE {column}='x' AND (updated_at,run_id)<(5,'a')" if column else ""
    plan = index._db.execute(
        f"EXPLAIN QUERY PLAN SELECT summary FROM runs {where} ORDER BY updated_at DESC, run_id DESC LIMIT 51"
    ).fetchall()
    assert any("USING INDEX runs_" in row[3] or "COVERING INDEX" in row[3] for row in plan)
    assert not any(sorts(row[3]) for row in plan)


def test_it_counts_who_waits_and_who_is_ahead(index: RunIndex) -> None:
    index.apply([change(f"r{n}", n, tag="cpu", submitted_at=float(n)) for n in range(1, 6)])
    index.apply([change("g", 6, tag="gpu", submitted_at=0.5), change("odd", 7, tag="cpu", submitted_at="soon")])
    index.apply([change("r2", 8, tag="cpu", submitted_at=2.0, status="RUNNING")])
    assert (index.waiting("cpu"), index.waiting("gpu"), index.waiting("none")) == (5, 1, 0)
    assert [index.ahead("cpu", at) for at in (0.0, 1.0, 4.0, 9.0)] == [0, 1, 3, 5]  # "odd" counts as the oldest
    index.apply([Change("r1", None, 9)])
    assert (index.waiting("cpu"), index.ahead("cpu", 4.0)) == (4, 2)


def test_counting_who_waits_reads_no_history(index: RunIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    plans: list[str] = []

    def explained(query: str, *values: Any) -> int:
        plans.extend(row[3] for row in index._db.execute(f"EXPLAIN QUERY PLAN {query}", values))
        return 0

    monkeypatch.setattr(index, "_number", explained)
    index.waiting("t")
    index.ahead("t", 5.0)
    assert len(plans) == 2 and all("USING COVERING INDEX runs_waiting (tag=?" in plan for plan in plans), plans


BY_TENANT = [change(f"r{n:02}", n + 1, updated_at=float(n // 4), tenant_id=("a", "b", None, "")[n % 4], tag="cpu")
             for n in range(40)]  # fmt: skip
SEEN = {("a",): {0}, ("b",): {1}, ("a", None): {0, 2, 3}, ("c",): set[int](), ("c", None): {2, 3}, None: {0, 1, 2, 3}}


@pytest.mark.parametrize("by_tenant", [True, False])
@pytest.mark.parametrize("tenants", SEEN)
def test_lists_hold_the_runs_of_the_tenants_that_are_seen(
    tmp_path: Path, tenants: tuple[str | None, ...] | None, by_tenant: bool
) -> None:
    index = RunIndex(tmp_path, "runs", by_tenant=by_tenant)
    index.apply(BY_TENANT)
    wanted = [f"r{n:02}" for n in reversed(range(40)) if n % 4 in SEEN[tenants]]
    for where in (RunFilter(tenants=tenants), RunFilter(tag="cpu", statuses=("PENDING",), tenants=tenants)):
        for limit in (1, 7, 200):
            seen: list[str] = []
            cursor: str | None = None
            while True:
                items, cursor = index.listing.page(where, cursor=cursor, limit=limit)
                seen += [item["run_id"] for item in items]
                if cursor is None:
                    break
            assert seen == wanted
    assert shown(index, RunFilter(tag="gpu", tenants=tenants)) == []
    assert index.tenants_of(["r00", "r01", "r02", "r03", "r00", "none"]) == {
        "r00": "a", "r01": "b", "r02": None, "r03": None,
    }  # fmt: skip
    assert len(index.tenants_of(f"r{n:02}" for n in range(2000))) == 40
    index.close()


@pytest.mark.parametrize("tenants", [None, ("a",), ("a", None)])
@pytest.mark.parametrize(
    "wanted",
    [{}, {"statuses": ("x",)}, *({name: "x"} for name in ("flow_name", "tag", "sha256", "worker_id", "rerun_of"))],
)
def test_no_list_sorts_or_looks_at_what_it_does_not_show(
    tmp_path: Path, tenants: tuple[str | None, ...] | None, wanted: dict[str, Any]
) -> None:
    index = RunIndex(tmp_path, "runs", by_tenant=tenants is not None)
    index.apply([change(f"n{n}", n + 1, tenant_id="other") for n in range(2000)])
    plans: list[str] = []
    real = index._db

    class Explained:
        def execute(self, query: str, values: list[Any]) -> Any:
            plans.extend(row[3] for row in real.execute(f"EXPLAIN QUERY PLAN {query}", values))
            return real.execute(query, values)

    index.listing._db = Explained()  # type: ignore[assignment]
    where = RunFilter(tenants=tenants, updated_after=1.0, **wanted)
    index.listing.page(where, cursor=encoded({"u": 1, "r": ""}), limit=50)
    reads = [plan for plan in plans if " runs " in plan]
    column = next(iter(wanted), "order")
    name = {"flow_name": "flow", "statuses": "status", "worker_id": "worker", "rerun_of": "rerun"}.get(column, column)
    assert len(reads) == len(tenants or "1")
    assert all(f"USING INDEX {'tenants' if tenants else 'runs'}_{name} " in read for read in reads)
    assert not any(sorts(plan) for plan in plans)
    index.close()
    real.close()


def test_a_file_is_used_with_tenants_and_without(tmp_path: Path) -> None:
    for by_tenant in (False, True, False):
        index = RunIndex(tmp_path, "runs", by_tenant=by_tenant)
        index.apply(BY_TENANT)
        assert len(shown(index, RunFilter(tenants=("a",)))) == 10
        names = {row[0] for row in index._db.execute("SELECT name FROM sqlite_master WHERE type='index'")}
        assert ("tenants_flow" in names, "runs_flow" in names, "runs_status" in names) == (
            by_tenant,
            not by_tenant,
            True,
        )
        index.close()


def test_what_another_system_drops_is_known_within_one_batch(index: RunIndex) -> None:
    """A worker of the existing system names itself in the first of its records only."""
    theirs = {"flow_name": "f", "status": "RUNNING", "start_time": 5.0}
    waiting = change("r", 1, flow_name="f", attempt=0, submitted_at=2.0)
    index.apply([waiting, change("r", 2, **theirs, worker_id="theirs"), change("r", 3, **theirs)])
    known = index.last_known("r")
    assert (known["worker_id"], known["attempt"], known["submitted_at"]) == ("theirs", 1, 2.0)
