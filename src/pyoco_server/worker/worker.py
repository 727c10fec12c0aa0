"""A worker's life: connect, take the name, run the slots, stop in order."""

import asyncio
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import structlog

from pyoco_server.errors import CommandFailed, PyocoError, RightMissing, StoreUnavailable
from pyoco_server.model.run import RunRecord
from pyoco_server.model.tags import check_tag, check_worker_id
from pyoco_server.process.supervision import Supervisor
from pyoco_server.process.waiting import first_event
from pyoco_server.settings.environment import Settings
from pyoco_server.settings.nats_signer import NatsRole
from pyoco_server.store import topology
from pyoco_server.store.control import ControlChannel
from pyoco_server.store.deadletters import DeadLetterStore
from pyoco_server.store.flows import FlowStore
from pyoco_server.store.logs import LogStore
from pyoco_server.store.nats.connection import Connection
from pyoco_server.store.queue.job_queue import JobQueue
from pyoco_server.store.queue.tag_puller import TagPuller
from pyoco_server.store.runs import RunStore
from pyoco_server.store.wheels import WheelStore
from pyoco_server.store.workers import WorkerStore
from pyoco_server.worker.child.loading import refuse_while_loading
from pyoco_server.worker.claims import Claims
from pyoco_server.worker.machine.apart import Apart
from pyoco_server.worker.machine.directories import Machine, describe
from pyoco_server.worker.machine.fitness import Fitness
from pyoco_server.worker.machine.resources import ResourceWatch
from pyoco_server.worker.owners import Owners
from pyoco_server.worker.registration import Registration
from pyoco_server.worker.resolvers import Resolver
from pyoco_server.worker.slot import FlowTexts, Slot
from pyoco_server.worker.watchdog import Watchdog
from pyoco_server.worker.wheels.worker_wheels import WorkerWheels

log = structlog.get_logger(__name__)

DEFAULT_POLL_SEC = 1.0
DEFAULT_DRAIN_SEC = 30.0
DEFAULT_RUNS_PER_CHILD = 500
_NEEDS_WORDS = 1.0
_NO_RIGHT_PAUSE = 0.5
_STOP_SEC = 5.0


class Worker:
    """One worker process.

    Args:
        settings: The settings.
        worker_id: Its name; two live processes cannot share one.
        tags: What it serves: a run is taken if its tag is among them.
        resolver: Gives flows by name: ``module:function``, ``path/file.py:function``, a function to carry, or ``None``.
        slots: How many runs at a time.
        max_runs_per_child: Runs after which a process is replaced, with ``shared`` isolation.
        poll_sec: Seconds that one request for a job may wait on the server.
        connection: To NATS; made from the settings when not given.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        worker_id: str = "worker",
        tags: list[str] | None = None,
        resolver: Resolver | None = None,
        slots: int = 1,
        max_runs_per_child: int = DEFAULT_RUNS_PER_CHILD,
        poll_sec: float = DEFAULT_POLL_SEC,
        connection: Connection | None = None,
    ) -> None:
        refuse_while_loading()
        self._settings = settings
        start = _start_directory()
        directories = start / settings.state_dir / "runs"
        self._apart = Apart.of(settings, directories)
        self.worker_id = check_worker_id(worker_id)
        self.tags = [check_tag(tag) for tag in tags or [settings.default_tag]]
        self._poll_sec = poll_sec
        self._stop = asyncio.Event()
        self.stop_reason: str | None = None
        """``drained``, with the reason that was given, once somebody asked this worker to drain."""
        self.hurrying = asyncio.Event()
        """Set it to hand running runs back at once, without letting them finish."""
        self._connection = connection or Connection(settings, f"pyoco-worker:{worker_id}", role=NatsRole.WORKER)
        self._queue = JobQueue(self._connection)
        workers = WorkerStore(self._connection)
        self._registration = Registration(settings, workers, worker_id, self.tags, slots)
        self._registration.note_tasks_run(self._apart.told())
        self._registration.asked_to_drain = self._drain_on_request
        self._resources = ResourceWatch(self._registration.note_resources)
        self._owners = Owners(self._connection, workers, self._registration)
        self._looks: set[asyncio.Task[None]] = set()
        self._over = asyncio.Event()
        self._supervisor = Supervisor(self._over, fatal=(PyocoError,), on_lost=self._stop.set)
        runs, letters = RunStore(self._connection), DeadLetterStore(self._connection)
        flows = FlowTexts(FlowStore(self._connection))
        self._fitness = Fitness(
            Machine(directories, start, owner=self._apart.user), slots=slots, report=self._registration.note_trouble
        )
        self._wheel_store = WheelStore(self._connection)
        self._wheels: WorkerWheels | None = None
        if settings.wheel_sync_enabled:
            self._wheels = WorkerWheels(
                settings,
                self._wheel_store,
                worker_id=worker_id,
                tags=self.tags,
                report=self._registration.note_wheels,
                stop=self._over,
                apart=self._apart,
            )
            self._wheels.switched.append(self._refresh)
            self._wheels.building.append(self._anticipate)
            self._fitness.watch(self._wheels)
        claims = Claims(
            settings, runs, letters, self._owners, worker_id=worker_id, instance_id=self._registration.instance_id
        )
        self.slots = [
            Slot(
                settings,
                puller=TagPuller(self._queue, self.tags),
                claims=claims,
                runs=runs,
                flows=flows,
                logs=LogStore(self._connection),
                registration=self._registration,
                resolver=resolver,
                fitness=self._fitness,
                max_runs_per_child=max_runs_per_child,
                slots=slots,
                wheels=self._wheels,
                apart=self._apart,
            )
            for _ in range(slots)
        ]
        self._watchdog = Watchdog(
            self._connection, self._queue, self.tags, lambda: [slot.puller for slot in self.slots]
        )

    begin_within: float | None = None
    """Seconds after which ``start`` gives up; ``None``: it waits for NATS as long as it takes."""

    @property
    def stopping(self) -> asyncio.Event:
        """Set it to begin the orderly stop."""
        return self._stop

    async def start(self) -> None:
        """Connect (for as long as it takes), take the name, and start the first child.

        Raises:
            CommandFailed: the name is taken, or no child starts.
            InvalidSetting: a file with a credential or a certificate cannot be used, or somebody else can change the
                wheels' directory.
            StoreRefused: NATS is there, and does not let us in.
        """
        self._apart.warn()
        if self._wheels is not None:
            self._wheels.check_place()
        # A machine that cannot begin runs now may be mended soon: the worker comes up, and says so where all look.
        with self._fitness.noting():
            await self._fitness.look()
            self._fitness.machine.sweep()
            if self._wheels is None:  # a wheel may hold the resolver
                await self.slots[0].prepare()  # one that does not load is told before anything else
        await self._connection.start()
        await self._begin()
        self._connection.reconnected.append(self._after_reconnect)
        every = self._supervisor.every
        self._supervisor.keep("heartbeat", lambda: self._registration.beat(self._over), vital=True)
        every("resources", self._resources.read, lambda: self._registration.record.heartbeat_interval_sec)
        every("acks", self._keep_acks, lambda: self._ack_interval, vital=True)
        every("leases", self._renew_leases, lambda: min(1.0, self._owners.ack_wait / 12), vital=True)
        every("watchdog", self._look_after_pulls, self._watchdog.pause)
        if self._wheels is not None:
            await self._start_wheels(self._wheels)
        log.info("worker ready", worker_id=self.worker_id, tags=self.tags, slots=len(self.slots))

    async def run(self, drain_sec: float = DEFAULT_DRAIN_SEC) -> None:
        """Serve until ``stopping`` is set, then let running runs finish.

        Args:
            drain_sec: For so many seconds, or until ``hurrying`` is set; what still runs then waits for another worker.

        Raises:
            PyocoError: something without which the worker is of no use has failed.
        """
        loops = [
            asyncio.create_task(self._guard(f"slot-{number}", self._serve(slot)), name=f"slot-{number}")
            for number, slot in enumerate(self.slots)
        ]
        await self._stop.wait()
        await self._drain(loops, drain_sec)

    async def _drain(self, loops: list[asyncio.Task[None]], drain_sec: float) -> None:
        """Let what runs finish for a while, then hand it back."""
        if self._stop.is_set():
            self._registration.note_draining()
        hurry = asyncio.create_task(self.hurrying.wait(), name="hurry")
        ended = asyncio.gather(*loops, return_exceptions=True)
        either: set[asyncio.Future[Any]] = {ended, hurry}
        await asyncio.wait(either, timeout=drain_sec, return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()
        busy = {task for task in loops if not task.done()}
        if busy:
            log.warning("handing running runs back to the queue", runs=len(busy), drain_sec=drain_sec)
            for slot in self.slots:
                slot.hand_back()
            _, busy = await asyncio.wait(busy, timeout=10)
        for task in busy:
            log.error("a slot does not stop", slot=task.get_name())
            task.cancel()
        for task in loops:
            if task.done() and not task.cancelled():
                task.result()

    async def run_once(self, timeout: float = DEFAULT_POLL_SEC, drain_sec: float = DEFAULT_DRAIN_SEC) -> str | None:
        """Run one job if there is one; its run_id is the answer.

        Args:
            timeout: Seconds to wait for a job.
            drain_sec: Seconds that it gets to finish once ``stopping`` is set; as for ``run``.

        Raises:
            CommandFailed: this machine cannot begin a run.
            PyocoError: something without which the worker is of no use has failed.
        """
        ended: list[RunRecord] = []

        async def run_one() -> None:
            record = await self.slots[0].run_one(timeout, self._stop)
            ended.extend([record] if record else [])

        task = asyncio.create_task(run_one(), name="run-once")
        stopping = asyncio.create_task(self._stop.wait(), name="stopping")
        await asyncio.wait({task, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        await self._drain([task], drain_sec)
        if not ended and (trouble := self._fitness.trouble) is not None:
            raise CommandFailed(f"this machine cannot begin runs: {trouble.reason}")
        return ended[0].run_id if ended else None

    async def close(self, reason: str = "stopped") -> None:
        """Say goodbye and let go of everything.

        Args:
            reason: Kept in the record as ``stop_reason``, unless this worker was asked to drain: then that is.
        """
        self._stop.set()
        self._over.set()
        await self._supervisor.close(_STOP_SEC)
        await asyncio.gather(*(slot.close() for slot in self.slots))
        try:
            if self._registration.last_pull_at is not None or self._connection.is_up:
                await self._registration.say_goodbye(self.stop_reason or reason)
        except PyocoError as error:
            log.warning("the worker's goodbye was not written", reason=error.message)
        await self._connection.close()
        if self._supervisor.error is not None:
            raise self._supervisor.error

    async def _begin(self) -> None:
        """Make what is needed in NATS; while NATS is away, wait and say so.

        Raises:
            StoreRefused: NATS is there, and does not let us in.
            StoreUnavailable: the time that ``begin_within`` gives is over.
        """
        began = time.monotonic()
        while not self._stop.is_set():
            try:
                await self._ensure_streams()
                ack_wait = min([await self._queue.ensure_consumer(tag) for tag in self.tags])
                self._owners.ack_wait = ack_wait
                for slot in self.slots:
                    slot.lease = ack_wait / 2
                self._registration.beat_at_least_every(ack_wait / 3)
                await self._registration.take_name()
                control = ControlChannel(self._connection)
                await control.listen(self._on_control)
                await control.listen_as_worker(self.worker_id, self._registration.look)
                return
            except StoreUnavailable as error:
                if self._connection.is_turned_away:
                    raise
                if self.begin_within is not None and time.monotonic() - began > self.begin_within:
                    raise StoreUnavailable(
                        f"the worker {self.worker_id} could not start within {self.begin_within:g} s: {error.message}",
                        hint=error.hint,
                    ) from error
                if time.monotonic() - began > _NEEDS_WORDS:
                    self._connection.tell(log.warning, "waiting for NATS", reason=error.message)
                await first_event(_NO_RIGHT_PAUSE if isinstance(error, RightMissing) else 0.1, self._stop)

    async def _start_wheels(self, wheels: WorkerWheels) -> None:
        """Take the first wheels before the first run; where that fails, those of the last time."""

        async def look() -> None:
            wheels.look()

        try:
            await self._wheel_store.changed(look)
        except StoreUnavailable as error:
            log.warning("changes of wheels are seen by looking only", reason=error.message)
        self._connection.reconnected.append(look)
        self._supervisor.once("wheels", wheels.run, vital=True)
        while not wheels.ready.is_set() and not self._stop.is_set():
            await first_event(60.0, wheels.ready, self._stop)
        if not self._stop.is_set():
            with self._fitness.noting():
                await self.slots[0].prepare()

    def _anticipate(self) -> None:
        """While an environment is being built: an idle slot already starts the process that will import from it."""
        idle = [slot for slot in self.slots if slot.is_idle]
        if idle:
            self._in_background(idle[0].anticipate(), "anticipate")

    def _refresh(self) -> None:
        """Give idle slots children of the new environment, at once and not when a run waits for them."""

        async def refresh() -> None:
            for slot in self.slots:
                await slot.refresh()

        self._in_background(refresh(), "refresh")

    def _in_background(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._looks.add(task)
        task.add_done_callback(self._looks.discard)

    @property
    def _ack_interval(self) -> float:
        return min(self._settings.ack_progress_interval_sec, self._owners.ack_wait / 3)

    async def _serve(self, slot: Slot) -> None:
        while not self._stop.is_set():
            await slot.run_one(self._poll_sec, self._stop)

    async def _keep_acks(self) -> None:
        """Tell the queue that running runs are alive: from this loop, never from user code."""
        interval, ack_wait = self._ack_interval, self._owners.ack_wait
        await asyncio.gather(*(slot.keep_alive(interval, ack_wait) for slot in self.slots))

    async def _renew_leases(self) -> None:
        """Tell the runs' guardians that this process is alive, many times within a lease."""
        for slot in self.slots:
            if slot.execution is not None:
                slot.execution.renew()

    async def _look_after_pulls(self) -> None:
        if not self._stop.is_set():
            await self._watchdog.look()

    async def _guard(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Stop the worker when one of its parts fails: half a worker is worse than none."""
        try:
            await work
        except Exception as error:
            log.error("a part of the worker failed; stopping", part=name, reason=str(error))
            self._stop.set()
            raise

    async def _on_control(self, run_id: str) -> None:
        self._look(run_id)

    def _drain_on_request(self) -> None:
        """Stop as on SIGTERM: somebody asked for it."""
        if not self._stop.is_set():
            reason = self._registration.record.drain_reason
            self.stop_reason = f"drained: {reason}" if reason else "drained"
            log.info("stopping", reason=self.stop_reason)
            self._stop.set()

    async def _after_reconnect(self) -> None:
        self._registration.beat_now()
        await asyncio.gather(*(slot.keep_alive(self._ack_interval, 0.0) for slot in self.slots))
        try:
            await self._ensure_streams()  # NATS may have come back with an empty store
        except StoreUnavailable as error:
            log.warning("the streams could not be checked after NATS's return", reason=error.message)

    async def _ensure_streams(self) -> None:
        await topology.ensure(self._connection, topology.needed_by_workers(self._settings))

    def _look(self, run_id: str) -> None:
        """Look at the record of a run of ours that may have changed."""
        for slot in self.slots:
            if slot.execution is not None and slot.execution.run_id == run_id:
                self._in_background(slot.look(), "look")


def _start_directory() -> Path:
    try:
        return Path.cwd()
    except OSError as error:
        raise CommandFailed(
            f"the current directory cannot be used: {describe(error)}", hint="Enter one that exists: cd …"
        ) from error
