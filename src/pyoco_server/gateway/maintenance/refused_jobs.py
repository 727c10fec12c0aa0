"""Jobs that a worker of the existing system has refused: their runs wait for one of ours, or end with the reason.

Such a worker takes a job that it cannot read off the queue, for good. Where only its size had sealed the job, it is
queued whole. Else a worker of ours may have the next one; without any for the tag the run fails, and says why.
"""

import time
from collections import OrderedDict

import structlog

from pyoco_server.errors import RevisionConflict
from pyoco_server.gateway.index.job_ledger import JobLedger
from pyoco_server.gateway.index.worker_index import WorkerIndex
from pyoco_server.model.deadletter import DeadLetterReason, key_of_run, letter_of_run
from pyoco_server.model.job import only_for
from pyoco_server.model.record.snapshot import end_fields, log_fields
from pyoco_server.model.run import EndReason, RunRecord, RunStatus, settle
from pyoco_server.store.deadletters import DeadLetterStore
from pyoco_server.store.runs import RunStore, StoredRun
from pyoco_server.store.submissions import Submissions

log = structlog.get_logger(__name__)

_OURS_SEEN_SEC = 300.0
"""For so long a worker of ours that has gone is expected back: it may be starting anew."""
_REMEMBERED = 10_000
_LONGEST_PAUSE = 60.0


class RefusedJobs:
    """Moves their runs on.

    Args:
        runs: The records.
        submissions: Queues jobs.
        letters: The dead letters.
        ledger: Which job was whose.
        workers: The workers as last seen.
    """

    def __init__(
        self,
        runs: RunStore,
        submissions: Submissions,
        letters: DeadLetterStore,
        ledger: JobLedger,
        workers: WorkerIndex,
    ) -> None:
        self._runs = runs
        self._submissions = submissions
        self._letters = letters
        self._ledger = ledger
        self._workers = workers
        self._refusals: OrderedDict[str, tuple[int, float]] = OrderedDict()
        """By run: how often it was refused in a row, and when (monotonic) its next job is due."""

    async def settle(self, job_seq: int) -> bool | None:
        """Deal with the run of a job that was refused.

        Args:
            job_seq: The job.

        Returns:
            Whether it is dealt with; ``False``: ask again later; ``None``: it is not known whose job it was, or who
            refused it.

        Raises:
            StoreUnavailable: NATS is away; doing it again is safe.
        """
        run_id = self._ledger.run_at(job_seq)
        stored = await self._runs.get(run_id) if run_id is not None else None
        if run_id is None or stored is None:
            return None
        if stored.record.status is not RunStatus.PENDING:
            return True
        if not self._workers.existing_serve(stored.record.tag):
            return None  # it was somebody else
        why = only_for(stored.record)
        count, due = self._refusals.get(run_id, (0, 0.0))
        may_be_whole = why is None and not count
        if not may_be_whole and not self._workers.own_serve(stored.record.tag, _OURS_SEEN_SEC):
            await self._end(stored, why)
            return True
        if time.monotonic() < due:
            return False
        self._remember(run_id, count + 1)
        seq = await self._submissions.put_job(stored, after=job_seq)
        self._ledger.mark({run_id: seq}, stored.revision)
        log.warning("a job was refused by a worker of the existing system, and queued again", run_id=run_id, why=why)
        return True

    def _remember(self, run_id: str, count: int) -> None:
        self._refusals[run_id] = count, time.monotonic() + min(2.0**count, _LONGEST_PAUSE)
        self._refusals.move_to_end(run_id)
        if len(self._refusals) > _REMEMBERED:
            self._refusals.popitem(last=False)

    async def _end(self, stored: StoredRun, why: str | None) -> None:
        ended = _refused(stored.record, why)
        try:
            await self._runs.update(ended, stored.revision)
        except RevisionConflict:
            return  # a cancel, or another gateway
        self._refusals.pop(ended.run_id, None)
        reason = DeadLetterReason.INVALID_JOB
        await self._letters.publish(letter_of_run(ended, reason, tag=ended.tag), key_of_run(ended, reason))
        log.error("run failed", **log_fields(ended), **end_fields(ended))


def _refused(record: RunRecord, why: str | None) -> RunRecord:
    meant = why or "workers of this system: its params and flow are too large for a message"
    text = (
        f"a worker of the existing pyoco-server refused the run, which is for {meant};"
        f" no other worker serves the tag {record.tag!r}"
    )
    return settle(record, RunStatus.FAILED, EndReason.INVALID_JOB, text)
