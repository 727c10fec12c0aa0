"""Workers: who is there, and which of them a list shows."""

import time
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, StrictBool

from pyoco_server.errors import InvalidInput, RevisionConflict, StoreUnavailable, WorkerNotFound
from pyoco_server.gateway import worker_view
from pyoco_server.gateway.auth import Who
from pyoco_server.gateway.state import Here
from pyoco_server.model.tags import check_worker_id
from pyoco_server.model.worker import WorkerState

router = APIRouter(tags=["workers"])

_TRIES = 10


class WorkerPatch(BaseModel):
    """What may be changed from outside."""

    hidden: StrictBool


@router.get("/workers")
async def list_workers(
    here: Here,
    who: Who,
    scope: Literal["active", "all"] = "active",
    state: WorkerState | None = None,
    include_hidden: bool = False,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> list[dict[str, Any]]:
    """List workers, last seen first."""
    index = await here.fresh_workers()
    items = index.list(active_only=scope == "active", state=state, include_hidden=include_hidden, limit=limit)
    return worker_view.seen(here.index, who, items)


@router.patch("/workers/{worker_id}")
async def patch_worker(here: Here, worker_id: str, patch: WorkerPatch) -> dict[str, Any]:
    """Hide a worker from lists, or show it again."""
    try:
        check_worker_id(worker_id)
    except InvalidInput:
        raise WorkerNotFound("worker not found") from None
    for _ in range(_TRIES):
        stored = await here.workers.get(worker_id)
        if stored is None:
            raise WorkerNotFound("worker not found")
        now = time.time()
        try:
            await here.workers.update(stored.record.evolve(hidden=patch.hidden, updated_at=now), stored.revision)
        except RevisionConflict:
            continue  # its heartbeat came in between
        return {"worker_id": worker_id, "hidden": patch.hidden, "updated_at": now}
    raise StoreUnavailable(f"the record of worker {worker_id} changes too fast")
