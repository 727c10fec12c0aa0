"""One run on one child, from its claim to its end."""

import asyncio
import json
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from pyoco_server.errors import CommandFailed, StoreUnavailable
from pyoco_server.model.run import EndReason, RunRecord, RunStatus, TaskStatus
from pyoco_server.model.worker import TroubleKind
from pyoco_server.process.waiting import first_event
from pyoco_server.settings.environment import Settings
from pyoco_server.store.runs import RunStore
from pyoco_server.worker.child.process import ChildEnd, ChildProcess
from pyoco_server.worker.child.protocol import LOST_WORKER, Message
from pyoco_server.worker.child.reports import Nonsense
from pyoco_server.worker.claims import Claimed
from pyoco_server.worker.logs.failure_log import FailureLog
from pyoco_server.worker.machine.directories import MachineFault
from pyoco_server.worker.recorder import Recorder
from pyoco_server.worker.resolvers import Resolver, for_child

log = structlog.get_logger(__name__)

_FETCH_AGAIN = 0.5
_HEARD_AT_ONCE = 32
_MESSAGE_RECORDS, _MESSAGE_MORE = 2, 512 * 1024
"""A message holds three values of half a record each at most, and texts."""
_LONGEST_TIMER = 100 * 365 * 24 * 3600.0
""""For ever" is a limit too, but none that an event loop takes."""
_TERM_BEFORE_KILL = 5.0
"""Seconds between SIGTERM and SIGKILL at the end of the grace period; half of a shorter one."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended on our side."""

    status: RunStatus
    reason: EndReason
    error: str | None = None


class Execution:
    """Runs a claimed run and settles it.

    Args:
        settings: Grace period and write interval.
        runs: Where the record is.
        claimed: The run and its job.
        child: A child that is ready.
        lease: Seconds of our silence after which the child is killed, because the run may be another worker's by then.
        directory: The run's working directory.
        resolver: The flow resolver's spec, or ``None``.
        read_flow: Gives the text of a flow.yaml by its hash.
        end_log: Called before the run's end is written, so that whoever sees the end finds the whole log.
        explain_missing: Gives what the worker's wheels explain of a module that was not found, as a sentence to follow.
        blames_machine: Whether the run is handed back if the child ends before it has begun with it.
    """

    def __init__(
        self,
        settings: Settings,
        runs: RunStore,
        claimed: Claimed,
        child: ChildProcess,
        *,
        lease: float,
        directory: Path,
        resolver: Resolver | None,
        read_flow: Callable[[str], Awaitable[str | None]],
        end_log: Callable[[], Awaitable[None]],
        explain_missing: Callable[[str], str] = lambda error: "",
        blames_machine: bool = True,
    ) -> None:
        self._settings = settings
        self._job = claimed.job
        self._child = child
        self._directory = directory
        self._read_flow = read_flow
        self._lease = lease
        self._end_log = end_log
        self._explain_missing = explain_missing
        self._resolver = resolver
        self._max_record = runs.max_bytes
        self._longest_message = _MESSAGE_RECORDS * settings.max_run_snapshot_bytes + _MESSAGE_MORE
        self._ending: Outcome | None = None
        self._returned = False
        self._fenced = False
        self._stopped = asyncio.Event()  # whatever the reason
        self._over = False  # the child is no longer ours to kill
        self._timers: list[asyncio.TimerHandle] = []
        self._task_limits: dict[str, float] = {}
        self._task_timers: dict[str, asyncio.TimerHandle] = {}
        self._cancels: set[asyncio.Task[None]] = set()
        self._blames_machine = blames_machine
        self._has_begun = self._planned = False
        """Whether the child said how the run ended."""
        self.fault: MachineFault | None = None
        """Why the run could not begin here, if the machine is to blame."""
        self.reusable = False
        """Whether the child may run another run afterwards."""
        self.left = False
        """Whether the child has said its last word, and ends by itself."""
        self.recorder = Recorder(
            runs,
            claimed.stored,
            environment=child.environment.digest if child.environment else None,
            isolation=settings.isolation,
            interval=settings.run_heartbeat_interval_sec,
            on_cancel=self._cancel,
            on_lost=self._lose,
        )
        self.run_id = claimed.stored.record.run_id
        self._failures = FailureLog(claimed.stored.record)

    async def run(self) -> RunRecord | None:
        """Run to the end.

        Returns:
            The terminal record, or the waiting one after ``hand_back`` or when this worker stood still for too long;
            ``None`` if the run is not ours any more.
        """
        try:
            outcome = await self._run_in_child()
        finally:
            self._over = True
            for timer in (*self._timers, *self._task_timers.values()):
                timer.cancel()
            self._child.rest()
        await self._end_log()
        if self._returned or self.fault is not None:
            return await self.recorder.hand_back()
        if self._fenced:
            record = self.recorder.record
            last = await self.recorder.give_up(record.attempts_allowed(self._settings.run_max_attempts))
        else:
            last = await self.recorder.settle(outcome.status, outcome.reason, outcome.error)
        self._failures.run_ended(last)
        return last

    def hand_back(self) -> None:
        """Stop the run here at once; it will start anew elsewhere."""
        if not self._over:
            self._returned = True
            self._kill()

    def renew(self) -> None:
        """Tell the run's guardian that this worker is alive."""
        if not self._over:
            self._child.renew()

    async def _run_in_child(self) -> Outcome:
        self._child.begin(self._lease)
        record = self.recorder.record
        sha256 = record.workflow_yaml_sha256 or self._job.workflow_yaml_sha256
        workflow = None if self._job.recorded else self._job.workflow_yaml  # what is stored need not be hashed
        if workflow is None and sha256 is not None:
            workflow = await self._fetch_flow(sha256)
            if workflow is None:
                self.reusable = not self._stopped.is_set()
                return self._ending or _failure(
                    EndReason.INVALID_FLOW, f"the text of the flow.yaml ({sha256[:12]}…) is not in the store"
                )
        try:
            resolver = for_child(self._resolver, asked=workflow is None)
        except CommandFailed as error:
            return self._ending or _failure(EndReason.INVALID_FLOW, f"{error.message}. {error.hint}".rstrip(" ."))
        if record.timeout_sec:
            text = f"the run took longer than its timeout_sec of {record.timeout_sec:g} s"
            self._later(record.timeout_sec, self._time_out, _failure(EndReason.RUN_TIMEOUT, text))
        await self._child.send(
            {
                "type": "run",
                "run_id": record.run_id,
                "attempt": record.attempt,
                "flow_name": record.flow_name,
                "params": record.params or self._job.params or {},
                "workflow_yaml": workflow,
                "directory": str(self._directory),
                "resolver": resolver,
                "exit_wait_sec": self._settings.run_exit_wait_sec,
                "max_value_bytes": self._settings.max_run_snapshot_bytes // 2,
            }
        )
        try:
            return await self._listen()
        except Nonsense as error:
            # User code can write to our socket too. It must end its own run with that, and nothing else.
            log.warning("a child sends nonsense", run_id=self.run_id, reason=str(error))
            self._kill()
            await self._child.wait_end()
            text = f"the process of the run sent its worker what it does not understand{self._where()}"
            return self._ending or _failure(EndReason.CHILD_EXITED, text)

    async def _listen(self) -> Outcome:
        """Take what the child tells until its last word, or its end.

        Raises:
            Nonsense: it says what no child says.
        """
        heard = 0
        while (received := await self._child.receive(self._longest_message)) is not None:
            outcome = self._hear(*received)
            if outcome is not None:
                return outcome
            heard += 1
            if heard % _HEARD_AT_ONCE == 0:
                await asyncio.sleep(0)  # what has arrived is read without a pause: a flood must not stop the rest
        return await self._explain_death()

    def _hear(self, message: Message, size: int, may_be_cut: bool = True) -> Outcome | None:
        """Take a message of the child; return the outcome if it was the last one.

        Args:
            message: The message.
            size: Its length in bytes.
            may_be_cut: Whether it may hold less than there was.

        Raises:
            Nonsense: it is not of this run: a process that outlived its own run speaks, or user code does.
        """
        if (message.get("run_id"), message.get("attempt")) != (self.run_id, self.recorder.record.attempt):
            raise Nonsense(f"a message of run {message.get('run_id')!r}, attempt {message.get('attempt')!r}")
        if message["type"] == "finished":
            outcome = self._finish(message)
            self.reusable = bool(message.get("reusable"))
            self.left = not self.reusable
            return outcome
        if message["type"] == "begun":
            self._has_begun = True
        elif message["type"] == "planned":
            self._plan(message)
        elif message["type"] == "task":
            if message["name"] not in self.recorder.record.tasks:
                raise Nonsense(f"news of a task {message['name'][:100]!r} that the flow does not have")
            self.recorder.note_task(message["name"], message["fields"], size, may_be_cut=may_be_cut)
            stopping = self._ending is not None or self._stopped.is_set()
            self._failures.note_task(message["name"], message["fields"], stopping=stopping)
            self._watch_task(message["name"], message["fields"])
        else:
            raise Nonsense(f"a message {message['type']!r} in the middle of a run")
        return None

    async def _fetch_flow(self, sha256: str) -> str | None:
        """Read the flow's text, over any absence of NATS: the run is claimed, so it waits here."""
        while not self._stopped.is_set():
            try:
                return await self._read_flow(sha256)
            except StoreUnavailable as error:
                log.info("a run waits for the text of its flow", run_id=self.run_id, reason=error.message)
                await first_event(_FETCH_AGAIN, self._stopped)
        return None

    def _plan(self, message: Message) -> None:
        """Note what the run is going to do; a flow whose task names alone would fill the record cannot be run."""
        if self._planned:
            raise Nonsense("a second plan of one run")
        self._planned = True
        size, limit = len(json.dumps(message["tasks"])), self._max_record // 4
        if size > limit:
            text = (
                f"the flow has {len(message['tasks'])} tasks, whose names take {size} bytes; {limit} fit into a run's "
                "record (a quarter of PYOCO_MAX_RUN_SNAPSHOT_BYTES, or of NATS's max_payload)"
            )
            self._time_out(_failure(EndReason.OUTPUT_TOO_LARGE, text))
            return
        self.recorder.plan(message["tasks"])
        self._task_limits = message["timeouts"]

    def _finish(self, message: Message) -> Outcome:
        if self._ending is not None and self._ending.status is RunStatus.FAILED:
            return self._ending  # a time limit was over before the last word came
        if message["outcome"] == "completed":
            return Outcome(RunStatus.COMPLETED, EndReason.COMPLETED)
        if message["outcome"] == "cancelled":
            return Outcome(RunStatus.CANCELLED, EndReason.CANCELLED)
        if not {"reason", "error"} <= message.keys():
            raise Nonsense("a failure without its reason")
        self._failures.note_end(message)
        if message.get("task"):
            fields: dict[str, Any] = {"state": "FAILED", "error": message["error"], **message.get("details", {})}
            self.recorder.note_task(message["task"], fields, 0)
        reason, error = EndReason(message["reason"]), message["error"]
        known = self._explain_missing(error) if reason is EndReason.DEPENDENCY_MISSING else ""
        return _failure(reason, f"{error}{known}")

    async def _explain_death(self) -> Outcome:
        end = await self._child.wait_end()
        self._fenced = end.fenced
        if end.fenced:
            log.error("this worker stood still for too long; its run was stopped", run_id=self.run_id)
        stopped = self._stopped.is_set() or self._ending is not None or end.killed
        if not self._has_begun and self._blames_machine and not stopped:
            self.fault = MachineFault(TroubleKind.PROCESS, f"the process for a run {end} before the run began")
        return self._ending or _describe(end, self._where())

    def _where(self) -> str:
        tasks = self.recorder.record.tasks
        running = [name for name, state in tasks.items() if state is TaskStatus.RUNNING]
        if running:
            return f" while task {', '.join(map(repr, running))} was running"
        return " after its tasks had ended" if TaskStatus.SUCCEEDED in tasks.values() else ""

    def _cancel(self) -> None:
        """Ask the run to stop; then make it."""
        if self._over:
            return
        grace = self._settings.cancel_grace_period_sec
        log.info("cancelling", run_id=self.run_id, grace_sec=grace)
        self._ending = Outcome(RunStatus.CANCELLED, EndReason.CANCELLED)
        self._stopped.set()
        task = asyncio.create_task(self._child.send({"type": "cancel", "run_id": self.run_id}), name="cancel")
        self._cancels.add(task)
        task.add_done_callback(self._cancels.discard)
        self._stop_child(max(grace - _TERM_BEFORE_KILL, grace / 2), grace)

    def _watch_task(self, name: str, fields: dict[str, Any]) -> None:
        """Keep the time limit of each try of a task; pyoco's cannot end a thread that does not end by itself."""
        if name in self._task_timers:
            self._task_timers.pop(name).cancel()
        limit = self._task_limits.get(name)
        if fields["state"] == "RUNNING" and not fields.get("retry_at") and limit:
            text = f"task {name!r} took longer than its timeout_sec of {limit:g} s"
            outcome = _failure(EndReason.TASK_TIMEOUT, text)
            self._task_timers[name] = _call_later(limit, self._time_out, outcome)

    def _time_out(self, outcome: Outcome) -> None:
        if self._ending is None:
            self._ending = outcome
            self._stop_child(0.0, min(_TERM_BEFORE_KILL, self._settings.cancel_grace_period_sec))

    def _stop_child(self, term_after: float, kill_after: float) -> None:
        self._later(term_after, self._child.terminate)
        self._later(kill_after, self._child.kill)

    def _later(self, seconds: float, call: Callable[..., None], *args: Any) -> None:
        self._timers.append(_call_later(seconds, call, *args))

    def _lose(self) -> None:
        if not self._over:
            self._kill()

    def _kill(self) -> None:
        self._stopped.set()
        self._child.kill()


def _call_later(seconds: float, call: Callable[..., None], *args: Any) -> asyncio.TimerHandle:
    return asyncio.get_running_loop().call_later(min(seconds, _LONGEST_TIMER), call, *args)


def _failure(reason: EndReason, error: str) -> Outcome:
    return Outcome(RunStatus.FAILED, reason, error)


def _describe(end: ChildEnd, where: str) -> Outcome:
    """Name the cause of a death that we did not order."""
    if end.code == LOST_WORKER or end.killed:
        text = f"the process of the run cut its connection to the worker{where}"
        return _failure(EndReason.CHILD_EXITED, text)
    if end.code == -signal.SIGKILL and end.out_of_memory:
        text = f"the kernel killed the process of the run for want of memory{where}"
        return _failure(EndReason.OUT_OF_MEMORY, text)
    if end.code < 0:
        return _failure(EndReason.CHILD_KILLED_BY_SIGNAL, f"the process of the run was {end}{where}")
    return _failure(EndReason.CHILD_EXITED, f"the process of the run {end}{where}")
