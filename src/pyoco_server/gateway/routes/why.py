"""Why is a run not running, or how did it end?"""

import time
from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Header

from pyoco_server.errors import InvalidInput, RunNotFound, StoreUnavailable
from pyoco_server.gateway.access.caller import Who
from pyoco_server.gateway.gateway import Gateway, Here
from pyoco_server.gateway.http.answers import refusals
from pyoco_server.gateway.http.words import Lang
from pyoco_server.gateway.index.json_fields import number, whole
from pyoco_server.gateway.routes.runs import read_record
from pyoco_server.gateway.why.diagnosis import Facts, explain
from pyoco_server.gateway.why.texts import render
from pyoco_server.model.access import Caller
from pyoco_server.model.run import EndReason, RunStatus
from pyoco_server.model.tags import check_tag
from pyoco_server.model.text.languages import preferred
from pyoco_server.store.queue.job_queue import ConsumerFigures

router = APIRouter(tags=["runs"])

_MOVES = {status.value for status in RunStatus if not status.is_terminal}


@router.get("/runs/{run_id}/why", responses=refusals(RunNotFound, StoreUnavailable))
async def why_run(
    here: Here, who: Who, run_id: str, lang: Lang = None, accept_language: Annotated[str, Header()] = ""
) -> dict[str, Any]:
    """Say in one sentence why a run waits, what it does, or how it ended; and what to do."""
    raw, _ = await read_record(here, run_id)
    snapshot = whole(run_id, raw, here.index.last_known)
    if not who.sees(snapshot.get("tenant_id")):
        raise RunNotFound
    if not isinstance(snapshot.get("tag"), str) or not snapshot["tag"]:
        snapshot["tag"] = here.settings.default_tag  # another program may leave it out
    facts = await _facts(here, who, snapshot)
    answer = explain(snapshot, facts)
    message, hint = render(answer, lang or preferred(accept_language), facts.now)
    return {
        "run_id": run_id,
        "status": snapshot.get("status"),
        "code": answer.code.value,
        "message": message,
        "hint": hint,
        "details": answer.details(),
    }


async def _facts(here: Gateway, who: Caller, snapshot: dict[str, Any]) -> Facts:
    """Gather what the answer may depend on; of a run that ended only a module that is missing can have changed.

    Raises:
        StoreUnavailable: NATS is away, or runs and workers are still being read.
    """
    settings = here.settings
    facts = Facts(
        now=time.time(),
        cancel_grace_sec=settings.cancel_grace_period_sec,
        max_attempts=settings.run_max_attempts,
        default_ack_wait_sec=settings.consumer_ack_wait_sec,
        nats_url=here.connection.shown_url,
    )
    moves = str(snapshot.get("status")) in _MOVES and snapshot["unreadable"] is None
    if not moves and snapshot.get("end_reason") != EndReason.DEPENDENCY_MISSING.value:
        return facts
    workers = await here.fresh_workers()
    worker_id = snapshot.get("worker_id")
    holder = workers.get(worker_id) if isinstance(worker_id, str) else None
    facts = replace(facts, holder=(holder, workers.state(holder)) if holder else None)
    if not moves:
        return facts
    index = await here.fresh_index()
    place = snapshot["tag"], number(snapshot.get("submitted_at"))
    return replace(
        facts,
        workers=workers.serving(snapshot["tag"]),
        ahead=index.ahead(*place),
        own_ahead=None if who.figures is None else index.ahead(*place, who.figures),
        job_seen=index.jobs.seq_of(snapshot["run_id"]) is not None,
        consumer=await _consumer(here, snapshot["tag"]),
    )


async def _consumer(here: Gateway, tag: str) -> ConsumerFigures | None:
    try:
        return await here.queue.figures(check_tag(tag))
    except InvalidInput:
        return None  # another program's tag, which no worker can serve
