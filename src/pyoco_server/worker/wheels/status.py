"""What a worker's record tells of its wheels after a round: the existing system's fields, and ours beside them."""

import time
from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any

from pyoco_server.model.wheels.sync import RESULTS
from pyoco_server.model.wheels.wheel import Selection, WheelEntry
from pyoco_server.worker.wheels.environments import Environment

SHOWN = 200
"""Entries of each list in the worker's record, which is written with every heartbeat."""
_NO_NEWS = {
    "last_sync_at", "last_attempt_at", "last_success_at", "last_synced_at", "updated_wheels", "removed_wheels",
    "updated_count", "removed_count",
}  # fmt: skip
"""What changes with every round; a change of the wheels shows in the others too."""


class LeftOutCode(str, Enum):
    """Why a wheel is not used, beside the codes of ``model.wheel.select``."""

    BROKEN = "broken"
    WORKER_HAS_IT = "worker_has_it"


def row_of(entry: WheelEntry, reason: str, text: str) -> dict[str, Any]:
    """Return what is told of a wheel that is left out.

    Args:
        entry: The wheel.
        reason: A code.
        text: The same in a sentence.
    """
    return {
        "wheel_name": entry.name,
        "package_name": entry.package,
        "package_version": entry.version,
        "reason": reason,
        "text": text,
    }


def of_selection(selection: Selection, left_out: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Return what is told of what was selected.

    Args:
        selection: What was.
        left_out: The wheels that are left out for other reasons than the selection's.
    """
    skipped = [*left_out, *(row_of(item.entry, item.code, item.reason) for item in selection.skipped_incompatible)]
    return {
        "selected_wheels": [entry.name for entry in selection.chosen][:SHOWN],
        "selected_count": len(selection.chosen),
        "skipped_incompatible": skipped[:SHOWN],
        "skipped_incompatible_count": len(skipped),
    }


def of_environment(
    before: Mapping[str, Any],
    environment: Environment | None,
    *,
    outcome: str,
    nuids: Mapping[str, str],
    attempted_at: float | None,
) -> dict[str, Any]:
    """Return what is told of what is in use now.

    Args:
        before: What was told last.
        environment: What is in use.
        outcome: Of the round: ``ok``, ``partial`` or ``failed``.
        nuids: The registry's ids of the wheels' bytes, by hash.
        attempted_at: When the round began (unix seconds).
    """
    now = time.time()
    good = outcome == "ok"
    known = {(row.get("wheel_name"), row.get("nuid")): row.get("installed_at") for row in before["installed_wheels"]}
    built_at = _built_at(environment) or now
    installed = []
    for wheel in environment.wheels if environment else []:
        name, nuid = wheel["wheel_name"], nuids.get(wheel["sha256"])
        shown = {key: wheel[key] for key in ("package_name", "package_version", "wheel_name")}
        installed.append({**shown, "installed_at": known.get((name, nuid)) or built_at, "nuid": nuid})
    return {
        "last_attempt_at": attempted_at,
        "last_sync_at": now,
        "last_success_at": now if good else before["last_success_at"],
        "last_synced_at": now if good else before["last_synced_at"],
        "last_result": RESULTS[outcome],
        "outcome": outcome,
        "environment": environment.digest if environment else None,
        "installed_wheels": installed[:SHOWN],
        **_changed(before, installed, attempted_at),
    }


def _changed(before: Mapping[str, Any], installed: list[dict[str, Any]], attempted_at: float | None) -> dict[str, Any]:
    """Return which wheels this round brought and took away; what is told twice of one round adds up."""
    same_round = before["last_attempt_at"] == attempted_at
    had = {(row["wheel_name"], row["nuid"]) for row in before["installed_wheels"]}
    has = {(row["wheel_name"], row["nuid"]) for row in installed}
    told: dict[str, Any] = {}
    for name, changed in (("updated", has - had), ("removed", had - has)):
        names = {wheel_name for wheel_name, _ in changed}
        if name == "removed":
            names -= {wheel_name for wheel_name, _ in has}
        if same_round:
            names |= set(before[f"{name}_wheels"])
        told |= {f"{name}_wheels": sorted(names)[:SHOWN], f"{name}_count": len(names)}
    return told


def is_news(status: Mapping[str, Any], before: Mapping[str, Any]) -> bool:
    """Whether more has changed than the time."""
    return any(status[name] != before.get(name) for name in status if name not in _NO_NEWS)


def _built_at(environment: Environment | None) -> float | None:
    try:
        return environment.directory.stat().st_mtime if environment else None
    except OSError:  # somebody has removed it: the next round sees that
        return None
