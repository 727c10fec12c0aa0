"""Is anything wrong? What the page begins with: how it stands now, how the last hour went, and where runs wait."""

import time
from dataclasses import asdict
from typing import Any

from pyoco_server.gateway.gateway import Gateway
from pyoco_server.gateway.index.hourly_stats import MINUTES, SPANS
from pyoco_server.gateway.index.queue_depths import EVERY_SEC
from pyoco_server.gateway.monitoring.figures import Figures, TagFigures
from pyoco_server.gateway.why.diagnosis import Facts, explain
from pyoco_server.model.access import Caller
from pyoco_server.model.run import ENDED, RunStatus

_HOUR_SEC, _DAY_SEC = 3600.0, 86400.0
_ROOM = ("accepts_submissions", "used_share", "full_share", "used_bytes", "limit_bytes", "limit_of", "disk_free_bytes")


async def overview(here: Gateway, who: Caller) -> dict[str, Any]:
    """Tell how everything stands, as far as a caller may see; it costs the same however many runs there are.

    What NATS does not answer within a second is ``None``.

    Args:
        here: The gateway.
        who: Who asks: of runs of others only an operator is told, and their number alone.
    """
    everybodys = await here.figures.read()
    figures = here.figures.of(everybodys, who.figures)
    letters = await here.letter_counts.of(who, everybodys.nats.letters)
    now = time.time()
    return {
        "now": now,
        "nats_up": figures.nats.up,
        "index_caught_up": figures.index_caught_up,
        "runs": figures.runs,
        "failed": {"hour": _failed(here, who, now - _HOUR_SEC), "day": _failed(here, who, now - _DAY_SEC)},
        "dead_letters": asdict(letters) if letters else None,
        "storage": _storage(here),
        "pace": _pace(here, who),
        **_queues(here, who, figures, everybodys, now),
    }


def _failed(here: Gateway, who: Caller, since: float) -> dict[str, Any]:
    runs, complete = here.index.listing.changed_since(RunStatus.FAILED.value, since, who.figures)
    return {"runs": runs, "complete": complete}


def _storage(here: Gateway) -> dict[str, Any]:
    told = here.room.figures()
    return {**{name: told[name] for name in _ROOM}, "refusal": here.room.refusal() or None}


def _pace(here: Gateway, who: Caller) -> dict[str, Any]:
    began, minutes, whole = here.index.pace.read(who.figures)
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


def _queues(here: Gateway, who: Caller, figures: Figures, everybodys: Figures, now: float) -> dict[str, Any]:
    depths = here.depths.of(figures.tags, who.figures)
    flying = _in_flight(here, figures)
    # An operator is told how old the oldest run of a tag is, and which one only where it is one that may be seen.
    oldest = here.index.tenants_of(tag.oldest_run_id for tag in figures.tags.values() if tag.oldest_run_id)
    named = {run_id for run_id, tenant_id in oldest.items() if who.sees(tenant_id)}
    consumers = figures.nats.consumers
    return {
        "nats_url": here.connection.shown_url,
        "depth_every_sec": EVERY_SEC,
        "queues": [
            {
                **_queue(here, everybodys, name, tag, now),
                "oldest_run_id": tag.oldest_run_id if tag.oldest_run_id in named else None,
                "in_flight": flying.get(name),
                "redelivered": consumers[name].redelivered if name in consumers else None,
                "depths": depths[name],
            }
            for name, tag in figures.tags.items()
        ],
        "queues_left_out": figures.tags_left_out,
    }


def _in_flight(here: Gateway, figures: Figures) -> dict[str, int]:
    """Return how many runs of each tag workers have: as NATS knows it, or of some tenants as the index does."""
    if figures.tenants is None:
        return {tag: consumer.unacknowledged for tag, consumer in figures.nats.consumers.items()}
    return dict.fromkeys(figures.tags, 0) | here.index.listing.running(figures.tenants)


def _queue(here: Gateway, everybodys: Figures, name: str, tag: TagFigures, now: float) -> dict[str, Any]:
    serving = here.worker_index.serving(name)
    live = [record for record, state in serving if state.is_active and record.takes_runs]
    return {
        "tag": name,
        "waiting": tag.waiting,
        "oldest_at": tag.oldest,
        "why": _why(here, everybodys, name, tag, now) if tag.waiting else None,
        "workers": sorted(record.worker_id for record in live),
        "slots": sum(record.slots for record in live),
        "free_slots": sum(max(0, record.slots - record.unfit_slots - record.slots_in_use) for record in live),
    }


def _why(here: Gateway, everybodys: Figures, name: str, tag: TagFigures, now: float) -> str:
    """Tell why the oldest run of a tag waits, in the code that its ``why`` has."""
    settings, run_id = here.settings, tag.oldest_run_id
    first = everybodys.tags.get(name)  # how many are ahead need not be counted for a code
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
        consumer=everybodys.nats.consumers.get(name),
    )
    asked = {"run_id": run_id, "status": RunStatus.PENDING.value, "tag": name, "submitted_at": tag.oldest}
    return explain(asked, facts).code.value
