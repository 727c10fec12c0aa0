"""The stream that a page listens to: what changes among runs and workers, paced, and told from memory."""

import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

import pydantic_core
from sse_starlette.event import ServerSentEvent

from pyoco_server.gateway.gateway import Gateway
from pyoco_server.gateway.index import worker_view
from pyoco_server.gateway.index.listing import RunFilter
from pyoco_server.gateway.index.news import NewsBox, RunChange
from pyoco_server.gateway.index.worker_index import WorkerBox
from pyoco_server.gateway.streaming.stream_watch import ChangeBox
from pyoco_server.model.access import Caller
from pyoco_server.model.text.oneline import one_line
from pyoco_server.model.worker import WorkerState
from pyoco_server.process.waiting import first_event

_HEARTBEAT_SEC = 2.0
_PACE_SEC = 0.25
"""Shortest time between two events of the same kind; what changes meanwhile is told together."""
_COUNTS_SEC = 1.0
_WORKERS_SEC = 1.0
_RESET_SEC = 2.0
_LONGEST_SEC = 1800.0
"""Then the listener comes back, with its key: one that was revoked meanwhile gets no further."""


@dataclass(frozen=True)
class EventFilter:
    """Which runs a listener wants to hear of; workers and counts are told in any case."""

    run_id: str | None = None
    flow_name: str | None = None
    tag: str | None = None

    def lets(self, change: RunChange) -> bool:
        """Tell whether a change passes. What is known of a removed run is its id alone."""
        if self.run_id is not None and change.run_id != self.run_id:
            return False
        if change.item is None:
            return True
        return self.flow_name in (None, change.flow_name) and self.tag in (None, change.tag)


class EventStream:
    """Makes the events of one listener.

    Args:
        here: The gateway.
        who: Who listens; only what that one may see is told.
        where: Which runs.
        seen: The id of the last event that the listener has seen, to go on from there.
        page: Names the page's files that this gateway serves.
    """

    def __init__(self, here: Gateway, who: Caller, where: EventFilter, seen: str | None, page: str) -> None:
        self._here = here
        self._who = who
        self._where = where
        self._seen = seen
        self._page = page
        self._states: dict[str, WorkerState] = {}
        self._due = {"runs": 0.0, "counts": 0.0, "workers": 0.0}
        self._counts: dict[str, int] = {}
        self._last = 0.0

    async def events(self) -> AsyncGenerator[ServerSentEvent, None]:
        """Give the events, the first ones at once."""
        here, ends_at = self._here, time.monotonic() + _LONGEST_SEC
        with (
            here.index.news.listen(self._wants) as runs,
            here.worker_index.listen() as workers,
            here.stream_watch.listen() as stored,
        ):
            self._states = {record.worker_id: state for record, state in here.worker_index.states()}
            yield self._event("hello", {"page": self._page}, self._place())
            if self._seen is not None:
                yield self._missed(self._seen)
            while not here.stopping.is_set() and time.monotonic() < ends_at:
                for event in [*self._next(runs, workers), *(self._event(kind, {}) for kind in stored.take())]:
                    yield event
                await self._wait(runs, workers, stored)

    async def _wait(self, runs: NewsBox, workers: WorkerBox, stored: ChangeBox) -> None:
        """Wait until something comes, or until what has come is due."""
        now = time.monotonic()
        quiet = self._last + _HEARTBEAT_SEC - now
        has = {"runs": bool(runs.changes) or runs.spilled, "counts": runs.counts_changed, "workers": workers.changed}
        due = [self._due[kind] - now for kind, there in has.items() if there]
        arrivals = [] if due else [runs.arrived, workers.arrived]
        await first_event(max(0.0, min([quiet, *due])), *arrivals, stored.arrived, self._here.stopping)

    def _next(self, runs: NewsBox, workers: WorkerBox) -> list[ServerSentEvent]:
        now = time.monotonic()
        events = []
        if now >= self._due["runs"]:
            events += self._of_runs(runs, now)
        if runs.counts_changed and now >= self._due["counts"]:
            runs.counts_changed, self._due["counts"] = False, now + _COUNTS_SEC
            counts = self._here.index.listing.counts(RunFilter(tenants=self._who.tenants)).by_status
            if counts != self._counts:  # else it was another tenant's run that changed
                self._counts = counts
                events.append(self._event("counts", {"counts": counts}))
        if now >= self._due["workers"]:
            self._due["workers"] = now + _WORKERS_SEC
            events += self._of_workers(workers)
        if now - self._last >= _HEARTBEAT_SEC:
            health = {"nats_up": self._here.connection.is_up, "caught_up": self._here.run_feed.caught_up.is_set()}
            events.append(self._event("heartbeat", health))
        return events

    def _of_runs(self, box: NewsBox, now: float) -> list[ServerSentEvent]:
        changes, spilled = box.take()
        if spilled:
            self._due["runs"] = now + _RESET_SEC
            return [self._event("reset", {}, self._place())]
        if not changes:
            return []
        self._due["runs"] = now + _PACE_SEC
        self._last = now
        items = ",".join(change.item for change in changes if change.item is not None)  # they are JSON already
        removed = pydantic_core.to_json([change.run_id for change in changes if change.item is None]).decode()
        return [_event("runs", f'{{"items":[{items}],"removed":{removed},"ts":{time.time()}}}', self._place())]

    def _of_workers(self, box: WorkerBox) -> list[ServerSentEvent]:
        index, changed, items = self._here.worker_index, box.take(), []
        for record, state in index.states():
            # A worker that falls silent changes its state without a word.
            if record.worker_id in changed or self._states.get(record.worker_id) is not state:
                self._states[record.worker_id] = state
                items.append(index.brief(record, state))
        gone = [worker_id for worker_id in changed if index.get(worker_id) is None]
        for worker_id in gone:
            self._states.pop(worker_id, None)
        shown = worker_view.seen(self._here.index, self._who, items)
        return [self._event("workers", {"items": shown, "removed": gone})] if items or gone else []

    def _missed(self, seen: str) -> ServerSentEvent:
        """Tell what has changed since an event that the listener has seen."""
        missed = self._here.index.news.since(seen)
        if missed is None:
            return self._event("reset", {}, self._place())
        items = {item["run_id"]: item for item in self._here.index.listing.items(missed)}
        changes = [_change(run_id, tenant_id, items.get(run_id)) for run_id, tenant_id in missed.items()]
        wanted = [change.run_id for change in changes if self._wants(change)]
        shown = [items[run_id] for run_id in wanted if run_id in items]
        removed = [run_id for run_id in wanted if run_id not in items]
        return self._event("runs", {"items": shown, "removed": removed}, self._place())

    def _wants(self, change: RunChange) -> bool:
        return self._who.sees(change.tenant_id) and self._where.lets(change)

    def _place(self) -> str:
        return self._here.index.news.place

    def _event(self, name: str, data: dict[str, Any], event_id: str | None = None) -> ServerSentEvent:
        self._last = time.monotonic()
        return _event(name, pydantic_core.to_json({**data, "ts": time.time()}).decode(), event_id)


def _event(name: str, data: str, event_id: str | None) -> ServerSentEvent:
    return ServerSentEvent(one_line(data), event=name, id=event_id, sep="\n")


def _change(run_id: str, tenant_id: str | None, item: dict[str, Any] | None) -> RunChange:
    if item is None:
        return RunChange(run_id, 0, tenant_id)
    return RunChange(run_id, 0, tenant_id, item["flow_name"], item["tag"], "{}")
