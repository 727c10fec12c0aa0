"""How many runs were last changed today, by status: counted by triggers of the index, by the quarter of an hour.

A day begins at the server's local midnight, and every time zone's midnight is one of a quarter of an hour.
"""

import sqlite3
from datetime import date, datetime, time, timedelta

from pyoco_server.gateway.index.totals import COUNTED_AS, TENANT, RunTotals, among
from pyoco_server.model.access import Tenants

_QUARTER = 900
_KEPT_SEC = 50 * 3600
"""Yesterday is kept too, with the hour that a change of the clocks may add: machines' clocks are apart."""
_QUARTER_OF = f"CAST({{row}}.updated_at/{_QUARTER} AS INTEGER)"
_PLACE = f"quarter={_QUARTER_OF} AND tenant={TENANT} AND status={COUNTED_AS}".format(row="OLD")
# What was changed long ago is counted by nobody: an index that is built anew from years of runs would count it in vain.
_LATELY = f"{{row}}.updated_at > {{row}}.seen_at - {_KEPT_SEC}"
_ENTER = f"""
  INSERT INTO today SELECT {_QUARTER_OF}, {TENANT}, {COUNTED_AS}, 1 WHERE {_LATELY}
    ON CONFLICT (quarter, tenant, status) DO UPDATE SET runs=runs+1;
""".format(row="NEW")
_LEAVE = f"""
  UPDATE today SET runs=runs-1 WHERE {_PLACE} AND {_LATELY.format(row="OLD")};
  DELETE FROM today WHERE {_PLACE} AND runs<=0;
"""  # noqa: S608 - our own words
SCHEMA = f"""
CREATE TABLE IF NOT EXISTS today (
  quarter INTEGER NOT NULL, tenant TEXT NOT NULL, status TEXT NOT NULL, runs INTEGER NOT NULL,
  PRIMARY KEY (quarter, tenant, status)
) WITHOUT ROWID;
CREATE TRIGGER IF NOT EXISTS today_enter AFTER INSERT ON runs BEGIN {_ENTER} END;
CREATE TRIGGER IF NOT EXISTS today_leave AFTER DELETE ON runs BEGIN {_LEAVE} END;
CREATE TRIGGER IF NOT EXISTS today_move AFTER UPDATE OF status, tenant_id, updated_at ON runs
  WHEN OLD.status IS NOT NEW.status OR OLD.tenant_id IS NOT NEW.tenant_id
    OR {_QUARTER_OF.format(row="OLD")} <> {_QUARTER_OF.format(row="NEW")}
  BEGIN {_LEAVE} {_ENTER} END;
"""
"""Belongs to the index's schema: a change here, or of the statuses, needs a new version there."""
TABLES = ("today",)


class RunsToday:
    """Reads what the triggers counted.

    Args:
        db: The index's database.
    """

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._forgot = 0

    def forget_old(self, now: float) -> None:
        """Forget what belongs to no day any more, once a quarter of an hour; within the writer's transaction."""
        first = int((now - _KEPT_SEC) // _QUARTER)
        if first != self._forgot:
            self._db.execute("DELETE FROM today WHERE quarter<?", (first,))
            self._forgot = first

    def clear(self) -> None:
        """Forget all."""
        self._db.execute("DELETE FROM today")

    def by_status(self, tenants: Tenants = None, day: date | None = None) -> dict[str, int]:
        """Return how many runs of each status were last changed on a day, also where there are none.

        Args:
            tenants: Whose, ``None`` among them for those of no tenant; not given: everybody's.
            day: By the local clock; today when not given. Of earlier ones nothing is known.
        """
        day = day or datetime.now().astimezone().date()
        begins, ends = (int(_midnight(one) // _QUARTER) for one in (day, day + timedelta(days=1)))
        whose, names = among(tenants)
        found = self._db.execute(
            f"SELECT status, sum(runs) FROM today {whose or 'WHERE 1'} "  # noqa: S608 - our own words
            "AND quarter>=? AND quarter<? GROUP BY status",
            [*names, begins, ends],
        )
        return RunTotals.named(dict(found.fetchall()))


def _midnight(day: date) -> float:
    return datetime.combine(day, time.min).astimezone().timestamp()
