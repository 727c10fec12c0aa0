"""What a gateway knows to be wrong: from what it has in memory, and a few requests to NATS with one deadline."""

import asyncio
import json
import socket
import time
from collections.abc import Iterable
from datetime import datetime

from pyoco_server import __version__
from pyoco_server.errors import StoreRefused, StoreUnavailable
from pyoco_server.gateway.gateway import Gateway
from pyoco_server.gateway.monitoring.figures import Figures, TagFigures
from pyoco_server.gateway.monitoring.guards import dead_parts, failing_tasks, keys_refused, ways_around_keys
from pyoco_server.gateway.monitoring.storage_limits import SERVER
from pyoco_server.gateway.monitoring.task_findings import tasks_apart
from pyoco_server.model.access import Caller
from pyoco_server.model.findings.finding import Finding, FindingCode, apart, error, how_full, info, warning
from pyoco_server.model.text.sentences import Moment, Span
from pyoco_server.model.wheels.sync import is_in_trouble
from pyoco_server.model.worker import WorkerRecord, WorkerState
from pyoco_server.process.disk import examine_disks
from pyoco_server.store.examination import examine

_ASK_SEC = 4.0
_MOST = 20
"""So many tags and workers are named, of each kind of finding; more would be no help."""
_BEHIND = 1000
_NO_WORKER_SEC, _LONG_SEC = 60.0, 600.0


_EVERYBODYS = frozenset({
    FindingCode.NATS_UNREACHABLE, FindingCode.NATS_REFUSED, FindingCode.NATS_SLOW, FindingCode.SUBMISSIONS_REFUSED,
    FindingCode.INDEX_BUILDING, FindingCode.TAG_WITHOUT_WORKER, FindingCode.RUNS_WAIT_LONG, FindingCode.DEAD_LETTERS,
    FindingCode.WORKER_DISCONNECTED, FindingCode.WORKER_UNFIT, FindingCode.WORKER_WHEELS, FindingCode.VERSION_DIFFERS,
    FindingCode.ACKNOWLEDGED_MEANS, FindingCode.DURABILITY_UNKNOWN,
})  # fmt: skip
"""What is told to each tenant, of its own runs and of what all share. The rest is for those who run the system."""


async def diagnose(here: Gateway, who: Caller) -> list[Finding]:
    """Look at everything. It takes a few seconds at most, however many runs there are.

    Args:
        here: The gateway.
        who: Who asks, and is told of the own tenant's runs alone unless it is an operator.
    """
    found = await _look(here, await here.figures.seen_by(who), await here.figures.read())
    return found if who.operates else [finding for finding in found if finding.code in _EVERYBODYS]


async def _look(here: Gateway, figures: Figures, everybodys: Figures) -> list[Finding]:
    findings = [
        *await _nats(here),
        *_index(here, everybodys),
        *_tags(here, figures),
        *_letters(figures),
        *_workers(here),
        *_records(here),
        *ways_around_keys(here),
        *keys_refused(here),
        *dead_parts(here.parts),
        *failing_tasks(here.failing_tasks()),
    ]
    return [*findings, *_connections(here), *_room(here), *await _durability(here)]


async def _nats(here: Gateway) -> list[Finding]:
    connection = here.connection
    down_for = Span(time.time() - connection.down_since) if connection.down_since else None
    try:
        _ = connection.client
    except StoreRefused as refused:
        return [error(FindingCode.NATS_REFUSED, reason=refused.message, fix=refused.hint)]
    except StoreUnavailable:
        return [error(FindingCode.NATS_UNREACHABLE, url=connection.shown_url, down_for=down_for)]
    try:
        found = await asyncio.wait_for(asyncio.gather(examine(connection), _clocks(here)), _ASK_SEC)
    except (StoreUnavailable, asyncio.TimeoutError) as silent:
        reason = silent.message if isinstance(silent, StoreUnavailable) else None
        return [error(FindingCode.NATS_SLOW, url=connection.shown_url, waited=Span(_ASK_SEC), reason=reason)]
    return [finding for part in found for finding in part]


async def _clocks(here: Gateway) -> list[Finding]:
    """Compare clocks with NATS's: ours with what it answers, the workers' with when it stored their heartbeats."""
    asked = time.time()
    subject = f"$JS.API.STREAM.INFO.KV_{here.settings.workers_kv_bucket}"
    answer = json.loads((await here.connection.request(subject, what="asking NATS for its time")).data)
    way = time.time() - asked
    findings = []
    if told := answer.get("ts"):
        whole, _, fraction = str(told).rstrip("Z").partition(".")
        nats = datetime.fromisoformat(f"{whole}.{fraction[:6]:0<6}+00:00").timestamp()
        findings += apart(f"gateway ({socket.gethostname()})", asked + way / 2 - nats, doubt=way / 2)
    workers = [record for record, state in here.worker_index.states() if state is not WorkerState.STOPPED_GRACEFUL]
    workers = sorted(workers, key=lambda record: record.last_seen_at, reverse=True)[:_MOST]
    for stored in await asyncio.gather(*(here.workers.get(record.worker_id) for record in workers)):
        record = stored.record if stored is not None else None
        # Only what it wrote itself: others write `hidden` and the like, with the times of the last heartbeat.
        if stored and record and stored.stored_at and record.updated_at == record.last_seen_at:
            who = record.worker_id + (f" ({record.host})" if record.host else "")
            findings += apart(who, record.last_seen_at - stored.stored_at.timestamp())
    return findings


def _connections(here: Gateway) -> list[Finding]:
    table = here.connections
    short = table.short_of_room()
    return [warning(FindingCode.CONNECTIONS_SHORT, open=table.open, limit=table.most, short=short)] if short else []


def _room(here: Gateway) -> list[Finding]:
    """Tell how full NATS and the disks are; its account's own limit is looked at with the streams."""
    refusal, figures = here.room.refusal(), here.room.figures()
    findings = [error(FindingCode.SUBMISSIONS_REFUSED, reason=refusal)] if refusal else []
    if figures["limit_of"] == SERVER:
        findings += how_full(FindingCode.STORAGE_FULL, figures["used_bytes"], figures["limit_bytes"])
    return [*findings, *examine_disks(here.settings.state_dir, here.settings.nats_store_dir)]


async def _durability(here: Gateway) -> list[Finding]:
    if not here.connection.is_up:
        return []
    told = await here.durability.read()
    findings = [
        warning(FindingCode.STREAM_LESS_SAFE, stream=one["stream"], reason=one["reason"])
        for one in told["weaker_streams"]
    ]
    if told["unknown"] is not None:
        return [*findings, info(FindingCode.DURABILITY_UNKNOWN, reason=told["unknown"], fix=told["hint"])]
    return [*findings, info(FindingCode.ACKNOWLEDGED_MEANS, means=told["acknowledged_means"])]


def _index(here: Gateway, figures: Figures) -> list[Finding]:
    if not figures.index_caught_up:
        return [warning(FindingCode.INDEX_BUILDING)] if here.connection.is_up else []
    behind = figures.nats.records.last_seq - figures.index_reached if figures.nats.records else 0
    return [warning(FindingCode.INDEX_BEHIND, changes=behind)] if behind >= _BEHIND else []


def _tags(here: Gateway, figures: Figures) -> list[Finding]:
    now = time.time()

    def age(tag: TagFigures) -> float:
        return now - tag.oldest if tag.oldest else 0.0

    waiting = sorted(
        ((name, tag) for name, tag in figures.tags.items() if tag.waiting), key=lambda one: age(one[1]), reverse=True
    )
    findings = []
    for name, tag in waiting:
        values = {"tag": name, "waiting": tag.waiting, "oldest": Span(age(tag)) if tag.oldest else None}
        if not tag.workers:
            make = error if age(tag) >= _NO_WORKER_SEC else warning
            serving = here.worker_index.serving(name)
            unfit = sorted(record.worker_id for record, state in serving if state.is_active and record.is_unfit)[:_MOST]
            findings.append(make(FindingCode.TAG_WITHOUT_WORKER, **values, unfit=unfit or None))
        elif age(tag) >= _LONG_SEC:
            findings.append(warning(FindingCode.RUNS_WAIT_LONG, **values, workers=tag.workers))
    return findings[:_MOST]


def _records(here: Gateway) -> list[Finding]:
    runs = here.index.unreadable()
    return [warning(FindingCode.RECORDS_UNREADABLE, runs=runs)] if runs else []


def _letters(figures: Figures) -> list[Finding]:
    letters = figures.dead_letters
    return [warning(FindingCode.DEAD_LETTERS, letters=letters)] if letters else []


def _workers(here: Gateway) -> list[Finding]:
    known = [(record, state) for record, state in here.worker_index.states() if not record.hidden]
    live = [record for record, state in known if state.is_active]
    gone = [record for record, state in known if state is WorkerState.DISCONNECTED]
    apart = tasks_apart(live, keys=here.settings.http_auth_mode != "none")
    return [*_unfit(live), *_disconnected(gone), *_wheels(live), *apart, *_versions(live), *_existing(live)]


def _unfit(live: Iterable[WorkerRecord]) -> list[Finding]:
    now = time.time()
    return [
        (error if record.is_unfit else warning)(
            FindingCode.WORKER_UNFIT, worker_id=record.worker_id, host=record.host, kind=trouble.kind,
            reason=trouble.reason, lasts=Span(max(0.0, now - trouble.since)),
            slots=None if record.is_unfit else trouble.slots,
            next_try_at=Moment(trouble.next_try_at) if trouble.next_try_at else None,
        )
        for record in sorted(live, key=lambda record: record.worker_id)
        if (trouble := record.trouble) is not None and not record.draining
    ][:_MOST]  # fmt: skip


def _disconnected(gone: Iterable[WorkerRecord]) -> list[Finding]:
    now = time.time()
    return [
        warning(
            FindingCode.WORKER_DISCONNECTED, worker_id=record.worker_id, host=record.host,
            silent_for=Span(max(0.0, now - record.last_seen_at)),
        )
        for record in sorted(gone, key=lambda record: record.last_seen_at, reverse=True)[:_MOST]
    ]  # fmt: skip


def _wheels(live: Iterable[WorkerRecord]) -> list[Finding]:
    broken = [record for record in live if is_in_trouble(record.wheel_sync)]
    return [
        warning(
            FindingCode.WORKER_WHEELS, worker_id=record.worker_id,
            reason=record.wheel_sync.get("last_error") or record.wheel_sync["last_result"],
        )
        for record in broken[:_MOST]
    ]  # fmt: skip


def _existing(live: Iterable[WorkerRecord]) -> list[Finding]:
    theirs = [record for record in live if record.existing_system]
    if not theirs:
        return []
    tags = sorted({tag for record in theirs for tag in record.tags})[:_MOST]
    who = sorted(record.worker_id for record in theirs)[:_MOST]
    return [warning(FindingCode.WORKERS_OF_EXISTING_SYSTEM, who=who, tags=tags)]


def _versions(live: Iterable[WorkerRecord]) -> list[Finding]:
    others: dict[str, list[str]] = {}
    for record in live:
        if record.version and record.version != __version__:
            others.setdefault(record.version, []).append(record.worker_id)
    return [
        warning(FindingCode.VERSION_DIFFERS, ours=__version__, version=version, who=sorted(workers)[:_MOST])
        for version, workers in sorted(others.items())[:_MOST]
    ]
