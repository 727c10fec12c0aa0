"""What a list of runs asks the index: filters, pages and counts, each bounded however many runs there are."""

import base64
import binascii
import json
import math
import sqlite3
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pyoco_server.errors import InvalidInput
from pyoco_server.gateway.totals import RunTotals

_LAST_CHARACTER = "\U0010ffff"
_FEW = 1000
"""So many runs are sorted for a page; of more the page is read in the order of the list."""
COUNTED = 20_000
"""So many of the latest runs are looked at to count what a filter lets through."""
_ORDER = "ORDER BY updated_at DESC, run_id DESC"
# The most telling first: where several are given, a count reads along the first one's index.
_EQUAL = ("rerun_of", "worker_id", "sha256", "flow_name", "tag")
_Term = tuple[str, tuple[Any, ...]]
"""A condition, and the values of its marks."""


@dataclass(frozen=True)
class RunFilter:
    """Which runs a list shows; each given field must be equal.

    Attributes:
        statuses: Any of them; all when empty.
        id_prefix: How the run's id begins.
        updated_after: Changed later than this (unix seconds).
        tenants: Whose runs, ``None`` among them for those of no tenant; not given: everybody's.
    """

    statuses: tuple[str, ...] = ()
    flow_name: str | None = None
    tag: str | None = None
    sha256: str | None = None
    worker_id: str | None = None
    rerun_of: str | None = None
    id_prefix: str | None = None
    updated_after: float | None = None
    tenants: tuple[str | None, ...] | None = None


@dataclass(frozen=True)
class RunCounts:
    """How many runs there are of each status.

    Attributes:
        by_status: Also of those that no run has.
        complete: ``False`` if there may be more, because only the latest ``COUNTED`` were looked at.
    """

    by_status: dict[str, int]
    complete: bool


class RunListing:
    """Reads lists of runs.

    Args:
        db: The index's database.
        totals: What the triggers counted.
    """

    def __init__(self, db: sqlite3.Connection, totals: RunTotals) -> None:
        self._db = db
        self._totals = totals

    def page(self, where: RunFilter, *, cursor: str | None, limit: int) -> tuple[list[dict[str, Any]], str | None]:
        """Give a page of runs, last updated first, and the cursor of the next page if there is one.

        Raises:
            InvalidInput: the cursor is not one of ours.
        """
        terms = _equal(where) + self._ranges(where)
        if cursor:
            terms.append(("(updated_at,run_id)<(?,?)", _read_cursor(cursor)))
        # A query for each: it walks an index in the list's order, where one that asks for several would sort them all.
        rows: list[tuple[float, str, str]] = []
        for owner in _tenants(where):
            for status in _statuses(where):
                part = [*owner, *status, *terms]
                query = f"SELECT updated_at, run_id, summary FROM runs {_where(part)} {_ORDER} LIMIT ?"  # noqa: S608
                rows += self._db.execute(query, [*_values(part), limit + 1]).fetchall()
        rows.sort(key=lambda row: row[:2], reverse=True)
        following = _write_cursor(*rows[limit - 1][:2]) if len(rows) > limit else None
        return [json.loads(row[2]) for row in rows[:limit]], following

    def counts(self, where: RunFilter) -> RunCounts:
        """Count the runs that a filter lets through by status; its own statuses are left out of account."""
        terms = _equal(where) + self._ranges(where)
        if not terms:
            return RunCounts(self._totals.by_status(where.tenants), complete=True)
        first, others = terms[0], terms[1:]
        lets_through = " AND ".join(text for text, _ in others) or "1"
        # With one filter alone the columns are all in its index, and no row is looked at.
        columns = f"status, {', '.join((*_EQUAL, 'run_id', 'updated_at'))}" if others else "status"
        found: Counter[str | None] = Counter()
        complete = True
        for owner in _tenants(where):
            inside = [*owner, first]
            query = (
                f"WITH latest AS MATERIALIZED (SELECT {columns} FROM runs {_where(inside)} {_ORDER} LIMIT {COUNTED}) "  # noqa: S608
                f"SELECT status, sum({lets_through}), count(*) FROM latest GROUP BY status"
            )
            rows = self._db.execute(query, _values([*inside, *others])).fetchall()
            found.update({status: passed for status, passed, _ in rows})
            complete = complete and sum(seen for _, _, seen in rows) < COUNTED
        return RunCounts(self._totals.named(found), complete)

    def items(self, run_ids: Iterable[str]) -> list[dict[str, Any]]:
        """Give the list's items of these runs, those that are there."""
        query = "SELECT summary FROM runs WHERE run_id=?"
        found = (self._db.execute(query, (run_id,)).fetchone() for run_id in run_ids)
        return [json.loads(row[0]) for row in found if row is not None]

    def _ranges(self, where: RunFilter) -> list[_Term]:
        terms: list[_Term] = []
        if where.id_prefix is not None:
            ends = (where.id_prefix, where.id_prefix + _LAST_CHARACTER)
            query = "SELECT count(*) FROM (SELECT 1 FROM runs WHERE run_id>=? AND run_id<? LIMIT ?)"
            few = self._db.execute(query, (*ends, _FEW + 1)).fetchone()[0] <= _FEW
            # A sign in front keeps SQLite from reading along the ids, which are not in the list's order.
            column = "run_id" if few else "+run_id"
            terms.append((f"{column}>=? AND {column}<?", ends))
        if where.updated_after is not None:
            terms.append(("updated_at>?", (where.updated_after,)))
        return terms


def _equal(where: RunFilter) -> list[_Term]:
    given = ((name, getattr(where, name)) for name in _EQUAL)
    return [(f"{name}=?", (value,)) for name, value in given if value is not None]


def _tenants(where: RunFilter) -> list[list[_Term]]:
    return [[]] if where.tenants is None else [[("tenant_id IS ?", (tenant,))] for tenant in where.tenants]


def _statuses(where: RunFilter) -> list[list[_Term]]:
    return [[("status=?", (status,))] for status in where.statuses] or [[]]


def _where(terms: list[_Term]) -> str:
    return f"WHERE {' AND '.join(text for text, _ in terms)}" if terms else ""


def _values(terms: list[_Term]) -> list[Any]:
    return [value for _, values in terms for value in values]


def _write_cursor(updated_at: float, run_id: str) -> str:
    raw = json.dumps({"u": updated_at, "r": run_id}, separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _read_cursor(cursor: str) -> tuple[float, str]:
    try:
        raw = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        updated_at, run_id = float(raw["u"]), raw["r"]
        if not math.isfinite(updated_at) or not isinstance(run_id, str):
            raise ValueError
        run_id.encode()  # half of a surrogate pair cannot be asked for
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError, binascii.Error):
        raise InvalidInput(
            "cursor: not a cursor of this server", hint="Pass on next_cursor of the page before, unchanged."
        ) from None
    return updated_at, run_id
