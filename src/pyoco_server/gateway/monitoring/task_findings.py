"""How well tasks are kept from the processes and files around them, where keys say that not all are trusted alike."""

from collections.abc import Iterable

from pyoco_server.model.findings.finding import Finding, FindingCode, info, warning
from pyoco_server.model.worker import WorkerRecord

_MOST = 20


def tasks_apart(live: Iterable[WorkerRecord], *, keys: bool) -> list[Finding]:
    """Return a finding for each kind of workers whose tasks reach more than they should.

    Args:
        live: The workers that are there.
        keys: Whether the gateway asks for keys. Without them whoever reaches it may do everything anyhow.
    """
    if not keys:
        return []
    workers = sorted(live, key=lambda record: record.worker_id)
    return [finding for record in workers for finding in _of_worker(record)][:_MOST]


def _of_worker(record: WorkerRecord) -> list[Finding]:
    values = {"worker_id": record.worker_id, "host": record.host}
    run = record.tasks_run
    findings = []
    if run is None or run.confinement == "off":  # of a version that knows no confinement, perhaps
        findings.append(warning(FindingCode.TASKS_UNCONFINED, **values))
    elif run.missing:
        findings.append(warning(FindingCode.TASKS_HALF_CONFINED, **values, reason=run.missing))
    if run is not None and run.root:
        findings.append(warning(FindingCode.TASKS_AS_ROOT, **values))
    elif run is not None and not run.own_user:
        findings.append(info(FindingCode.TASKS_AS_WORKER, **values, user=run.user))
    return findings
