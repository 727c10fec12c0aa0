"""What the index's triggers count, against what a look through the table says."""

import random
import sqlite3
from pathlib import Path

import pytest

from pyoco_server.gateway.index import database
from pyoco_server.gateway.index.run_index import RunIndex
from pyoco_server.gateway.index.totals import OTHER_STATUS
from pyoco_server.model.run import RunStatus
from pyoco_server.store.nats.feed import Change

from .test_index import change

ZERO = dict.fromkeys([*(status.value for status in RunStatus), OTHER_STATUS], 0)


@pytest.fixture
def index(tmp_path: Path) -> RunIndex:
    return RunIndex(tmp_path, "runs")


def waiting(index: RunIndex) -> dict[str, tuple[int, float | None]]:
    return {one.tag: (one.runs, one.oldest) for one in index.totals.waiting(100)}


def test_every_status_is_there_from_the_start(index: RunIndex) -> None:
    assert index.totals.by_status() == ZERO
    assert (waiting(index), index.totals.tags_waiting()) == ({}, 0)


def test_insert_update_delete_and_clear(index: RunIndex) -> None:
    index.apply([change("a", 1, tag="cpu", submitted_at=5.0), change("b", 2, tag="cpu", submitted_at=4.0)])
    assert (index.totals.by_status()["PENDING"], waiting(index)) == (2, {"cpu": (2, 4.0)})
    index.apply([change("b", 3, tag="cpu", status="RUNNING")])
    index.apply([change("b", 2, tag="cpu", status="PENDING")])  # late: it changes nothing
    assert index.totals.by_status() == {**ZERO, "PENDING": 1, "RUNNING": 1}
    assert waiting(index) == {"cpu": (1, 5.0)}
    index.apply([change("b", 4, tag="cpu", status="COMPLETED"), Change("a", None, 5)])
    assert (index.totals.by_status(), waiting(index)) == ({**ZERO, "COMPLETED": 1}, {})
    index.clear()
    assert (index.totals.by_status(), waiting(index)) == (ZERO, {})


def test_records_of_other_programs(index: RunIndex) -> None:
    index.apply([change("a", 1, status="DREAMING"), change("b", 2, status=7), change("c", 3, tag=["x"])])
    index.apply([change("d", 4, tag="cpu", submitted_at="soon")])
    assert index.totals.by_status() == {**ZERO, "PENDING": 2, OTHER_STATUS: 2}
    assert waiting(index) == {"cpu": (1, None)}


def test_a_waiting_run_may_change_its_tag(index: RunIndex) -> None:
    index.apply([change("a", 1, tag="cpu", submitted_at=1.0)])
    index.apply([change("a", 2, tag="gpu", submitted_at=1.0)])
    assert (index.totals.by_status()["PENDING"], waiting(index)) == (1, {"gpu": (1, 1.0)})


def test_a_batch_that_cannot_be_written_is_not_counted(index: RunIndex) -> None:
    index._db.execute("CREATE TRIGGER full BEFORE DELETE ON runs BEGIN SELECT RAISE(ABORT, 'no room'); END")
    index.apply([change("a", 1, tag="cpu")])
    with pytest.raises(sqlite3.Error):
        index.apply([change("b", 2, tag="cpu"), Change("a", None, 3)])
    assert index.totals.by_status()["PENDING"] == 1


def test_they_agree_with_a_look_after_thousands_of_changes(index: RunIndex) -> None:
    chance = random.Random(5)
    statuses = [*(status.value for status in RunStatus), "X", None]
    revision = 0
    for _ in range(300):
        batch = []
        for _ in range(20):
            revision += 1
            run_id = f"r{chance.randrange(150)}"
            fields = {"status": chance.choice(statuses), "tag": chance.choice(["a", "b", "c", None])}
            gone = chance.random() < 0.2
            batch.append(Change(run_id, None, revision) if gone else change(run_id, revision, **fields))
        index.apply(batch)
        index.jobs.mark({f"r{chance.randrange(150)}": revision})
    looked = dict(index._db.execute("SELECT status, count(*) FROM runs GROUP BY status").fetchall())
    other = sum(count for status, count in looked.items() if status not in ZERO)
    assert index.totals.by_status() == {**ZERO, **{s: n for s, n in looked.items() if s in ZERO}, OTHER_STATUS: other}
    query = "SELECT tag, count(*) FROM runs WHERE status='PENDING' AND tag IS NOT NULL GROUP BY tag"
    assert {one.tag: one.runs for one in index.totals.waiting(9)} == dict(index._db.execute(query).fetchall())


def test_they_are_kept_with_the_file_and_made_anew_with_a_new_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = RunIndex(tmp_path, "runs")
    first.apply([change("a", 1, tag="cpu")], "created")
    first.close()
    again = RunIndex(tmp_path, "runs")
    assert again.totals.by_status()["PENDING"] == 1
    again.close()
    monkeypatch.setattr(database, "_SCHEMA_VERSION", database._SCHEMA_VERSION + 1)
    newer = RunIndex(tmp_path, "runs")
    assert (newer.revision, newer.totals.by_status(), waiting(newer)) == (0, ZERO, {})
    newer.close()


def test_most_waiting_tags_first_and_no_more_than_asked(index: RunIndex) -> None:
    index.apply(
        [change(f"{tag}{n}", n + 1, tag=tag) for tag, many in (("a", 1), ("b", 3), ("c", 2)) for n in range(many)]
    )
    assert [one.tag for one in index.totals.waiting(2)] == ["b", "c"]
    assert index.totals.tags_waiting() == 3


def test_the_oldest_is_looked_up_and_not_looked_for(index: RunIndex) -> None:
    query = "SELECT min(submitted_at) FROM runs WHERE status='PENDING' AND tag='t' AND submitted_at>0"
    plan = " ".join(row[3] for row in index._db.execute(f"EXPLAIN QUERY PLAN {query}"))
    assert "SEARCH runs USING COVERING INDEX runs_waiting (tag=? AND submitted_at>?)" in plan, plan


def test_ends_are_told_once(index: RunIndex) -> None:
    index.apply([change("a", 1), change("old", 2, status="COMPLETED")], "id")
    batch = [
        change("a", 3, status="FAILED", end_reason="task_failed"),
        change("a", 4, status="FAILED", end_reason="task_failed"),
        change("old", 5, status="COMPLETED"),
        change("b", 6, status="RUNNING"),
        change("unseen", 7, status="CANCELLED"),
    ]
    ended = index.apply(batch, "id", tell_ends=True)
    assert [(item["run_id"], item["end_reason"]) for item in ended] == [("a", "task_failed"), ("unseen", None)]
    assert index.apply(batch, "id", tell_ends=True) == []
    assert index.apply([change("b", 5, status="FAILED")], tell_ends=True) == []  # older than what is known
    assert index.apply([change("b", 8, status="COMPLETED")], "id") == []  # nobody asked
