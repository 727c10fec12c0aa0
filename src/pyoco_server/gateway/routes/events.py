"""What changes, as it changes: one stream for a whole page."""

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Annotated, cast

import anyio
from fastapi import APIRouter, Header
from sse_starlette.event import ServerSentEvent
from sse_starlette.sse import EventSourceResponse

from pyoco_server.errors import TooManyStreams
from pyoco_server.gateway.access.caller import Who
from pyoco_server.gateway.gateway import Gateway, Here
from pyoco_server.gateway.http.answers import EVENTS, Events, refusals
from pyoco_server.gateway.http.pagefiles import PAGE
from pyoco_server.gateway.streaming.page_events import EventFilter, EventStream

router = APIRouter(tags=["system"])

_GRACE_SEC = 2.0
_MOST_OPEN = 200


@router.get("/events", response_class=Events, responses=refusals(TooManyStreams) | EVENTS)
async def listen(
    here: Here,
    who: Who,
    run_id: str | None = None,
    flow: str | None = None,
    tag: str | None = None,
    last_event_id: Annotated[str | None, Header()] = None,
) -> EventSourceResponse:
    """Stream the list's items of runs that change, counts, and workers; goes on after ``Last-Event-ID``."""
    if here.open_events >= _MOST_OPEN:
        raise TooManyStreams(f"{_MOST_OPEN} pages listen to this gateway already")
    where = EventFilter(run_id=run_id or None, flow_name=flow or None, tag=tag or None)
    stream = EventStream(here, who, where, last_event_id or None, PAGE.digest)
    return EventSourceResponse(
        _counted(here, here.auth.while_good(who, stream.events())),
        sep="\n",
        ping=3600,
        headers={"X-Accel-Buffering": "no"},
        shutdown_event=cast(anyio.Event, here.stopping),
        shutdown_grace_period=_GRACE_SEC,
    )


async def _counted(here: Gateway, events: AsyncGenerator[ServerSentEvent, None]) -> AsyncIterator[ServerSentEvent]:
    here.open_events += 1
    try:
        async with contextlib.aclosing(events):
            async for event in events:
                yield event
    finally:
        here.open_events -= 1
