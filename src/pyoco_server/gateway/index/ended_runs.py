"""What retention asks the index: which runs have ended and when, which rows there are, and who needs a flow."""

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass

from pyoco_server.gateway.index.database import ENDED_SQL
from pyoco_server.model.run import ENDED


@dataclass(frozen=True)
class RollEntry:
    """A run as the index has it."""

    run_id: str
    revision: int


class Roll:
    """Reads the index's table of runs.

    NATS's sequence and clock decide what is old, and not a worker's clock: a run's last revision is its end.

    Args:
        db: The index's database.
    """

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    @property
    def in_step_at(self) -> float | None:
        """When the index was last known to miss nothing, in unix seconds of this machine."""
        row = self._db.execute("SELECT value FROM meta WHERE name='in_step_at'").fetchone()
        return float(row[0]) if row else None

    @in_step_at.setter
    def in_step_at(self, now: float) -> None:
        self._db.execute("INSERT OR REPLACE INTO meta VALUES ('in_step_at',?)", (str(now),))

    def ended(self) -> int:
        """Tell how many runs have ended."""
        query = "SELECT coalesce(sum(runs),0) FROM totals WHERE status IN (?,?,?)"
        return int(self._db.execute(query, ENDED).fetchone()[0])

    def ended_before(self, status: str, before: float, limit: int) -> list[RollEntry]:
        """Give runs that ended with a status, the first one first.

        Args:
            status: COMPLETED, FAILED or CANCELLED.
            before: Only those that ended before this, in unix seconds by NATS's clock.
            limit: How many at most.
        """
        condition = f"status=? AND {ENDED_SQL} ORDER BY revision LIMIT ?"
        query = f"SELECT run_id, revision, stored_at FROM runs INDEXED BY runs_ended WHERE {condition}"  # noqa: S608
        rows = self._db.execute(query, (status, limit)).fetchall()
        return [RollEntry(run_id, revision) for run_id, revision, stored_at in rows if stored_at < before]

    def first_ended(self, before: float, limit: int) -> list[RollEntry]:
        """Give the runs that ended first, whatever with."""
        found = [entry for status in ENDED for entry in self.ended_before(status, before, limit)]
        return sorted(found, key=lambda entry: entry.revision)[:limit]

    def page(self, after: str, limit: int) -> list[RollEntry]:
        """Give runs in the order of their ids, from behind ``after`` on."""
        query = "SELECT run_id, revision FROM runs WHERE run_id>? ORDER BY run_id LIMIT ?"
        return [RollEntry(*row) for row in self._db.execute(query, (after, limit))]

    def known(self, run_ids: Iterable[str]) -> list[str]:
        """Give those of the runs that the index has."""
        query = "SELECT 1 FROM runs WHERE run_id=?"
        return [run_id for run_id in run_ids if self._db.execute(query, (run_id,)).fetchone()]

    def needs_flow(self, sha256: str) -> bool:
        """Tell whether any run is of a flow."""
        return self._db.execute("SELECT 1 FROM runs WHERE sha256=? LIMIT 1", (sha256,)).fetchone() is not None
