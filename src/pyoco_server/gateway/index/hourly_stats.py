"""How runs ended in the last hour, by the minute: counted by triggers of the index, not by looking at runs.

Waits and durations are counted in classes, each a tenth wider than the one before, so that a minute is a few numbers
however many runs ended in it; a percentile told from them is at most 5 % off.
"""

import math
import sqlite3
import time
from bisect import bisect_left
from collections import defaultdict
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from pyoco_server.gateway.index.json_fields import number
from pyoco_server.model.access import Tenants
from pyoco_server.model.run import ENDED

MINUTES = 60
"""So many are kept and told, the one that goes on now among them."""
SPANS = {"wait": "queue_wait_ms", "run": "run_ms"}
"""What is told of how long runs waited and ran, and the records' fields for it."""
_WIDER = math.log(1.1)
_LONGEST_MS = 1e12
_TENANT = "coalesce({row}.tenant_id, '')"
_COUNTED = ("minute", "status", "tenant_id", "wait_class", "run_class")

_ENTER = "".join(
    f"INSERT INTO pace SELECT NEW.minute, {_TENANT.format(row='NEW')}, {what}, {of}, 1 "
    f"WHERE NEW.minute IS NOT NULL AND {of} IS NOT NULL ON CONFLICT (minute, tenant, what, class) "
    "DO UPDATE SET runs=runs+1;"
    for what, of in (("NEW.status", "0"), *((f"'{name}'", f"NEW.{name}_class") for name in SPANS))
)
_LEAVE = "".join(
    "UPDATE pace SET runs=runs-1 "  # noqa: S608 - our own words
    f"WHERE minute=OLD.minute AND tenant={_TENANT.format(row='OLD')} AND what={what} AND class={of};"
    for what, of in (("OLD.status", "0"), *((f"'{name}'", f"OLD.{name}_class") for name in SPANS))
)
# A run that is removed has ended all the same: what is kept for minutes only would have no past.
SCHEMA = f"""
CREATE TABLE IF NOT EXISTS pace (
  minute INTEGER NOT NULL, tenant TEXT NOT NULL, what TEXT NOT NULL, class INTEGER NOT NULL, runs INTEGER NOT NULL,
  PRIMARY KEY (minute, tenant, what, class)
) WITHOUT ROWID;
CREATE TRIGGER IF NOT EXISTS pace_enter AFTER INSERT ON runs WHEN NEW.minute IS NOT NULL BEGIN {_ENTER} END;
CREATE TRIGGER IF NOT EXISTS pace_move AFTER UPDATE OF {", ".join(_COUNTED)} ON runs
  WHEN {" OR ".join(f"OLD.{name} IS NOT NEW.{name}" for name in _COUNTED)}
  BEGIN {_LEAVE} {_ENTER} END;
"""
"""Belongs to the index's schema: a change here needs a new version there."""
TABLES = ("pace",)


def classes(snapshot: dict[str, Any], now: float) -> tuple[int | None, int | None, int | None]:
    """Give what a row holds for the triggers: the minute of its end, and the classes of its wait and its duration.

    Args:
        snapshot: A stored record, as parsed JSON; perhaps another program's.
        now: Unix seconds.

    Returns:
        ``None`` three times for a run that has not ended, or not lately.
    """
    if snapshot.get("status") not in ENDED:
        return None, None, None
    ended_at = number(snapshot.get("end_time")) or number(snapshot.get("updated_at"))
    if abs(now - ended_at) > MINUTES * 60:
        return None, None, None
    wait, run = (_class(snapshot.get(field)) for field in SPANS.values())
    return int(ended_at // 60), wait, run


def _class(stored: Any) -> int | None:
    if isinstance(stored, bool) or not isinstance(stored, (int, float)):
        return None
    return round(math.log(min(max(number(stored), 1.0), _LONGEST_MS)) / _WIDER)


@dataclass(frozen=True)
class Spans:
    """How long something took: half of it at most so long, and 95 of 100; in ms, ``None`` where nothing was."""

    p50: float | None
    p95: float | None


@dataclass(frozen=True)
class Stretch:
    """Some time: how many runs ended in it, by status, and how long they waited and ran."""

    ended: dict[str, int]
    spans: dict[str, Spans]


_Counts = defaultdict[str, dict[int, int]]
"""How many runs there are of each class, by what is counted."""


class RunPace:
    """Reads what the triggers counted.

    Args:
        db: The index's database.
    """

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._forgot = 0

    def forget_old(self, now: float) -> None:
        """Forget what is told no more, once a minute; within the transaction of whoever writes."""
        first = _minute(now) - MINUTES + 1
        if first != self._forgot:
            self._db.execute("DELETE FROM pace WHERE minute<?", (first,))
            self._forgot = first

    def clear(self) -> None:
        """Forget all."""
        self._db.execute("DELETE FROM pace")

    def read(self, tenants: Tenants = None) -> tuple[int, list[Stretch], Stretch]:
        """Tell of the last hour.

        Args:
            tenants: Whose runs, ``None`` among them for those of no tenant; not given: everybody's.

        Returns:
            When it began (unix seconds, a whole minute), its minutes in order, and the hour as a whole.
        """
        first = _minute(time.time()) - MINUTES + 1
        minutes: list[_Counts] = [defaultdict(dict) for _ in range(MINUTES)]
        whole: _Counts = defaultdict(dict)
        for minute, what, of, runs in self._rows(first, tenants):
            for counts in (minutes[minute - first][what], whole[what]):
                counts[of] = counts.get(of, 0) + runs
        return first * 60, [_stretch(minute) for minute in minutes], _stretch(whole)

    def _rows(self, first: int, tenants: Tenants) -> list[tuple[int, str, int, int]]:
        minutes = range(first, first + MINUTES)
        names = [tenant or "" for tenant in tenants or ()]
        among = "" if tenants is None else f"AND tenant IN ({','.join('?' * len(names))})"
        # Each minute by its name: with several tenants that finds each one's, where a range would go over all.
        query = (
            f"SELECT minute, what, class, runs FROM pace "  # noqa: S608 - our own words
            f"WHERE minute IN ({','.join('?' * MINUTES)}) {among}"
        )
        return self._db.execute(query, [*minutes, *names]).fetchall()


def _minute(now: float) -> int:
    return int(now // 60)


def _stretch(counts: _Counts) -> Stretch:
    ended = {status: counts[status].get(0, 0) if status in counts else 0 for status in ENDED}
    return Stretch(ended, {name: _spans(counts[name]) if name in counts else Spans(None, None) for name in SPANS})


def _spans(counts: dict[int, int]) -> Spans:
    of = sorted(counts)
    reached = list(accumulate(counts[one] for one in of))
    found = [bisect_left(reached, reached[-1] * share) for share in (0.5, 0.95)]
    return Spans(*(round(math.exp(of[at] * _WIDER), 1) for at in found)) if reached[-1] > 0 else Spans(None, None)
