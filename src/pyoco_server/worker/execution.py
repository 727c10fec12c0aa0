"""One run on one child, from its claim to its end."""

import asyncio
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from pyoco_server.errors import StoreUnavailable
from pyoco_server.model.run import EndReason, RunRecord, RunStatus
from pyoco_server.settings import Settings
from pyoco_server.store.runs import RunStore
from pyoco_server.worker.claims import Claimed
from pyoco_server.worker.process import ChildProcess, run_directory
from pyoco_server.worker.protocol import Message
from pyoco_server.worker.recorder import Recorder

log = structlog.get_logger(__name__)

_FETCH_AGAIN = 0.5
_TERM_BEFORE_KILL = 5.0
"""Seconds between SIGTERM and SIGKILL at the end of the grace period."""


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
        directory: Where run directories are made.
        read_flow: Gives the text of a flow.yaml by its hash.
    """

    def __init__(
        self,
        settings: Settings,
        runs: RunStore,
        claimed: Claimed,
        child: ChildProcess,
        *,
        directory: Path,
        read_flow: Callable[[str], Awaitable[str | None]],
    ) -> None:
        self._settings = settings
        self._job = claimed.job
        self._child = child
        self._directory = directory
        self._read_flow = read_flow
        self._ending: Outcome | None = None
        self._returned = False
        self._over = False  # the child is no longer ours to kill
        self._timers: list[asyncio.TimerHandle] = []
        self._task_limits: dict[str, float] = {}
        self._task_timers: dict[str, asyncio.TimerHandle] = {}
        self._cancels: set[asyncio.Task[None]] = set()
        self.reusable = False
        """Whether the child may run another run afterwards."""
        self.recorder = Recorder(
            runs,
            claimed.stored,
            interval=settings.run_heartbeat_interval_sec,
            on_cancel=self._cancel,
            on_lost=self._lose,
        )
        self.run_id = claimed.stored.record.run_id

    async def run(self) -> RunRecord | None:
        """Run to the end.

        Returns:
            The terminal record, or the waiting one after ``hand_back``; ``None`` if the run is not ours any more.
        """
        try:
            outcome = await self._run_in_child()
        finally:
            self._over = True
            for timer in (*self._timers, *self._task_timers.values()):
                timer.cancel()
        if self._returned:
            return await self.recorder.hand_back()
        return await self.recorder.settle(outcome.status, outcome.reason, outcome.error)

    def hand_back(self) -> None:
        """Stop the run here at once; it will start anew elsewhere."""
        if not self._over:
            self._returned = True
            self._child.kill()

    async def _run_in_child(self) -> Outcome:
        record = self.recorder.record
        workflow = self._job.workflow_yaml
        sha256 = record.workflow_yaml_sha256 or self._job.workflow_yaml_sha256
        if workflow is None and sha256 is not None:
            workflow = await self._fetch_flow(sha256)
            if workflow is None:
                self.reusable = True
                return _failure(
                    EndReason.INVALID_FLOW, f"the text of the flow.yaml ({sha256[:12]}…) is not in the store"
                )
        await self._child.send(
            {
                "type": "run",
                "run_id": record.run_id,
                "flow_name": record.flow_name,
                "params": record.params or self._job.params or {},
                "workflow_yaml": workflow,
                "directory": str(run_directory(self._directory, record.run_id, record.attempt)),
            }
        )
        if record.timeout_sec:
            text = f"the run took longer than its timeout_sec of {record.timeout_sec:g} s"
            self._later(record.timeout_sec, self._time_out, _failure(EndReason.RUN_TIMEOUT, text))
        while (message := await self._child.receive()) is not None:
            if message["type"] == "finished":
                self.reusable = bool(message.get("reusable"))
                return self._finish(message)
            if message["type"] == "planned":
                self.recorder.plan(message["tasks"])
                self._task_limits = message["timeouts"]
            elif message["type"] == "task":
                self.recorder.note_task(message)
                self._watch_task(message["name"], message["fields"])
        return await self._explain_death()

    async def _fetch_flow(self, sha256: str) -> str | None:
        """Read the flow's text, over any absence of NATS: the run is claimed, so it waits here."""
        while True:
            try:
                return await self._read_flow(sha256)
            except StoreUnavailable as error:
                log.info("a run waits for the text of its flow", run_id=self.run_id, reason=error.message)
                await asyncio.sleep(_FETCH_AGAIN)

    def _finish(self, message: Message) -> Outcome:
        if self._ending is not None and self._ending.status is RunStatus.FAILED:
            return self._ending  # a time limit was over before the last word came
        if message["outcome"] == "completed":
            return Outcome(RunStatus.COMPLETED, EndReason.COMPLETED)
        if message["outcome"] == "cancelled":
            return Outcome(RunStatus.CANCELLED, EndReason.CANCELLED)
        if message.get("task"):
            fields: dict[str, Any] = {"state": "FAILED", "error": message["error"], **message.get("details", {})}
            self.recorder.note_task({"name": message["task"], "fields": fields})
        return _failure(EndReason(message["reason"]), message["error"])

    async def _explain_death(self) -> Outcome:
        code = await self._child.wait_exit()
        if self._ending is not None:
            return self._ending
        running = [name for name, state in self.recorder.record.tasks.items() if state.value == "RUNNING"]
        where = f" while task {', '.join(map(repr, running))} was running" if running else ""
        how = self._child.describe_end()
        reason = EndReason.CHILD_KILLED_BY_SIGNAL if code < 0 else EndReason.CHILD_EXITED
        return _failure(reason, f"the process of the run {'was ' if code < 0 else ''}{how}{where}")

    def _cancel(self) -> None:
        """Ask the run to stop; then make it."""
        if self._over:
            return
        grace = self._settings.cancel_grace_period_sec
        log.info("cancelling", run_id=self.run_id, grace_sec=grace)
        self._ending = Outcome(RunStatus.CANCELLED, EndReason.CANCELLED)
        task = asyncio.create_task(self._child.send({"type": "cancel", "run_id": self.run_id}), name="cancel")
        self._cancels.add(task)
        task.add_done_callback(self._cancels.discard)
        self._stop_child(max(0.0, grace - _TERM_BEFORE_KILL), grace)

    def _watch_task(self, name: str, fields: dict[str, Any]) -> None:
        """Keep the time limit of each try of a task; pyoco's cannot end a thread that does not end by itself."""
        if name in self._task_timers:
            self._task_timers.pop(name).cancel()
        limit = self._task_limits.get(name)
        if fields["state"] == "RUNNING" and not fields.get("retry_at") and limit:
            text = f"task {name!r} took longer than its timeout_sec of {limit:g} s"
            outcome = _failure(EndReason.TASK_TIMEOUT, text)
            self._task_timers[name] = asyncio.get_running_loop().call_later(limit, self._time_out, outcome)

    def _time_out(self, outcome: Outcome) -> None:
        if self._ending is None:
            self._ending = outcome
            self._stop_child(0.0, min(_TERM_BEFORE_KILL, self._settings.cancel_grace_period_sec))

    def _stop_child(self, term_after: float, kill_after: float) -> None:
        self._later(term_after, self._child.kill, signal.SIGTERM)
        self._later(kill_after, self._child.kill, signal.SIGKILL)

    def _later(self, seconds: float, call: Callable[..., None], *args: Any) -> None:
        self._timers.append(asyncio.get_running_loop().call_later(seconds, call, *args))

    def _lose(self) -> None:
        if not self._over:
            self._child.kill()


def _failure(reason: EndReason, error: str) -> Outcome:
    return Outcome(RunStatus.FAILED, reason, error)
