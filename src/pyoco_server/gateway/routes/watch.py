"""Watching a run: its snapshots as they come, over server-sent events."""

from typing import Annotated

from fastapi import APIRouter, Header, Query
from sse_starlette.sse import EventSourceResponse

from pyoco_server.gateway.routes.runs import Include, read_record, wants_records
from pyoco_server.gateway.state import Here
from pyoco_server.gateway.streams import Watch

router = APIRouter(tags=["runs"])


@router.get("/runs/{run_id}/watch")
async def watch_run(
    here: Here,
    run_id: str,
    include: Include = [],  # noqa: B006 - FastAPI copies it
    since: Annotated[float | None, Query(allow_inf_nan=False)] = None,
    timeout_sec: Annotated[int, Query(ge=1, le=600)] = 60,
    last_event_id: Annotated[str | None, Header()] = None,
) -> EventSourceResponse:
    """Stream a run's snapshots until it ends, or for ``timeout_sec`` seconds."""
    await read_record(here, run_id)  # an unknown run is a 404, not an empty stream
    seen = int(last_event_id) if last_event_id and last_event_id.isdigit() else 0
    watch = Watch(
        here, run_id, records=wants_records(include), since=since, seen_revision=seen, timeout_sec=timeout_sec
    )
    return EventSourceResponse(watch.events(), sep="\n", ping=3600, headers={"X-Accel-Buffering": "no"})
