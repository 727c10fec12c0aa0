"""What the index knows of the jobs of waiting runs: where each lies in the work stream, if it was seen there."""

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass

NOWHERE = 0
"""Marks a run whose job need not be looked for any more: it cannot have one."""


@dataclass(frozen=True)
class WaitingRun:
    """A waiting run; ``job_seq`` is 0 where its job has not been seen."""

    run_id: str
    revision: int
    tag: str
    updated_at: float
    job_seq: int = 0


@dataclass(frozen=True)
class BusyRun:
    """A run that a worker has, or had."""

    run_id: str
    revision: int
    updated_at: float
    worker_id: str | None


class JobLedger:
    """Reads and marks rows of the index's table of runs. A mark holds until the run's record changes.

    Args:
        db: The index's database.
    """

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    @property
    def stream(self) -> str | None:
        """Which work stream the marks belong to, by its identity."""
        row = self._db.execute("SELECT value FROM meta WHERE name='work_stream'").fetchone()
        return row[0] if row else None

    @stream.setter
    def stream(self, identity: str) -> None:
        self._db.execute("INSERT OR REPLACE INTO meta VALUES ('work_stream',?)", (identity,))

    def mark(self, job_seqs: Mapping[str, int], revision: int | None = None) -> None:
        """Note where jobs of waiting runs are.

        Args:
            job_seqs: Sequence in the work stream, by run_id.
            revision: Only for records of this revision.
        """
        query = "UPDATE runs SET job_seq=? WHERE run_id=? AND status='PENDING' AND (?3 IS NULL OR revision=?3)"
        rows = [(seq, run_id, revision) for run_id, seq in job_seqs.items()]
        self._db.execute("BEGIN")
        try:
            self._db.executemany(query, rows)
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def forget(self, tag: str | None, limit: int) -> bool:
        """Take marks back, so that the jobs are looked for anew.

        Args:
            tag: Only of this tag; ``None`` for all.
            limit: So many at once; a large table is done in pieces.

        Returns:
            Whether there may be more.
        """
        chosen = (
            "SELECT run_id FROM runs INDEXED BY runs_jobs "
            "WHERE status='PENDING' AND job_seq>=0 AND (?1 IS NULL OR tag=?1) LIMIT ?2"
        )
        query = f"UPDATE runs SET job_seq=NULL WHERE run_id IN ({chosen})"  # noqa: S608 - our own words
        return self._db.execute(query, (tag, limit)).rowcount == limit

    def seq_of(self, run_id: str, revision: int | None = None) -> int | None:
        """Tell where the job of a waiting run was seen; ``None`` if nowhere, or not for this revision of its record."""
        query = "SELECT job_seq FROM runs WHERE run_id=? AND job_seq>0 AND (?2 IS NULL OR revision=?2)"
        row = self._db.execute(query, (run_id, revision)).fetchone()
        return int(row[0]) if row else None

    def run_at(self, job_seq: int) -> str | None:
        """Return the waiting run whose job was seen at a sequence; ``None`` if there is none."""
        query = "SELECT run_id FROM runs INDEXED BY runs_jobs WHERE status='PENDING' AND job_seq=?"
        row = self._db.execute(query, (job_seq,)).fetchone()
        return str(row[0]) if row else None

    def without_job(self, seen_before: float, limit: int) -> list[WaitingRun]:
        """Give waiting runs whose jobs have not been seen, the oldest first.

        Args:
            seen_before: Only those whose present state was known before this, in unix seconds of this machine.
            limit: How many at most.
        """
        query = (
            "SELECT run_id, revision, tag, updated_at, seen_at FROM runs INDEXED BY runs_jobs "
            "WHERE status='PENDING' AND job_seq IS NULL ORDER BY revision LIMIT ?"
        )
        rows = self._db.execute(query, (limit,)).fetchall()
        return [WaitingRun(row[0], row[1], row[2] or "", row[3]) for row in rows if row[4] < seen_before]

    def with_job(self, after: int, limit: int) -> list[WaitingRun]:
        """Give waiting runs whose jobs were seen after a sequence, in their order."""
        query = (
            "SELECT run_id, revision, tag, updated_at, job_seq FROM runs INDEXED BY runs_jobs "
            "WHERE status='PENDING' AND job_seq>? ORDER BY job_seq LIMIT ?"
        )
        return [WaitingRun(row[0], row[1], row[2] or "", *row[3:]) for row in self._db.execute(query, (after, limit))]

    def busy(self, status: str, before: tuple[float, str] | None, limit: int) -> list[BusyRun]:
        """Give runs of a status that a worker has, the last updated first.

        Args:
            status: RUNNING or CANCELLING.
            before: (``updated_at``, ``run_id``) of the last one of the page before.
            limit: How many at most.
        """
        query = (
            "SELECT run_id, revision, updated_at, json_extract(summary,'$.worker_id') FROM runs "
            "WHERE status=? AND (updated_at,run_id)<(?,?) ORDER BY updated_at DESC, run_id DESC LIMIT ?"
        )
        rows = self._db.execute(query, (status, *(before or (float("inf"), "")), limit))
        return [BusyRun(row[0], row[1], row[2], row[3] if isinstance(row[3], str) else None) for row in rows]
