"""What is wrong with tenants' own wheels on the workers, as far as somebody may know of it."""

from pyoco_server.gateway.index.worker_index import WorkerIndex
from pyoco_server.gateway.wheels.scope import sees_wheels_of
from pyoco_server.model.access import Caller
from pyoco_server.model.findings.finding import Finding, FindingCode, warning
from pyoco_server.model.wheels.sync import is_in_trouble, of_tenants

_MOST = 20


def find_wheel_troubles(index: WorkerIndex, who: Caller) -> list[Finding]:
    """Return a finding for each worker that leaves out wheels of a tenant that the caller sees."""
    return [
        warning(
            FindingCode.WORKER_WHEELS, worker_id=record.worker_id, tenant=tenant_id,
            reason=own.get("last_error") or own["last_result"],
        )
        for record, state in index.states()
        if state.is_active and not record.hidden
        for tenant_id, own in of_tenants(record.wheel_sync).items()
        if is_in_trouble(own) and sees_wheels_of(who, tenant_id)
    ][:_MOST]  # fmt: skip
