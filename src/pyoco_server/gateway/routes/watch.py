"""Watching a run: its snapshots as they come, over server-sent events."""

import re
from typing import Annotated, cast

import anyio
from fastapi import APIRouter, Header, Query
from sse_starlette.sse import EventSourceResponse

from pyoco_server.errors import RunNotFound, StoreUnavailable
from pyoco_server.gateway.access.caller import Who
from pyoco_server.gateway.gateway import Here
from pyoco_server.gateway.http.answers import EVENTS, Events, refusals
from pyoco_server.gateway.http.words import Include
from pyoco_server.gateway.routes.runs import read_snapshot, wants_records
from pyoco_server.gateway.streaming.run_watch import Watch

router = APIRouter(tags=["runs"])

_GRACE_SEC = 2.0
_REVISION = re.compile(r"[0-9]{1,19}")


@router.get("/runs/{run_id}/watch", response_class=Events, responses=refusals(RunNotFound, StoreUnavailable) | EVENTS)
async def watch_run(
    here: Here,
    who: Who,
    run_id: str,
    include: Include = [],  # noqa: B006 - FastAPI copies it
    since: Annotated[float | None, Query(allow_inf_nan=False)] = None,
    timeout_sec: Annotated[int, Query(ge=1, le=600)] = 60,
    last_event_id: Annotated[str | None, Header()] = None,
) -> EventSourceResponse:
    """Stream a run's snapshots until it ends, or for ``timeout_sec`` seconds."""
    await read_snapshot(here, who, run_id, records=False)  # an unknown run is a 404, not an empty stream
    seen = int(last_event_id) if last_event_id and _REVISION.fullmatch(last_event_id) else 0
    watch = Watch(
        here, who, run_id, records=wants_records(include), since=since, seen_revision=seen, timeout_sec=timeout_sec
    )
    return EventSourceResponse(
        here.auth.while_good(who, watch.events()),
        sep="\n",
        ping=3600,
        headers={"X-Accel-Buffering": "no"},
        # When uvicorn is told to stop, this is set and watches end by themselves instead of being cut off.
        shutdown_event=cast(anyio.Event, here.stopping),
        shutdown_grace_period=_GRACE_SEC,
    )
