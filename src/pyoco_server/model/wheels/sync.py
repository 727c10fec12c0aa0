"""What a worker's record tells of its wheels, and who may know which part of it."""

from collections.abc import Callable
from typing import Any

RESULTS = {"ok": "ok", "partial": "error", "failed": "error"}
"""What ``last_result`` says of each outcome of a round: the existing system knows no others."""
_TROUBLES = ("error", "partial", "failed")
"""The last two are of workers that did not yet tell them as their ``outcome``."""


def beginning(*, enabled: bool) -> dict[str, Any]:
    """Return what is told before the first round, or without any.

    Args:
        enabled: Whether there will be one.
    """
    times = ("last_attempt_at", "last_success_at", "last_synced_at", "last_sync_at")
    counts = ("selected_count", "updated_count", "removed_count", "skipped_incompatible_count")
    lists = ("selected_wheels", "updated_wheels", "removed_wheels", "skipped_incompatible", "installed_wheels")
    return {
        "enabled": enabled,
        "last_result": "idle" if enabled else "disabled",
        "outcome": None,
        **dict.fromkeys(times),
        "last_error": None,
        **dict.fromkeys(counts, 0),
        **{name: [] for name in lists},
        "environment": None,
        "plugins": [],
    }


SHARED_FIELDS = frozenset(beginning(enabled=True))
"""What is told of the wheels that all tenants share."""
TENANTS = "tenants"
"""What is told of tenants' own wheels: by tenant, the same fields of its wheels alone."""


def is_in_trouble(sync: dict[str, Any]) -> bool:
    """Whether some wheels are not in use as they should be."""
    return sync.get("last_result") in _TROUBLES


def completed(sync: dict[str, Any]) -> dict[str, Any]:
    """Return what a worker tells with every field, also those that its version did not know."""
    return {**beginning(enabled=bool(sync.get("enabled"))), **sync}


def of_tenants(sync: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return what is told of each tenant's own wheels; a worker may write anything."""
    told = sync.get(TENANTS)
    return {name: own for name, own in told.items() if isinstance(own, dict)} if isinstance(told, dict) else {}


def seen_by(sync: dict[str, Any], sees: Callable[[str], bool]) -> dict[str, Any]:
    """Return what somebody may know of a worker's wheels: of shared ones all, of a tenant's where ``sees`` says so."""
    # A worker of a newer version may tell what we do not know to be harmless.
    shown = {name: value for name, value in sync.items() if name in SHARED_FIELDS}
    if TENANTS in sync:
        shown[TENANTS] = {name: own for name, own in of_tenants(sync).items() if sees(name)}
    return shown


def as_used_by(sync: dict[str, Any], tenant_id: object) -> dict[str, Any]:
    """Return what is told of the wheels that a tenant's runs have: shared ones, and its own before them."""
    own = of_tenants(sync).get(tenant_id) if isinstance(tenant_id, str) else None
    if own is None:
        return sync
    packages = {row.get("package_name") for row in _rows(own)}
    shared = [row for row in _rows(sync) if row.get("package_name") not in packages]
    return {
        **sync,
        "last_error": own.get("last_error") or sync.get("last_error"),
        "installed_wheels": [*_rows(own), *shared],
    }


def _rows(sync: dict[str, Any]) -> list[dict[str, Any]]:
    rows = sync.get("installed_wheels")
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
