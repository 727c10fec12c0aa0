"""From a delivered job to a claimed run, or to the reason why there is nothing to run."""

import asyncio
import time
from dataclasses import dataclass

import structlog

from pyoco_server.errors import InvalidInput, RevisionConflict, StoreUnavailable
from pyoco_server.model.deadletter import (
    TERMINATED,
    key_of_job,
    key_of_run,
    letter_of_job,
    letter_of_run,
    letter_reason,
)
from pyoco_server.model.existing.unrecorded import check_agrees, record_of, regained
from pyoco_server.model.job import Job
from pyoco_server.model.record.snapshot import end_fields, log_fields
from pyoco_server.model.run import RunRecord, RunStatus, cancelled, claim, end_unreadable, undeliverable
from pyoco_server.settings.environment import Settings
from pyoco_server.store.deadletters import DeadLetterStore
from pyoco_server.store.queue.job_queue import Delivery
from pyoco_server.store.runs import RunStore, StoredRun
from pyoco_server.worker.owners import Owners

log = structlog.get_logger(__name__)

_CLAIM_TRIES = 10
_CONFIRM_PAUSES = (0.1, 0.3, 1.0)
"""Seconds between the tries of a claim that was not answered."""
_MISSES = 3
_MISS_PAUSE = 2.0
_RECORD_FOLLOWS = 1.0
"""Seconds in which the record of another program's job may follow the job."""
_PROBATION = 5.0
"""Seconds after which a last attempt that runs has not killed its worker, and the next one may start beside it."""


@dataclass(frozen=True)
class Claimed:
    """A run that is ours, and the job that gave the right to it."""

    job: Job
    stored: StoredRun


class Claims:
    """Decides what a delivery means. Every answer to the queue follows the write that makes it safe."""

    def __init__(
        self,
        settings: Settings,
        runs: RunStore,
        letters: DeadLetterStore,
        owners: Owners,
        *,
        worker_id: str,
        instance_id: str,
    ) -> None:
        self._settings = settings
        self._runs = runs
        self._letters = letters
        self._owners = owners
        self._worker_id = worker_id
        self._instance_id = instance_id
        self._last_attempt = ("", 0.0)

    async def take(self, delivery: Delivery) -> Claimed | None:
        """Claim the run of a delivery; ``None`` when the delivery has been dealt with.

        Raises:
            StoreUnavailable: NATS is away; the job is delivered again after AckWait.
        """
        try:
            job = Job.from_json(delivery.data)
        except InvalidInput as error:
            await self._refuse(delivery, error.message, None)
            return None
        tried: list[RunRecord] = []
        for _ in range(_CLAIM_TRIES):
            stored = await self._runs.get(job.run_id, salvaged=True)
            if stored is None:
                stored = await self._miss(delivery, job)
                if stored is None:
                    return None
            if (
                stored.record in tried
            ):  # two servers took themselves for the leader: one refused it, the other stored it
                return Claimed(job, stored)
            try:
                return await self._decide(delivery, job, stored, tried)
            except RevisionConflict:
                continue  # a cancel, most likely: look again
        log.warning("a run changes too fast to be claimed", run_id=job.run_id)
        await delivery.give_back()
        return None

    async def bury(self, record: RunRecord, delivery: Delivery) -> None:
        """Publish the dead letter of a run that ended badly, if it leaves one; a repeat is dropped by the server."""
        reason = letter_reason(record, execution_errors=self._settings.dlq_publish_execution_error)
        if reason is not None:
            letter = letter_of_run(
                record,
                reason,
                tag=delivery.tag,
                job=Job.from_json(delivery.data),
                worker_id=self._worker_id,
                num_delivered=delivery.num_delivered,
                subject=delivery.subject,
            )
            await self._letters.publish(letter, key_of_run(record, reason))

    async def _decide(self, delivery: Delivery, job: Job, stored: StoredRun, tried: list[RunRecord]) -> Claimed | None:
        record = stored.record
        if record.status.is_terminal:
            # Redelivered after its end: nothing to run, but its worker may have died before it published the letter.
            await self.bury(record, delivery)
            await delivery.ack()
            return None
        if record.status is not RunStatus.PENDING and record.job_seq not in (None, delivery.seq):
            # Only the message that a running attempt holds may take that attempt over. A run that waits again
            # may be claimed by any of its messages: its first one may be gone.
            log.warning("dropped a second job of a run", run_id=record.run_id, attempt=record.attempt)
            await delivery.ack()
            return None
        if record.status is not RunStatus.PENDING:
            held_for = await self._owners.patience_with(record)
            if held_for > 0:
                log.info("a job came again though its run is held", run_id=record.run_id, worker=record.worker_id)
                await delivery.give_back(held_for)
                return None
        if stored.unreadable is not None:  # what it is to do cannot be told
            ended = end_unreadable(record, RunStatus.FAILED, stored.unreadable.why)
            await self._end(delivery, ended, stored)
            return None
        if record.status is RunStatus.CANCELLING:  # its worker died before it could end the run
            await self._runs.update(cancelled(record), stored.revision)
            await delivery.ack()
            return None
        return await self._start(delivery, job, stored, tried)

    async def _start(self, delivery: Delivery, job: Job, stored: StoredRun, tried: list[RunRecord]) -> Claimed | None:
        """Claim the next attempt, if there is one; what was tried is noted."""
        record = regained(stored.record, job, delivery.num_delivered)
        if not job.recorded and record.status is RunStatus.PENDING and not record.attempt:
            try:
                check_agrees(job, record)
            except InvalidInput as error:
                await self._refuse(delivery, error.message, job)
                return None
            record = record.evolve(
                workflow_yaml_sha256=record.workflow_yaml_sha256 or job.flow_sha256,
                params=record.params or job.params or {},
            )
        allowed = record.attempts_allowed(self._settings.run_max_attempts)
        if record.attempt >= allowed:
            await self._end(delivery, undeliverable(record, allowed), stored)
            return None
        if record.attempt and record.attempt + 1 == allowed and (wait := self._wait_for_last(record.run_id)) > 0:
            log.info("a last attempt waits until another one has shown itself harmless", run_id=record.run_id)
            await delivery.give_back(wait)
            return None
        ours = claim(record, worker_id=self._worker_id, instance_id=self._instance_id, job_seq=delivery.seq)
        tried.append(ours)
        return Claimed(job, await self._write(ours, stored.revision))

    def ended(self, run_id: str) -> None:
        """Note that a claimed run is over here, whatever became of it."""
        if run_id == self._last_attempt[0]:
            self._last_attempt = ("", 0.0)

    def _wait_for_last(self, run_id: str) -> float:
        """Let one last attempt start; give the seconds for which another one keeps it back.

        Runs that lost all attempts but one have a task among them that kills its worker, and neighbours that died with
        it and come back at the same moment. One after the other they come apart, and only the killer fails.
        """
        holder, since = self._last_attempt
        left = since + _PROBATION - time.monotonic()
        if holder not in ("", run_id) and left > 0:
            return left
        self._last_attempt = (run_id, time.monotonic())
        return 0.0

    async def _write(self, ours: RunRecord, revision: int) -> StoredRun:
        """Write a claim. One whose answer was lost is looked for, or it would cost an attempt that never started.

        Raises:
            RevisionConflict: somebody else wrote first.
            StoreUnavailable: it is not known whether it was written; the job is delivered again after AckWait.
        """
        for pause in (*_CONFIRM_PAUSES, None):
            try:
                return await self._runs.update(ours, revision)
            except RevisionConflict:
                found = await self._runs.get(ours.run_id)
                if found is not None and found.record == ours:
                    return found
                raise
            except StoreUnavailable as error:
                if pause is None:
                    raise
                log.info("a claim was not answered; trying again", run_id=ours.run_id, reason=error.message)
                await asyncio.sleep(pause)
        raise AssertionError("unreachable")

    async def _end(self, delivery: Delivery, ended: RunRecord, stored: StoredRun) -> None:
        await self._runs.update(ended, stored.revision)
        await self.bury(ended, delivery)
        await delivery.ack()
        log.error("run failed", **log_fields(ended), **end_fields(ended), lost_worker=stored.record.worker_id)

    async def _miss(self, delivery: Delivery, job: Job) -> StoredRun | None:
        """Deal with a job whose record is not found: another program's has its record made, where none follows.

        Returns:
            The record; ``None`` where there is none, and the delivery has been dealt with.
        """
        if self._runs.may_be_late and delivery.num_delivered < _MISSES:
            log.info("a run is not found; looking again soon", run_id=job.run_id)
            await delivery.give_back(_MISS_PAUSE)
        elif job.recorded:  # it was taken back, or has expired
            await self._refuse(delivery, f"there is no record of run {job.run_id}", job)
        elif delivery.num_delivered == 1:  # its publisher may write it over ours, without looking
            await delivery.give_back(_RECORD_FOLLOWS)
        else:
            return await self._make_record(delivery, job)
        return None

    async def _make_record(self, delivery: Delivery, job: Job) -> StoredRun | None:
        try:
            record = record_of(job, delivery.tag, self._runs.max_bytes // 2)
        except InvalidInput as error:
            await self._refuse(delivery, error.message, job)
            return None
        try:
            return StoredRun(record, await self._runs.create(record))
        except RevisionConflict:
            return await self._runs.get(job.run_id, salvaged=True)

    async def _refuse(self, delivery: Delivery, error: str, job: Job | None) -> None:
        letter = letter_of_job(
            delivery.data,
            error,
            tag=delivery.tag,
            job=job,
            worker_id=self._worker_id,
            num_delivered=delivery.num_delivered,
            subject=delivery.subject,
        )
        letter_id = await self._letters.publish(letter, key_of_job(delivery.seq, delivery.data))
        told = {"run_id": letter.run_id, "tag": delivery.tag, "letter_id": letter_id}
        log.error("an invalid job became a dead letter", reason=error, **told)
        await delivery.drop(f"{TERMINATED}{letter_id}: invalid job")
