"""Whether the worker that a run's record names still has the run.

NATS delivers a job again when its acknowledgements stayed away: mostly because the worker is dead, but also because
NATS itself was away or a consumer was made anew. Taking over from a worker that lives would run the task twice at once.
"""

import time

from pyoco_server.model.run import RunRecord
from pyoco_server.store.nats.connection import Connection
from pyoco_server.store.workers import WorkerStore
from pyoco_server.worker.registration import Registration

_BEATS = 2.5
"""Heartbeats that may be missing before a worker counts as dead."""
_FRESH_CLAIM = 1.0
"""Seconds after a claim in which the worker's heartbeat need not name the run yet."""
_RETURN_GRACE = 3.0
"""Seconds after NATS's return in which nobody counts as dead: all others are returning too."""
_MARGIN = 0.1
_QUIET_SEC = 5.0
"""A worker of the existing system, whose name its runs' records do not tell, writes them at least this often."""


class Owners:
    """Judges the owners of runs.

    Args:
        connection: Ours.
        workers: Where the workers' records are.
        registration: This worker's own.
    """

    def __init__(self, connection: Connection, workers: WorkerStore, registration: Registration) -> None:
        self._connection = connection
        self._workers = workers
        self._registration = registration
        self.ack_wait = connection.settings.consumer_ack_wait_sec
        """The queue's AckWait in seconds; nobody is waited for longer."""

    async def patience_with(self, record: RunRecord) -> float:
        """Tell for how many seconds a claimed run should still be left to its owner; 0 when its owner is gone.

        Raises:
            StoreUnavailable: NATS is away.
        """
        if record.instance_id == self._registration.instance_id:
            # Ours: either this very process runs it, or it lost it a moment ago.
            return self.ack_wait if record.run_id in self._registration.runs else 0.0
        if (grace := self._grace()) > 0:
            return grace
        now = time.time()
        if record.start_time is not None and 0 <= now - record.start_time < _FRESH_CLAIM:
            return _FRESH_CLAIM
        if record.instance_id is None:
            return max(0.0, min(_QUIET_SEC, self.ack_wait) - (now - (record.heartbeat_at or 0.0)))
        return await self._patience_with_ours(record, now)

    async def _patience_with_ours(self, record: RunRecord, now: float) -> float:
        stored = await self._workers.get(record.worker_id) if record.worker_id else None
        if stored is None:
            return 0.0
        owner = stored.record
        patience = min(_BEATS * owner.heartbeat_interval_sec, self.ack_wait)
        if not owner.holds(record.run_id, record.instance_id, now=now, patience=patience):
            return 0.0
        return max(0.0, patience - owner.silent_for(now)) + _MARGIN

    def _grace(self) -> float:
        """Tell for how many seconds nobody counts as dead, because NATS was away or stood still a moment ago."""
        # It may stand still without losing a connection; the others' heartbeats are then as late as ours.
        beats = self._registration.record.heartbeat_interval_sec
        grace = _RETURN_GRACE + beats - self._registration.steady_for()
        returned = self._connection.returned_at
        return grace if returned is None else max(grace, returned + _RETURN_GRACE - time.monotonic())
