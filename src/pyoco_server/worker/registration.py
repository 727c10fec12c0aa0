"""The worker's name and its sign of life."""

import asyncio
import os
import socket
import time
import uuid
from collections.abc import Callable
from typing import Any

import psutil
import structlog

from pyoco_server import __version__
from pyoco_server.errors import CommandFailed, RevisionConflict, StoreUnavailable
from pyoco_server.model.run import RunRecord
from pyoco_server.model.worker import TasksRun, WorkerRecord, WorkerState, WorkerTrouble
from pyoco_server.process.waiting import first_event
from pyoco_server.settings.environment import Settings
from pyoco_server.store.workers import StoredWorker, WorkerStore

log = structlog.get_logger(__name__)

_LOOK_EVERY = 0.5
_NEWS_AFTER = 0.5
"""Seconds after which a change of what the worker does is written, however many changes there are."""
_GAP_BEATS, _GAP_SEC = 2.0, 0.5
"""Two heartbeats of our own that are so many intervals, and so many seconds more, apart mean that NATS stood still."""


class Registration:
    """Holds the worker's record: takes the name, writes heartbeats, says goodbye.

    Args:
        settings: Intervals.
        store: Where the records are.
        worker_id: The name.
        tags: What the worker serves.
        slots: How many runs at a time.
    """

    def __init__(self, settings: Settings, store: WorkerStore, worker_id: str, tags: list[str], slots: int) -> None:
        self._settings = settings
        self._store = store
        self._revision = 0
        self._news = asyncio.Event()
        self.asked_to_drain: Callable[[], None] = lambda: None
        """Called when somebody asks this process to drain; the reason is in the record. Perhaps more than once."""
        self.record = WorkerRecord(
            worker_id=worker_id,
            instance_id=uuid.uuid4().hex,
            tags=tags,
            slots=slots,
            host=socket.gethostname(),
            pid=os.getpid(),
            version=__version__,
            isolation=settings.isolation,
            preload=list(settings.preload),
            started_at=time.time(),
            heartbeat_interval_sec=settings.worker_heartbeat_interval_sec,
        )
        self.last_pull_at: float | None = None
        self._beat_at: float | None = None
        self._steady_since = float("-inf")
        self._runs: list[str] = []

    @property
    def instance_id(self) -> str:
        """What tells this process from another with the same name."""
        return self.record.instance_id

    @property
    def runs(self) -> list[str]:
        """The runs that this process has."""
        return self._runs

    def beat_at_least_every(self, seconds: float) -> None:
        """Shorten the interval: whoever gets a job of ours must see by our heartbeat that we live."""
        interval = min(seconds, self._settings.worker_heartbeat_interval_sec)
        self.record = self.record.evolve(heartbeat_interval_sec=interval)

    def beat_now(self) -> None:
        """Write a heartbeat soon, without waiting for its time."""
        self._news.set()

    def note_resources(self, figures: dict[str, Any]) -> None:
        """Note what the worker takes of its machine: it goes with the next heartbeat.

        Args:
            figures: Fields of the record.
        """
        first = self.record.memory_bytes is None
        self.record = self.record.evolve(**figures)
        if first:
            self._news.set()

    def note_tasks_run(self, how: TasksRun) -> None:
        """Note as whom tasks run, and what keeps them from other processes."""
        self.record = self.record.evolve(tasks_run=how)

    def note_draining(self) -> None:
        """Note that no more runs are taken, and write it soon."""
        self.record = self.record.evolve(draining=True)
        self._news.set()

    def note_trouble(self, trouble: WorkerTrouble | None) -> None:
        """Note what keeps this worker from beginning runs, or that nothing does, and write it soon."""
        self.record = self.record.evolve(trouble=trouble)
        self._news.set()

    def note_wheels(self, status: dict[str, Any], news: bool) -> None:
        """Note what the wheel sync does.

        Args:
            status: The record's ``wheel_sync``.
            news: Whether to write it soon.
        """
        self.record = self.record.evolve(wheel_sync=status)
        if news:
            self._news.set()

    async def take_name(self) -> None:
        """Write the first record.

        Raises:
            CommandFailed: another live process has the name.
            StoreUnavailable: NATS is away.
        """
        while True:
            found = await self._store.get(self.record.worker_id)
            if found is not None and found.record.instance_id == self.instance_id:
                self._revision = found.revision  # taken before: only NATS's word of it was lost
                return
            if found is not None:
                await self._wait_for_silence(found)
                found = await self._store.get(self.record.worker_id)
            kept = {"hidden": found.record.hidden} if found else {}
            self.record = self.record.seen([], None).evolve(**kept)
            try:
                self._revision = await self._store.update(self.record, found.revision if found else 0)
            except RevisionConflict:
                continue  # another process takes the same name in this moment: look who it is
            return

    async def beat(self, stop: asyncio.Event) -> None:
        """Write a heartbeat every interval, and soon after news, until ``stop``.

        Raises:
            CommandFailed: another process took the name.
        """
        while not stop.is_set():
            try:
                await self._write(self.record.seen(list(self._runs), self.last_pull_at))
                self._note_beat(time.monotonic())
            except (StoreUnavailable, RevisionConflict) as error:
                log.info("a heartbeat could not be written; the next one follows", reason=error.message)
            self._news.clear()
            await first_event(self.record.heartbeat_interval_sec, stop, self._news)
            if self._news.is_set():
                await first_event(_NEWS_AFTER, stop)

    def steady_for(self) -> float:
        """Tell for how many seconds our own heartbeats have arrived without a gap; 0 while they do not.

        Others' do not arrive then either, and their silence says nothing.
        """
        now = time.monotonic()
        if self._beat_at is not None and now - self._beat_at > self._gap:
            return 0.0
        return now - self._steady_since

    def _note_beat(self, now: float) -> None:
        if self._beat_at is not None and now - self._beat_at > self._gap:
            self._steady_since = now
        self._beat_at = now

    @property
    def _gap(self) -> float:
        return _GAP_BEATS * self.record.heartbeat_interval_sec + _GAP_SEC

    async def say_goodbye(self, reason: str) -> None:
        """Write that the worker stopped in order, if it ever had its name."""
        if not self._revision:
            return
        gone = self.record.seen([], self.last_pull_at).evolve(
            draining=False, trouble=None, memory_bytes=None, cpu_percent=None, gpus=[]
        )
        await self._write(gone.evolve(state=WorkerState.STOPPED_GRACEFUL, stopped_at=time.time(), stop_reason=reason))

    async def look(self) -> None:
        """Look at once whether somebody asked this process to drain; the next heartbeat would find it too."""
        try:
            found = await self._store.get(self.record.worker_id)
        except StoreUnavailable as error:
            log.info("looking at the worker's own record waits for the next heartbeat", reason=error.message)
            return
        if found is not None and found.record.instance_id == self.instance_id:
            self._take_over(found.record)

    def started(self, run_id: str) -> None:
        """Note that a run started here."""
        self._runs.append(run_id)
        self.record = self.record.evolve(last_run_id=run_id, last_run_started_at=time.time())
        self._news.set()

    def ended(self, run_id: str, record: RunRecord | None) -> None:
        """Note that a run ended here."""
        self._runs.remove(run_id)
        if record is not None:
            self.record = self.record.evolve(
                last_run_id=run_id, last_run_status=record.status.value, last_run_finished_at=time.time()
            )
        self._news.set()

    async def _write(self, record: WorkerRecord) -> None:
        self.record = record
        try:
            self._revision = await self._store.update(record, self._revision)
        except RevisionConflict:
            found = await self._store.get(record.worker_id)
            if found is not None and found.record.instance_id != record.instance_id:
                raise self._taken(found, "was taken over") from None
            if found is not None:
                self._take_over(found.record)
            self._revision = await self._store.update(self.record, found.revision if found else 0)

    def _take_over(self, stored: WorkerRecord) -> None:
        """Take over what others may write into our record; everything else in it is ours."""
        asked = stored.drain_requested_at is not None
        self.record = self.record.evolve(
            hidden=stored.hidden,
            drain_requested_at=stored.drain_requested_at,
            drain_reason=stored.drain_reason,
            draining=self.record.draining or (asked and self.record.state.is_active),
        )
        if asked:
            self.asked_to_drain()

    async def _wait_for_silence(self, found: StoredWorker) -> None:
        """Let a dead holder's name become free; a live one shows itself by its next heartbeat."""
        holder = found.record
        timeout = self._settings.worker_disconnect_timeout_sec
        told = False
        while holder.state_at(time.time(), timeout).is_active:
            if holder.host == self.record.host and holder.pid and not psutil.pid_exists(holder.pid):
                return
            if holder.last_heartbeat_at > found.record.last_heartbeat_at:
                raise self._taken(StoredWorker(holder, 0), "is taken")
            if not told:
                told = True
                log.info("the worker id was in use a moment ago; waiting whether its holder lives",
                         worker_id=holder.worker_id, host=holder.host, pid=holder.pid)  # fmt: skip
            await asyncio.sleep(_LOOK_EVERY)
            newest = await self._store.get(holder.worker_id)
            holder = newest.record if newest else holder.evolve(state=WorkerState.STOPPED_GRACEFUL)

    def _taken(self, found: StoredWorker, how: str) -> CommandFailed:
        holder = found.record
        return CommandFailed(
            f"the worker id {holder.worker_id!r} {how} by process {holder.pid} on host {holder.host}",
            hint="Give each worker its own name: pyoco-worker --worker-id cpu-2 …",
        )
