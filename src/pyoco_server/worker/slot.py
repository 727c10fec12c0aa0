"""A slot: one run at a time, on a child of its own."""

import asyncio
import contextlib
import time
from collections import OrderedDict
from functools import partial

import structlog

from pyoco_server.errors import CommandFailed, InvalidInput, StoreUnavailable
from pyoco_server.model.job import Job
from pyoco_server.model.run import RunRecord
from pyoco_server.process.waiting import first_event
from pyoco_server.settings.environment import Settings
from pyoco_server.store.flows import FlowStore
from pyoco_server.store.logs import LogStore
from pyoco_server.store.queue.job_queue import Delivery
from pyoco_server.store.queue.tag_puller import TagPuller
from pyoco_server.store.runs import RunStore
from pyoco_server.worker.children import Children
from pyoco_server.worker.claims import Claimed, Claims
from pyoco_server.worker.execution import Execution
from pyoco_server.worker.logs.runlog import NoRunLog, RunLog
from pyoco_server.worker.machine.apart import TOGETHER, Apart
from pyoco_server.worker.machine.directories import MachineFault
from pyoco_server.worker.machine.fitness import Fitness, hand_back
from pyoco_server.worker.registration import Registration
from pyoco_server.worker.resolvers import Resolver
from pyoco_server.worker.wheels.worker_wheels import WorkerWheels

log = structlog.get_logger(__name__)

_NATS_PAUSE = 0.2
_CACHED_FLOWS = 64
_LOG_SEC = 2.0
"""How long the end of a run waits for its log to be stored."""
_LINGER_SEC = 30.0
"""How long what NATS has not taken by then waits beside the next runs: longer than it takes to choose a leader."""
_LINGERING = 8
"""How many logs do so, of 8 MiB each at most."""

_BLAMING = 10
"""So many deliveries may end before their run began; then the run itself is to blame."""


class FlowTexts:
    """The flow.yaml texts that this worker has seen, by hash."""

    def __init__(self, store: FlowStore) -> None:
        self._store = store
        self._texts: OrderedDict[str, str] = OrderedDict()

    async def read(self, sha256: str) -> str | None:
        """Give a flow's text; ``None`` if the store has none.

        Raises:
            StoreUnavailable: NATS is away.
        """
        if sha256 not in self._texts:
            body = await self._store.get(sha256)
            if body is None:
                return None
            self._texts[sha256] = body.decode()
            if len(self._texts) > _CACHED_FLOWS:
                self._texts.popitem(last=False)
        self._texts.move_to_end(sha256)
        return self._texts[sha256]


class Slot:
    """Takes a delivery, runs it in a process, and settles it."""

    def __init__(
        self,
        settings: Settings,
        *,
        puller: TagPuller,
        claims: Claims,
        runs: RunStore,
        flows: FlowTexts,
        logs: LogStore,
        registration: Registration,
        resolver: Resolver | None,
        fitness: Fitness,
        max_runs_per_child: int,
        slots: int = 1,
        wheels: WorkerWheels | None = None,
        apart: Apart = TOGETHER,
    ) -> None:
        self._settings = settings
        self._wheels = wheels
        self.puller = puller
        self._claims = claims
        self._runs = runs
        self._flows = flows
        self._logs = logs
        self._registration = registration
        self._resolver = resolver
        self._fitness = fitness
        self._children = Children(
            settings,
            resolver,
            wheels=wheels,
            machine=fitness.machine,
            max_runs=max_runs_per_child,
            apart=apart,
            slots=slots,
        )
        self.execution: Execution | None = None
        self.delivery: Delivery | None = None
        self.lease = settings.consumer_ack_wait_sec / 2
        """Seconds of this process's silence after which a run of it is killed."""
        self._confirmed_at = 0.0
        self._handing_back = False
        self._lingering: dict[asyncio.Task[None], RunLog] = {}

    async def prepare(self) -> None:
        """Have a process ready for the next run.

        Raises:
            CommandFailed: none can be had, because of how the worker was started.
            MachineFault: none can be had on this machine now.
        """
        await self._children.prepare()

    @property
    def is_idle(self) -> bool:
        """Whether there is no run here."""
        return self.delivery is None

    async def refresh(self) -> None:
        """Replace the processes of an older environment now, if no run is here: the next one then finds a warm one."""
        if self.is_idle:
            try:
                await self.prepare()
            except (CommandFailed, MachineFault) as error:
                log.warning("no process could be started in advance", reason=error.message)  # the next run asks again

    async def anticipate(self) -> None:
        """Launch what the next environment needs, while it is being built."""
        await self._children.anticipate()

    async def run_one(self, wait: float, stop: asyncio.Event) -> RunRecord | None:
        """Wait for a job and run it.

        Args:
            wait: Seconds to wait for a job.
            stop: Ends the wait, not the run.

        Returns:
            The run's last record, or ``None`` if there was nothing to run.
        """
        if not await self._fitness.fit(self, self.prepare, wait, stop):
            return None
        try:
            delivery = await self.puller.next(wait, stop, self._fitness.unfit)
            if delivery is None:
                await self._children.rest()
                return None
            self.delivery = delivery
            self._confirmed_at = time.monotonic()
            await self._take_wheels(delivery, stop)
            if stop.is_set() or self._fitness.unfit.is_set():
                await delivery.give_back()
                return None
            claimed = await self._claims.take(delivery)
            if self._wheels is not None and claimed is not None:
                # The record says whose the run is; a job that says something else has not been waited for.
                await self._wheels.ready_for(claimed.stored.record.tenant_id, stop)
        except StoreUnavailable as error:
            log.debug("no jobs without NATS", reason=error.message)
            await self._let_go()
            await first_event(_NATS_PAUSE, stop)
            return None
        finally:
            if self.execution is None:
                self._registration.last_pull_at = self.puller.last_round_trip or None
        try:
            return await self._execute(delivery, claimed) if claimed else None
        finally:
            self.delivery = None

    async def _take_wheels(self, delivery: Delivery, stop: asyncio.Event) -> None:
        """Wait, before a run is claimed, until the wheels that were stored before it are in use for its tenant."""
        if self._wheels is None:
            return
        await self._wheels.in_step(stop)
        if self._wheels.has_tenants:
            with contextlib.suppress(InvalidInput):  # no job: that is dealt with where it is claimed
                await self._wheels.ready_for(Job.from_json(delivery.data).tenant_id, stop)

    async def _let_go(self) -> None:
        """Give a job back whose run could not be claimed. Where NATS cannot be told, it comes again after AckWait."""
        delivery, self.delivery = self.delivery, None
        if delivery is not None:
            with contextlib.suppress(StoreUnavailable):
                await delivery.give_back(min(2.0**delivery.num_delivered, self.lease))

    async def keep_alive(self, timeout: float, ack_wait: float) -> None:
        """Tell the queue that the run is alive; when that did not work for ``ack_wait`` seconds, look whose it is.

        Args:
            timeout: Seconds to wait for the queue's word.
            ack_wait: Seconds after which the queue gives the job to somebody else.
        """
        if self.delivery is None:
            return
        late = time.monotonic() - self._confirmed_at > ack_wait
        try:
            await self.delivery.in_progress(timeout)
            self._confirmed_at = time.monotonic()
        except StoreUnavailable as error:
            log.info("acknowledging progress waits for NATS", reason=error.message)
        if late:
            await self.look()

    async def look(self) -> None:
        """Look at the record of the run: it may be cancelled, or another worker's."""
        if self.execution is not None:
            try:
                await self.execution.recorder.refresh()
            except StoreUnavailable as error:
                log.info("looking at a run's record waits for NATS", reason=error.message)

    def hand_back(self) -> None:
        """Give the run here back to the queue, also one that is just about to start."""
        self._handing_back = True
        if self.execution is not None:
            self.execution.hand_back()

    async def close(self) -> None:
        """End the processes and take back open requests."""
        await self.puller.close()
        await self._children.close()
        await asyncio.gather(*(run_log.close(_LOG_SEC) for run_log in self._lingering.values()))

    async def _end_log(self, run_log: RunLog) -> None:
        """Let go of the log of a run that has ended; NATS may take the last of it a little later."""
        if not await run_log.finish(_LOG_SEC):
            patience = _LINGER_SEC if len(self._lingering) < _LINGERING else 0.0
            lingering = asyncio.create_task(run_log.close(patience), name="lingering-log")
            self._lingering[lingering] = run_log
            lingering.add_done_callback(self._lingering.pop)

    async def _execute(self, delivery: Delivery, claimed: Claimed) -> RunRecord | None:
        record = claimed.stored.record
        try:
            directory = await self._fitness.prepare_run(record.run_id, record.attempt)
            child = await self._children.take(record)
        except MachineFault as fault:
            self._fitness.note(fault, self)
            await self._hand_back_unbegun(delivery, claimed)
            return None
        context = {"run_id": record.run_id, "flow_name": record.flow_name, "tag": record.tag, "attempt": record.attempt}
        log.info("run started", **context)
        run_log = RunLog(self._logs, record.run_id, record.attempt, self._settings.run_log_max_bytes)
        output = child.output
        output.attach(run_log)

        async def end_log() -> None:
            output.attach(NoRunLog())
            await run_log.finish(_LOG_SEC)

        self.execution = Execution(
            self._settings,
            self._runs,
            claimed,
            child,
            lease=self.lease,
            directory=directory,
            resolver=self._resolver,
            read_flow=self._flows.read,
            end_log=end_log,
            explain_missing=partial(self._wheels.explain_to, record.tenant_id) if self._wheels else lambda error: "",
            blames_machine=delivery.num_delivered < _BLAMING,
        )
        if self._handing_back:
            self.execution.hand_back()
        self._registration.started(record.run_id)
        last: RunRecord | None = None
        try:
            last = await self.execution.run()
        finally:
            execution = self.execution
            self.execution = None
            self._registration.ended(record.run_id, last)
            self._claims.ended(record.run_id)
            output.attach(NoRunLog())
            await self._end_log(run_log)
            await self._children.give_back(
                child,
                record,
                reusable=execution.reusable,
                left=execution.left,
                buried=lambda: self._fitness.drop_run(record.run_id, record.attempt),
            )
            if execution.fault is not None and child.runs == 1:  # else an earlier run may have left it broken
                self._fitness.note(execution.fault, self)
        if last is not None:
            log.info("run ended", status=last.status.value, end_reason=last.end_reason, reason=last.error, **context)
            await self._finish(delivery, last)
        return last

    async def _hand_back_unbegun(self, delivery: Delivery, claimed: Claimed) -> None:
        """Make a run wait for another worker, or for this machine to be mended; it costs no attempt."""
        record = claimed.stored.record
        last = await hand_back(self._runs, claimed.stored)
        self._claims.ended(record.run_id)
        log.warning("a run was handed back before it began", run_id=record.run_id, tag=record.tag)
        if last is not None:
            await self._finish(delivery, last)
        await self._fitness.drop_run(record.run_id, record.attempt)

    async def _finish(self, delivery: Delivery, last: RunRecord) -> None:
        """Tell the queue; when it cannot be told, the redelivery finds the record and is only acknowledged."""
        try:
            if not last.status.is_terminal:
                await delivery.give_back()
                return
            # After the terminal write: before it, a lost answer would leave a letter of a run that may yet succeed.
            await self._claims.bury(last, delivery)
            await delivery.ack()
        except StoreUnavailable as error:
            log.warning("the queue could not be told of a run's end", run_id=last.run_id, reason=error.message)
