"""Workers as a caller may see them: all tenants share them, but not what each of them runs and has of wheels."""

from collections.abc import Sequence
from typing import Any

from pyoco_server.gateway.index.run_index import RunIndex
from pyoco_server.gateway.wheels.scope import sees_wheels_of
from pyoco_server.model.access import Caller
from pyoco_server.model.wheels.sync import seen_by
from pyoco_server.model.worker import WorkerRecord

_LAST_RUN = ("last_run_id", "last_run_status", "last_run_started_at", "last_run_finished_at")
_KNOWN = frozenset(WorkerRecord.model_fields)


def seen(index: RunIndex, who: Caller, items: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return workers without the runs and wheels that are others', and without those runs that the index does not know.

    Args:
        index: Knows the runs' tenants.
        who: The caller.
        items: Workers' records, or parts of them, as plain data.
    """
    if who.tenants is None:
        return list(items)
    named = [run_id for item in items for run_id in (item.get("last_run_id"), *item.get("current_run_ids", ()))]
    tenants = index.tenants_of(run_id for run_id in named if run_id)
    own = {run_id for run_id, tenant_id in tenants.items() if who.sees(tenant_id)}
    return [_veiled(item, own, who) for item in items]


def _veiled(item: dict[str, Any], own: set[str], who: Caller) -> dict[str, Any]:
    # A worker of a newer version may tell what we do not know to be harmless.
    shown = {name: value for name, value in item.items() if name in _KNOWN}
    if isinstance(shown.get("wheel_sync"), dict):
        shown["wheel_sync"] = seen_by(shown["wheel_sync"], lambda tenant_id: sees_wheels_of(who, tenant_id))
    if "current_run_ids" in shown:
        shown["current_run_ids"] = [run_id for run_id in shown["current_run_ids"] if run_id in own]
    if "current_run_id" in shown:
        shown["current_run_id"] = next(iter(shown.get("current_run_ids", ())), None)
    if shown.get("last_run_id") not in own:
        shown.update((name, None) for name in _LAST_RUN if name in shown)
    return shown
