"""Runs: one, many, their tasks, and the request to stop one."""

import asyncio
from datetime import datetime, timezone
from typing import Annotated, Any

import pydantic_core
import structlog
from fastapi import APIRouter, Depends, Query, Response
from pydantic import BaseModel, Field

from pyoco_server.errors import PyocoError, RunNotFound, StoreUnavailable
from pyoco_server.gateway.access.caller import Who
from pyoco_server.gateway.audit.middleware import Noted, changes
from pyoco_server.gateway.gateway import Gateway, Here
from pyoco_server.gateway.http.answers import WRITES, refusals
from pyoco_server.gateway.http.strict_body import StrictRoute
from pyoco_server.gateway.http.words import Include, read_include, read_statuses
from pyoco_server.gateway.index.json_fields import number, readable, whole
from pyoco_server.gateway.index.listing import RunFilter
from pyoco_server.gateway.submitting.cancelling import Cancelling
from pyoco_server.model.access import Caller
from pyoco_server.model.audit import AuditAction
from pyoco_server.model.record.snapshot import public
from pyoco_server.model.record.stored_form import stored_form
from pyoco_server.model.run import RunRecord, RunStatus, is_run_id
from pyoco_server.store.nats import deadline

log = structlog.get_logger(__name__)
router = APIRouter(tags=["runs"], route_class=StrictRoute)

_WHOLE = {"full", "all"}
_PAGES_TO_SEARCH = 8
_CLOCKS_APART_SEC = 2.0


class CancelRequest(BaseModel):
    """Why a run is cancelled."""

    reason: Annotated[str | None, Field(max_length=500)] = None


def _filter(
    who: Who,
    status: Annotated[str | None, Query(max_length=500)] = None,
    flow: str | None = None,
    tag: str | None = None,
    workflow_yaml_sha256: str | None = None,
    worker: str | None = None,
    rerun_of: str | None = None,
    id: Annotated[str | None, Query(max_length=128)] = None,
    updated_after: Annotated[float | None, Query(allow_inf_nan=False)] = None,
) -> RunFilter:
    return RunFilter(
        statuses=read_statuses(status),
        flow_name=flow or None,
        tag=tag or None,
        sha256=workflow_yaml_sha256 or None,
        worker_id=worker or None,
        rerun_of=rerun_of or None,
        id_prefix=id or None,
        updated_after=updated_after,
        tenants=who.tenants,
    )


Where = Annotated[RunFilter, Depends(_filter)]


@router.get("/runs", responses=refusals(StoreUnavailable))
async def list_runs(
    here: Here,
    who: Who,
    where: Where,
    cursor: str | None = None,
    include: Include = [],  # noqa: B006 - FastAPI copies it
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> Any:
    """List runs, last updated first; with a cursor, ``updated_after`` or a hash as a page with ``next_cursor``."""
    wanted = read_include(include)
    index = await here.fresh_index()
    items, following = index.listing.page(where, cursor=cursor, limit=limit)
    # Written here, an item at a time: FastAPI's own way takes a second of the event loop for whole records.
    written = await _whole(here, who, items) if wanted & _WHOLE else [_json(item) for item in items]
    body = b"[%b]" % b",".join(written)
    if where.updated_after is not None or cursor is not None or where.sha256:
        body = b'{"items":%b,"next_cursor":%b}' % (body, _json(following))
    return Response(body, media_type="application/json")


@router.get("/runs/counts", responses=refusals(StoreUnavailable))
async def count_runs(here: Here, where: Where) -> dict[str, Any]:
    """Count runs by status, of those that the filters of a list let through; ``status`` itself does not matter."""
    index = await here.fresh_index()
    found = index.listing.counts(where)
    return {"counts": found.by_status, "complete": found.complete}


@router.get("/runs/{run_id}", responses=refusals(RunNotFound, StoreUnavailable))
async def get_run(
    here: Here,
    who: Who,
    run_id: str,
    include: Include = [],  # noqa: B006 - FastAPI copies it
) -> dict[str, Any]:
    """Give a run's snapshot, read from its record: a client sees its own write."""
    return with_worker(here, await read_snapshot(here, who, run_id, records=wants_records(include)))


@router.get("/runs/{run_id}/tasks", responses=refusals(RunNotFound, StoreUnavailable))
async def get_tasks(here: Here, who: Who, run_id: str) -> dict[str, Any]:
    """Give a run's tasks with their inputs, outputs and errors."""
    snapshot = await read_snapshot(here, who, run_id, records=True)
    return {
        "run_id": run_id,
        "flow_name": snapshot.get("flow_name"),
        "status": snapshot.get("status"),
        "tasks": snapshot.get("tasks") or {},
        "task_records": snapshot.get("task_records") or {},
        "task_records_truncated": bool(snapshot.get("task_records_truncated")),
        "skipped_tasks": snapshot.get("skipped_tasks") or [],
    }


@router.post("/runs/{run_id}/cancel", responses=refusals(RunNotFound, *WRITES))
@changes(AuditAction.RUN_CANCEL, "run_id")
async def cancel(
    here: Here, who: Who, change: Noted, run_id: str, request: CancelRequest | None = None
) -> dict[str, Any]:
    """Ask a run to stop: a waiting one is CANCELLED at once, a running one CANCELLING until its worker stopped it."""
    job_seq = here.index.jobs.seq_of(_checked(run_id))  # before the change: afterwards nobody knows it
    cancelling = Cancelling(here, who, run_id, request.reason if request else None)
    with deadline.within(deadline.ANSWER_SEC):
        stored = await cancelling.record()
    if stored is None:
        raise missing(here, who, run_id)
    change.happened = cancelling.happened
    change.tenant_id = stored.record.tenant_id
    if stored.record.status in (RunStatus.COMPLETED, RunStatus.FAILED):
        log.info("a cancel came after the end of the run", run_id=run_id, status=stored.record.status.value)
    try:
        if stored.record.status is RunStatus.CANCELLING or cancelling.was_unreadable:
            here.insistence.see_to(stored.record)
            await here.control.tell(run_id)
        elif stored.record.status is RunStatus.CANCELLED and stored.record.start_time is None:
            await _remove_job(here, stored.record, job_seq or stored.record.job_seq)
    except StoreUnavailable as error:
        # The cancel is recorded: the worker sees it with its next write, or drops the job when it gets it.
        log.warning("a cancel could not be told", run_id=run_id, reason=error.message)
    answer = whole(run_id, stored_form(stored.record, here.runs.max_bytes), here.index.last_known)
    return public(answer, records=False)


async def _remove_job(here: Gateway, record: RunRecord, job_seq: int | None) -> None:
    """Take the job of a run that will not begin off the queue, where it is found soon."""
    submitted_at = record.submitted_at or record.heartbeat_at  # another program's record has only the second one
    if job_seq is None and submitted_at:
        began = datetime.fromtimestamp(submitted_at - _CLOCKS_APART_SEC, timezone.utc)
        job = await here.jobs.find(record.run_id, record.tag, began, pages=_PAGES_TO_SEARCH)
        job_seq = job.seq if job else None
    if job_seq is not None:
        await here.jobs.remove(job_seq, record.run_id)


async def read_record(here: Gateway, run_id: str) -> tuple[bytes, int]:
    """Read a run's stored form and revision, whosever it is.

    Raises:
        RunNotFound: there is no such run, or it cannot be an id of one.
    """
    found = await here.runs.get_raw(_checked(run_id))
    if found is None:
        raise RunNotFound
    return found


def missing(here: Gateway, who: Caller, run_id: str) -> PyocoError:
    """Give what to say of a run that NATS does not find: of several servers one may not have heard of it yet."""
    if here.runs.may_be_late:
        known = here.index.tenants_of([run_id])
        if run_id in known and who.sees(known[run_id]):
            return StoreUnavailable(f"run {run_id} is known, and NATS does not find it at the moment")
    return RunNotFound()


async def read_snapshot(here: Gateway, who: Caller, run_id: str, *, records: bool) -> dict[str, Any]:
    """Read a run as its readers get it.

    Raises:
        RunNotFound: there is no such run (for this caller).
        StoreUnavailable: NATS is away, or contradicts what is known.
    """
    try:
        raw, _ = await read_record(here, run_id)
    except RunNotFound:
        raise missing(here, who, run_id) from None
    snapshot = readable(run_id, raw, who=who, records=records, last_known=here.index.last_known)
    if snapshot is None:
        raise RunNotFound
    return snapshot


def with_worker(here: Gateway, snapshot: dict[str, Any]) -> dict[str, Any]:
    """Add what is known of the run's worker; its heartbeat is the run's too."""
    worker_id = snapshot.get("worker_id")
    record = here.worker_index.get(worker_id) if isinstance(worker_id, str) else None
    if record is None:
        # Gone for good, or not known: nobody has the run yet, or the workers have not all been read.
        gone = bool(worker_id) and here.worker_feed.caught_up.is_set()
        return {
            **snapshot,
            "worker_alive": False if gone else None,
            "worker_state": "DISCONNECTED" if gone else None,
            "worker_heartbeat_at": None,
            "worker_hidden": None,
            "worker_tags": None,
        }
    state = here.worker_index.state(record)
    running = snapshot.get("status") in ("RUNNING", "CANCELLING") and snapshot["run_id"] in record.current_run_ids
    if running and state.is_active:
        snapshot["heartbeat_at"] = max(number(snapshot.get("heartbeat_at")), record.last_heartbeat_at)
    return {
        **snapshot,
        "worker_alive": state.is_active,
        "worker_state": state.value,
        "worker_heartbeat_at": record.last_heartbeat_at,
        "worker_hidden": record.hidden,
        "worker_tags": record.tags,
    }


def wants_records(include: list[str]) -> bool:
    """Whether ``include`` asks for task records; every word that there is does."""
    return bool(read_include(include))


async def _whole(here: Gateway, who: Caller, items: list[dict[str, Any]]) -> list[bytes]:
    found = await asyncio.gather(*(here.runs.get_raw(item["run_id"]) for item in items))
    written = []
    for item, entry in zip(items, found, strict=True):
        if entry is not None:
            run_id, known = item["run_id"], here.index.last_known
            written.append(_json(readable(run_id, entry[0], who=who, records=True, last_known=known) or item))
            await asyncio.sleep(0)  # others get their turn
    return written


def _json(value: Any) -> bytes:
    return pydantic_core.to_json(value, inf_nan_mode="null")


def _checked(run_id: str) -> str:
    """Return the id if it may become a subject."""
    if not is_run_id(run_id):
        raise RunNotFound
    return run_id
