"""The backstop: jobs that NATS itself gave up, as delivered too often or taken off the queue by a receiver.

A worker that works never lets it come to this: attempts are counted in the record, long before NATS's own limit. But
handing back counts as a delivery too, workers of other versions exist, and a job at its limit lies in the stream
undelivered and without a word. Several gateways may do the same work at once: each step may be repeated.
"""

import asyncio
import time
from dataclasses import dataclass

import structlog

from pyoco_server.errors import InvalidInput, RevisionConflict, StoreUnavailable
from pyoco_server.gateway.maintenance.refused_jobs import RefusedJobs
from pyoco_server.model.deadletter import (
    TERMINATED,
    DeadLetter,
    DeadLetterReason,
    key_of_job,
    key_of_run,
    letter_of_job,
    letter_of_run,
    letter_reason,
)
from pyoco_server.model.job import Job
from pyoco_server.model.record.snapshot import end_fields, log_fields
from pyoco_server.model.run import RunRecord, RunStatus, end_unreadable, undeliverable
from pyoco_server.process.waiting import first_event
from pyoco_server.settings.environment import Settings
from pyoco_server.store.deadletters import DeadLetterStore
from pyoco_server.store.nats.connection import Connection
from pyoco_server.store.queue.advisories import Advisory, AdvisoryQueue
from pyoco_server.store.queue.job_queue import JobQueue
from pyoco_server.store.runs import RunStore, StoredRun
from pyoco_server.store.workers import WorkerStore

log = structlog.get_logger(__name__)

_PULL_SEC = 20.0
_RETRY_SEC = 0.5
_LOOK_AGAIN_SEC = 5.0
"""How often a job is looked at whose run a worker still holds."""
_FAILED_SEC = 60.0
_CHANGE_TRIES = 10
_DELETED = "Unacknowledged message was deleted"
"""NATS's own word."""
_CLAIMED = (RunStatus.RUNNING, RunStatus.CANCELLING)


@dataclass(frozen=True)
class _Stuck:
    """A job that lies in the work stream and is not delivered any more."""

    seq: int
    tag: str
    raw: bytes
    subject: str
    deliveries: int


class Backstop:
    """Follows the advisories, in one task."""

    def __init__(
        self,
        connection: Connection,
        *,
        runs: RunStore,
        queue: JobQueue,
        letters: DeadLetterStore,
        workers: WorkerStore,
        refused: RefusedJobs,
    ) -> None:
        self._connection = connection
        self._settings: Settings = connection.settings
        self._runs = runs
        self._queue = queue
        self._letters = letters
        self._workers = workers
        self._refused = refused
        self._advisories = AdvisoryQueue(connection)

    async def run(self, stop: asyncio.Event) -> None:
        """Deal with advisories until ``stop``; trouble is retried for ever."""
        while not stop.is_set():
            try:
                advisory = await self._advisories.next(_PULL_SEC, stop)
                if advisory is not None:
                    await self._deal_with(advisory)
            except StoreUnavailable as error:  # an advisory that was taken is given again
                log.debug("advisories wait for NATS", reason=error.message)
                await self._advisories.close()
                await first_event(_RETRY_SEC, stop)
        await self._advisories.close()

    async def settle(self, job_seq: int, deliveries: int) -> bool:
        """Deal with a job that is not delivered any more.

        Args:
            job_seq: Its sequence in the work stream.
            deliveries: How often it was delivered.

        Returns:
            Whether it is dealt with; ``False`` while a worker holds its run.

        Raises:
            StoreUnavailable: NATS is away; doing it again is safe.
        """
        found = await self._queue.look(job_seq)
        if found is None:
            return True  # acknowledged late, or another gateway was here
        tag, raw = found
        stuck = _Stuck(job_seq, tag, raw, f"{self._settings.work_subject_prefix}.{tag}", deliveries)
        try:
            job = Job.from_json(raw)
        except InvalidInput as error:
            await self._bury_job(stuck, error.message, None)
            return True
        for _ in range(_CHANGE_TRIES):
            stored = await self._runs.get(job.run_id, salvaged=True)
            if stored is None:
                await self._bury_job(stuck, f"there is no record of run {job.run_id}", job)
                return True
            if await self._is_held(stored.record, job_seq):
                return False
            try:
                await self._move_on(stored, stuck, job)
            except RevisionConflict:
                continue  # a cancel, another gateway, or its worker after all: look again
            await self._queue.remove(job_seq)
            return True
        raise StoreUnavailable(f"run {job.run_id} is written to faster than it can be settled")

    async def _deal_with(self, advisory: Advisory) -> None:
        try:
            dealt_with = await self._look_at(advisory)
        except StoreUnavailable:
            raise
        except Exception:  # a bug here must neither end the task nor lose the job
            log.exception("a job that NATS gave up could not be dealt with; trying again", job_seq=advisory.job_seq)
            await advisory.later(_FAILED_SEC)
            return
        if dealt_with:
            await advisory.done()
        else:
            await advisory.later(_LOOK_AGAIN_SEC)

    async def _look_at(self, advisory: Advisory) -> bool:
        if advisory.terminated:
            return await self._note_terminated(advisory)
        returned = self._connection.returned_at
        if returned is not None and time.monotonic() - returned < 2 * self._settings.worker_heartbeat_interval_sec:
            return False  # workers need a moment to show themselves after an absence of NATS
        return await self.settle(advisory.job_seq, advisory.deliveries)

    async def _note_terminated(self, advisory: Advisory) -> bool:
        """Leave a letter for a job that somebody took off the queue; our workers leave one before they do.

        One that was merely deleted while it was delivered has no story of its own: its run was cancelled, or is over
        and NATS was killed in between; a run that lost its job so is the reconciler's to find.
        """
        if advisory.reason.startswith(TERMINATED) or advisory.reason == _DELETED:
            return True
        if not advisory.reason and (moved := await self._refused.settle(advisory.job_seq)) is not None:
            return moved
        tag = self._queue.tag_of_consumer(advisory.consumer)
        why = advisory.reason or "no reason was given"
        letter = DeadLetter(
            reason=DeadLetterReason.INVALID_JOB,
            error=f"job {advisory.job_seq} was taken off the queue by a receiver of {advisory.consumer}: {why}",
            tag=tag,
            num_delivered=advisory.deliveries,
        )
        await self._letters.publish(letter, f"advisory:{advisory.id}")
        log.error("a job was taken off the queue", tag=tag, job_seq=advisory.job_seq, reason=why)
        return True

    async def _is_held(self, record: RunRecord, job_seq: int) -> bool:
        """Tell whether a live worker holds the run by this very job."""
        if record.status not in _CLAIMED or record.job_seq not in (None, job_seq):
            return False
        patience = self._settings.worker_disconnect_timeout_sec
        if record.instance_id is None:  # a worker of the existing system writes the record, and does not say who it is
            return time.time() - (record.heartbeat_at or 0.0) <= patience
        stored = await self._workers.get(record.worker_id) if record.worker_id else None
        return stored is not None and stored.record.holds(
            record.run_id, record.instance_id, now=time.time(), patience=patience
        )

    async def _move_on(self, stored: StoredRun, stuck: _Stuck, job: Job) -> None:
        """Take the run where it goes from here; the job itself is removed afterwards.

        Raises:
            RevisionConflict: its record was changed meanwhile.
        """
        record = stored.record
        if record.status in _CLAIMED and record.job_seq not in (None, stuck.seq):
            return  # another job has the run: this one is spent
        if not record.status.is_terminal:
            allowed, found = record.attempts_allowed(self._settings.run_max_attempts), stored.unreadable
            record = end_unreadable(record, RunStatus.FAILED, found.why) if found else undeliverable(record, allowed)
            await self._runs.update(record, stored.revision)
            if record.status is RunStatus.FAILED:
                lost = stored.record.worker_id
                log.error("run failed", **log_fields(record), **end_fields(record), lost_worker=lost)
        told = {"run_id": record.run_id, "tag": stuck.tag, "attempt": record.attempt, "num_delivered": stuck.deliveries}
        if record.status is RunStatus.PENDING:
            # The server has seen a job under the run's own name; under this one it drops a repeat of ours.
            await self._queue.publish_again(stuck.tag, stuck.raw, f"{record.run_id}:job-{stuck.seq}")
            log.warning("a job that NATS gave up was queued anew", **told)
            return
        reason = letter_reason(record, execution_errors=self._settings.dlq_publish_execution_error)
        if reason is not None:
            letter = letter_of_run(
                record, reason, tag=stuck.tag, job=job, num_delivered=stuck.deliveries, subject=stuck.subject
            )
            await self._letters.publish(letter, key_of_run(record, reason))
        log.warning("a job that NATS gave up was taken off the queue", status=record.status.value, **told)

    async def _bury_job(self, stuck: _Stuck, error: str, job: Job | None) -> None:
        letter = letter_of_job(
            stuck.raw, error, tag=stuck.tag, job=job, num_delivered=stuck.deliveries, subject=stuck.subject
        )
        await self._letters.publish(letter, key_of_job(stuck.seq, stuck.raw))
        await self._queue.remove(stuck.seq)
        log.error("an invalid job became a dead letter", tag=stuck.tag, run_id=letter.run_id, reason=error)
