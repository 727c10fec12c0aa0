"""Is it there, and is it well?"""

import time
from typing import Any, cast

from fastapi import APIRouter, Request, Response

from pyoco_server.errors import StoreUnavailable
from pyoco_server.gateway.access.caller import Visitor
from pyoco_server.gateway.gateway import Here
from pyoco_server.gateway.monitoring import health as health_of
from pyoco_server.gateway.monitoring.durability import PUBLIC
from pyoco_server.store.status.stream_state import StreamState, read_streams

router = APIRouter(tags=["system"])

_OBJECT = {"application/json": {"schema": {"type": "object"}}}


@router.get("/health")
async def health() -> dict[str, str]:
    """Answer as long as the process serves."""
    return {"status": "ok"}


@router.get("/ready", responses={503: {"description": "Not ready: `problems` tells why", "content": _OBJECT}})
async def ready(here: Here, visitor: Visitor, response: Response) -> dict[str, Any]:
    """Answer 200 when runs can be submitted and listed, else 503; say what is known, to who has no key less."""
    connection = here.connection
    problems: list[str] = []
    streams: dict[str, StreamState | None] = {}
    unreadable: str | None = None
    try:
        streams = await read_streams(connection)
        problems += [f"the stream {name} is missing" for name, state in streams.items() if state is None]
        problems += [
            f"the restore of {name} has not ended; repeat it" for name, state in streams.items()
            if state and state.restoring
        ]  # fmt: skip
        unreadable = await health_of.unreadable(connection, streams)
        problems += [unreadable] if unreadable else []
    except StoreUnavailable as error:
        problems.append(error.message)
    if not here.run_feed.caught_up.is_set():
        problems.append("the index of runs is still being built")
    if here.keys.problem:
        problems.append(here.keys.problem)
    failing = here.failing_tasks()
    problems += [task.sentence() for task in failing if task.vital]
    if problems:
        response.status_code = 503
    down = connection.down_since
    everything = visitor is not None and visitor.operates
    answer = {
        "status": "not ready" if problems else "ready",
        "problems": problems,
        "nats": {
            "connected": connection.is_up,
            "url": connection.shown_url,
            "refused": connection.refused.hint if connection.refused else None,
            "down_since": down if not connection.is_up else None,
            "down_for_sec": round(time.time() - down, 1) if down and not connection.is_up else None,
        },
        "warnings": [
            *health_of.warnings(here.settings, streams, here.room.refusal(), here.connections.warning()),
            *([] if unreadable else health_of.slow_reads(streams)),
            *here.parts.warnings(),
            *(task.sentence() for task in failing if not task.vital),
        ],
        "parts": here.parts.told(),
        "streams": {name: health_of.of_stream(state, counts=everything) for name, state in streams.items()},
        "storage": here.room.figures(),
        "connections": here.connections.figures(),
        "index": {
            "caught_up": here.run_feed.caught_up.is_set(),
            "revision": here.run_feed.revision,
            "runs": sum(here.index.totals.by_status(visitor.figures if visitor else None).values()),
        },
        "durability": await here.durability.read(),
    }
    return answer if visitor else _without_key(answer)


@router.get("/openapi.json", include_in_schema=False)
async def schema(request: Request) -> dict[str, Any]:
    """Return the description of all paths."""
    document = cast(dict[str, Any], request.app.openapi())
    prefix = request.scope.get("root_path")
    return {**document, "servers": [{"url": prefix}]} if prefix else document


def _without_key(answer: dict[str, Any]) -> dict[str, Any]:
    """Leave what a load balancer needs: neither addresses nor names nor counts, which are the tenants' business."""
    return {
        "status": answer["status"],
        "problems": ["with an API key this tells more"] if answer["problems"] else [],
        "nats": {"connected": answer["nats"]["connected"]},
        "index": {"caught_up": answer["index"]["caught_up"]},
        "durability": {name: answer["durability"][name] for name in PUBLIC},
    }
