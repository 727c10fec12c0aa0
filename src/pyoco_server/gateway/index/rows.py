"""A run's row in the index."""

import time
from typing import Any, NamedTuple

import pydantic_core

from pyoco_server.gateway.index.hourly_stats import classes
from pyoco_server.gateway.index.json_fields import LastKnown, number, whole
from pyoco_server.model.access import tenant_of
from pyoco_server.model.record.snapshot import summary
from pyoco_server.store.nats.feed import Change


class RunRow(NamedTuple):
    """What the index keeps of a run, in the order of its table's columns.

    ``summary`` is the run's item of a list, as JSON. ``minute``, ``wait_class`` and ``run_class`` are what the
    statistics of the last hour count. The table has one more column, ``job_seq``, which the job ledger keeps.
    """

    run_id: str
    revision: int
    updated_at: float
    status: str | None
    flow_name: str | None
    tag: str | None
    tenant_id: str | None
    sha256: str | None
    summary: str
    submitted_at: float
    seen_at: float
    worker_id: str | None
    rerun_of: str | None
    stored_at: float
    minute: int | None
    wait_class: int | None
    run_class: int | None
    unreadable: bool


_NEW = [f"{name}=excluded.{name}" for name in RunRow._fields if name != "run_id"]
UPSERT = (
    f"INSERT INTO runs ({','.join(RunRow._fields)}) VALUES ({','.join('?' * len(RunRow._fields))}) "  # noqa: S608
    f"ON CONFLICT (run_id) DO UPDATE SET {','.join(_NEW)},job_seq=NULL WHERE excluded.revision > runs.revision"
)
"""Stores a row, unless a newer one of the run is there. A changed run has no job that is known of."""


def row_of(change: Change, last_known: LastKnown) -> RunRow:
    """Return the row of a record.

    Other programs write records too: what is missing or odd in one is left empty.

    Args:
        change: The record, as it is stored.
        last_known: Returns what is known of a run whose record cannot be read.
    """
    snapshot = whole(change.key, change.value or b"", last_known)
    updated_at, now = number(snapshot.get("updated_at")), time.time()
    shown = {**summary(snapshot), "updated_at": updated_at}
    minute, wait_class, run_class = classes(snapshot, now)
    return RunRow(
        run_id=change.key,
        revision=change.revision,
        updated_at=updated_at,
        status=_text(shown["status"]),
        flow_name=_text(shown["flow_name"]),
        tag=_text(shown["tag"]),
        tenant_id=tenant_of(shown["tenant_id"]),
        sha256=_text(shown["workflow_yaml_sha256"]),
        summary=pydantic_core.to_json(shown).decode(),
        submitted_at=number(snapshot.get("submitted_at")),
        seen_at=now,
        worker_id=_text(shown["worker_id"]),
        rerun_of=_text(shown["rerun_of"]),
        stored_at=change.stored_at or now,
        minute=minute,
        wait_class=wait_class,
        run_class=run_class,
        unreadable=snapshot["unreadable"] is not None,
    )


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
