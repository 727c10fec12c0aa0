"""What is remembered of the jobs of waiting runs."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from pyoco_server.gateway.index.job_ledger import NOWHERE
from pyoco_server.gateway.index.run_index import RunIndex
from pyoco_server.store.nats.feed import Change


def change(run_id: str, revision: int, **fields: Any) -> Change:
    record = {"status": "PENDING", "updated_at": float(revision), "tag": "cpu", **fields}
    return Change(run_id, json.dumps(record).encode(), revision)


@pytest.fixture
def index(tmp_path: Path) -> RunIndex:
    index = RunIndex(tmp_path, "runs")
    index.apply([change("a", 1), change("b", 2), change("g", 3, tag="gpu"), change("busy", 4, status="RUNNING")])
    return index


def unseen(index: RunIndex, before: float | None = None, limit: int = 10) -> list[str]:
    seen_before = time.time() + 1 if before is None else before
    return [run.run_id for run in index.jobs.without_job(seen_before, limit)]


def seen(index: RunIndex, after: int = 0, limit: int = 10) -> list[tuple[str, int]]:
    return [(run.run_id, run.job_seq) for run in index.jobs.with_job(after, limit)]


def test_a_job_is_looked_for_until_it_is_seen(index: RunIndex) -> None:
    assert unseen(index) == ["a", "b", "g"]
    assert unseen(index, limit=2) == ["a", "b"]
    assert unseen(index, before=time.time() - 60) == []
    index.jobs.mark({"b": 20, "a": 30, "busy": 40, "unknown": 50})
    assert unseen(index) == ["g"]
    assert seen(index) == [("b", 20), ("a", 30)]
    assert seen(index, after=20) == [("a", 30)] and seen(index, limit=1) == [("b", 20)]


def test_a_mark_ends_with_its_revision(index: RunIndex) -> None:
    index.jobs.mark({"a": 7}, revision=2)
    assert index.jobs.seq_of("a") is None
    index.jobs.mark({"a": 7}, revision=1)
    assert (index.jobs.seq_of("a"), index.jobs.seq_of("a", 1), index.jobs.seq_of("a", 2)) == (7, 7, None)
    index.apply([change("a", 1)])  # the feed brings what the submission has noted already
    assert index.jobs.seq_of("a") == 7
    index.apply([change("a", 5)])  # handed back
    assert index.jobs.seq_of("a") is None and unseen(index) == ["b", "g", "a"]


def test_what_can_have_no_job_is_not_looked_for_again(index: RunIndex) -> None:
    index.jobs.mark({"a": NOWHERE}, 1)
    assert unseen(index) == ["b", "g"]
    assert seen(index) == [] and index.jobs.seq_of("a") is None


@pytest.mark.parametrize(("tag", "left"), [("cpu", [("g", 3)]), (None, [])])
def test_marks_are_taken_back_in_pieces(index: RunIndex, tag: str | None, left: list[tuple[str, int]]) -> None:
    index.jobs.mark({"a": 1, "b": 2, "g": 3})
    while index.jobs.forget(tag, 1):
        pass
    assert seen(index) == left


def test_marks_outlast_a_restart_and_know_their_stream(tmp_path: Path, index: RunIndex) -> None:
    assert index.jobs.stream is None
    index.jobs.stream = "created then"
    index.jobs.mark({"a": 1})
    index.close()
    again = RunIndex(tmp_path, "runs")
    assert (again.jobs.stream, again.jobs.seq_of("a")) == ("created then", 1)
    again.clear()
    assert again.jobs.stream is None


def test_busy_runs_come_in_pages(index: RunIndex) -> None:
    index.apply([change(f"r{n}", 10 + n, status="RUNNING", worker_id="w" if n else 5) for n in range(5)])
    found, before = [], None
    while page := index.jobs.busy("RUNNING", before, 2):
        found += [(run.run_id, run.worker_id) for run in page]
        before = (page[-1].updated_at, page[-1].run_id)
    assert found == [("r4", "w"), ("r3", "w"), ("r2", "w"), ("r1", "w"), ("r0", None), ("busy", None)]
    assert index.jobs.busy("CANCELLING", None, 2) == []
