"""Runs a program of pyoco's nodes in which steps may go side by side.

One loop decides what starts; nothing but tasks ever occupies a thread. Whatever stands between two tasks (loops,
switches, sequences) is a generator that yields the task to run next, so that any nesting costs no thread and cannot
wait for itself. A task that is the only one that can run, runs in the loop's own thread: the main thread, where
``signal.signal`` and libraries that insist on it work.
"""

import queue
from collections import deque
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from pyoco.core.models import RunContext, RunStatus, Task, TaskState
from pyoco.dsl.nodes import DSLNode, SubFlowNode, TaskNode

from pyoco_server.worker.child.flow.wiring import WiredContext
from pyoco_server.worker.child.tasks.joins import Join
from pyoco_server.worker.child.tasks.retries import program_tasks
from pyoco_server.worker.child.tasks.strands import Ask, Isolated, Strand, Strands

_MOST_MOVES = 1000
"""Moves between two tasks after which those are started that can be, and those heard that have ended."""
_STOPPING = (RunStatus.CANCELLING, RunStatus.CANCELLED)


class TaskRunner(Protocol):
    """What the scheduler needs of the engine."""

    def run_task(self, task: Task, ctx: WiredContext) -> None:
        """Run a task in the current thread; raise what it raises."""

    def value(self, expression: Any, ctx: WiredContext) -> Any:
        """Return the value of an expression of the graph, or what is no expression as it is."""


@dataclass
class _Running:
    """A step that has begun, or the whole program.

    Attributes:
        strand: What is left of it; ``None`` for a step that is one task.
        join: Where the step stands.
        step: Its place there.
    """

    strand: Strand | None
    join: Join | None = None
    step: int = 0


class _End(NamedTuple):
    running: _Running
    task: Task
    error: BaseException | None


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
        self._strands = Strands(engine.value)
        self._ctx = ctx
        self._run = run
        self._most = max_parallel
        self._has_ended = False
        self._moving: deque[tuple[_Running, Isolated | None]] = deque()
        """What can go on, each with what its last task ended with."""
        self._above: dict[Join, _Running] = {}
        """What goes on when all steps of a join have ended."""
        self._ready: deque[tuple[_Running, Ask]] = deque()
        self._threads: ThreadPoolExecutor | None = None
        self._busy = 0
        self._ends: queue.SimpleQueue[_End] = queue.SimpleQueue()
        """Of tasks in threads."""

    def run(self, program: SubFlowNode) -> None:
        """Run everything, or what comes before a cancel or a failure; no task runs any more when this returns.

        Raises:
            BaseException: what the first task raised that failed for good, or an expression.
        """
        self._moving.append((_Running(self._strands.all(program, self._ctx)), None))
        try:
            self._loop()
        except BaseException:
            if self._run.status is RunStatus.RUNNING:
                self._run.status = RunStatus.FAILED  # the tries of what still runs end with it
            raise
        finally:
            if self._threads is not None:
                self._threads.shutdown()
        if self._run.status in _STOPPING:
            self._cancel()
        elif not self._has_ended:
            raise RuntimeError("Deadlock or cycle detected in workflow")

    def _loop(self) -> None:
        while True:
            for _ in range(_MOST_MOVES):
                if not self._moving or self._run.status in _STOPPING:
                    break
                self._go_on(*self._moving.popleft())
            if self._run.status in _STOPPING or not (self._moving or self._ready or self._busy):
                return
            self._start()
            if self._busy:
                self._take_ends()

    def _start(self) -> None:
        """Start what can be started; what can only run alone has ended then."""
        is_only_one = len(self._ready) == 1 and not self._moving
        if self._ready and not self._busy and (is_only_one or self._most == 1):
            running, ask = self._ready.popleft()
            error: Exception | None = None
            try:
                self._engine.run_task(ask.task, ask.ctx)
            except Exception as raised:  # noqa: BLE001 - a task may raise anything
                error = raised
            self._end(running, ask.task, error)
            return
        while self._ready and self._busy < self._most:
            if self._threads is None:
                self._threads = ThreadPoolExecutor(self._most, thread_name_prefix="pyoco-task")
            self._threads.submit(self._run_beside, *self._ready.popleft())
            self._busy += 1

    def _run_beside(self, running: _Running, ask: Ask) -> None:
        error: BaseException | None = None
        try:
            self._engine.run_task(ask.task, ask.ctx)
        except BaseException as raised:  # noqa: BLE001 - it ends the run, and not this thread
            error = raised
        self._ends.put(_End(running, ask.task, error))

    def _take_ends(self) -> None:
        """Hear of the tasks that have ended; wait for one where nothing else is to be done."""
        can_wait = not self._moving
        while self._busy:
            try:
                end = self._ends.get(block=can_wait)
            except queue.Empty:
                return
            can_wait = False
            self._busy -= 1
            self._end(*end)

    def _end(self, running: _Running, task: Task, error: BaseException | None) -> None:
        """Take the result of a task."""
        isolated = None
        if error is not None:
            if task.fail_policy != "isolate" or not isinstance(error, Exception):
                raise error
            self._run.tasks[task.name] = TaskState.FAILED
            isolated = Isolated()
        if running.strand is None and running.join is not None:
            self._end_step(running.join, running.step, isolated)
        else:
            self._moving.append((running, isolated))

    def _go_on(self, running: _Running, isolated: Isolated | None) -> None:
        """Let a strand go on until it has something to wait for."""
        strand = running.strand
        assert strand is not None  # noqa: S101 - what is one task has no way to go on
        try:
            asked = next(strand) if isolated is None else strand.throw(isolated)
        except (StopIteration, Isolated) as end:
            isolated = end if isinstance(end, Isolated) else None
            self._mark_lost(isolated.lost if isolated is not None else ())
            if running.join is None:
                self._has_ended = True
            else:
                self._end_step(running.join, running.step, isolated)
            return
        if asked is None:
            self._moving.append((running, None))
        elif isinstance(asked, Ask):
            self._ready.append((running, asked))
        else:
            self._above[asked] = running
            self._begin_steps(asked, asked.first())

    def _end_step(self, join: Join, step: int, isolated: Isolated | None) -> None:
        if isolated is None:
            self._begin_steps(join, join.done(step))
        else:
            self._mark_lost([join.steps[other] for other in join.failed(step)])
            self._begin_steps(join, ())

    def _begin_steps(self, join: Join, steps: Iterable[int]) -> None:
        for step in steps:
            node = join.steps[step]
            if isinstance(node, TaskNode):
                self._ready.append((_Running(None, join, step), Ask(node.task, join.ctx)))
            else:
                self._moving.append((_Running(self._strands.one(node, join.ctx.fork()), join, step), None))
        if not join.left:
            self._moving.append((self._above.pop(join), Isolated() if join.has_failed else None))

    def _mark_lost(self, nodes: Iterable[DSLNode]) -> None:
        for task in (task for node in nodes for task in program_tasks(node)):
            if self._run.tasks.get(task.name) is TaskState.PENDING:
                self._run.tasks[task.name] = TaskState.FAILED

    def _cancel(self) -> None:
        for name, state in self._run.tasks.items():
            if state is TaskState.PENDING:
                self._run.tasks[name] = TaskState.CANCELLED
        self._run.status = RunStatus.CANCELLED
