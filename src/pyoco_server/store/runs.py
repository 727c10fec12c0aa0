"""The run records: created once, changed only by compare-and-set."""

import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime

import structlog

from pyoco_server.errors import RevisionConflict, StoreFull, StoreUnavailable
from pyoco_server.model.record.salvage import Salvage, salvage
from pyoco_server.model.record.snapshot import log_fields
from pyoco_server.model.record.stored_form import stored_form
from pyoco_server.model.run import RunRecord
from pyoco_server.store.nats.bucket import Bucket
from pyoco_server.store.nats.connection import Connection
from pyoco_server.store.unreadable import UnreadableLog

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
    unreadable: Salvage | None = None
    """What is wrong with the stored form, and what of it could be read: the record stands for that."""


Mend = Callable[[StoredRun], RunRecord]


class RunStore:
    """The bucket of run records."""

    def __init__(self, connection: Connection) -> None:
        self._bucket = Bucket(connection, connection.settings.runs_kv_bucket, patient=True)
        self._connection = connection
        self.complaints = UnreadableLog()
        """Writes each record that cannot be read into the log, once."""

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

    async def get(self, run_id: str, *, salvaged: bool = False) -> StoredRun | None:
        """Read a run; ``None`` if there is none.

        Args:
            run_id: The run.
            salvaged: Of a record that cannot be read, give what can be read, with ``unreadable`` set; else it is as if
                there were none.
        """
        entry = await self._bucket.get(run_id)
        if entry is None:
            return None
        found = salvage(run_id, entry.value)
        if found is None:
            return StoredRun(RunRecord.from_json(entry.value), entry.revision, entry.stored_at)
        self.complaints.note(run_id, entry.revision, found.why)
        return StoredRun(found.record, entry.revision, entry.stored_at, found) if salvaged else None

    async def get_raw(self, run_id: str) -> tuple[bytes, int] | None:
        """Read a run's stored form and revision, for those who only pass it on."""
        entry = await self._bucket.get(run_id)
        return (entry.value, entry.revision) if entry else None

    async def create(self, record: RunRecord) -> int:
        """Store a new run; its first revision is the answer.

        Raises:
            RevisionConflict: a run with this id exists.
        """
        return await self._bucket.create(record.run_id, stored_form(record, self.max_bytes))

    async def update(self, record: RunRecord, revision: int) -> StoredRun:
        """Store a changed run if nobody wrote since ``revision``; one that has ended expires as the settings say.

        Raises:
            RevisionConflict: somebody did.
        """
        stored = stored_form(record, self.max_bytes)
        expires = self._expires(record)
        return StoredRun(record, await self._bucket.update(record.run_id, stored, revision, expires=expires))

    def _expires(self, record: RunRecord) -> int | None:
        kept_for = self._connection.settings.kept_for(record.status.value) if record.status.is_terminal else 0
        return math.ceil(kept_for) or None

    async def replace(self, record: RunRecord, revision: int) -> StoredRun | None:
        """Store a changed run where NATS, being full, takes no write: what it takes is freed first.

        Args:
            record: The run.
            revision: Nobody must have written since.

        Returns:
            What is stored; ``None`` if even that is too much: then the run is gone.

        Raises:
            RevisionConflict: somebody wrote since ``revision``.
            StoreUnavailable: NATS is away; the run may be gone.
        """
        if not await self._bucket.erase(record.run_id, revision):
            raise RevisionConflict(f"run {record.run_id} has been written to since")
        try:
            stored, expires = stored_form(record, self.max_bytes), self._expires(record)
            return StoredRun(record, await self._bucket.create(record.run_id, stored, expires=expires))
        except StoreFull:
            log.error(
                "NATS is full: a run's record could not be kept", **log_fields(record), status=record.status.value
            )
            return None

    async def change(
        self, run_id: str, change: Callable[[RunRecord], RunRecord], *, mend: Mend | None = None
    ) -> StoredRun | None:
        """Read a run, change it, and write it if nobody else did meanwhile; else once more.

        Args:
            run_id: The run.
            change: Gives the new record; the same object back means nothing to write.
            mend: Gives the record for one that cannot be read; without it, it is as if there were none.

        Returns:
            What is stored afterwards; ``None`` if there is no such run.
        """
        return await self._change(run_id, change, mend, self.update)

    async def change_without_room(
        self, run_id: str, change: Callable[[RunRecord], RunRecord], *, mend: Mend | None = None
    ) -> StoredRun | None:
        """Change a run where NATS, being full, takes no write; see ``replace``.

        Returns:
            The changed run; ``None`` if there is no such run. If its record could not be kept, its revision is 0.
        """

        async def write(record: RunRecord, revision: int) -> StoredRun:
            return await self.replace(record, revision) or StoredRun(record, 0)

        return await self._change(run_id, change, mend, write)

    async def _change(
        self,
        run_id: str,
        change: Callable[[RunRecord], RunRecord],
        mend: Mend | None,
        write: Callable[[RunRecord, int], Awaitable[StoredRun]],
    ) -> StoredRun | None:
        for _ in range(_CHANGE_TRIES):
            stored = await self.get(run_id, salvaged=mend is not None)
            if stored is None:
                return None
            changed = mend(stored) if mend and stored.unreadable else change(stored.record)
            if changed is stored.record:
                return stored
            try:
                return await write(changed, stored.revision)
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

    async def take_out(self, run_id: str, revision: int) -> None:
        """Remove a run, if nobody wrote since ``revision``; in a full store, which refuses marks too, without one.

        Raises:
            RevisionConflict: somebody did.
            StoreUnavailable: NATS is away.
        """
        try:
            await self.remove(run_id, revision)
        except StoreFull:
            if not await self.erase(run_id, revision):
                raise RevisionConflict(f"run {run_id} has been written to since") from None

    async def erase(self, run_id: str, revision: int) -> bool:
        """Remove a run without a mark, if ``revision`` is still its last one; tell whether it was removed.

        Indexes do not hear of it; they find out by their census.

        Raises:
            StoreUnavailable: NATS is away.
        """
        return await self._bucket.erase(run_id, revision)
