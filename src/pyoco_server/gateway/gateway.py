"""What the routes share: the store, the index, and the tasks that keep them fresh."""

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable
from typing import Annotated, cast

import structlog
from fastapi import Depends, Request

from pyoco_server.errors import StoreRefused, StoreUnavailable
from pyoco_server.gateway.access.keykeeper import KeyKeeper
from pyoco_server.gateway.audit.log import AuditLog
from pyoco_server.gateway.deadletters.letter_counts import LetterCounts
from pyoco_server.gateway.deadletters.letter_reasons import LetterReasons
from pyoco_server.gateway.http.connections import Connections
from pyoco_server.gateway.index.queue_depths import Depths
from pyoco_server.gateway.index.run_index import RunIndex
from pyoco_server.gateway.index.worker_index import WorkerIndex
from pyoco_server.gateway.maintenance.advisories import Backstop
from pyoco_server.gateway.maintenance.census import Census
from pyoco_server.gateway.maintenance.gone_workers import GoneWorkers
from pyoco_server.gateway.maintenance.letter_flows import LetterFlows
from pyoco_server.gateway.maintenance.lost_jobs import LostJobs
from pyoco_server.gateway.maintenance.lost_owners import LostOwners
from pyoco_server.gateway.maintenance.overwritten_cancels import Insistence
from pyoco_server.gateway.maintenance.reconciler import Doubts, Reconciler
from pyoco_server.gateway.maintenance.refused_jobs import RefusedJobs
from pyoco_server.gateway.maintenance.relief import Relief
from pyoco_server.gateway.maintenance.retention import Retention
from pyoco_server.gateway.maintenance.spent_logs import SpentLogs
from pyoco_server.gateway.maintenance.unused_flows import LooseFlows
from pyoco_server.gateway.monitoring.capacity import StoreRoom
from pyoco_server.gateway.monitoring.durability import DurabilityReader
from pyoco_server.gateway.monitoring.figures import FiguresReader
from pyoco_server.gateway.monitoring.metrics import Metrics
from pyoco_server.gateway.streaming.stream_watch import StreamWatch
from pyoco_server.gateway.submitting.checking.checker import FlowChecker
from pyoco_server.gateway.wheels.upload_room import Uploads
from pyoco_server.model.parts import Parts
from pyoco_server.process.supervision import Supervised, Supervisor
from pyoco_server.process.waiting import first_event
from pyoco_server.settings.environment import Settings
from pyoco_server.store import topology
from pyoco_server.store.audit import AuditTrail
from pyoco_server.store.control import ControlChannel
from pyoco_server.store.deadletters import DeadLetterStore
from pyoco_server.store.flows import FlowStore
from pyoco_server.store.logs import LogStore
from pyoco_server.store.nats.connection import Connection
from pyoco_server.store.nats.feed import BucketFeed, Change
from pyoco_server.store.nats.stream_keeper import StreamKeeper
from pyoco_server.store.queue.job_maker import JobMaker
from pyoco_server.store.queue.job_queue import JobQueue
from pyoco_server.store.queue.queued_jobs import QueuedJobs
from pyoco_server.store.runs import RunStore
from pyoco_server.store.submissions import Submission, Submissions
from pyoco_server.store.wheel_history import WheelHistory
from pyoco_server.store.wheels import WheelStore
from pyoco_server.store.workers import WorkerStore

log = structlog.get_logger(__name__)

_CATCH_UP_SEC = 5.0
_STOP_SEC = 5.0
_HERE_SEC, _MADE_SEC = 0.25, 2.0
"""How long a start waits at most for a NATS that is there, and for what is kept in it."""
_LOG_READS = 8
_SWEEP_SEC = 1800.0


class Gateway:
    """One gateway process.

    Args:
        settings: The settings.
        metrics: Where it counts; its own when not given.
    """

    def __init__(self, settings: Settings, metrics: Metrics | None = None) -> None:
        self.settings = settings
        self.metrics = metrics or Metrics()
        self.connection = Connection(settings, "pyoco-server:http")
        self.connections = Connections(settings, ended=self.metrics.connection_ended)
        """Those of HTTP clients."""
        self.runs = RunStore(self.connection)
        self.logs = LogStore(self.connection)
        self.relief = Relief(self.logs)
        self.room = StoreRoom(
            settings, self.connection, settings.nats_monitors, load=self._load, relieve=self.relief.look_after
        )
        self.flows = FlowStore(self.connection, room=self.room.hold)
        self.workers = WorkerStore(self.connection)
        self.queue = JobQueue(self.connection)
        self.letters = DeadLetterStore(self.connection)
        self.wheels = WheelStore(self.connection)
        self.wheel_history = WheelHistory(self.connection)
        self.uploads = Uploads(settings.wheel_max_bytes)
        self.trail = AuditTrail(self.connection)
        self.audit = AuditLog(self.trail, count_lost=self.metrics.audit_lost.inc)
        self.control = ControlChannel(self.connection)
        self.log_reads = asyncio.Semaphore(_LOG_READS)
        """Held while a page of a log is read and decoded, so that many readers do not cost much memory at once."""
        self.open_logs = self.open_events = 0
        """How many logs are being sent, and how many pages listen."""
        self.checker = FlowChecker(settings.workflow_yaml_max_bytes, settings.max_run_snapshot_bytes)
        self.worker_index = WorkerIndex(settings.worker_disconnect_timeout_sec)
        self.index = RunIndex(
            settings.state_dir, settings.runs_kv_bucket, by_tenant=settings.http_auth_mode == "api_key"
        )
        self.jobs = QueuedJobs(self.connection)
        doubts = Doubts(self.runs)
        self.submissions = Submissions(
            self.runs,
            JobMaker(self.queue, self.flows, self.worker_index.existing_serve),
            in_doubt=doubts.add,
            job_of=self.index.jobs.seq_of,
            room=self.room.hold,
        )
        self.backstop = self._make_backstop()
        self.letter_reasons = LetterReasons(self.letters, lambda reason: self.metrics.letter_received[reason]())
        self.figures, self.letter_counts = FiguresReader(self), LetterCounts(self)
        self.stream_watch = StreamWatch(
            self.connection,
            {"letters": settings.dlq_stream, "wheels": topology.object_stream(settings.wheel_object_store_bucket)},
        )
        self.durability = DurabilityReader(settings, self.connection)
        self.keys = KeyKeeper(settings, self.connection)
        self.auth = self.keys.auth
        self.parts = Parts()
        """What ``up`` keeps running beside this gateway."""
        self.stopping = asyncio.Event()
        """Set when the server stops; open streams end then."""
        self.insistence = Insistence(self.runs, self.index, self.stopping)
        self.streams = StreamKeeper(self.connection, self._make_streams)
        self.supervisor = Supervisor(self.stopping)
        self.supervisors = (self.supervisor, self.connection.supervisor, self.audit.supervisor)
        self.run_feed = BucketFeed(
            self.connection,
            settings.runs_kv_bucket,
            on_changes=self._apply_runs,
            on_reset=self._start_anew,
            start_after=self.index.revision,
            identity=self.index.identity,
        )
        self.depths = Depths(self.index.totals, self.run_feed.caught_up)
        self.worker_feed = BucketFeed(
            self.connection,
            settings.workers_kv_bucket,
            on_changes=self.worker_index.apply,
            on_reset=self.worker_index.clear,
        )

        self.reconciler = Reconciler(
            self.connection,
            [self.run_feed, self.worker_feed],
            doubts,
            LostJobs(
                self.runs, self.submissions.jobs, self.jobs, self.index.jobs, after_sec=settings.reconcile_after_sec
            ),
            LostOwners(
                settings, self.runs, self.jobs, self.submissions, self.letters, self.index.jobs, self.worker_index
            ),
            GoneWorkers(self.workers, self.worker_index, after_sec=settings.worker_forget_after_sec),
            interval_sec=settings.reconcile_interval_sec,
            after_sec=settings.reconcile_after_sec,
        )  # fmt: skip
        self.spent_logs = SpentLogs(self.runs, self.logs)
        self.retention = Retention(
            settings, self.connection, self.run_feed, self.index, self.runs,
            census=Census(self.connection, settings.runs_kv_bucket, self.index, self.run_feed),
            spent_logs=self.spent_logs,
            loose_flows=LooseFlows(self.connection, self.flows, self.index.roll, LetterFlows(self.letters)),
        )  # fmt: skip

    async def start(self) -> None:
        """Connect in the background; NATS may come later."""
        self.metrics.watch_connections(self.connections)
        await self.connection.start()
        await self.keys.start()
        self.audit.start()
        self.keys.begin(self.supervisor)
        keep, rounds, made = self.supervisor.keep, self.supervisor.rounds, self.streams.made
        rounds("streams", self.streams, self.streams.look, vital=True)
        keep("run-index", lambda: self._follow(self.run_feed, lambda: self.index.revision), after=made, vital=True)
        keep("worker-index", lambda: self._follow(self.worker_feed, lambda: 0), after=made, vital=True)
        keep("advisories", lambda: self.backstop.run(self.stopping), after=made)
        rounds("reconciler", self.reconciler, after=made)
        self.supervisor.every("wheel-sweep", self._sweep_wheels, _SWEEP_SEC, after=made)
        rounds("retention", self.retention, after=made)
        rounds("spent-logs", self.spent_logs, self.spent_logs.news)
        rounds("room", self.room)
        rounds("letter-reasons", self.letter_reasons)
        rounds("depths", self.depths)
        rounds("stream-watch", self.stream_watch, self.stream_watch.heard)
        self.metrics.watch_tasks(self.supervisors)

    async def wait_made(self) -> None:
        """Wait until what is kept in NATS is there, so that a program that is answered finds it; NATS may be away."""
        with contextlib.suppress(StoreRefused):  # its connection says so
            await self.connection.wait_up(_HERE_SEC)
        if self.connection.is_up:
            await first_event(_MADE_SEC, self.streams.made, self.stopping)

    async def stop(self) -> None:
        """Let go of everything."""
        self.stopping.set()
        self.run_feed.stop()
        self.worker_feed.stop()
        self.keys.feed.stop()
        await self.supervisor.close(_STOP_SEC)
        await self.room.close()
        await self.checker.close()
        await self.audit.close()
        await self.keys.close()
        await self.connection.close()
        self.index.close()

    def _make_backstop(self) -> Backstop:
        refused = RefusedJobs(self.runs, self.submissions, self.letters, self.index.jobs, self.worker_index)
        return Backstop(
            self.connection,
            runs=self.runs,
            queue=self.queue,
            letters=self.letters,
            workers=self.workers,
            refused=refused,
        )

    async def fresh_index(self) -> RunIndex:
        """Give the index, once it has seen everything that was stored.

        Raises:
            StoreUnavailable: NATS is away, or the index is still being built.
        """
        await self._caught_up(self.run_feed, "runs")
        return self.index

    def show_at_once(self, made: Submission, stored: bytes) -> None:
        """Take a submission into the index, so that a list asked for right after its answer shows the run.

        The run exists whether or not this works, and its answer says so; the feed brings it in later.

        Args:
            made: The submission.
            stored: Its record as it was stored.
        """
        record, revision = made.stored.record, made.stored.revision
        try:
            if made.created:
                self.index.apply([Change(record.run_id, stored, revision)])
            if made.job_seq is not None:
                self.index.jobs.mark({record.run_id: made.job_seq}, revision)
        except sqlite3.Error as error:
            log.warning("the index cannot be written", run_id=record.run_id, reason=str(error))

    async def fresh_workers(self) -> WorkerIndex:
        """Give the workers, once every stored one has been seen.

        Raises:
            StoreUnavailable: NATS is away, or the workers are still being read.
        """
        await self._caught_up(self.worker_feed, "workers")
        return self.worker_index

    async def _caught_up(self, feed: BucketFeed, what: str) -> None:
        _ = self.connection.client  # raises at once when NATS is away
        if not feed.caught_up.is_set():
            await first_event(_CATCH_UP_SEC, feed.caught_up, self.stopping)
            if not feed.caught_up.is_set():
                raise StoreUnavailable(f"the index of {what} is still being built", hint="Try again in a few seconds.")

    def _apply_runs(self, changes: list[Change]) -> None:
        feed = self.run_feed
        self.spent_logs.add(self.index.roll.known(change.key for change in changes if change.value is None))
        # What ended before this gateway started is history, and has been counted by those that were there.
        for item in self.index.apply(changes, feed.identity, tell_ends=not feed.replaying):
            self.metrics.run_ended(item)

    def _load(self) -> tuple[int, int]:
        """Return how many runs are with workers, and how many wait, as far as the index knows."""
        counts = self.index.totals.by_status()
        return counts["RUNNING"] + counts["CANCELLING"], counts["PENDING"]

    def _start_anew(self) -> None:
        """Forget what was known: the store was made anew, or restored from a backup."""
        self.index.clear()
        self.flows.forget()

    async def _make_streams(self) -> None:
        await topology.ensure(self.connection)
        if not self.streams.made.is_set():
            await self.queue.make_consumers_for_others()

    async def _sweep_wheels(self) -> None:
        """Remove what gateways that died in an upload have left behind."""
        swept = await self.wheels.sweep()
        if swept:
            log.info("removed the bytes of uploads that never ended", uploads=swept)

    async def _follow(self, feed: BucketFeed, seen: Callable[[], int]) -> None:
        """Follow a bucket; after a failure lists come back to life.

        Args:
            feed: The feed.
            seen: Returns the last revision that was taken in, from where to go on after a failure.
        """
        try:
            await feed.run()
        except BaseException:  # a full disk, a bug, a cancel: it is told of, and /ready says that the index is behind
            feed.caught_up.clear()
            feed.revision = seen()
            raise

    def failing_tasks(self) -> list[Supervised]:
        """Return the background tasks that have failed, and have not worked since."""
        return [one for supervisor in self.supervisors for one in supervisor.failing()]


def _gateway(request: Request) -> Gateway:
    return cast(Gateway, request.app.state.gateway)


Here = Annotated[Gateway, Depends(_gateway)]
"""The gateway, as a parameter of a route."""
