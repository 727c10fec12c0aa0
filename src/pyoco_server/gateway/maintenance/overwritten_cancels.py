"""Cancels of runs that a worker of the existing system has.

Such a worker writes a run's record without looking at it, and so may wipe out a cancel before it has seen it. So the
cancel is written again, until the worker's own writes carry it or the run has ended.
"""

import asyncio
import contextlib
import time

import structlog

from pyoco_server.errors import StoreUnavailable
from pyoco_server.gateway.index.run_index import RunIndex
from pyoco_server.model.run import RunRecord, RunStatus
from pyoco_server.process.waiting import first_event
from pyoco_server.store.runs import RunStore

log = structlog.get_logger(__name__)

_MOST_AT_ONCE = 1000
_LONGEST_SEC = 3600.0
_LOOK_SEC = 1.0


class Insistence:
    """Sees to cancels.

    Args:
        runs: The records.
        index: Tells of their changes.
        stopping: Set when the gateway stops.
    """

    def __init__(self, runs: RunStore, index: RunIndex, stopping: asyncio.Event) -> None:
        self._runs = runs
        self._index = index
        self._stopping = stopping
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def see_to(self, record: RunRecord) -> None:
        """Follow a run whose cancel was just written, if no worker of ours has it."""
        run_id = record.run_id
        if record.status is not RunStatus.CANCELLING or record.instance_id is not None or run_id in self._tasks:
            return
        if len(self._tasks) >= _MOST_AT_ONCE:
            log.warning("a cancel is not followed: too many are", run_id=run_id)
            return
        task = self._tasks[run_id] = asyncio.create_task(self._follow(record), name=f"cancel-{run_id}")
        task.add_done_callback(lambda done: self._ended(run_id, done))

    def _ended(self, run_id: str, task: asyncio.Task[None]) -> None:
        self._tasks.pop(run_id, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("following a cancel failed", run_id=run_id, reason=repr(error))

    async def _follow(self, asked: RunRecord) -> None:
        def again(record: RunRecord) -> RunRecord:
            if record.status is not RunStatus.RUNNING or record.cancel_requested_at is not None:
                return record
            if record.instance_id is not None:  # a worker of ours has it now, which loses no cancel
                return record
            log.info("a worker of the existing system has wiped out a cancel; writing it again", run_id=record.run_id)
            return record.evolve(
                status=RunStatus.CANCELLING,
                cancel_requested_at=asked.cancel_requested_at,
                cancel_requested_by=asked.cancel_requested_by,
                cancel_reason=asked.cancel_reason,
            )

        until = time.monotonic() + _LONGEST_SEC
        with self._index.subscribe(asked.run_id) as box:
            while time.monotonic() < until and not self._stopping.is_set():
                with contextlib.suppress(StoreUnavailable):  # the next look is soon
                    stored = await self._runs.change(asked.run_id, again)
                    if stored is None or stored.record.status.is_terminal:
                        return
                await first_event(_LOOK_SEC, box.arrived, self._stopping)
                box.take()
