"""Making a run: its record first, then its job; and what is left when NATS goes away in between.

What was answered exists: its record is stored, and its job is on the queue or has been. A run without a key whose
making failed is taken back, because nobody knows its id. A run with a key is never taken back: another request with the
same key may have been answered already. Its client repeats, or the reconciler queues the job.
"""

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass

from pyoco_server.errors import KeyReused, RevisionConflict, StoreFull, StoreUnavailable
from pyoco_server.model import idempotency
from pyoco_server.model.run import RunRecord, RunStatus
from pyoco_server.store.nats import deadline
from pyoco_server.store.queue.job_maker import JobMaker
from pyoco_server.store.runs import RunStore, StoredRun
from pyoco_server.store.topology import DUPLICATE_WINDOW

_PUBLISH_TRIES = 3
_PUBLISH_SEC = 4.0
"""Seconds after which a job's publishing is not tried again."""
_LOOK_TRIES = 5
_CLOCKS_APART = 60.0
"""Seconds by which the clocks of two gateways may differ."""

_BESIDE = 4096
"""Bytes that a run's sealed job, its entry in the audit trail, subjects and headers take at most beside its record."""

Doubt = Callable[[str, int | None], None]
Room = Callable[[int], contextlib.AbstractAsyncContextManager[None]]


@dataclass(frozen=True)
class Submission:
    """A run that exists."""

    stored: StoredRun
    job_seq: int | None
    """Where its job was put; ``None`` if that was not looked at."""
    created: bool
    """Whether this request made it, or an earlier one with the same key."""


class Submissions:
    """Makes runs.

    Args:
        runs: The records.
        jobs: Makes the jobs and queues them.
        in_doubt: Told the run_id, and the revision where it is known, of a run without a key that could be neither made
            nor taken back.
        job_of: Tells where the job of a run lies, if that is known, for the record's revision.
        room: Sets so many bytes aside while a run is made, or raises if there are not; a run that exists is answered
            all the same.
    """

    def __init__(
        self,
        runs: RunStore,
        jobs: JobMaker,
        *,
        in_doubt: Doubt = lambda _run_id, _revision: None,
        job_of: Callable[[str, int], int | None] = lambda _run_id, _revision: None,
        room: Room = lambda _size: contextlib.nullcontext(),
    ) -> None:
        self._runs = runs
        self.jobs = jobs
        self._in_doubt = in_doubt
        self._job_of = job_of
        self._room = room

    async def submit(self, record: RunRecord) -> Submission:
        """Make a run, or find the one that the same key has made before.

        Args:
            record: What the run begins as; with an ``idempotency_key`` its id follows from the key.

        Raises:
            StoreUnavailable: not answered. Without a key the run does not exist, or is taken back as soon as NATS is
                there again; with a key it may exist, and a repeat finds it.
            StoreFull: there is no room for a new run.
            KeyReused: the key belongs to another request.
        """
        try:
            size = len(record.to_json())
            async with self._room(size + self.jobs.size(record, size) + _BESIDE):
                once = record.idempotency_key is None
                return await (self._submit_once(record) if once else self._submit_keyed(record))
        except StoreFull as error:
            if record.idempotency_key is None:
                raise
            return await self.repeat(record, error)

    async def repeat(self, record: RunRecord, full: StoreFull) -> Submission:
        """Find the run that the same key has made before, where there is no room for a new one.

        Args:
            record: As for ``submit``.
            full: What to say if there is none.

        Raises:
            StoreFull: there is none.
            KeyReused: the key belongs to another request.
        """
        found = await self._runs.get(record.run_id, salvaged=True)
        if found is None:
            raise full
        return await self._repeat(record, found)

    async def _submit_keyed(self, record: RunRecord) -> Submission:
        for _ in range(_LOOK_TRIES):
            try:
                revision = await self._runs.create(record)
            except RevisionConflict:
                found = await self._runs.get(record.run_id, salvaged=True)
                if found is not None:
                    return await self._repeat(record, found)
                continue  # removed in this moment
            stored = StoredRun(record, revision)
            return Submission(stored, await self._publish(stored), created=True)
        raise StoreUnavailable(f"run {record.run_id} can be neither made nor read")

    async def put_job(self, stored: StoredRun, *, after: int | None = None) -> int:
        """Queue the job of a waiting run; where the first one may be there still, the server drops the second.

        Args:
            stored: The run.
            after: The sequence of a job of it that is gone: a second one after that is dropped.

        Returns:
            The job's sequence.

        Raises:
            StoreUnavailable: no acknowledgement.
        """
        record = stored.record
        age = time.time() - (record.submitted_at or 0.0)
        # A key's run may have had a predecessor with the same id that was not kept: its job's name tells them apart.
        keyed = record.idempotency_key is not None
        fresh = record.attempt == 0 and age < DUPLICATE_WINDOW - _CLOCKS_APART and not keyed and after is None
        why = None if fresh else str(stored.revision) if after is None else f"{stored.revision}:{after}"
        return await self.jobs.queue(record, record.tag, requeued=why)

    async def _submit_once(self, record: RunRecord) -> Submission:
        try:
            revision = await self._runs.create(record)
        except StoreUnavailable:
            self._in_doubt(record.run_id, None)  # it may have been written all the same
            raise
        except RevisionConflict:
            # Nobody else knows the id. Of two servers that took themselves for the leader, one has it and one refused.
            self._in_doubt(record.run_id, None)
            raise StoreUnavailable(f"run {record.run_id}: NATS contradicts itself") from None
        stored = StoredRun(record, revision)
        try:
            return Submission(stored, await self._publish(stored), created=True)
        except StoreUnavailable:
            try:
                await self._runs.take_out(record.run_id, revision)
            except RevisionConflict:
                if await self._has_begun(record.run_id):  # the job had been queued after all
                    return Submission(stored, None, created=True)
                self._in_doubt(record.run_id, None)
            except StoreUnavailable:
                self._in_doubt(record.run_id, revision)
            raise

    async def _has_begun(self, run_id: str) -> bool:
        try:
            found = await self._runs.get(run_id)
        except StoreUnavailable:
            return False
        return found is not None and (found.record.attempt > 0 or found.record.status is not RunStatus.PENDING)

    async def _repeat(self, record: RunRecord, found: StoredRun) -> Submission:
        if found.record.tenant_id != record.tenant_id:  # by no way of ours; whose it is stays untold
            raise KeyReused(f"the idempotency key {record.idempotency_key!r} cannot be used")
        if _digest_of(found.record, record) != record.submission_digest:
            raise KeyReused(
                f"the idempotency key {record.idempotency_key!r} was used for another request: run {record.run_id}"
            )
        # The first request may have ended between record and job. Whoever answers sees to the job first.
        waits = found.record.status is RunStatus.PENDING and found.unreadable is None
        if waits and self._job_of(record.run_id, found.revision) is None:
            return Submission(found, await self.put_job(found), created=False)
        return Submission(found, None, created=False)

    async def _publish(self, stored: StoredRun) -> int:
        began = time.monotonic()
        for _ in range(_PUBLISH_TRIES - 1):
            try:
                return await self.put_job(stored)
            except StoreUnavailable:
                if time.monotonic() - began > _PUBLISH_SEC or deadline.is_over():
                    raise
        return await self.put_job(stored)


def _digest_of(found: RunRecord, asked: RunRecord) -> str | None:
    """Return the hash of the request that made a run, also where a worker of the existing system has dropped it.

    Args:
        found: The run.
        asked: As for ``submit``. Such a worker writes the name that the flow gives itself.
    """
    if found.submission_digest is not None or found.idempotency_key is not None:
        return found.submission_digest
    known = found.evolve(flow_name=asked.flow_name)
    return idempotency.digest(**{name: getattr(known, name) for name in idempotency.DIGESTED})
