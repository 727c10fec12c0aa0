"""Keeps one run's record in step with what its child tells: many events, few writes, all compare-and-set."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Any

import structlog

from pyoco_server.errors import RevisionConflict, StoreUnavailable
from pyoco_server.model.record.snapshot import fit, is_cut_task
from pyoco_server.model.run import EndReason, RunRecord, RunStatus, TaskStatus, hand_back, settle, undeliverable
from pyoco_server.store.runs import RunStore, StoredRun

log = structlog.get_logger(__name__)

_FIRST_WRITE = 0.05
_RETRY = (0.1, 2.0)
_KEPT_RECORDS = 4
_DOUBT_SEC = 5.0
"""For so long a record that is older than what we wrote is not believed: longer than a leader of the past answers."""


class Recorder:
    """The one writer of a claimed run.

    Args:
        runs: The store.
        claimed: The record as our claim stored it.
        environment: Digest of the wheel environment that the run imports from.
        isolation: Whether the run has a process of its own.
        interval: Seconds between two progress writes at least.
        on_cancel: Called once when somebody asked to cancel.
        on_lost: Called when the run is no longer ours: another attempt has it, or it ended without us.
    """

    def __init__(
        self,
        runs: RunStore,
        claimed: StoredRun,
        *,
        environment: str | None = None,
        isolation: str | None = None,
        interval: float,
        on_cancel: Callable[[], None],
        on_lost: Callable[[], None],
    ) -> None:
        self._runs = runs
        self.record = claimed.record.evolve(environment=environment, isolation=isolation)
        self._revision = claimed.revision
        self._interval = interval
        self._on_cancel = on_cancel
        self._on_lost = on_lost
        self._lost = False
        self._writing = asyncio.Lock()
        self._timer: asyncio.TimerHandle | None = None
        self._flush_task: asyncio.Task[None] | None = None
        self._last_write = 0.0
        self._closed = False
        self._doubtful_since: float | None = None
        self._cut: set[str] = set()
        """Tasks of whose records something is not kept."""
        self._unfitted = 0
        """Bytes that were told since the record was last cut to what is stored."""
        self._fitted = False
        """Whether that has cut anything; it is not known of which task."""

    def plan(self, tasks: list[str]) -> None:
        """Note the tasks that the flow has."""
        known = self.record.tasks
        self.record = self.record.evolve(tasks={name: known.get(name, TaskStatus.PENDING) for name in tasks})
        self._schedule()

    def note_task(self, name: str, fields: dict[str, Any], size: int, *, may_be_cut: bool = True) -> None:
        """Note what a task did.

        Args:
            name: The task.
            fields: What has changed in its record.
            size: About how many bytes that takes.
            may_be_cut: Whether it may hold less than there was.
        """
        task = {**self.record.task_records.get(name, {}), **fields}
        if may_be_cut or name in self._cut:
            (self._cut.add if is_cut_task(task) else self._cut.discard)(name)
        self.record = self.record.evolve(
            tasks={**self.record.tasks, name: TaskStatus(fields["state"])},
            task_records={**self.record.task_records, name: task},
            task_records_truncated=bool(self._cut) or self._fitted,
        )
        self._unfitted += size
        if self._unfitted > _KEPT_RECORDS * self._runs.max_bytes:  # more is never stored, so more is not kept
            fitted = fit(self.record, self._runs.max_bytes)
            self._fitted = self._fitted or fitted is not self.record
            self.record, self._unfitted = fitted, 0
        self._schedule()

    async def refresh(self) -> None:
        """Look at the stored record: it may carry a cancel, or belong to another attempt."""
        async with self._writing:
            await self._reload()

    async def settle(self, status: RunStatus, reason: EndReason, error: str | None) -> RunRecord | None:
        """Write the end of the run, over any absence of NATS.

        Returns:
            The terminal record; ``None`` if the run was no longer ours.
        """
        return await self._write_last(lambda record: settle(record, status, reason, error))

    async def hand_back(self) -> RunRecord | None:
        """Make the run wait again, as if this attempt had never started."""
        return await self._write_last(hand_back)

    async def give_up(self, max_attempts: int) -> RunRecord | None:
        """Make the run wait for its next attempt, if it has one: this one was lost, though this worker is back."""
        return await self._write_last(lambda record: undeliverable(record, max_attempts))

    async def _write_last(self, change: Callable[[RunRecord], RunRecord]) -> RunRecord | None:
        self._closed = True
        if self._timer:
            self._timer.cancel()
        pause, longest = _RETRY
        async with self._writing:
            while not self._lost:
                last = change(self.record)
                try:
                    try:
                        return (await self._runs.update(last, self._revision)).record
                    except RevisionConflict:
                        ended = await self._adopt()
                    if ended is not None:
                        return ended
                except StoreUnavailable as error:
                    # Perhaps it was written and only the answer was lost: the next try's conflict will tell.
                    log.warning("the end of a run waits for NATS", run_id=last.run_id, reason=error.message)
                    await asyncio.sleep(pause)
                    pause = min(pause * 2, longest)
        return None

    async def _adopt(self) -> RunRecord | None:
        """After a refused last write: the record if it is our own end already, else adopt it for the next try."""
        stored = await self._reload()
        return stored if stored is not None and self._is_ours(stored) and stored.status.is_terminal else None

    def _schedule(self) -> None:
        if self._closed or self._timer or (self._flush_task and not self._flush_task.done()):
            return
        wait = max(_FIRST_WRITE, self._last_write + self._interval - time.monotonic())
        self._timer = asyncio.get_running_loop().call_later(wait, self._start_flush)

    def _start_flush(self) -> None:
        self._timer = None
        self._flush_task = asyncio.create_task(self._flush(), name="progress")

    async def _flush(self) -> None:
        async with self._writing:
            if self._closed or self._lost:
                return
            sent = self.record
            self._last_write = time.monotonic()
            try:
                self._revision = (await self._runs.update(sent, self._revision)).revision
            except RevisionConflict:
                with contextlib.suppress(StoreUnavailable):
                    await self._reload()
            except StoreUnavailable as error:
                log.info("progress waits for NATS", run_id=sent.run_id, reason=error.message)
            else:
                if sent is self.record:
                    return
        self._flush_task = None
        self._schedule()

    async def _reload(self) -> RunRecord | None:
        """Read the stored record and merge what others may have written into ours."""
        stored = await self._runs.get(self.record.run_id, salvaged=True)
        if self._is_doubtful(stored):
            raise StoreUnavailable("what was read of the run is older than what was written")
        if stored is not None and self._is_damaged(stored):
            self._revision = stored.revision  # as long as we have the run, our record is better
            return None
        if stored is None or not self._is_ours(stored.record):
            self._lose()
            return None
        theirs = stored.record
        if theirs.status.is_terminal:
            if not self._closed:
                self._lose()
            return theirs
        self._revision = stored.revision
        if theirs.status is RunStatus.PENDING:
            return None  # its publisher has written it after its job, without looking
        if theirs.status is RunStatus.CANCELLING and self.record.status is not RunStatus.CANCELLING:
            if self._closed:
                log.info("a cancel came before the end of the run was written", run_id=theirs.run_id)
            self.record = self.record.evolve(
                status=RunStatus.CANCELLING,
                cancel_requested_at=theirs.cancel_requested_at,
                cancel_requested_by=theirs.cancel_requested_by,
                cancel_reason=theirs.cancel_reason,
            )
            self._on_cancel()
        return theirs

    def _is_doubtful(self, stored: StoredRun | None) -> bool:
        """Tell whether it is too early to believe that the record is gone, or older than our own last write."""
        if not self._runs.may_be_late or (stored is not None and stored.revision >= self._revision):
            self._doubtful_since = None
            return False
        now = time.monotonic()
        self._doubtful_since = self._doubtful_since or now
        return now - self._doubtful_since < _DOUBT_SEC

    def _is_damaged(self, stored: StoredRun) -> bool:
        """Whether a record cannot be read, and what can be read of it does not say that the run is another's."""
        found = stored.unreadable
        if found is None or found.has_ended:
            return False
        return not {"attempt", "instance_id"} <= found.known or self._is_ours(stored.record)

    def _is_ours(self, stored: RunRecord) -> bool:
        if stored.status is RunStatus.PENDING and not stored.attempt and stored.instance_id is None:
            return True  # only a publisher, or we ourselves, make a run wait for its first attempt
        return stored.attempt == self.record.attempt and stored.instance_id == self.record.instance_id

    def _lose(self) -> None:
        if not self._lost:
            self._lost = True
            log.warning("the run is no longer ours", run_id=self.record.run_id, attempt=self.record.attempt)
            self._on_lost()
