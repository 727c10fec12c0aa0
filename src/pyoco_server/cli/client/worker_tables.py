"""Rows of the tables of workers."""

from typing import Any

WORKER_COLUMNS = [
    "worker_id", "state", "tags", "current_run_id", "host", "slots", "draining", "memory", "cpu", "gpus", "trouble",
]  # fmt: skip
PLUGIN_COLUMNS = ["worker_id", "state", "tags", "package", "version", "wheel_name", "tasks"]
_EXISTING = "of the existing pyoco-server: refuses retries, time limits, max_attempts and our additions to flow.yaml"
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
_STEP = 1024


def with_tenant(columns: list[str], rows: list[dict[str, Any]]) -> list[str]:
    """Return the columns, with the tenant's where any row has one."""
    return [*columns, "tenant_id"] if any(row.get("tenant_id") for row in rows) else columns


def worker_row(item: dict[str, Any]) -> dict[str, Any]:
    """Give a worker as a row for people; what its server or its own version does not tell is left out."""
    memory, cpu, in_use = item.get("memory_bytes"), item.get("cpu_percent"), item.get("slots_in_use")
    return {
        **item,
        "slots": item.get("slots") if in_use is None else f"{in_use}/{item.get('slots')}",
        "draining": "yes" if item.get("draining") else None,
        "memory": None if memory is None else _bytes(memory),
        "cpu": None if cpu is None else f"{cpu:.0f}%",
        "trouble": _EXISTING if item.get("existing_system") else (item.get("trouble") or {}).get("reason"),
        "gpus": "; ".join(map(_gpu, item.get("gpus") or [])) or None,
    }


def _gpu(gpu: dict[str, Any]) -> str:
    used, total, busy = gpu.get("memory_used_bytes"), gpu.get("memory_total_bytes"), gpu.get("utilization_percent")
    parts = [str(gpu.get("name") or gpu.get("index"))]
    if used is not None and total is not None:
        parts.append(f"{_bytes(used)} of {_bytes(total)}")
    if busy is not None:
        parts.append(f"{busy:.0f}%")
    return " ".join(parts)


def _bytes(count: float) -> str:
    for unit in _UNITS:
        if count < _STEP or unit == _UNITS[-1]:
            break
        count /= _STEP
    return f"{count:.0f} {unit}" if count >= 10 else f"{count:.1f} {unit}"


def plugin_rows(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Give a row for each wheel and each plug-in package that a worker has; one row for a worker without any."""
    rows = []
    for item in items:
        state = item.get("wheel_sync") or {}
        tenants = state.get("tenants") or {}
        shown = _offered(state, None) + [row for tenant, own in tenants.items() for row in _offered(own, tenant)]
        rows += [{**item, **row, "tasks": ", ".join(row["tasks"])} for row in shown or [{"tasks": []}]]
    return rows


def _offered(state: dict[str, Any], tenant: str | None) -> list[dict[str, Any]]:
    """Return a row for each wheel and plug-in package that all tenants share, or that one has for itself."""
    found: dict[Any, dict[str, Any]] = {}
    for wheel in state.get("installed_wheels") or []:
        found[wheel.get("package_name")] = {
            "package": wheel.get("package_name"),
            "version": wheel.get("package_version"),
            "wheel_name": wheel.get("wheel_name"),
            "tenant_id": tenant,
            "tasks": [],
        }
    for plugin in state.get("plugins") or []:
        empty: dict[str, Any] = {
            "package": plugin.get("package_name"),
            "version": plugin.get("package_version"),
            "tenant_id": tenant,
            "tasks": [],
        }
        offered = found.setdefault(plugin.get("package_name"), empty)
        offered["tasks"] = [*offered["tasks"], *(plugin.get("tasks") or [f"({plugin.get('error') or 'none'})"])]
    return list(found.values())
