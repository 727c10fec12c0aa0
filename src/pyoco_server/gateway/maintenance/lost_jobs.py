"""Waiting runs whose jobs are not on the queue: they are found, and their jobs queued again.

A gateway that dies between record and job, or a queue that somebody purged, leaves a run that waits for ever. Each
waiting run's job is looked for once, in pages of the stream that many runs share; what was found is remembered in the
index until the run's record changes. A few of the remembered ones are looked at again each round: if one is gone, all
of its tag are looked for anew.
"""

import asyncio
import contextlib
import time
from dataclasses import dataclass
from datetime import datetime

import structlog
from pydantic import ValidationError

from pyoco_server.errors import InvalidInput, RevisionConflict
from pyoco_server.gateway.index.job_ledger import NOWHERE, JobLedger, WaitingRun
from pyoco_server.model.record.snapshot import end_fields, log_fields
from pyoco_server.model.run import RunStatus, end_unreadable
from pyoco_server.model.tags import check_tag
from pyoco_server.store.queue.job_maker import JobMaker
from pyoco_server.store.queue.queued_jobs import JOB_FOLLOWS, PAGE, QueuedJobs
from pyoco_server.store.runs import RunStore, StoredRun

log = structlog.get_logger(__name__)

_RUNS_AT_ONCE = 500
_APART_SEC = 60.0
"""Runs that began to wait farther apart than this are looked for in separate scans."""
_PAGES_A_ROUND = 40
_STALE_A_ROUND = 50
_LOOKED_AT_AGAIN = 20
_PUBLISH_TRIES = 5
_SETTLED_AT_ONCE = 25
_ROUND_SEC = 2.0
"""After so long a round begins no other page: runs without workers have their turn too."""
_FORGOTTEN_AT_ONCE = 5000


@dataclass
class Scan:
    """A walk along the stream, over several rounds if need be."""

    wanted: dict[str, WaitingRun]
    position: int | datetime
    until: datetime


class LostJobs:
    """Queues jobs that are missing.

    Args:
        runs: The records.
        maker: Makes the jobs and queues them.
        jobs: What is on it.
        ledger: Which jobs were seen.
        after_sec: How long a run must have waited before its job is looked for.
    """

    def __init__(
        self, runs: RunStore, maker: JobMaker, jobs: QueuedJobs, ledger: JobLedger, *, after_sec: float
    ) -> None:
        self._runs = runs
        self._maker = maker
        self._jobs = jobs
        self._ledger = ledger
        self._after_sec = after_sec
        self._scan: Scan | None = None
        self._checked = 0

    async def round(self) -> None:
        """Look for jobs for a bounded time; what is left is done in the next round.

        Raises:
            StoreUnavailable: NATS is away.
        """
        await self._check_stream()
        await self._look_again()
        deadline = time.monotonic() + _ROUND_SEC
        for _ in range(_PAGES_A_ROUND):
            if self._scan is None:
                self._scan = await self._begin()
            if self._scan is None or time.monotonic() > deadline:
                return
            if await self._read_page(self._scan):
                scan, self._scan = self._scan, None
                await self._settle_all(list(scan.wanted.values()))

    async def _check_stream(self) -> None:
        found = await self._jobs.identity()
        if self._ledger.stream != found:
            if self._ledger.stream is not None:
                log.warning("the queue was made anew; looking for the jobs of all waiting runs")
                await self._forget(None)
            self._ledger.stream = found

    async def _look_again(self) -> None:
        """Look whether a few of the jobs that were seen are still there; all of them in turn, over many rounds."""
        known = self._ledger.with_job(self._checked, _LOOKED_AT_AGAIN)
        self._checked = known[-1].job_seq if known else 0
        there = await asyncio.gather(*(self._jobs.holds(run.job_seq, run.run_id) for run in known))
        for tag in {run.tag for run, found in zip(known, there, strict=True) if not found and await self._waits(run)}:
            log.warning(
                "a job has vanished from the queue; looking for the jobs of all waiting runs of its tag", tag=tag
            )
            await self._forget(tag)

    async def _forget(self, tag: str | None) -> None:
        self._scan, self._checked = None, 0
        more = True
        while more:
            more = self._ledger.forget(tag, _FORGOTTEN_AT_ONCE)
            await asyncio.sleep(0)  # let others run: a large backlog takes a second

    async def _begin(self) -> Scan | None:
        """Choose the oldest runs whose jobs have not been seen, near to each other in time."""
        runs = self._ledger.without_job(time.time() - self._after_sec, _RUNS_AT_ONCE)
        runs = [run for run in runs if run.updated_at - runs[0].updated_at < _APART_SEC]
        first = await self._first_waiting(runs)
        last = await self._first_waiting(runs[::-1])
        if first is None or last is None:
            return None
        return Scan({run.run_id: run for run in runs}, first, last + JOB_FOLLOWS)

    async def _first_waiting(self, runs: list[WaitingRun]) -> datetime | None:
        """Give the time at which the first of the runs that still waits began to; the index may be a little behind."""
        for run in runs[:_STALE_A_ROUND]:
            stored = await self._waits(run)
            if stored is not None and stored.stored_at is not None:
                return stored.stored_at
        return None

    async def _read_page(self, scan: Scan) -> bool:
        """Read on, and mark what is found; the answer tells whether there is nothing left to read."""
        jobs = await self._jobs.page(scan.position)
        seen = {job.run_id: job.seq for job in jobs if job.run_id is not None}
        self._ledger.mark(seen)
        for run_id in seen:
            scan.wanted.pop(run_id, None)
        if len(jobs) < PAGE or jobs[-1].stored_at > scan.until:
            return True
        scan.position = jobs[-1].seq + 1
        return not scan.wanted

    async def _settle_all(self, runs: list[WaitingRun]) -> None:
        for start in range(0, len(runs), _SETTLED_AT_ONCE):
            some = runs[start : start + _SETTLED_AT_ONCE]
            done = await asyncio.gather(*(self._settle(run) for run in some))
            queued = [run.run_id for run, again in zip(some, done, strict=True) if again]
            if queued:
                log.warning("waiting runs had no jobs; queued them again", runs=len(queued), run_ids=queued)

    async def _settle(self, run: WaitingRun) -> bool:
        """Queue the job of a run for which none was found, if it still waits; tell whether it was queued."""
        stored = await self._waits(run)
        if stored is None:
            return False
        record = stored.record
        if record.job_seq and await self._jobs.holds(record.job_seq, run.run_id):
            self._ledger.mark({run.run_id: record.job_seq}, run.revision)  # handed back: it has its old job
            return False
        try:
            if record.run_id != run.run_id:
                raise InvalidInput(f"the record names itself {record.run_id!r}")
            tag, why = check_tag(record.tag), str(stored.revision)
            for _ in range(_PUBLISH_TRIES):
                seq = await self._maker.queue(record, tag, requeued=why)
                if await self._jobs.holds(seq, run.run_id) or await self._waits(run) is None:
                    self._ledger.mark({run.run_id: seq}, run.revision)
                    return True
                why = f"{stored.revision}:{seq}"  # dropped as the repeat of one that has vanished too
        except (ValidationError, InvalidInput) as error:  # another program's record
            log.error("a waiting run cannot be queued", run_id=run.run_id, reason=str(error))
            self._ledger.mark({run.run_id: NOWHERE}, run.revision)
        return False  # the next round tries on

    async def _waits(self, run: WaitingRun) -> StoredRun | None:
        """Give a run's record if it still waits as the index has it."""
        stored = await self._runs.get(run.run_id)
        if stored is None or stored.revision != run.revision:
            if stored is None:
                await self._unreadable(run)
            return None
        return stored if stored.record.status is RunStatus.PENDING else None

    async def _unreadable(self, run: WaitingRun) -> None:
        stored = await self._runs.get(run.run_id, salvaged=True)
        if stored is None or stored.unreadable is None or stored.revision != run.revision:
            return
        self._ledger.mark({run.run_id: NOWHERE}, run.revision)
        ended = end_unreadable(stored.record, RunStatus.FAILED, stored.unreadable.why)
        with contextlib.suppress(RevisionConflict):  # somebody mended it
            await self._runs.update(ended, stored.revision)
            log.error("run failed", **log_fields(ended), **end_fields(ended))
