"""How many runs there are, by status and by the tag they wait for: counted by triggers, not by looking."""

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass

from pyoco_server.model.run import RunStatus

OTHER_STATUS = "other"
"""Stands for whatever status of another program's record is none of ours."""

_KNOWN = ",".join(f"'{status.value}'" for status in RunStatus)
_COUNTED_AS = f"CASE WHEN {{row}}.status IN ({_KNOWN}) THEN {{row}}.status ELSE '{OTHER_STATUS}' END"
_TENANT = "coalesce({row}.tenant_id, '')"
_NEW_WAITS, _OLD_WAITED = (f"{row}.status='PENDING' AND {row}.tag IS NOT NULL" for row in ("NEW", "OLD"))

_ENTER = f"""
  INSERT INTO totals VALUES ({_TENANT.format(row="NEW")}, {_COUNTED_AS.format(row="NEW")}, 1)
    ON CONFLICT (tenant, status) DO UPDATE SET runs=runs+1;
  INSERT INTO waiting SELECT NEW.tag, 1 WHERE {_NEW_WAITS} ON CONFLICT (tag) DO UPDATE SET runs=runs+1;
"""  # noqa: S608 - our own words
_LEAVE = f"""
  UPDATE totals SET runs=runs-1
    WHERE tenant={_TENANT.format(row="OLD")} AND status={_COUNTED_AS.format(row="OLD")};
  UPDATE waiting SET runs=runs-1 WHERE tag=OLD.tag AND {_OLD_WAITED};
  DELETE FROM waiting WHERE tag=OLD.tag AND runs<=0;
"""  # noqa: S608 - our own words

SCHEMA = f"""
CREATE TABLE IF NOT EXISTS totals (
  tenant TEXT NOT NULL, status TEXT NOT NULL, runs INTEGER NOT NULL, PRIMARY KEY (tenant, status)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS waiting (tag TEXT PRIMARY KEY, runs INTEGER NOT NULL) WITHOUT ROWID;
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


class RunTotals:
    """Reads what the triggers counted.

    Args:
        db: The index's database.
    """

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def by_status(self, tenants: tuple[str | None, ...] | None = None) -> dict[str, int]:
        """Tell how many runs there are of each status, also where there are none.

        Args:
            tenants: Whose, ``None`` among them for those of no tenant; not given: everybody's.
        """
        names = [tenant or "" for tenant in tenants or ()]
        among = "" if tenants is None else f"WHERE tenant IN ({','.join('?' * len(names))})"
        query = f"SELECT status, sum(runs) FROM totals {among} GROUP BY status"  # noqa: S608 - our own words
        return self.named(dict(self._db.execute(query, names).fetchall()))

    @staticmethod
    def named(counts: Mapping[str | None, int]) -> dict[str, int]:
        """Give counts by status also where there are none, and those of strange statuses together."""
        found = dict.fromkeys([*(status.value for status in RunStatus), OTHER_STATUS], 0)
        for status, runs in counts.items():
            found[status if status in found else OTHER_STATUS] += runs
        return found

    def tags_waiting(self) -> int:
        """Tell for how many tags runs wait."""
        return int(self._db.execute("SELECT count(*) FROM waiting").fetchone()[0])

    def waiting(self, limit: int) -> list[WaitingTag]:
        """Give the tags that runs wait for, those with most of them first.

        Args:
            limit: How many tags at most.
        """
        query = (
            "SELECT tag, runs, (SELECT min(submitted_at) FROM runs INDEXED BY runs_waiting "
            "WHERE status='PENDING' AND runs.tag=waiting.tag AND submitted_at>0) "
            "FROM waiting ORDER BY runs DESC, tag LIMIT ?"
        )
        return [WaitingTag(*row) for row in self._db.execute(query, (limit,))]
