"""Runs whose worker is gone and whose job NATS will not deliver again: they wait anew, or end.

As long as the job is on the queue NATS delivers it again, and the worker that gets it decides. Only where nothing is
left that could move the run is it settled here, by compare-and-set: whoever else moved it meanwhile wins.
"""

import time
from collections import deque
from dataclasses import dataclass

import structlog

from pyoco_server.errors import RevisionConflict
from pyoco_server.gateway.index.job_ledger import BusyRun, JobLedger
from pyoco_server.gateway.index.worker_index import WorkerIndex
from pyoco_server.model.deadletter import DeadLetterReason, key_of_run, letter_of_run, letter_reason
from pyoco_server.model.record.snapshot import end_fields, log_fields
from pyoco_server.model.run import RunRecord, RunStatus, end_unreadable, undeliverable
from pyoco_server.settings.environment import Settings
from pyoco_server.store.deadletters import DeadLetterStore
from pyoco_server.store.queue.queued_jobs import QueuedJobs
from pyoco_server.store.runs import RunStore, StoredRun
from pyoco_server.store.submissions import Submissions

log = structlog.get_logger(__name__)

_BEATS = 2.0
"""Heartbeats of its worker that may pass without naming the run."""
_PAGE = 1000
_SUSPECTS = 10_000
_UNSENT = 1000


@dataclass(frozen=True)
class _Suspicion:
    revision: int
    since: float


class LostOwners:
    """Settles runs that nobody has.

    Args:
        settings: Limits.
        runs: The records.
        jobs: What is on the queue.
        submissions: Queues the next attempt's job.
        letters: The dead letters.
        ledger: Which runs are busy.
        workers: The workers as last seen.
    """

    def __init__(
        self,
        settings: Settings,
        runs: RunStore,
        jobs: QueuedJobs,
        submissions: Submissions,
        letters: DeadLetterStore,
        ledger: JobLedger,
        workers: WorkerIndex,
    ) -> None:
        self._settings = settings
        self._runs = runs
        self._jobs = jobs
        self._submissions = submissions
        self._letters = letters
        self._ledger = ledger
        self._workers = workers
        self._suspects: dict[str, _Suspicion] = {}
        self._unsent: deque[RunRecord] = deque(maxlen=_UNSENT)
        self._pages: dict[str, tuple[float, str] | None] = {"RUNNING": None, "CANCELLING": None}

    async def round(self) -> None:
        """Look at a page of the runs that workers have.

        Raises:
            StoreUnavailable: NATS is away.
        """
        await self._send_letters()
        for status, before in self._pages.items():
            runs = self._ledger.busy(status, before, _PAGE)
            full = len(runs) == _PAGE
            self._pages[status] = (runs[-1].updated_at, runs[-1].run_id) if full else None
            for run in runs:
                if self._is_ripe(run):
                    await self._settle(run)
        self._tidy()

    def _is_ripe(self, run: BusyRun) -> bool:
        """Tell whether a run has been without an owner for long enough."""
        worker = self._workers.get(run.worker_id)
        if worker is not None and self._workers.state(worker).is_active and run.run_id in worker.current_run_ids:
            self._suspects.pop(run.run_id, None)
            return False
        suspicion = self._suspects.get(run.run_id)
        now = time.monotonic()
        if suspicion is None or suspicion.revision != run.revision:  # somebody wrote it: somebody has it
            self._suspects[run.run_id] = _Suspicion(run.revision, now)
            return False
        beat = max(self._settings.worker_heartbeat_interval_sec, worker.heartbeat_interval_sec if worker else 0.0)
        return now - suspicion.since >= _BEATS * beat

    async def _settle(self, run: BusyRun) -> None:
        stored = await self._runs.get(run.run_id, salvaged=True)
        ended = stored is not None and stored.unreadable is not None and stored.unreadable.has_ended
        if stored is None or ended or stored.revision != run.revision or self._has_owner(stored.record):
            self._suspects.pop(run.run_id, None)
            return
        record = stored.record
        if record.status is RunStatus.RUNNING and (
            (record.job_seq is None and stored.unreadable is None)
            or await self._jobs.holds(record.job_seq, record.run_id)
        ):
            return  # NATS delivers it again
        self._suspects.pop(run.run_id, None)
        try:
            settled = await self._runs.update(self._moved_on(stored), stored.revision)
        except RevisionConflict:
            return
        told = {**log_fields(settled.record), "lost_worker": record.worker_id}
        if settled.record.status is RunStatus.FAILED:
            log.error("run failed", **told, **end_fields(settled.record))
        else:
            log.warning("a run had lost its worker", **told, status=settled.record.status.value)
        await self._follow_up(settled)

    def _moved_on(self, stored: StoredRun) -> RunRecord:
        if stored.unreadable is not None:
            return end_unreadable(stored.record, RunStatus.FAILED, stored.unreadable.why)
        return undeliverable(stored.record, stored.record.attempts_allowed(self._settings.run_max_attempts))

    async def _follow_up(self, settled: StoredRun) -> None:
        record = settled.record
        if record.status is RunStatus.PENDING:
            seq = await self._submissions.put_job(settled)
            self._ledger.mark({record.run_id: seq}, settled.revision)
        elif record.status is RunStatus.FAILED:
            self._unsent.append(record)
            await self._send_letters()

    async def _send_letters(self) -> None:
        """Publish the letters of runs that ended here; one that fails stays for the next round."""
        while self._unsent:
            record = self._unsent[0]
            reason = letter_reason(record, execution_errors=False) or DeadLetterReason.ATTEMPTS_EXHAUSTED
            letter = letter_of_run(record, reason, tag=record.tag)
            await self._letters.publish(letter, key_of_run(record, reason))
            self._unsent.popleft()

    def _has_owner(self, record: RunRecord) -> bool:
        worker = self._workers.get(record.worker_id)
        return worker is not None and worker.holds(
            record.run_id, record.instance_id, now=time.time(), patience=self._settings.worker_disconnect_timeout_sec
        )

    def _tidy(self) -> None:
        """Forget suspicions of runs that ended, the oldest first."""
        while len(self._suspects) > _SUSPECTS:
            del self._suspects[next(iter(self._suspects))]
