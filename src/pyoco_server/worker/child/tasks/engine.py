"""pyoco's engine, with a scheduler of ours for flows without loops and branches.

Two rules differ from pyoco's own. A task that runs alone runs in the main thread, as tasks of flows with loops do, so
that ``signal.signal`` and libraries that insist on the main thread work in any flow; tasks that run side by side run in
threads. And ``fail_policy: isolate`` reaches everything behind the failed task: pyoco decides it in one pass over an
unordered set, and calls what it has not reached a deadlock.
"""

import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any

from pyoco.core.context import Context
from pyoco.core.engine import Engine
from pyoco.core.models import Flow, RunContext, RunStatus, Task, TaskState

from pyoco_server.worker.child.flow.exposure import exposed_by
from pyoco_server.worker.child.flow.wiring import WiredContext
from pyoco_server.worker.child.tasks.retries import tasks_of

_PARALLEL = 8
"""Tasks of a run that run side by side at most, as in pyoco."""
_STOPPING = (RunStatus.CANCELLING, RunStatus.CANCELLED)


class RunEngine(Engine):
    """Runs a flow."""

    def _run_flow(self, flow: Flow, ctx: Context, run_ctx: RunContext, log_capture: Any) -> Context:
        ctx = WiredContext(exposed_by(flow), params=ctx.params, run_context=run_ctx, artifact_dir=ctx.artifact_dir)
        if flow.has_control_flow():
            return super()._run_flow(flow, ctx, run_ctx, log_capture)
        try:
            _Straight(self, flow, ctx, run_ctx, log_capture).run()
        except Exception:
            run_ctx.status = RunStatus.FAILED
            raise
        finally:
            self.active_runs.pop(run_ctx.run_id, None)
            run_ctx.end_time = time.time()
        self.trace.on_flow_end(flow.name)
        if run_ctx.status is RunStatus.RUNNING:
            run_ctx.status = RunStatus.COMPLETED
        return ctx

    def run_task(self, task: Task, ctx: Context, log_capture: Any) -> None:
        """Run a task in the current thread."""
        self._execute_task(task, ctx, log_capture)


class _Straight:
    """One run of a flow that has only dependencies."""

    def __init__(self, engine: RunEngine, flow: Flow, ctx: Context, run_ctx: RunContext, log_capture: Any) -> None:
        self._engine = engine
        self._ctx = ctx
        self._run_ctx = run_ctx
        self._log_capture = log_capture
        self._waiting: list[Task] = list(dict.fromkeys(tasks_of(flow)))
        self._done: set[Task] = set()
        self._failed: set[Task] = set()
        self._running: dict[Future[None], Task] = {}

    def run(self) -> None:
        """Run all tasks, or those before a cancel or a failure."""
        with ThreadPoolExecutor(_PARALLEL, thread_name_prefix="pyoco-task") as threads:
            while self._waiting or self._running:
                ready = self._take_ready()
                if self._run_ctx.status in _STOPPING:
                    self._stop()
                elif len(ready) == 1 and not self._running:
                    self._run_alone(ready[0])
                else:
                    for task in ready:
                        future = threads.submit(self._engine.run_task, task, self._ctx, self._log_capture)
                        self._running[future] = task
                    if not self._running and self._waiting:
                        raise RuntimeError("Deadlock or cycle detected in workflow")
                if self._running:
                    self._await_one()
        if self._run_ctx.status is RunStatus.CANCELLING:
            self._run_ctx.status = RunStatus.CANCELLED

    def _take_ready(self) -> list[Task]:
        """Return the tasks that can start now; those that never can are failed."""
        if self._run_ctx.status is not RunStatus.RUNNING:
            return []
        while lost := [task for task in self._waiting if self._is_lost(task)]:
            self._failed.update(lost)
            for task in lost:
                self._run_ctx.tasks[task.name] = TaskState.FAILED
            self._waiting = [task for task in self._waiting if task not in self._failed]
        ready = [task for task in self._waiting if self._is_ready(task)]
        self._waiting = [task for task in self._waiting if task not in ready]
        return ready

    def _is_ready(self, task: Task) -> bool:
        if task.trigger_policy == "ANY" and task.dependencies:
            return bool(task.dependencies & self._done)
        return task.dependencies <= self._done

    def _is_lost(self, task: Task) -> bool:
        """Whether a task waits for one that failed; the run goes on, so that one is isolated."""
        if task.trigger_policy == "ANY":
            return bool(task.dependencies) and task.dependencies <= self._failed
        return bool(task.dependencies & self._failed)

    def _run_alone(self, task: Task) -> None:
        try:
            self._engine.run_task(task, self._ctx, self._log_capture)
        except Exception as error:  # noqa: BLE001 - a task may raise anything
            self._fail(task, error)
        else:
            self._done.add(task)

    def _await_one(self) -> None:
        ended, _ = wait(self._running, return_when=FIRST_COMPLETED)
        for future in ended:
            task = self._running.pop(future)
            try:
                future.result()
            except Exception as error:  # noqa: BLE001 - a task may raise anything
                self._fail(task, error)
            else:
                self._done.add(task)

    def _fail(self, task: Task, error: Exception) -> None:
        self._failed.add(task)
        if task.fail_policy != "isolate":
            self._run_ctx.status = RunStatus.FAILED  # the tries of what still runs end with it
            raise error

    def _stop(self) -> None:
        """Start nothing more."""
        for future in [future for future in self._running if future.cancel()]:
            self._waiting.append(self._running.pop(future))
        for task in self._waiting:
            self._run_ctx.tasks[task.name] = TaskState.CANCELLED
        self._waiting.clear()
