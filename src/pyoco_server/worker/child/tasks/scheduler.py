"""Runs a program of pyoco's nodes in which steps may go side by side.

One loop decides what starts; nothing but tasks ever occupies a thread. Whatever stands between two tasks (loops,
switches, sequences) is a generator that yields the task to run next, so that any nesting costs no thread and cannot
wait for itself. A task that is the only one that can run, runs in the loop's own thread: the main thread, where
``signal.signal`` and libraries that insist on it work.
"""

import functools
from collections import defaultdict, deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, Protocol

from pyoco.core.context import LoopFrame
from pyoco.core.exceptions import SwitchNoMatch, UntilMaxIterationsExceeded
from pyoco.core.models import RunContext, RunStatus, Task, TaskState
from pyoco.dsl.nodes import (
    DEFAULT_CASE_VALUE,
    DSLNode,
    ForEachNode,
    RepeatNode,
    SubFlowNode,
    SwitchNode,
    TaskNode,
    UntilNode,
)

from pyoco_server.model.branches import Branches
from pyoco_server.worker.child.flow.wiring import WiredContext
from pyoco_server.worker.child.tasks.retries import program_tasks

_MOST_ROUNDS = 1000
"""Of an ``until`` that names no limit, as in pyoco."""
_STOPPING = (RunStatus.CANCELLING, RunStatus.CANCELLED)


class TaskRunner(Protocol):
    """What the scheduler needs of the engine."""

    def run_task(self, task: Task, ctx: WiredContext) -> None:
        """Run a task in the current thread; raise what it raises."""

    def value(self, expression: Any, ctx: WiredContext) -> Any:
        """Return the value of an expression of the graph, or what is no expression as it is."""


class Isolated(Exception):
    """What comes behind a failed task in its own sequence is lost; the run goes on."""


@dataclass
class _Ask:
    """A task that a strand wants to be run."""

    task: Task
    ctx: WiredContext


Strand = Generator["_Ask | _Join", None, None]


class _Join:
    """Steps that are ordered by what each waits for.

    Attributes:
        above: The strand that goes on when all of them have ended.
        left: How many have neither ended nor been lost.
        has_failed: Whether any of them failed, or was lost.
    """

    def __init__(self, branches: Branches, ctx: WiredContext) -> None:
        self.steps = branches.steps
        self.ctx = ctx
        self.above: _Running | None = None
        self.left = len(self.steps)
        self.has_failed = False
        self._unmet = [len(groups) for groups in branches.waits]
        """How many groups each step still waits for."""
        self._left = [[len(group) for group in groups] for groups in branches.waits]
        """How many steps of each group may still be done; 0 once one of them is."""
        self._behind: dict[int, list[tuple[int, int]]] = defaultdict(list)
        """By step: the groups that it is in."""
        for step, groups in enumerate(branches.waits):
            for number, group in enumerate(groups):
                for before in group:
                    self._behind[before].append((step, number))

    def first(self) -> list[int]:
        """Return the steps that wait for nothing."""
        return [step for step, unmet in enumerate(self._unmet) if not unmet]

    def done(self, step: int) -> list[int]:
        """Take note of a step that is done; return those that can begin now."""
        begun = []
        for behind, group in self._behind[step]:
            if self._left[behind][group]:
                self._left[behind][group] = 0
                self._unmet[behind] -= 1
                if not self._unmet[behind]:
                    begun.append(behind)
        return begun

    def failed(self, step: int) -> list[int]:
        """Take note of a step that failed; return those that are lost with it."""
        self.has_failed = True
        lost, failed = [], [step]
        while failed:
            for behind, group in self._behind[failed.pop()]:
                if not self._left[behind][group] or self._unmet[behind] < 0:
                    continue
                self._left[behind][group] -= 1
                if not self._left[behind][group]:
                    self._unmet[behind] = -1
                    lost.append(behind)
                    failed.append(behind)
        return lost


@dataclass
class _Running:
    """A strand, and the place that it has in a join."""

    strand: Strand
    join: _Join | None = None
    step: int = 0


class Scheduler:
    """Runs one program.

    Args:
        engine: Runs the tasks.
        ctx: What tasks and expressions read.
        run: The run; its status says whether it goes on.
        max_parallel: How many tasks may run at once.
    """

    def __init__(self, engine: TaskRunner, ctx: WiredContext, run: RunContext, max_parallel: int) -> None:
        self._engine = engine
        self._ctx = ctx
        self._run = run
        self._most = max_parallel
        self._ended = False
        self._moving: deque[tuple[_Running, Isolated | None]] = deque()
        """Strands that can go on, each with what its last task ended with."""
        self._ready: deque[tuple[_Running, _Ask]] = deque()
        self._busy: dict[Future[None], tuple[_Running, Task]] = {}

    def run(self, program: SubFlowNode) -> None:
        """Run everything, or what comes before a cancel or a failure.

        Raises:
            Exception: what the first task raised that failed for good, or an expression.
        """
        self._moving.append((_Running(self._steps(program, self._ctx)), None))
        with ThreadPoolExecutor(self._most, thread_name_prefix="pyoco-task") as threads:
            try:
                self._loop(threads)
            except Exception:
                self._run.status = RunStatus.FAILED  # the tries of what still runs end with it
                raise
        if self._run.status in _STOPPING:
            self._cancel()
        elif not self._ended:
            raise RuntimeError("Deadlock or cycle detected in workflow")

    def _loop(self, threads: ThreadPoolExecutor) -> None:
        while True:
            while self._moving and self._run.status not in _STOPPING:
                self._go_on(*self._moving.popleft())
            if self._run.status in _STOPPING or not (self._ready or self._busy):
                return
            if not self._busy and (len(self._ready) == 1 or self._most == 1):
                running, ask = self._ready.popleft()
                self._end(running, ask.task, functools.partial(self._engine.run_task, ask.task, ask.ctx))
                continue
            while self._ready and len(self._busy) < self._most:
                running, ask = self._ready.popleft()
                self._busy[threads.submit(self._engine.run_task, ask.task, ask.ctx)] = (running, ask.task)
            for future in wait(self._busy, return_when=FIRST_COMPLETED).done:
                self._end(*self._busy.pop(future), future.result)

    def _end(self, running: _Running, task: Task, result: Callable[[], None]) -> None:
        """Take the result of a task."""
        try:
            result()
        except Exception:
            if task.fail_policy != "isolate":
                raise
            self._run.tasks[task.name] = TaskState.FAILED
            self._moving.append((running, Isolated()))
        else:
            self._moving.append((running, None))

    def _go_on(self, running: _Running, error: Isolated | None) -> None:
        """Let a strand go on until it wants a task to be run, or steps side by side."""
        try:
            asked = running.strand.throw(error) if error is not None else next(running.strand)
        except (StopIteration, Isolated) as end:
            if running.join is None:
                self._ended = True
            else:
                self._end_step(running.join, running.step, failed=isinstance(end, Isolated))
            return
        if isinstance(asked, _Ask):
            self._ready.append((running, asked))
        else:
            asked.above = running
            self._begin_steps(asked, asked.first())

    def _end_step(self, join: _Join, step: int, *, failed: bool) -> None:
        lost = join.failed(step) if failed else []
        self._mark_lost([join.steps[other] for other in lost])
        join.left -= 1 + len(lost)
        self._begin_steps(join, [] if failed else join.done(step))

    def _begin_steps(self, join: _Join, steps: list[int]) -> None:
        for step in steps:
            self._moving.append((_Running(self._step(join.steps[step], join.ctx.fork()), join, step), None))
        if not join.left and join.above is not None:
            self._moving.append((join.above, Isolated() if join.has_failed else None))

    def _mark_lost(self, nodes: Sequence[DSLNode]) -> None:
        for task in (task for node in nodes for task in program_tasks(node)):
            if self._run.tasks.get(task.name) is TaskState.PENDING:
                self._run.tasks[task.name] = TaskState.FAILED

    def _cancel(self) -> None:
        for name, state in self._run.tasks.items():
            if state is TaskState.PENDING:
                self._run.tasks[name] = TaskState.CANCELLED
        self._run.status = RunStatus.CANCELLED

    # What stands between two tasks, as pyoco's own engine does it.

    def _steps(self, steps: SubFlowNode, ctx: WiredContext) -> Strand:
        if isinstance(steps, Branches):
            yield _Join(steps, ctx)
            return
        for at, node in enumerate(steps.steps):
            if self._run.status in _STOPPING:
                return  # between tasks there may be rounds without end that have none
            try:
                yield from self._step(node, ctx)
            except Isolated:
                self._mark_lost(steps.steps[at + 1 :])
                raise

    def _step(self, node: DSLNode, ctx: WiredContext) -> Strand:
        if isinstance(node, TaskNode):
            yield _Ask(node.task, ctx)
        elif isinstance(node, SwitchNode):
            yield from self._switch(node, ctx)
        elif isinstance(node, (RepeatNode, ForEachNode)):
            yield from self._rounds(node, ctx)
        elif isinstance(node, UntilNode):
            yield from self._until(node, ctx)
        else:
            raise TypeError(f"Unknown node type: {type(node)}")

    def _switch(self, node: SwitchNode, ctx: WiredContext) -> Strand:
        value = self._engine.value(node.expression, ctx)
        named = [case for case in node.cases if case.value != DEFAULT_CASE_VALUE and case.value == value]
        chosen = named or [case for case in node.cases if case.value == DEFAULT_CASE_VALUE]
        if not chosen:
            raise SwitchNoMatch(node.expression.source)
        yield from self._steps(chosen[0].target, ctx)

    def _rounds(self, node: RepeatNode | ForEachNode, ctx: WiredContext) -> Strand:
        for frame, names in self._repeat(node, ctx) if isinstance(node, RepeatNode) else self._foreach(node, ctx):
            ctx.push_loop(frame)
            for name, value in names.items():
                ctx.set_var(name, value)
            try:
                yield from self._steps(node.body, ctx)
            finally:
                for name in names:
                    ctx.clear_var(name)
                ctx.pop_loop()

    def _repeat(self, node: RepeatNode, ctx: WiredContext) -> Iterator[tuple[LoopFrame, dict[str, Any]]]:
        count = self._engine.value(node.count, ctx)
        if not isinstance(count, int):
            raise TypeError("Repeat count must evaluate to an integer.")
        if count < 0:
            raise ValueError("Repeat count cannot be negative.")
        for index in range(count):
            yield LoopFrame(name="repeat", type="repeat", index=index, iteration=index + 1, count=count), {}

    def _foreach(self, node: ForEachNode, ctx: WiredContext) -> Iterator[tuple[LoopFrame, dict[str, Any]]]:
        items = self._engine.value(node.source, ctx)
        if not isinstance(items, (list, tuple)):
            raise TypeError("ForEach source must evaluate to a list or tuple.")
        name = f"foreach:{node.alias or node.source.source}"
        for index, item in enumerate(items):
            frame = LoopFrame(
                name=name, type="foreach", index=index, iteration=index + 1, count=len(items), item=item
            )  # fmt: skip
            yield frame, {alias: value for alias, value in ((node.alias, item), (node.index_alias, index)) if alias}

    def _until(self, node: UntilNode, ctx: WiredContext) -> Strand:
        most = node.max_iter or _MOST_ROUNDS
        reached: bool | None = None
        for index in range(most):
            ctx.push_loop(
                LoopFrame(name="until", type="until", index=index, iteration=index + 1, condition=reached, count=most)
            )
            try:
                yield from self._steps(node.body, ctx)
                reached = bool(self._engine.value(node.condition, ctx))
            finally:
                ctx.pop_loop()
            if reached:
                return
        raise UntilMaxIterationsExceeded(node.condition.source, most)
