"""The index's SQLite file: rebuildable from NATS at any time, so speed goes before safety here."""

import contextlib
import fcntl
import sqlite3
from pathlib import Path
from typing import IO

import structlog

from pyoco_server.gateway.index import hourly_stats as pace
from pyoco_server.gateway.index import today, totals
from pyoco_server.model.run import ENDED

log = structlog.get_logger(__name__)

_SCHEMA_VERSION = 10
ENDED_SQL = f"status IN ({','.join(map(repr, ENDED))})"
"""The condition of the index of ended runs; SQLite uses it only where a query repeats it word for word."""
# With rows in the order of their making, each index holds a number instead of the run's id: half the size, and half
# the time for a hundred thousand runs.
_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS runs (
  run_id TEXT NOT NULL, revision INTEGER NOT NULL, updated_at REAL NOT NULL, status TEXT, flow_name TEXT,
  tag TEXT, tenant_id TEXT, sha256 TEXT, summary TEXT NOT NULL, submitted_at REAL NOT NULL, seen_at REAL NOT NULL,
  worker_id TEXT, rerun_of TEXT, stored_at REAL NOT NULL, minute INTEGER, wait_class INTEGER, run_class INTEGER,
  unreadable INTEGER NOT NULL, job_seq INTEGER
);
CREATE UNIQUE INDEX IF NOT EXISTS runs_id ON runs (run_id);
CREATE INDEX IF NOT EXISTS runs_waiting ON runs (tag, submitted_at, status) WHERE status='PENDING';
CREATE INDEX IF NOT EXISTS runs_jobs ON runs (job_seq, revision, status) WHERE status='PENDING';
CREATE INDEX IF NOT EXISTS runs_unreadable ON runs (run_id, unreadable) WHERE unreadable=1;
CREATE INDEX IF NOT EXISTS runs_ended ON runs (status, revision, stored_at)
  WHERE {ENDED_SQL};
"""

# What lists are filtered by, each in the list's order; with the status at their end they also serve for counting. Runs
# of the same moment are sorted by their ids when they are read.
_LISTS = {
    # By several filters of which none is telling: all their columns are here, so only what is shown is looked up.
    "order": "updated_at DESC, run_id DESC, status, flow_name, tag, sha256, worker_id, rerun_of)",
    "status": "status, updated_at DESC)",
    "sha256": "sha256, updated_at DESC, status)",
    "flow": "flow_name, updated_at DESC, status)",
    "tag": "tag, updated_at DESC, status)",
    "worker": "worker_id, updated_at DESC, status) WHERE worker_id IS NOT NULL",
    "rerun": "rerun_of, updated_at DESC, status) WHERE rerun_of IS NOT NULL",
}
_FOR_ALL = ("status", "sha256")
"""What the reconciler and retention ask, whoever's runs they are."""


def _list_indexes(*, by_tenant: bool) -> str:
    """Give the indexes that lists read: each tenant's runs in order, or everybody's; the others would cost writes."""
    words = []
    for name, columns in _LISTS.items():
        wanted = {"tenants": by_tenant, "runs": not by_tenant or name in _FOR_ALL}
        for whose, first in (("tenants", "tenant_id, "), ("runs", "")):
            if wanted[whose]:
                words.append(f"CREATE INDEX IF NOT EXISTS {whose}_{name} ON runs ({first}{columns};")
            else:
                words.append(f"DROP INDEX IF EXISTS {whose}_{name};")
    waiting = "tenants_waiting ON runs (tenant_id, tag, submitted_at, status) WHERE status='PENDING';"
    words.append(f"CREATE INDEX IF NOT EXISTS {waiting}" if by_tenant else "DROP INDEX IF EXISTS tenants_waiting;")
    return "".join(words)


class IndexFile:
    """Opens the database: in the state directory if it is ours alone, else a private temporary one.

    Args:
        directory: The state directory.
        name: Part of the file's name.
        by_tenant: Whether lists are asked for by tenant.
    """

    def __init__(self, directory: Path, name: str, *, by_tenant: bool) -> None:
        self._schema = _SCHEMA + _list_indexes(by_tenant=by_tenant) + totals.SCHEMA + pace.SCHEMA + today.SCHEMA
        self._lock: IO[str] | None = None
        path = directory / "index" / f"{name}.sqlite3"
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = path.with_suffix(".lock").open("w")
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            log.info("the index is kept in a temporary file", path=str(path), reason=str(error))
            self._release()
            self.connection = _open("", self._schema)
            return
        try:
            self.connection = _open(str(path), self._schema)
        except sqlite3.DatabaseError as error:
            log.warning("the index file is broken; building it anew", path=str(path), reason=str(error))
            self.connection = self._anew(path)

    def close(self) -> None:
        """Close the database and let go of the file."""
        with contextlib.suppress(sqlite3.Error):
            self.connection.close()
        self._release()

    def _anew(self, path: Path) -> sqlite3.Connection:
        try:
            for suffix in ("", "-wal", "-shm"):
                Path(f"{path}{suffix}").unlink(missing_ok=True)
            return _open(str(path), self._schema)
        except (OSError, sqlite3.DatabaseError) as error:
            log.warning("the index file cannot be made; using a temporary one", path=str(path), reason=str(error))
            self._release()
            return _open("", self._schema)

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None


def _open(path: str, schema: str) -> sqlite3.Connection:
    # The event loop's thread is the only user; the check would only forbid tests that close from elsewhere.
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=OFF")
        connection.execute("PRAGMA temp_store=MEMORY")  # where each insertion's triggers keep their way back
        if connection.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
            raise sqlite3.DatabaseError("quick_check failed")
        if connection.execute("PRAGMA user_version").fetchone()[0] != _SCHEMA_VERSION:
            drops = [
                f"DROP TABLE IF EXISTS {table};"
                for table in ("meta", "runs", *totals.TABLES, *pace.TABLES, *today.TABLES)
            ]
            connection.executescript("".join(drops))
        connection.executescript(schema)
        connection.execute(f"PRAGMA user_version={_SCHEMA_VERSION}")
    except sqlite3.DatabaseError:
        connection.close()
        raise
    return connection
