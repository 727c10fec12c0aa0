"""The index of runs: lists, filters, cursors and watches read it, never the bucket."""

import contextlib
import json
import time
from asyncio import Event
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog

from pyoco_server.gateway.index.database import IndexFile
from pyoco_server.gateway.index.ended_runs import Roll
from pyoco_server.gateway.index.hourly_stats import RunPace
from pyoco_server.gateway.index.job_ledger import JobLedger
from pyoco_server.gateway.index.listing import RunListing
from pyoco_server.gateway.index.news import RunChange, RunNews
from pyoco_server.gateway.index.rows import UPSERT, RunRow, row_of
from pyoco_server.gateway.index.today import RunsToday
from pyoco_server.gateway.index.totals import RunTotals
from pyoco_server.model.access import Tenants
from pyoco_server.model.run import ENDED
from pyoco_server.store.nats.feed import Change

log = structlog.get_logger(__name__)

_COUNT_WAITING = "SELECT count(*) FROM runs INDEXED BY runs_waiting WHERE status='PENDING'"
_COUNT_OWN_WAITING = "SELECT count(*) FROM runs INDEXED BY tenants_waiting WHERE status='PENDING'"
_AT_ONCE = 500


@dataclass
class Mailbox:
    """The newest record of a watched run; what was not fetched in time is replaced, for a snapshot is no history."""

    arrived: Event = field(default_factory=Event)
    latest: tuple[bytes | None, int] | None = None

    def put(self, value: bytes | None, revision: int) -> None:
        """Leave a record; an older one than is there already is dropped."""
        if self.latest is None or revision >= self.latest[1]:
            self.latest = (value, revision)
            self.arrived.set()

    def take(self) -> tuple[bytes | None, int] | None:
        """Fetch what arrived: the record (``None``: removed) and its revision."""
        latest, self.latest = self.latest, None
        self.arrived.clear()
        return latest


class RunIndex:
    """Follows the runs' bucket.

    Args:
        state_dir: Where the file lives.
        bucket: The bucket's name; part of the file's.
        by_tenant: Whether lists are asked for by tenant, and not for everybody's runs.
    """

    def __init__(self, state_dir: Path, bucket: str, *, by_tenant: bool = False) -> None:
        self._file = IndexFile(state_dir, bucket, by_tenant=by_tenant)
        self._db = self._file.connection
        self.jobs = JobLedger(self._db)
        self.totals = RunTotals(self._db)
        self.pace = RunPace(self._db)
        self.today = RunsToday(self._db)
        self.roll = Roll(self._db)
        self.listing = RunListing(self._db, self.totals, by_tenant=by_tenant)
        self.news = RunNews()
        self._mailboxes: defaultdict[str, list[Mailbox]] = defaultdict(list)
        meta = dict(self._db.execute("SELECT name, value FROM meta").fetchall())
        self.revision = int(meta.get("revision", 0))
        self.identity: str | None = meta.get("identity")

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def clear(self) -> None:
        """Forget everything: the bucket was made anew."""
        with self._transaction():
            self._db.execute("DELETE FROM runs")
            self._db.execute("DELETE FROM meta")
            self.pace.clear()
            self.today.clear()
        self.revision, self.identity = 0, None
        for mailboxes in self._mailboxes.values():
            for mailbox in mailboxes:
                mailbox.latest = None  # its revision belongs to the old bucket
                mailbox.put(None, 0)
        self.news.begin_anew()

    def apply(
        self, changes: list[Change], identity: str | None = None, *, tell_ends: bool = False
    ) -> list[dict[str, Any]]:
        """Take in changes.

        Args:
            changes: In order.
            identity: The bucket's, when they come from its feed: how far they reach is then kept with them.
            tell_ends: Whether to look which runs have ended.

        Returns:
            The list's items of the runs that have ended with these changes, each once; none unless asked for.

        Raises:
            sqlite3.Error: the file cannot be written; nothing of the changes was taken in.
        """
        rows: list[RunRow] = []
        newest: dict[str, RunRow] = {}

        def last_known(run_id: str) -> dict[str, Any]:
            row = newest.get(run_id)
            return self.last_known(run_id) if row is None else dict(json.loads(row.summary))

        removed = []
        for change in changes:
            if change.value is None:
                removed.append((change.key, change.revision))
                continue
            rows.append(row_of(change, last_known))
            newest[change.key] = rows[-1]
        with self._transaction():
            now = time.time()
            self.pace.forget_old(now)
            self.today.forget_old(now)
            ended = self._newly_ended(rows) if tell_ends else []
            self._db.executemany(UPSERT, rows)
            tenants = self.tenants_of(run_id for run_id, _ in removed) if self.news.heard else {}
            self._db.executemany("DELETE FROM runs WHERE run_id=? AND revision<?", removed)
            if identity is not None and changes:
                meta = [("revision", str(changes[-1].revision)), ("identity", identity)]
                self._db.executemany("INSERT OR REPLACE INTO meta VALUES (?,?)", meta)
        if identity is not None and changes:
            self.revision, self.identity = changes[-1].revision, identity
        for change in changes:
            for mailbox in self._mailboxes.get(change.key, ()):
                mailbox.put(change.value, change.revision)
        self._tell(rows, removed, tenants)
        return ended

    def _tell(self, rows: list[RunRow], removed: list[tuple[str, int]], tenants: dict[str, str | None]) -> None:
        for row in rows:
            self.news.put(RunChange(row.run_id, row.revision, row.tenant_id, row.flow_name, row.tag, row.summary))
        if removed and not self.news.heard:
            self.news.forget()  # a removed run is told of by nothing that stays
            return
        for run_id, revision in removed:
            if run_id in tenants:
                self.news.put(RunChange(run_id, revision, tenants[run_id]))

    def _newly_ended(self, rows: list[RunRow]) -> list[dict[str, Any]]:
        ended: dict[str, str] = {}
        query = "SELECT revision, status FROM runs WHERE run_id=?"
        for row in rows:
            if row.status in ENDED and row.run_id not in ended:
                revision, status = self._db.execute(query, (row.run_id,)).fetchone() or (0, None)
                if revision < row.revision and status not in ENDED:
                    ended[row.run_id] = row.summary
        return [json.loads(item) for item in ended.values()]

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def tenants_of(self, run_ids: Iterable[str]) -> dict[str, str | None]:
        """Tell the tenants of runs, of those that are known."""
        wanted = list(set(run_ids))
        found: dict[str, str | None] = {}
        for start in range(0, len(wanted), _AT_ONCE):
            some = wanted[start : start + _AT_ONCE]
            query = f"SELECT run_id, tenant_id FROM runs WHERE run_id IN ({','.join('?' * len(some))})"  # noqa: S608
            found.update(self._db.execute(query, some).fetchall())
        return found

    def last_known(self, run_id: str) -> dict[str, Any]:
        """Return a run's item of a list; empty if it is not known."""
        return next(iter(self.listing.items([run_id])), {})

    def unreadable(self) -> int:
        """Return how many runs have records that cannot be read."""
        return self._number("SELECT count(*) FROM runs INDEXED BY runs_unreadable WHERE unreadable=1")

    def count(self) -> int:
        """Tell how many runs are known."""
        return sum(self.totals.by_status().values())

    def waiting(self, tag: str) -> int:
        """Tell how many runs of a tag wait for a worker."""
        return self._number(f"{_COUNT_WAITING} AND tag=?", tag)

    def ahead(self, tag: str, submitted_at: float, tenants: Tenants = None) -> int:
        """Return how many runs of a tag wait that were submitted before ``submitted_at`` (unix seconds).

        Args:
            tag: Which one.
            submitted_at: When.
            tenants: Whose runs; not given: everybody's.
        """
        if tenants is None:
            return self._number(f"{_COUNT_WAITING} AND tag=? AND submitted_at<?", tag, submitted_at)
        own = f"{_COUNT_OWN_WAITING} AND tenant_id IS ? AND tag=? AND submitted_at<?"
        return sum(self._number(own, tenant, tag, submitted_at) for tenant in tenants)

    def _number(self, query: str, *values: Any) -> int:
        return int(self._db.execute(query, values).fetchone()[0])

    @contextlib.contextmanager
    def subscribe(self, run_id: str) -> Iterator[Mailbox]:
        """Receive each new state of a run while the block lasts."""
        mailbox = Mailbox()
        self._mailboxes[run_id].append(mailbox)
        try:
            yield mailbox
        finally:
            self._mailboxes[run_id].remove(mailbox)
            if not self._mailboxes[run_id]:
                del self._mailboxes[run_id]
