"""The run records: created once, changed only by compare-and-set."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import structlog
from pydantic import ValidationError

from pyoco_server.errors import RevisionConflict, StoreUnavailable
from pyoco_server.model.run import RunRecord
from pyoco_server.model.snapshot import fit
from pyoco_server.store.bucket import Bucket
from pyoco_server.store.connection import Connection

log = structlog.get_logger(__name__)

_CHANGE_TRIES = 20
_ENVELOPE = 4096
"""What subject and headers take of NATS's payload limit."""


@dataclass(frozen=True)
class StoredRun:
    """A record and the revision under which it was stored."""

    record: RunRecord
    revision: int
    stored_at: datetime | None = None
    """When, by NATS's clock; known of what was read."""


class RunStore:
    """The bucket of run records."""

    def __init__(self, connection: Connection) -> None:
        self._bucket = Bucket(connection, connection.settings.runs_kv_bucket, patient=True)
        self._connection = connection

    @property
    def max_bytes(self) -> int:
        """Largest record that is stored; a larger one is cut."""
        return min(self._connection.settings.max_run_snapshot_bytes, self._connection.max_payload - _ENVELOPE)

    @property
    def may_be_late(self) -> bool:
        """Whether what is read may be a little old, or missing although it was stored.

        Of several NATS servers one that was cut off for a moment answers as the leader that it no longer is, until it
        hears of the new one: a second or two.
        """
        return not self._connection.cluster.has_one_copy(self._bucket.stream)

    async def get(self, run_id: str) -> StoredRun | None:
        """Read a run; ``None`` if there is none (or what is stored is no run)."""
        entry = await self._bucket.get(run_id)
        if entry is None:
            return None
        try:
            return StoredRun(RunRecord.from_json(entry.value), entry.revision, entry.stored_at)
        except ValidationError as error:
            log.error("a run's record cannot be read", run_id=run_id, reason=str(error))
            return None

    async def get_raw(self, run_id: str) -> tuple[bytes, int] | None:
        """Read a run's stored form and revision, for those who only pass it on."""
        entry = await self._bucket.get(run_id)
        return (entry.value, entry.revision) if entry else None

    async def create(self, record: RunRecord) -> int:
        """Store a new run; its first revision is the answer.

        Raises:
            RevisionConflict: a run with this id exists.
        """
        return await self._bucket.create(record.run_id, fit(record, self.max_bytes).to_json())

    async def update(self, record: RunRecord, revision: int) -> StoredRun:
        """Store a changed run if nobody wrote since ``revision``; one that has ended expires as the settings say.

        Raises:
            RevisionConflict: somebody did.
        """
        kept_for = self._connection.settings.kept_for(record.status.value) if record.status.is_terminal else 0
        stored = fit(record, self.max_bytes).to_json()
        expires = math.ceil(kept_for) or None
        return StoredRun(record, await self._bucket.update(record.run_id, stored, revision, expires=expires))

    async def change(self, run_id: str, change: Callable[[RunRecord], RunRecord]) -> StoredRun | None:
        """Read a run, change it, and write it if nobody else did meanwhile; else once more.

        Args:
            run_id: The run.
            change: Gives the new record; the same object back means nothing to write.

        Returns:
            What is stored afterwards; ``None`` if there is no such run.
        """
        for _ in range(_CHANGE_TRIES):
            stored = await self.get(run_id)
            if stored is None:
                return None
            changed = change(stored.record)
            if changed is stored.record:
                return stored
            try:
                return await self.update(changed, stored.revision)
            except RevisionConflict:
                continue
        raise StoreUnavailable(f"run {run_id} is written to faster than it can be changed")

    async def remove(self, run_id: str, revision: int) -> int:
        """Remove a run, if nobody wrote since ``revision``.

        Returns:
            The revision of the mark that tells of it.

        Raises:
            RevisionConflict: somebody did.
        """
        return await self._bucket.purge(run_id, revision)

    async def erase(self, run_id: str, revision: int) -> bool:
        """Remove a run without a mark, if ``revision`` is still its last one; tell whether it was removed.

        Indexes do not hear of it; they find out by their census.

        Raises:
            StoreUnavailable: NATS is away.
        """
        return await self._bucket.erase(run_id, revision)
