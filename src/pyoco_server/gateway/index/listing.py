"""What a list of runs asks the index: filters, pages and counts, each bounded however many runs there are."""

import base64
import binascii
import json
import math
import sqlite3
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pyoco_server.errors import InvalidInput
from pyoco_server.gateway.index.totals import RunTotals
from pyoco_server.model.access import Tenants
from pyoco_server.model.run import RunStatus

_LAST_CHARACTER = "\U0010ffff"
_FEW = 1000
"""Of so many runs each is looked at for a page; where every filter lets more through, the page is read in the order of
the list, along an index that has all that filters ask for."""
COUNTED = 20_000
"""So many of the latest runs are looked at to count what a filter lets through."""
_ORDER = "ORDER BY updated_at DESC, run_id DESC"
_INDEXES = {
    "rerun_of": "rerun", "worker_id": "worker", "sha256": "sha256", "flow_name": "flow", "tag": "tag",
    "status": "status",
}  # fmt: skip
_EQUAL = tuple(name for name in _INDEXES if name != "status")


@dataclass(frozen=True)
class _Term:
    """A condition: on a column, if it is about one being equal; its text, and the values of its marks."""

    column: str
    text: str
    values: tuple[Any, ...]


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
    tenants: Tenants = None


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
        by_tenant: Whether the database has each tenant's runs in order, or everybody's.
    """

    def __init__(self, db: sqlite3.Connection, totals: RunTotals, *, by_tenant: bool = False) -> None:
        self._db = db
        self._totals = totals
        self._by_tenant = by_tenant

    def page(self, where: RunFilter, *, cursor: str | None, limit: int) -> tuple[list[dict[str, Any]], str | None]:
        """Give a page of runs, last updated first, and the cursor of the next page if there is one.

        Raises:
            InvalidInput: the cursor is not one of ours.
        """
        terms = _equal(where)
        ranges = _ranges(where)
        if cursor:
            ranges.append(_Term("", "(updated_at,run_id)<(?,?)", _read_cursor(cursor)))
        # A query for each: it walks an index in the list's order, where one that asks for several would sort them all.
        rows: list[tuple[float, str, str]] = []
        for owner in _tenants(where):
            index, parts = self._way(where, owner, terms)
            for part in parts:
                condition = _where([*owner, *part, *ranges])
                query = f"SELECT updated_at, run_id, summary FROM runs {index} {condition} {_ORDER} LIMIT ?"  # noqa: S608
                rows += self._db.execute(query, [*_values([*owner, *part, *ranges]), limit + 1]).fetchall()
        rows.sort(key=lambda row: row[:2], reverse=True)
        following = _write_cursor(*rows[limit - 1][:2]) if len(rows) > limit else None
        return [json.loads(row[2]) for row in rows[:limit]], following

    def _way(self, where: RunFilter, owner: list[_Term], terms: list[_Term]) -> tuple[str, list[list[_Term]]]:
        """Choose an index to walk along, and what to ask of each row: several questions where it needs them."""
        each = [[*terms, _Term("status", "status=?", (status,))] for status in where.statuses] or [terms]
        whose = self._whose(owner)
        if whose is None:
            return "", each  # not asked for in earnest: the database has been made for other questions
        if where.id_prefix is not None and self._few("runs_id", _prefix(where.id_prefix)):
            return "INDEXED BY runs_id", [_together(terms, where)]
        filters = len(terms) + bool(where.statuses) + (where.id_prefix is not None)
        if where.statuses and (filters == 1 or all(self._few(f"{whose}_status", *owner, part[-1]) for part in each)):
            return f"INDEXED BY {whose}_status", each
        for term in terms:
            if filters == 1 or self._few(f"{whose}_{_INDEXES[term.column]}", *owner, term):
                return f"INDEXED BY {whose}_{_INDEXES[term.column]}", [_together(terms, where)]
        return f"INDEXED BY {whose}_order", [_together(terms, where)]

    def _whose(self, owner: list[_Term]) -> str | None:
        if self._by_tenant:
            return "tenants" if owner else None
        return "runs"

    def _few(self, index: str, *terms: _Term) -> bool:
        query = f"SELECT count(*) FROM (SELECT 1 FROM runs INDEXED BY {index} {_where(terms)} LIMIT ?)"  # noqa: S608
        return bool(self._db.execute(query, [*_values(terms), _FEW + 1]).fetchone()[0] <= _FEW)

    def counts(self, where: RunFilter) -> RunCounts:
        """Count the runs that a filter lets through by status; its own statuses are left out of account."""
        terms = _equal(where) + _ranges(where)
        if not terms:
            return RunCounts(self._totals.by_status(where.tenants), complete=True)
        first, others = terms[0], terms[1:]
        lets_through = " AND ".join(term.text for term in others) or "1"
        # With one filter alone the columns are all in its index, and no row is looked at.
        columns = f"status, {', '.join((*_EQUAL, 'run_id', 'updated_at'))}" if others else "status"
        found: Counter[str | None] = Counter()
        complete = True
        for owner in _tenants(where):
            inside = [*owner, first]
            query = (
                f"WITH latest AS MATERIALIZED (SELECT {columns} FROM runs {self._along(owner, first, others)} "  # noqa: S608
                f"{_where(inside)} ORDER BY updated_at DESC LIMIT {COUNTED}) "
                f"SELECT status, count(CASE WHEN {lets_through} THEN 1 END), count(*) FROM latest GROUP BY status"
            )
            rows = self._db.execute(query, _values([*inside, *others])).fetchall()
            found.update({status: passed for status, passed, _ in rows})
            complete = complete and sum(seen for _, _, seen in rows) < COUNTED
        return RunCounts(self._totals.named(found), complete)

    def changed_since(self, status: str, since: float, tenants: Tenants) -> tuple[int, bool]:
        """Count the runs of a status that have changed since a moment, ``COUNTED`` of them at most.

        Args:
            status: Which one; runs of one that is final have ended then.
            since: Unix seconds.
            tenants: Whose runs, as in a filter.

        Returns:
            How many, and whether that is all of them.
        """
        found = 0
        terms = [_Term("status", "status=?", (status,)), _Term("", "updated_at>?", (since,))]
        for owner in _tenants(RunFilter(tenants=tenants)):
            index = f"INDEXED BY {self._whose(owner) or 'runs'}_status"  # that one there is in any case
            query = f"SELECT count(*) FROM (SELECT 1 FROM runs {index} {_where([*owner, *terms])} LIMIT ?)"  # noqa: S608
            found += self._db.execute(query, [*_values([*owner, *terms]), COUNTED + 1]).fetchone()[0]
        return min(found, COUNTED), found <= COUNTED

    def running(self, tenants: Tenants) -> dict[str, int]:
        """Return how many runs workers have, by tag; of the latest ``COUNTED``.

        Args:
            tenants: Whose runs, as in a filter.
        """
        found: Counter[str] = Counter()
        running = _Term("status", "status=?", (RunStatus.RUNNING.value,))
        cancelling = _Term("status", "status=?", (RunStatus.CANCELLING.value,))
        for owner in _tenants(RunFilter(tenants=tenants)):
            for term in (running, cancelling):
                query = (
                    f"SELECT tag, count(*) FROM (SELECT tag FROM runs INDEXED BY {self._whose(owner) or 'runs'}_status "  # noqa: S608
                    f"{_where([*owner, term])} LIMIT ?) WHERE tag IS NOT NULL GROUP BY tag"
                )
                found.update(dict(self._db.execute(query, [*_values([*owner, term]), COUNTED]).fetchall()))
        return dict(found)

    def _along(self, owner: list[_Term], first: _Term, others: list[_Term]) -> str:
        """Choose the index along which a count goes."""
        whose = self._whose(owner)
        if whose is None:
            return ""
        if not first.column:
            few = first.text.startswith("run_id") and self._few("runs_id", first)
            return "INDEXED BY runs_id" if few else f"INDEXED BY {whose}_order"
        own = f"{whose}_{_INDEXES[first.column]}"
        return f"INDEXED BY {own}" if not others or self._few(own, *owner, first) else f"INDEXED BY {whose}_order"

    def items(self, run_ids: Iterable[str]) -> list[dict[str, Any]]:
        """Give the list's items of these runs, those that are there."""
        query = "SELECT summary FROM runs WHERE run_id=?"
        found = (self._db.execute(query, (run_id,)).fetchone() for run_id in run_ids)
        return [json.loads(row[0]) for row in found if row is not None]


def _equal(where: RunFilter) -> list[_Term]:
    given = ((name, getattr(where, name)) for name in _EQUAL)
    return [_Term(name, f"{name}=?", (value,)) for name, value in given if value is not None]


def _ranges(where: RunFilter) -> list[_Term]:
    terms = [] if where.id_prefix is None else [_prefix(where.id_prefix)]
    if where.updated_after is not None:
        terms.append(_Term("", "updated_at>?", (where.updated_after,)))
    return terms


def _prefix(beginning: str) -> _Term:
    return _Term("", "run_id>=? AND run_id<?", (beginning, beginning + _LAST_CHARACTER))


def _tenants(where: RunFilter) -> list[list[_Term]]:
    if where.tenants is None:
        return [[]]
    return [[_Term("tenant_id", "tenant_id IS ?", (tenant,))] for tenant in where.tenants]


def _together(terms: list[_Term], where: RunFilter) -> list[_Term]:
    if not where.statuses:
        return terms
    return [*terms, _Term("status", f"status IN ({','.join('?' * len(where.statuses))})", where.statuses)]


def _where(terms: Sequence[_Term]) -> str:
    return f"WHERE {' AND '.join(term.text for term in terms)}" if terms else ""


def _values(terms: Sequence[_Term]) -> list[Any]:
    return [value for term in terms for value in term.values]


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
