"""How many runs there are, by status and by the tag they wait for: counted by triggers, not by looking."""

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass

from pyoco_server.model.access import Tenants
from pyoco_server.model.run import RunStatus

OTHER_STATUS = "other"
"""Stands for whatever status of another program's record is none of ours."""

_KNOWN = ",".join(f"'{status.value}'" for status in RunStatus)
COUNTED_AS = f"CASE WHEN {{row}}.status IN ({_KNOWN}) THEN {{row}}.status ELSE '{OTHER_STATUS}' END"
TENANT = "coalesce({row}.tenant_id, '')"
_NEW_WAITS, _OLD_WAITED = (f"{row}.status='PENDING' AND {row}.tag IS NOT NULL" for row in ("NEW", "OLD"))

_ENTER = f"""
  INSERT INTO totals VALUES ({TENANT.format(row="NEW")}, {COUNTED_AS.format(row="NEW")}, 1)
    ON CONFLICT (tenant, status) DO UPDATE SET runs=runs+1;
  INSERT INTO waiting SELECT {TENANT.format(row="NEW")}, NEW.tag, 1 WHERE {_NEW_WAITS}
    ON CONFLICT (tenant, tag) DO UPDATE SET runs=runs+1;
"""  # noqa: S608 - our own words
_LEAVE = f"""
  UPDATE totals SET runs=runs-1
    WHERE tenant={TENANT.format(row="OLD")} AND status={COUNTED_AS.format(row="OLD")};
  UPDATE waiting SET runs=runs-1 WHERE tenant={TENANT.format(row="OLD")} AND tag=OLD.tag AND {_OLD_WAITED};
  DELETE FROM waiting WHERE tenant={TENANT.format(row="OLD")} AND tag=OLD.tag AND runs<=0;
"""  # noqa: S608 - our own words

SCHEMA = f"""
CREATE TABLE IF NOT EXISTS totals (
  tenant TEXT NOT NULL, status TEXT NOT NULL, runs INTEGER NOT NULL, PRIMARY KEY (tenant, status)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS waiting (
  tenant TEXT NOT NULL, tag TEXT NOT NULL, runs INTEGER NOT NULL, PRIMARY KEY (tenant, tag)
) WITHOUT ROWID;
CREATE TRIGGER IF NOT EXISTS runs_enter AFTER INSERT ON runs BEGIN {_ENTER} END;
CREATE TRIGGER IF NOT EXISTS runs_leave AFTER DELETE ON runs BEGIN {_LEAVE} END;
CREATE TRIGGER IF NOT EXISTS runs_move AFTER UPDATE OF status, tag, tenant_id ON runs
  WHEN OLD.status IS NOT NEW.status OR OLD.tag IS NOT NEW.tag OR OLD.tenant_id IS NOT NEW.tenant_id
  BEGIN {_LEAVE} {_ENTER} END;
"""
"""Belongs to the index's schema: a change here, or of the statuses, needs a new version there."""
TABLES = ("totals", "waiting")


@dataclass(frozen=True)
class WaitingTag:
    """A tag that runs wait for."""

    tag: str
    runs: int
    oldest: float | None
    """When the oldest of them was submitted, in unix seconds; ``None`` if none says."""
    oldest_run_id: str | None = None


class RunTotals:
    """Reads what the triggers counted.

    Args:
        db: The index's database.
    """

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def by_status(self, tenants: Tenants = None) -> dict[str, int]:
        """Tell how many runs there are of each status, also where there are none.

        Args:
            tenants: Whose, ``None`` among them for those of no tenant; not given: everybody's.
        """
        whose, names = among(tenants)
        query = f"SELECT status, sum(runs) FROM totals {whose} GROUP BY status"  # noqa: S608 - our own words
        return self.named(dict(self._db.execute(query, names).fetchall()))

    @staticmethod
    def named(counts: Mapping[str | None, int]) -> dict[str, int]:
        """Give counts by status also where there are none, and those of strange statuses together."""
        found = dict.fromkeys([*(status.value for status in RunStatus), OTHER_STATUS], 0)
        for status, runs in counts.items():
            found[status if status in found else OTHER_STATUS] += runs
        return found

    def tags_waiting(self, tenants: Tenants = None) -> int:
        """Tell for how many tags runs wait."""
        whose, names = among(tenants)
        query = f"SELECT count(DISTINCT tag) FROM waiting {whose}"  # noqa: S608 - our own words
        return int(self._db.execute(query, names).fetchone()[0])

    def waiting(self, limit: int, tenants: Tenants = None) -> list[WaitingTag]:
        """Give the tags that runs wait for, those with most of them first.

        Args:
            limit: How many tags at most.
            tenants: Whose runs; not given: everybody's.
        """
        whose, names = among(tenants)
        query = (
            f"SELECT tag, sum(runs) FROM waiting {whose} GROUP BY tag "  # noqa: S608 - our own words
            "ORDER BY sum(runs) DESC, tag LIMIT ?"
        )
        return [
            WaitingTag(tag, runs, *self._oldest(tag, tenants))
            for tag, runs in self._db.execute(query, [*names, limit]).fetchall()
        ]

    def _oldest(self, tag: str, tenants: Tenants) -> tuple[float | None, str | None]:
        query = (
            "SELECT submitted_at, run_id FROM runs INDEXED BY {index} WHERE {owner} status='PENDING' AND tag=? "
            "AND submitted_at>0 ORDER BY submitted_at LIMIT 1"
        )
        if tenants is None:
            found = self._db.execute(query.format(index="runs_waiting", owner=""), (tag,)).fetchall()
        else:
            own = query.format(index="tenants_waiting", owner="tenant_id IS ? AND")
            found = [row for tenant in tenants for row in self._db.execute(own, (tenant, tag))]
        return min(found, default=(None, None))

    def depths(self, limit: int) -> dict[tuple[str, str], int]:
        """Tell how many runs wait, by tenant (``""``: none) and tag, of those for which most wait.

        Args:
            limit: How many pairs at most.
        """
        rows = self._db.execute("SELECT tenant, tag, runs FROM waiting ORDER BY runs DESC LIMIT ?", (limit,))
        return {(tenant, tag): runs for tenant, tag, runs in rows}


def among(tenants: Tenants) -> tuple[str, list[str]]:
    """Return the condition for the rows of some tenants, and its values."""
    names = [tenant or "" for tenant in tenants or ()]
    return ("" if tenants is None else f"WHERE tenant IN ({','.join('?' * len(names))})"), names
