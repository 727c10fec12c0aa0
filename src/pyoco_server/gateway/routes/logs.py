"""The log of a run: as one answer, or followed over server-sent events."""

import contextlib
import re
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Annotated, Any, TypeVar, cast

import anyio
import pydantic_core
from fastapi import APIRouter, Header, Query
from fastapi.responses import Response, StreamingResponse
from sse_starlette.sse import EventSourceResponse

from pyoco_server.errors import RunNotFound, StoreUnavailable, TooManyStreams
from pyoco_server.gateway.access.caller import Who
from pyoco_server.gateway.gateway import Gateway, Here
from pyoco_server.gateway.http.answers import EVENTS, refusals
from pyoco_server.gateway.http.words import Stream
from pyoco_server.gateway.routes.runs import read_snapshot
from pyoco_server.gateway.streaming.log_follower import LogFollower
from pyoco_server.gateway.streaming.log_reader import Lines, LogReader

router = APIRouter(tags=["runs"])

_GRACE_SEC = 2.0
_POSITION = re.compile(r"[0-9]{1,18}")
_LARGEST_TAIL = 10_000
_MOST_OPEN = 500
_Part = TypeVar("_Part")


@router.get(
    "/runs/{run_id}/logs",
    responses=refusals(RunNotFound, TooManyStreams, StoreUnavailable) | EVENTS,
    response_model=None,
)
async def get_logs(
    here: Here,
    who: Who,
    run_id: str,
    follow: bool = False,
    tail: Annotated[int | None, Query(ge=0, le=_LARGEST_TAIL)] = None,
    task: str | None = None,
    stream: Stream = None,
    last_event_id: Annotated[str | None, Header()] = None,
) -> Response:
    """Return what the run's tasks printed: all of it or the last ``tail`` lines; with ``follow`` also what comes."""
    snapshot = await read_snapshot(here, who, run_id, records=False)
    resumed = bool(last_event_id and _POSITION.fullmatch(last_event_id))
    seen = int(last_event_id or 0) if resumed else 0
    reader = LogReader(here, run_id, task=task or None, stream=stream, position=seen)
    if here.open_logs >= _MOST_OPEN:
        raise TooManyStreams(f"this gateway sends {_MOST_OPEN} logs already")
    if not follow:
        # Read before the answer begins, so that an absence of NATS has an answer of its own.
        first = await (reader.next() if tail is None else reader.tail(tail))
        head = {"run_id": run_id, "status": snapshot.get("status")}
        body = _body(reader, head, first, tail)
        return StreamingResponse(_counted(here, body), media_type="application/json")
    follower = LogFollower(here, who, run_id, reader, None if resumed else tail)
    return EventSourceResponse(
        _counted(here, here.auth.while_good(who, follower.events())),
        sep="\n",
        ping=3600,
        headers={"X-Accel-Buffering": "no"},
        shutdown_event=cast(anyio.Event, here.stopping),
        shutdown_grace_period=_GRACE_SEC,
    )


async def _counted(here: Gateway, parts: AsyncGenerator[_Part, None]) -> AsyncIterator[_Part]:
    here.open_logs += 1
    try:
        async with contextlib.aclosing(parts):
            async for part in parts:
                yield part
    finally:
        here.open_logs -= 1


async def _body(
    reader: LogReader, head: dict[str, Any], lines: Lines | None, tail: int | None
) -> AsyncGenerator[bytes, None]:
    """Write the answer page by page, so that a large log takes little memory.

    An error on the way breaks the connection: the answer is then no JSON, never a log that only looks whole.
    """
    yield pydantic_core.to_json(head)[:-1] + b',"lines":['
    separator = b""
    more = True
    while more:
        if lines is None or tail is not None:
            more = False
            lines = [*(lines or ()), *reader.take_left()]
            lines = lines if tail is None else lines[max(0, len(lines) - tail) :]
        if lines:
            yield separator + pydantic_core.to_json(lines)[1:-1]
            separator = b","
        lines = await reader.next() if more else None
    yield b'],"position":"%d"}' % reader.position
