"""Is anything wrong? What the page begins with: how it stands now, how the last hour went, and where runs wait."""

import time
from dataclasses import asdict
from typing import Any

from pyoco_server.gateway.depths import EVERY_SEC
from pyoco_server.gateway.figures import MOST_TAGS, Figures, TagFigures, tag_figures
from pyoco_server.gateway.pace import ENDED, MINUTES, SPANS
from pyoco_server.gateway.state import Gateway
from pyoco_server.gateway.why import Facts, explain
from pyoco_server.model.access import Caller
from pyoco_server.model.run import RunStatus

_HOUR_SEC, _DAY_SEC = 3600.0, 86400.0
_ROOM = ("accepts_submissions", "used_share", "full_share", "used_bytes", "limit_bytes", "limit_of", "disk_free_bytes")


async def overview(here: Gateway, who: Caller) -> dict[str, Any]:
    """Tell how everything stands, as far as a caller may see; it costs the same however many runs there are.

    What NATS does not answer within a second is ``None``.

    Args:
        here: The gateway.
        who: Who asks: runs of others are in no figure but those of the queues themselves.
    """
    figures = await here.figures.read()
    letters = await here.letter_counts.of(who, figures.nats.letters)
    now = time.time()
    return {
        "now": now,
        "nats_up": figures.nats.up,
        "index_caught_up": figures.index_caught_up,
        "runs": here.index.totals.by_status(who.tenants),
        "failed": {"hour": _failed(here, who, now - _HOUR_SEC), "day": _failed(here, who, now - _DAY_SEC)},
        "dead_letters": asdict(letters) if letters else None,
        "storage": _storage(here),
        "pace": _pace(here, who),
        **_queues(here, who, figures, now),
    }


def _failed(here: Gateway, who: Caller, since: float) -> dict[str, Any]:
    runs, complete = here.index.listing.changed_since(RunStatus.FAILED.value, since, who.tenants)
    return {"runs": runs, "complete": complete}


def _storage(here: Gateway) -> dict[str, Any]:
    told = here.room.figures()
    return {**{name: told[name] for name in _ROOM}, "refusal": here.room.refusal() or None}


def _pace(here: Gateway, who: Caller) -> dict[str, Any]:
    began, minutes, whole = here.index.pace.read(who.tenants)
    return {
        "began_at": began,
        "minutes": MINUTES,
        "ended": {status: [minute.ended[status] for minute in minutes] for status in ENDED},
        **{
            f"{name}_ms": {
                "p50": [minute.spans[name].p50 for minute in minutes],
                "p95": [minute.spans[name].p95 for minute in minutes],
            }
            for name in SPANS
        },
        "hour": {"ended": whole.ended, **{f"{name}_ms": asdict(spans) for name, spans in whole.spans.items()}},
    }


def _queues(here: Gateway, who: Caller, figures: Figures, now: float) -> dict[str, Any]:
    totals, tags = here.index.totals, figures.tags
    left_out = figures.tags_left_out
    if who.tenants is not None:
        tags = tag_figures(here.worker_index.states(), totals.waiting(MOST_TAGS, who.tenants))
        left_out = max(0, totals.tags_waiting(who.tenants) - sum(tag.waiting > 0 for tag in tags.values()))
    depths = here.depths.of(tags, who.tenants)
    return {
        "nats_url": here.connection.shown_url,
        "depth_every_sec": EVERY_SEC,
        "queues": [_queue(here, figures, name, tag, depths[name], now) for name, tag in tags.items()],
        "queues_left_out": left_out,
    }


def _queue(
    here: Gateway, figures: Figures, name: str, tag: TagFigures, depths: list[int], now: float
) -> dict[str, Any]:
    consumer = figures.nats.consumers.get(name)
    serving = here.worker_index.serving(name)
    live = [record for record, state in serving if state.is_active and record.takes_runs]
    return {
        "tag": name,
        "waiting": tag.waiting,
        "oldest_at": tag.oldest,
        "oldest_run_id": tag.oldest_run_id,
        "why": _why(here, figures, name, tag, now) if tag.waiting else None,
        "in_flight": consumer.unacknowledged if consumer else None,
        "redelivered": consumer.redelivered if consumer else None,
        "workers": sorted(record.worker_id for record in live),
        "slots": sum(record.slots for record in live),
        "free_slots": sum(max(0, record.slots - record.unfit_slots - record.slots_in_use) for record in live),
        "depths": depths,
    }


def _why(here: Gateway, figures: Figures, name: str, tag: TagFigures, now: float) -> str:
    """Tell why the oldest run of a tag waits, in the code that its ``why`` has."""
    settings, run_id = here.settings, tag.oldest_run_id
    first = figures.tags.get(name)  # of all tenants; how many are ahead need not be counted for a code
    ahead = bool(first and first.oldest and tag.oldest and first.oldest < tag.oldest)
    facts = Facts(
        now=now,
        cancel_grace_sec=settings.cancel_grace_period_sec,
        max_attempts=settings.run_max_attempts,
        default_ack_wait_sec=settings.consumer_ack_wait_sec,
        nats_url=here.connection.shown_url,
        workers=here.worker_index.serving(name),
        ahead=int(ahead),
        job_seen=run_id is not None and here.index.jobs.seq_of(run_id) is not None,
        consumer=figures.nats.consumers.get(name),
    )
    asked = {"run_id": run_id, "status": RunStatus.PENDING.value, "tag": name, "submitted_at": tag.oldest}
    return explain(asked, facts).code.value
