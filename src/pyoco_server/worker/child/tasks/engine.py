"""pyoco's engine, with a scheduler of ours for flows in which tasks may run side by side.

Two rules differ from pyoco's own. A task that runs alone runs in the main thread, as tasks of flows with loops do, so
that ``signal.signal`` and libraries that insist on the main thread work in any flow; tasks that run side by side run in
threads. And ``fail_policy: isolate`` reaches everything behind the failed task: pyoco decides it in one pass over an
unordered set, and calls what it has not reached a deadlock.
"""

import time
from typing import Any

from pyoco.core.context import Context
from pyoco.core.engine import Engine
from pyoco.core.models import Flow, RunContext, RunStatus, Task
from pyoco.dsl.nodes import SubFlowNode, TaskNode

from pyoco_server.model.flow.branches import MAX_PARALLEL, BranchedFlow, Branches, Wait
from pyoco_server.worker.child.flow.exposure import exposed_by
from pyoco_server.worker.child.flow.wiring import WiredContext
from pyoco_server.worker.child.tasks.retries import tasks_of
from pyoco_server.worker.child.tasks.scheduler import Scheduler


class RunEngine(Engine):
    """Runs a flow."""

    _log_capture: Any = None

    def _run_flow(self, flow: Flow, ctx: Context, run_ctx: RunContext, log_capture: Any) -> Context:
        ctx = WiredContext(exposed_by(flow), params=ctx.params, run_context=run_ctx, artifact_dir=ctx.artifact_dir)
        if isinstance(flow, BranchedFlow):
            program, most = flow.program, flow.max_parallel
        elif flow.has_control_flow():
            return super()._run_flow(flow, ctx, run_ctx, log_capture)
        else:
            program, most = _by_dependencies(flow), MAX_PARALLEL
        self._log_capture = log_capture
        try:
            Scheduler(self, ctx, run_ctx, most).run(program)
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

    def run_task(self, task: Task, ctx: WiredContext) -> None:
        """Run a task in the current thread."""
        self._execute_task(task, ctx, self._log_capture)

    def value(self, expression: Any, ctx: WiredContext) -> Any:
        """Return the value of an expression of the graph, or what is no expression as it is."""
        return self._eval_expression(expression, ctx)


def _by_dependencies(flow: Flow) -> SubFlowNode:
    """Make a program of a flow whose tasks know what each depends on, as flows of Python do."""
    tasks: dict[str, Task] = {}
    for task in tasks_of(flow):
        tasks.setdefault(task.name, task)  # of two of a name, the first one
    places = {name: place for place, name in enumerate(tasks)}
    waits: list[Wait] = []
    for task in tasks.values():
        before = [frozenset((places.get(other.name, -1),)) for other in task.dependencies]  # -1: no task of this flow
        waits.append((frozenset().union(*before),) if before and task.trigger_policy == "ANY" else tuple(before))
    return Branches([TaskNode(task) for task in tasks.values()], waits)
