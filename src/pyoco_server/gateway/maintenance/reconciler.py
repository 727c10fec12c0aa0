"""The reconciler: moves on what nobody else can move any more. Several gateways may do it at once.

It works from the index and single look-ups, never over history. Every decision is a compare-and-set, and a job that is
queued again carries the record's revision as its name, so that the second gateway's is dropped.
"""

import time
from collections import OrderedDict

import structlog

from pyoco_server.errors import RevisionConflict
from pyoco_server.gateway.maintenance.gone_workers import GoneWorkers
from pyoco_server.gateway.maintenance.lost_jobs import LostJobs
from pyoco_server.gateway.maintenance.lost_owners import LostOwners
from pyoco_server.model.run import RunStatus
from pyoco_server.store.nats.connection import Connection
from pyoco_server.store.nats.feed import BucketFeed
from pyoco_server.store.runs import RunStore

log = structlog.get_logger(__name__)

_DOUBTS = 10_000
_DOUBTS_A_ROUND = 200
_LATE_WRITE_SEC = 30.0
"""Seconds after which a write that was given up is not carried out any more."""
_QUICK_SEC = 0.5


class Doubts:
    """Runs without a key that were answered 503 and could not be taken back: it is done once NATS answers.

    Args:
        runs: The records.
    """

    def __init__(self, runs: RunStore) -> None:
        self._runs = runs
        self._open: OrderedDict[str, tuple[int | None, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._open)

    def add(self, run_id: str, revision: int | None) -> None:
        """Remember a run.

        Args:
            run_id: The run.
            revision: Of its record, if that is known to exist.
        """
        self._open[run_id] = (revision, time.monotonic())
        if len(self._open) > _DOUBTS:
            forgotten, _ = self._open.popitem(last=False)
            log.warning("a run that was answered 503 is not taken back", run_id=forgotten)

    async def settle(self) -> None:
        """Take back what nobody has.

        Raises:
            StoreUnavailable: NATS is away.
        """
        for run_id, (revision, since) in list(self._open.items())[:_DOUBTS_A_ROUND]:
            stored = await self._runs.get(run_id)
            if stored is None:
                if revision is None and time.monotonic() - since < _LATE_WRITE_SEC:
                    self._open.move_to_end(run_id)
                    continue
            elif stored.record.status is RunStatus.PENDING and not stored.record.attempt:
                try:
                    await self._runs.take_out(run_id, stored.revision)
                    log.info("took a run back that was answered 503", run_id=run_id)
                except RevisionConflict:
                    log.info("a run that was answered 503 has begun", run_id=run_id)
            self._open.pop(run_id, None)


class Reconciler:
    """Makes its rounds.

    Args:
        connection: The connection.
        feeds: What the index and the workers are known from; nothing is decided while one is behind.
        doubts: Runs to take back.
        lost_jobs: Waiting runs without jobs.
        lost_owners: Claimed runs without workers.
        gone_workers: Records of workers to forget.
        interval_sec: Between two rounds.
        after_sec: NATS must have been there for so long: before, everybody is still returning.
    """

    def __init__(
        self,
        connection: Connection,
        feeds: list[BucketFeed],
        doubts: Doubts,
        lost_jobs: LostJobs,
        lost_owners: LostOwners,
        gone_workers: GoneWorkers,
        *,
        interval_sec: float,
        after_sec: float,
    ) -> None:
        self._connection = connection
        self._feeds = feeds
        self._doubts = doubts
        self._lost_jobs = lost_jobs
        self._lost_owners = lost_owners
        self._gone_workers = gone_workers
        self._interval_sec = interval_sec
        self._after_sec = after_sec

    def pause(self) -> float:
        """Return for how many seconds a round may wait."""
        # What was answered 503 is taken back before anybody thinks that its job is missing.
        return min(self._interval_sec, _QUICK_SEC) if self._doubts else self._interval_sec

    async def round(self) -> None:
        """Do one round, or nothing while NATS is away or the index is behind.

        Raises:
            StoreUnavailable: NATS went away.
        """
        if not self._connection.is_up:
            return
        await self._doubts.settle()
        up_since = self._connection.up_since
        settled = up_since is not None and time.monotonic() - up_since >= self._after_sec
        if settled and all(feed.caught_up.is_set() for feed in self._feeds):
            await self._lost_jobs.round()
            await self._lost_owners.round()
            await self._gone_workers.round()
