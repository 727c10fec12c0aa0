"""Stored records as readers get them. Other programs write records too: the answer is JSON all the same."""

import json
import math
from typing import Any

import pydantic_core
import structlog

from pyoco_server.model.access import Caller
from pyoco_server.model.snapshot import public
from pyoco_server.model.text import clean_json

log = structlog.get_logger(__name__)


def readable(run_id: str, raw: bytes, *, who: Caller, records: bool) -> dict[str, Any] | None:
    """Give what a reader of one run gets; ``None`` if what is stored is no record, or not for this reader.

    Args:
        run_id: The run; a record that lacks its own id gets it.
        raw: The stored form.
        who: The reader.
        records: Whether ``task_records`` are wanted.
    """
    try:
        snapshot = public(raw, records=records)
    except (ValueError, TypeError, AttributeError):  # not plain JSON, or not an object
        parsed = parse(raw)
        if parsed is None:
            log.warning("a run's record cannot be read", run_id=run_id)
            return None
        snapshot = public(pydantic_core.to_json(parsed), records=records)
    if not who.sees(snapshot.get("tenant_id")):
        return None
    snapshot["run_id"] = run_id
    return snapshot


def parse(raw: bytes) -> dict[str, Any] | None:
    """Read a JSON object, also one with lone surrogates or numbers that JSON does not know; ``None`` if it is none."""
    try:
        value = pydantic_core.from_json(raw, allow_inf_nan=False)
    except ValueError:
        try:
            value = clean_json(json.loads(raw))
        except (ValueError, RecursionError):
            return None
    return value if isinstance(value, dict) else None


def number(value: Any) -> float:
    """Give a stored number; 0 for what is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return 0.0
    try:
        found = float(value)
    except OverflowError:
        return 0.0
    return found if math.isfinite(found) else 0.0
