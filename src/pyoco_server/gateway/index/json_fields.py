"""Stored records as readers get them. Other programs write records too: the answer is JSON all the same."""

import math
from collections.abc import Callable
from typing import Any

import pydantic_core

from pyoco_server.gateway.index.completing import completed, is_of_existing_system
from pyoco_server.model.access import Caller, tenant_of
from pyoco_server.model.record.salvage import Salvage, parse, salvage
from pyoco_server.model.record.snapshot import SUMMARY_FIELDS, public
from pyoco_server.model.record.stored_form import stored_form
from pyoco_server.model.run import RunRecord

__all__ = ["number", "parse", "readable", "tenant_of_unreadable", "whole"]

LastKnown = Callable[[str], dict[str, Any]]
_FROM_OTHERS = set(SUMMARY_FIELDS) - {"error", "end_reason", "unreadable"}
"""What does not change while a run lives, or is better old than missing."""
_GUESSED = {"status", "flow_name", "tag"}
"""What a new record has, and one that cannot be read need not have had."""
_SIZE = 8 * 1024 * 1024


def readable(
    run_id: str, raw: bytes, *, who: Caller, records: bool, last_known: LastKnown = lambda _run_id: {}
) -> dict[str, Any] | None:
    """Return what a reader of one run gets; ``None`` if it is not for this reader.

    Args:
        run_id: The run; a record that lacks its own id gets it.
        raw: The stored form. If it cannot be read, ``unreadable`` says why, and what can be read is given.
        who: The reader.
        records: Whether ``task_records`` are wanted.
        last_known: Gives a list's item of a run as it was before its record could not be read any more.
    """
    snapshot = public(whole(run_id, raw, last_known), records=records)
    return snapshot if who.sees(snapshot.get("tenant_id")) else None


def whole(run_id: str, raw: bytes, last_known: LastKnown) -> dict[str, Any]:
    """Return a stored record as JSON data, in any case with ``run_id`` and ``unreadable``.

    Args:
        run_id: The run.
        raw: The stored form.
        last_known: As in ``readable``.
    """
    found = salvage(run_id, raw)
    if found is None:
        try:
            snapshot: dict[str, Any] = pydantic_core.from_json(raw, allow_inf_nan=False)
        except ValueError:  # numbers that JSON does not know
            snapshot = pydantic_core.from_json(stored_form(RunRecord.from_json(raw), max(_SIZE, 2 * len(raw))))
        if is_of_existing_system(snapshot):
            snapshot = completed(snapshot, last_known(run_id))
        return {**snapshot, "run_id": run_id, "unreadable": None}
    known = {} if found.intact else last_known(run_id)
    snapshot = pydantic_core.from_json(stored_form(found.record, max(_SIZE, 2 * len(raw))))
    for name in _GUESSED - found.known:
        snapshot[name] = None
    snapshot["status"] = found.status
    for name in _FROM_OTHERS:
        if name not in found.known and known.get(name) is not None:
            snapshot[name] = known[name]
    return {**snapshot, "tenant_id": tenant_of_unreadable(found, known), "unreadable": found.why}


def tenant_of_unreadable(found: Salvage, known: dict[str, Any]) -> str | None:
    """Return whose a run is whose record cannot be read; ``None``: nobody's, as far as is known.

    Args:
        found: What could be read of it.
        known: What was known of the run before. It goes first: damage may make a text look like a field.
    """
    of_before = None if found.intact else tenant_of(known.get("tenant_id"))
    return of_before or tenant_of(found.record.tenant_id)


def number(value: Any) -> float:
    """Give a stored number; 0 for what is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return 0.0
    try:
        found = float(value)
    except OverflowError:
        return 0.0
    return found if math.isfinite(found) else 0.0
