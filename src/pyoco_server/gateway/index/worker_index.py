"""The workers as last seen: a handful of records in memory."""

import contextlib
import time
from asyncio import Event
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import structlog
from pydantic import ValidationError

from pyoco_server.model.wheels.sync import TENANTS, completed, of_tenants
from pyoco_server.model.worker import WorkerRecord, WorkerState
from pyoco_server.store.nats.feed import Change

log = structlog.get_logger(__name__)


_BRIEF_SYNC = ("enabled", "last_sync_at", "last_result", "outcome", "last_error", "environment")


@dataclass
class WorkerBox:
    """The names of the workers whose records have changed since one listener last looked."""

    arrived: Event = field(default_factory=Event)
    changed: set[str] = field(default_factory=set)

    def take(self) -> set[str]:
        """Fetch the names."""
        taken, self.changed = self.changed, set()
        self.arrived.clear()
        return taken


class WorkerIndex:
    """Follows the workers' bucket."""

    def __init__(self, disconnect_timeout_sec: float) -> None:
        self._timeout = disconnect_timeout_sec
        self._records: dict[str, WorkerRecord] = {}
        self._existing: set[str] = set()
        """Keys of workers of the existing system."""
        self._revisions: dict[str, int] = {}
        self._boxes: list[WorkerBox] = []

    def apply(self, changes: list[Change]) -> None:
        """Take in changes of the bucket; of one worker the newest counts, in whatever order they come."""
        self._tell({change.key for change in changes})
        for change in changes:
            if change.revision < self._revisions.get(change.key, 0):
                continue
            self._existing.discard(change.key)
            if change.value is None:
                self._records.pop(change.key, None)
                self._revisions.pop(change.key, None)
                continue
            self._revisions[change.key] = change.revision
            try:
                record = self._records[change.key] = WorkerRecord.from_json(change.value)
                if record.existing_system:
                    self._existing.add(change.key)
            except ValidationError as error:
                log.warning("a worker's record cannot be read", worker_id=change.key, reason=str(error))

    def clear(self) -> None:
        """Forget everything."""
        self._tell(set(self._records))
        self._records.clear()
        self._existing.clear()
        self._revisions.clear()

    @contextlib.contextmanager
    def listen(self) -> Iterator[WorkerBox]:
        """Receive the names of workers whose records change while the block lasts."""
        box = WorkerBox()
        self._boxes.append(box)
        try:
            yield box
        finally:
            self._boxes.remove(box)

    def _tell(self, worker_ids: set[str]) -> None:
        for box in self._boxes:
            box.changed |= worker_ids
            box.arrived.set()

    def get(self, worker_id: str | None) -> WorkerRecord | None:
        """Give a worker's record."""
        return self._records.get(worker_id) if worker_id else None

    def state(self, record: WorkerRecord) -> WorkerState:
        """Give a worker's state now."""
        return record.state_at(time.time(), self._timeout)

    def serving(self, tag: str) -> list[tuple[WorkerRecord, WorkerState]]:
        """Give the workers that serve a tag and their states now, also what drains or is gone; last seen first."""
        found = [(record, self.state(record)) for record in self._records.values() if tag in record.tags]
        return sorted(found, key=lambda one: one[0].last_seen_at, reverse=True)

    def existing_serve(self, tag: str) -> bool:
        """Return whether a worker of the existing system is there that serves a tag."""
        records = map(self._records.__getitem__, self._existing)
        return any(tag in record.tags and self.state(record).is_active for record in records)

    def own_serve(self, tag: str, within_sec: float) -> bool:
        """Return whether a worker of ours serves a tag, or did so a moment ago.

        Args:
            tag: Which one.
            within_sec: How long ago that may be.
        """
        return any(
            state.is_active or time.time() - record.last_seen_at <= within_sec
            for record, state in self.serving(tag)
            if not record.existing_system
        )

    def states(self) -> list[tuple[WorkerRecord, WorkerState]]:
        """Give every worker and its state now, hidden ones too."""
        return [(record, self.state(record)) for record in self._records.values()]

    def gone_for(self, seconds: float) -> dict[str, WorkerRecord]:
        """Give, by key, the workers that are stopped or disconnected and were last seen that long ago."""
        seen_before = time.time() - seconds
        return {
            key: record
            for key, record in self._records.items()
            if record.last_seen_at <= seen_before and not self.state(record).is_active
        }

    def drop(self, key: str, record: WorkerRecord) -> None:
        """Forget a record that is not stored any more, unless a newer one has come."""
        if self._records.get(key) is record:
            self._tell({key})
            del self._records[key]
            self._existing.discard(key)
            self._revisions.pop(key, None)

    def list(
        self,
        *,
        active_only: bool,
        state: WorkerState | None,
        include_hidden: bool,
        limit: int,
        worker_id: str | None = None,
    ) -> list[dict[str, Any]]:
        """Give the workers that match, last seen first."""
        records = sorted(self._records.values(), key=lambda record: record.last_seen_at, reverse=True)
        shown = []
        for record in records:
            current = self.state(record)
            if (record.hidden and not include_hidden) or (worker_id is not None and record.worker_id != worker_id):
                continue
            if (active_only and not current.is_active) or (state is not None and current is not state):
                continue
            item = record.model_dump(mode="json")
            shown.append({**item, **_as_seen(record, current), "wheel_sync": completed(item["wheel_sync"])})
        return shown[:limit]

    @staticmethod
    def brief(record: WorkerRecord, state: WorkerState) -> dict[str, Any]:
        """Give a list's item without the long lists of wheels and plug-ins, which every heartbeat would repeat."""
        item = record.model_dump(mode="json", exclude={"wheel_sync"})
        sync = {name: record.wheel_sync.get(name) for name in _BRIEF_SYNC}
        if tenants := of_tenants(record.wheel_sync):
            sync[TENANTS] = {
                tenant: {name: own.get(name) for name in _BRIEF_SYNC if name in own} for tenant, own in tenants.items()
            }
        return {**item, **_as_seen(record, state), "wheel_sync": sync}


def _as_seen(record: WorkerRecord, state: WorkerState) -> dict[str, Any]:
    """Give the fields that are not as the worker wrote them last: one that is gone does not drain any more."""
    return {"state": state.value, "draining": record.draining and state.is_active}
