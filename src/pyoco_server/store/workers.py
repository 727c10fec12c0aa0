"""The workers' records: each written by its own worker; others write only ``hidden``, and the wish to drain it."""

from dataclasses import dataclass
from datetime import datetime

from pydantic import ValidationError

from pyoco_server.model.worker import WorkerRecord
from pyoco_server.store.nats.bucket import Bucket
from pyoco_server.store.nats.connection import Connection


@dataclass(frozen=True)
class StoredWorker:
    """A record and the revision under which it was stored."""

    record: WorkerRecord
    revision: int
    stored_at: datetime | None = None
    """When, by NATS's clock."""


class WorkerStore:
    """The bucket of worker records."""

    def __init__(self, connection: Connection) -> None:
        self.bucket = Bucket(connection, connection.settings.workers_kv_bucket)

    async def get(self, worker_id: str) -> StoredWorker | None:
        """Read a worker's record; ``None`` if there is none that can be read."""
        entry = await self.bucket.get(worker_id)
        if entry is None:
            return None
        try:
            return StoredWorker(WorkerRecord.from_json(entry.value), entry.revision, entry.stored_at)
        except ValidationError:
            return None

    async def update(self, record: WorkerRecord, revision: int) -> int:
        """Write a record if nobody wrote since ``revision`` (0: if there is none).

        Raises:
            RevisionConflict: somebody did.
        """
        if revision == 0:
            return await self.bucket.create(record.worker_id, record.to_json())
        return await self.bucket.update(record.worker_id, record.to_json(), revision)

    async def put(self, record: WorkerRecord) -> int:
        """Write a record over whatever is there."""
        return await self.bucket.put(record.worker_id, record.to_json())

    async def forget(self, worker_id: str, revision: int) -> None:
        """Remove a worker's record if nobody wrote it since ``revision``.

        Raises:
            RevisionConflict: somebody did; the worker is back.
        """
        await self.bucket.purge(worker_id, revision)
