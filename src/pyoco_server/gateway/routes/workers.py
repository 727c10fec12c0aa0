"""Workers: who is there, which of them a list shows, and the wish that one drains."""

import time
from collections.abc import Callable
from typing import Annotated, Any

import structlog
from fastapi import APIRouter, Query
from pydantic import BaseModel, Field, StrictBool

from pyoco_server.errors import InvalidInput, RevisionConflict, StoreUnavailable, WorkerGone, WorkerNotFound
from pyoco_server.gateway.access.caller import Who
from pyoco_server.gateway.audit.middleware import Noted, changes
from pyoco_server.gateway.gateway import Gateway, Here
from pyoco_server.gateway.http.answers import WRITES, refusals
from pyoco_server.gateway.http.strict_body import StrictRoute
from pyoco_server.gateway.http.words import Scope, State
from pyoco_server.gateway.index import worker_view
from pyoco_server.model.audit import AuditAction
from pyoco_server.model.tags import check_worker_id
from pyoco_server.model.text.clean import clean_text
from pyoco_server.model.worker import WorkerRecord, WorkerState
from pyoco_server.store.nats.feed import Change

log = structlog.get_logger(__name__)
router = APIRouter(tags=["workers"], route_class=StrictRoute)

_TRIES = 10
_LONGEST_REASON = 500
_DRAIN_ANSWER = {
    "worker_id", "instance_id", "started_at", "state", "draining", "drain_requested_at", "drain_reason",
    "current_run_ids",
}  # fmt: skip


class WorkerPatch(BaseModel):
    """What may be changed from outside."""

    hidden: StrictBool


class DrainRequest(BaseModel):
    """Why a worker shall drain."""

    reason: Annotated[str | None, Field(max_length=_LONGEST_REASON)] = None


@router.get("/workers", responses=refusals(StoreUnavailable))
async def list_workers(
    here: Here,
    who: Who,
    scope: Scope = "active",
    state: State = None,
    include_hidden: bool = False,
    worker_id: str | None = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> list[dict[str, Any]]:
    """List workers, last seen first."""
    index = await here.fresh_workers()
    items = index.list(
        active_only=scope == "active", state=state, include_hidden=include_hidden, limit=limit, worker_id=worker_id
    )
    return worker_view.seen(here.index, who, items)


@router.patch("/workers/{worker_id}", responses=refusals(WorkerNotFound, *WRITES))
@changes(AuditAction.WORKER_PATCH, "worker_id")
async def patch_worker(here: Here, change: Noted, worker_id: str, patch: WorkerPatch) -> dict[str, Any]:
    """Hide a worker from lists, or show it again."""
    change.details = {"hidden": patch.hidden}
    record = await _change(here, worker_id, lambda old: old.evolve(hidden=patch.hidden, updated_at=time.time()))
    return {"worker_id": worker_id, "hidden": patch.hidden, "updated_at": record.updated_at}


@router.post("/workers/{worker_id}/drain", responses=refusals(WorkerNotFound, WorkerGone, *WRITES))
@changes(AuditAction.WORKER_DRAIN, "worker_id")
async def drain_worker(
    here: Here, who: Who, change: Noted, worker_id: str, request: DrainRequest | None = None
) -> dict[str, Any]:
    """Ask a worker to take no more runs, and to stop when those that it has have ended; as SIGTERM does."""
    given = request.reason if request and request.reason else ""
    reason = " ".join(clean_text(given, _LONGEST_REASON).split()) or None
    meant: str | None = None

    def ask(record: WorkerRecord) -> WorkerRecord:
        nonlocal meant
        meant = meant or record.instance_id
        _check_there(record, here.settings.worker_disconnect_timeout_sec)
        if record.instance_id != meant:
            raise WorkerGone(
                f"worker {worker_id} was started anew in this moment", hint="Ask again if that one is meant."
            )
        asked = record.request_drain(reason)
        change.happened = asked is not record  # a second wish changes nothing
        return asked

    record = await _change(here, worker_id, ask)
    try:
        await here.control.tell_worker(worker_id)
    except StoreUnavailable as error:
        # The wish is recorded: the worker finds it with its next heartbeat.
        log.warning("a worker could not be told to drain", worker_id=worker_id, reason=error.message)
    [shown] = worker_view.seen(here.index, who, [record.model_dump(mode="json", include=_DRAIN_ANSWER)])
    return shown


async def _change(here: Gateway, worker_id: str, change: Callable[[WorkerRecord], WorkerRecord]) -> WorkerRecord:
    """Change a worker's record between two of its heartbeats.

    Args:
        change: Gives the new record; the same one if there is nothing to write.

    Raises:
        WorkerNotFound: there is no such worker.
        StoreUnavailable: NATS is away, or others write all the time.
    """
    try:
        check_worker_id(worker_id)
    except InvalidInput:
        raise WorkerNotFound("worker not found") from None
    for _ in range(_TRIES):
        stored = await here.workers.get(worker_id)
        if stored is None:
            raise WorkerNotFound("worker not found")
        record = change(stored.record)
        if record is stored.record:
            return record
        try:
            revision = await here.workers.update(record, stored.revision)
        except RevisionConflict:
            continue  # its heartbeat came in between
        here.worker_index.apply([Change(worker_id, record.to_json(), revision)])  # whoever changed it sees it
        return record
    raise StoreUnavailable(f"the record of worker {worker_id} changes too fast")


def _check_there(record: WorkerRecord, disconnect_timeout_sec: float) -> None:
    if record.existing_system:
        raise WorkerGone(
            f"worker {record.worker_id} is of the existing pyoco-server, which knows no draining",
            hint="Stop it on its machine (SIGTERM) while it has no run.",
        )
    now = time.time()
    state = record.state_at(now, disconnect_timeout_sec)
    if state is WorkerState.STOPPED_GRACEFUL:
        ago = f"{max(0.0, now - (record.stopped_at or record.last_seen_at)):.0f} s ago"
        why = f" ({record.stop_reason})" if record.stop_reason else ""
        raise WorkerGone(f"worker {record.worker_id} is {state.value}: it stopped {ago}{why}")
    if not state.is_active:
        ago = f"{max(0.0, now - record.last_seen_at):.0f} s ago"
        raise WorkerGone(f"worker {record.worker_id} is {state.value}: its last sign of life came {ago}")
