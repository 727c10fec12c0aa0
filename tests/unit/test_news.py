"""Changes among the runs as listeners get them; no server."""

import json
from pathlib import Path

import pytest

from pyoco_server.gateway.index import news
from pyoco_server.gateway.index.news import NewsBox, RunChange, RunNews
from pyoco_server.gateway.index.run_index import RunIndex
from pyoco_server.store.nats.feed import Change

from .test_index import change


def told(box: NewsBox) -> tuple[list[tuple[str, str | None]], bool]:
    changes, spilled = box.take()
    return [(one.run_id, json.loads(one.item)["status"] if one.item else None) for one in changes], spilled


@pytest.fixture
def index(tmp_path: Path) -> RunIndex:
    return RunIndex(tmp_path, "runs")


def test_each_run_is_told_once_in_its_newest_state(index: RunIndex) -> None:
    with index.news.listen(lambda one: True) as box:
        index.apply([change("a", 1), change("b", 2), change("a", 3, status="RUNNING")])
        assert box.arrived.is_set() and box.counts_changed
        assert told(box) == ([("b", "PENDING"), ("a", "RUNNING")], False)
        assert not box.arrived.is_set() and told(box) == ([], False)
        index.apply([change("b", 5, status="RUNNING")])
        index.news.put(RunChange("b", 4, item='{"status": "PENDING"}'))  # late, as what is shown at once may be
        assert told(box) == ([("b", "RUNNING")], False)
        index.apply([Change("a", None, 6), Change("never-seen", None, 7)])
        assert told(box) == ([("a", None)], False)
    assert not index.news.heard


def test_a_listener_hears_what_it_wants(index: RunIndex) -> None:
    with index.news.listen(lambda one: one.tenant_id == "x") as box:
        index.apply([change("a", 1, tenant_id="x"), change("b", 2, tenant_id="y"), change("c", 3)])
        assert told(box)[0] == [("a", "PENDING")]
        index.apply([Change("b", None, 4)])
        assert told(box)[0] == []  # that it was there is nobody else's business
        index.apply([Change("a", None, 5)])
        assert told(box)[0] == [("a", None)]


def test_more_than_is_kept_is_not_told(index: RunIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(news, "_MOST_KEPT", 5)
    with index.news.listen(lambda one: True) as box:
        index.apply([change(f"r{n}", n + 1) for n in range(6)])
        assert len(box.changes) == 0
        assert told(box) == ([], True)
        index.apply([change("r1", 10)])
        assert told(box) == ([("r1", "PENDING")], False)
        index.clear()
        assert told(box) == ([], True)


def test_a_listener_that_comes_back_learns_what_it_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(news, "_REMEMBERED", 3)
    heard = RunNews()
    places = [heard.place]
    for n in range(4):
        heard.put(RunChange(f"r{n}", n, tenant_id="x", item="{}"))
        places.append(heard.place)
    assert heard.since(places[4]) == {}
    assert heard.since(places[2]) == {"r2": "x", "r3": "x"}
    assert heard.since(places[1]) == {"r1": "x", "r2": "x", "r3": "x"}
    assert heard.since(places[0]) is None  # too long ago
    word = places[0].partition("-")[0]
    for rubbish in ("", "5", f"{word}-5", f"{word}-", f"{word}--1", f"{word}-²", f"{word}-{'9' * 30}", "other-3"):
        assert heard.since(rubbish) is None
    assert RunNews().since(places[4]) is None  # another process


def test_what_was_not_told_is_not_taken_up(index: RunIndex) -> None:
    index.apply([change("a", 1), change("b", 2)])
    place = index.news.place
    index.apply([change("b", 3)])
    assert index.news.since(place) == {"b": None}
    index.apply([Change("a", None, 4)])
    assert index.news.since(place) is None
    place = index.news.place
    index.clear()
    assert index.news.since(place) is None
