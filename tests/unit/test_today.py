"""How many runs were last changed today: what the index's triggers count, against a look through the table."""

import random
import time
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from pyoco_server.gateway.index.run_index import RunIndex
from pyoco_server.gateway.index.totals import OTHER_STATUS
from pyoco_server.model.run import RunStatus
from pyoco_server.store.nats.feed import Change

from .test_index import change

ZERO = dict.fromkeys([*(status.value for status in RunStatus), OTHER_STATUS], 0)
NOON = datetime.now().astimezone().replace(hour=12, minute=0, second=0, microsecond=0).timestamp()
TODAY = datetime.fromtimestamp(NOON).astimezone().date()
YESTERDAY = TODAY - timedelta(days=1)


@pytest.fixture
def index(tmp_path: Path) -> RunIndex:
    return RunIndex(tmp_path, "runs")


@pytest.mark.parametrize("zone", ["UTC", "Asia/Tokyo", "Asia/Kathmandu", "America/St_Johns", "Pacific/Chatham"])
def test_a_day_begins_at_local_midnight(index: RunIndex, monkeypatch: pytest.MonkeyPatch, zone: str) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        midnight = datetime.now().astimezone().replace(hour=0, minute=0, second=0, microsecond=0).timestamp()
        index.apply([change("a", 1, updated_at=midnight - 0.5), change("b", 2, updated_at=midnight, status="FAILED")])
        assert index.today.by_status() == {**ZERO, "FAILED": 1}
        day = datetime.now().astimezone().date()
        assert index.today.by_status(day=day - timedelta(days=1)) == {**ZERO, "PENDING": 1}
    finally:
        monkeypatch.delenv("TZ")
        time.tzset()


def test_a_run_moves_on_with_its_changes(index: RunIndex) -> None:
    index.apply([change("a", 1, updated_at=NOON - 86400), change("b", 2, updated_at=NOON, tenant_id="t")])
    assert index.today.by_status(day=YESTERDAY) == {**ZERO, "PENDING": 1}
    index.apply([change("a", 3, updated_at=NOON, status="RUNNING")])
    index.apply([change("a", 4, updated_at=NOON + 1, status="COMPLETED")])
    assert index.today.by_status(day=YESTERDAY) == ZERO
    assert index.today.by_status(day=TODAY) == {**ZERO, "PENDING": 1, "COMPLETED": 1}
    assert index.today.by_status(["t"], TODAY) == {**ZERO, "PENDING": 1}
    assert index.today.by_status([None], TODAY) == {**ZERO, "COMPLETED": 1}
    index.apply([Change("a", None, 5)])
    assert index.today.by_status(day=TODAY) == {**ZERO, "PENDING": 1}
    index.clear()
    assert index.today.by_status(day=TODAY) == ZERO


def test_any_changes_are_counted_right(index: RunIndex) -> None:
    chance = random.Random(7)
    known: dict[str, tuple[float, str]] = {}
    for revision in range(1, 600):
        run_id = f"r{chance.randrange(60)}"
        if run_id in known and chance.random() < 0.2:
            del known[run_id]
            index.apply([Change(run_id, None, revision)])
        else:
            known[run_id] = at, status = NOON + chance.choice((-86400, 0, 900, 1800)), chance.choice(list(ZERO)[:-1])
            index.apply([change(run_id, revision, updated_at=at, status=status)])
    for day in (TODAY, YESTERDAY):
        there = [status for at, status in known.values() if datetime.fromtimestamp(at).astimezone().date() == day]
        assert index.today.by_status(day=day) == {**ZERO, **{status: there.count(status) for status in set(there)}}


def test_what_was_changed_long_ago_takes_no_room(index: RunIndex) -> None:
    index.apply([change(f"r{number}", number + 1, updated_at=NOON - 86400 * (number + 3)) for number in range(50)])
    index.apply([change("r1", 99, updated_at=NOON, status="FAILED")])
    assert index.today.by_status(day=TODAY) == {**ZERO, "FAILED": 1}
    assert index._db.execute("SELECT count(*) FROM today").fetchone() == (1,)
    index.today.forget_old(NOON + 3 * 86400)
    assert index._db.execute("SELECT count(*) FROM today").fetchone() == (0,)
