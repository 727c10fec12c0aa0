"""What a worker's record tells of its wheels, and who may know which part of it."""

from collections.abc import Callable
from typing import Any

SHARED_FIELDS = frozenset(
    {
        "enabled", "last_sync_at", "last_result", "last_error", "environment", "installed_wheels", "selected_wheels",
        "skipped_incompatible", "plugins",
    }
)  # fmt: skip
"""What is told of the wheels that all tenants share."""
TENANTS = "tenants"
"""What is told of tenants' own wheels: by tenant, the same fields of its wheels alone."""


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
