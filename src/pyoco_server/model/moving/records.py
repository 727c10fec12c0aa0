"""The records in a store of the existing system: runs, workers, API keys."""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from pyoco_server.model.findings.finding import Finding, FindingCode, info, warning
from pyoco_server.model.record.salvage import trouble
from pyoco_server.model.run import RunStatus
from pyoco_server.model.worker import WorkerState

KEY_PREFIX = "api_keys."
"""What the existing system's keys are stored under, before their id."""
_UNDER_WAY = (RunStatus.RUNNING.value, RunStatus.CANCELLING.value)
_NAMED = 10
_LATER = "PENDING_APPROVAL"
"""A status of the existing system's 0.7: a bundle that waits for somebody's word."""


@dataclass
class Runs:
    """What was found among the records of runs.

    Args:
        statuses: How many, by status; ``unreadable`` for records that ours cannot read.
    """

    statuses: Counter[str] = field(default_factory=Counter)

    def findings(self, looked_at: int | None, of: int | None) -> list[Finding]:
        """Return what is to be told of them.

        Args:
            looked_at: How many records were read, where that is not all of them.
            of: How many records there are then.
        """
        if not self.statuses:
            return []
        counts = [f"{status} {count}" for status, count in sorted(self.statuses.items())]
        found = [info(FindingCode.RUNS_HELD, counts=counts, looked_at=looked_at, of=of)]
        if under_way := sum(self.statuses[status] for status in _UNDER_WAY):
            found.append(info(FindingCode.RUNS_UNDER_WAY, runs=under_way))
        if bad := self.statuses["unreadable"]:
            found.append(warning(FindingCode.RECORDS_UNREADABLE, runs=bad))
        if waiting := self.statuses[_LATER]:
            found.append(warning(FindingCode.APPROVALS_WAIT, runs=waiting))
        return found


def count_runs(records: Iterable[bytes]) -> Runs:
    """Count records of runs."""
    runs = Runs()
    for raw in records:
        status = _object(raw).get("status")
        if status != _LATER and trouble(raw) is not None:
            status = "unreadable"
        runs.statuses[str(status or RunStatus.PENDING.value)] += 1
    return runs


def existing_workers(records: Iterable[bytes], *, now: float, disconnect_timeout_sec: float) -> list[Finding]:
    """Return what is to be told of workers of the existing system that are alive.

    Args:
        records: The workers' records.
        now: Unix seconds.
        disconnect_timeout_sec: Silence after which a worker counts as gone.
    """
    alive: dict[str, list[str]] = {}
    for record in map(_object, records):
        if "version" in record or "worker_id" not in record:  # ours say their version
            continue
        stopped = record.get("state") == WorkerState.STOPPED_GRACEFUL.value
        seen = record.get("last_seen_at") or record.get("heartbeat_at")
        if not stopped and isinstance(seen, int | float) and now - seen <= disconnect_timeout_sec:
            tags = record.get("tags")
            alive[str(record["worker_id"])[:128]] = [str(tag) for tag in tags] if isinstance(tags, list) else []
    if not alive:
        return []
    tags = sorted({tag for each in alive.values() for tag in each})
    who = sorted(alive)[:_NAMED]
    return [warning(FindingCode.WORKERS_OF_EXISTING_SYSTEM, who=who, tags=tags[:_NAMED])]


def existing_keys(keys: Iterable[tuple[str, bytes]], *, pepper: bool, asked_for: bool, apart: bool) -> list[Finding]:
    """Return what is to be told of API keys of the existing system.

    Args:
        keys: Each key's place in the bucket, and its record.
        pepper: Whether a pepper is set here.
        asked_for: Whether keys are asked for here.
        apart: Whether ours keeps keys behind a connection of their own.
    """
    usable, revoked, unreadable = 0, 0, 0
    for place, raw in keys:
        if not place.startswith(KEY_PREFIX):
            continue
        record = _object(raw)
        if record.get("revoked_at") is not None:
            revoked += 1
        elif isinstance(record.get("hash_b64"), str) and record.get("key_id") == place[len(KEY_PREFIX) :]:
            usable += 1
        else:
            unreadable += 1
    if not usable + revoked + unreadable:
        return []
    counts = {"usable": usable, "revoked": revoked, "unreadable": unreadable or None}
    if apart:
        return [warning(FindingCode.KEYS_ELSEWHERE, **counts)]
    how = info if asked_for or not usable else warning
    mode = None if asked_for else "none"
    return [how(FindingCode.EXISTING_KEYS, **counts, pepper="set" if pepper else "not set", mode=mode)]


def _object(raw: bytes) -> dict[str, Any]:
    """Read a record; an empty one where it is none."""
    try:
        found = json.loads(raw)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
