"""The stored form of a record: no larger than is kept, and such that everybody who reads records can read it."""

import math
from typing import Any

import pydantic_core

from pyoco_server.model.record.salvage import mend, trouble
from pyoco_server.model.record.snapshot import fit
from pyoco_server.model.run import RunRecord
from pyoco_server.model.text.clean import clean_text
from pyoco_server.model.values import clean_value

_LEVELS_LEFT = 16
"""Levels of nesting that answers and messages may put around a record."""
_SURELY = 100
"""A text with no more brackets than this cannot nest too deeply."""
_KEY = 200


def stored_form(record: RunRecord, max_bytes: int) -> bytes:
    """Return the JSON of a record.

    Whoever made the record may have taken anything into it: another program's params, what a task sent. What no reader
    could read back is replaced by a preview that says so, and ``task_records_truncated`` is set.

    Args:
        record: The record.
        max_bytes: How much is kept; outputs go first.
    """
    try:
        raw = fit(record, max_bytes).to_json()
        if _is_readable(raw):
            return raw
    except (ValueError, RecursionError):  # too deep to be written, or half a character
        pass
    return fit(_plain(record, max_bytes), max_bytes).to_json()


def _is_readable(raw: bytes) -> bool:
    if raw.count(b"[") + raw.count(b"{") > _SURELY:
        try:
            pydantic_core.from_json(b"[" * _LEVELS_LEFT + raw + b"]" * _LEVELS_LEFT)
        except ValueError:
            return False
    return trouble(raw) is None


def _plain(record: RunRecord, max_bytes: int) -> RunRecord:
    changes: dict[str, Any] = {
        "params": {_key(name): clean_value(value, max_bytes) for name, value in record.params.items()},
        "tasks": {_key(name): state for name, state in record.tasks.items()},
        "task_records": {
            _key(name): {_key(field): clean_value(value, max_bytes) for field, value in task.items()}
            for name, task in record.task_records.items()
            if isinstance(task, dict)
        },
        "task_records_truncated": True,
    }
    for name, value in record:
        if isinstance(value, str) and not hasattr(value, "value"):  # an Enum's texts are ours
            changes[name] = clean_text(value)
        elif isinstance(value, float) and not math.isfinite(value):
            changes[name] = None
        elif name not in RunRecord.model_fields or name == "tags":
            changes[name] = clean_value(value, max_bytes)
    return mend(record.model_copy(update=changes))


def _key(name: Any) -> str:
    return clean_text(str(name), _KEY)
