"""The tries of a task: a failed one is told, and made again after a pause that the end of the run cuts short.

pyoco's own retries follow each other at once, go on in a run that is being cancelled, and tell nobody. So the engine is
given tasks without retries, whose functions make the tries themselves. What a task took and gave is told here too, at
the moment of the call and of the return: later the values may be others.
"""

import contextlib
import functools
import itertools
import random
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from pyoco.core.models import Flow, RunContext, RunStatus, Task
from pyoco.dsl.nodes import CaseNode, DSLNode, SwitchNode, TaskNode

from pyoco_server.model.flow.workflow import RETRY_DELAY_SEC
from pyoco_server.worker.child.tasks.failures import TaskFailed, failure_of
from pyoco_server.worker.child.tasks.given import GivenInputs
from pyoco_server.worker.child.tasks.reporter import TaskReporter

LONGEST_PAUSE = 60.0
_JITTER = 0.1
_LOOK_EVERY = 0.05
_CHANGED = ("func", "retries", "timeout_sec")


class RunStopped(BaseException):
    """The run was cancelled, or failed elsewhere, before this task could start or be tried again.

    No ``Exception``, so that neither user code nor the engine takes it for a failure of the task.
    """


def tasks_of(flow: Flow) -> list[Task]:
    """Return the tasks of a flow in the order of its text: of its program, which may hold two of a name, and others."""
    others = sorted(flow.tasks, key=lambda task: task.name)
    found = {id(task): task for task in (*program_tasks(flow.build_program()), *others)}  # type: ignore[no-untyped-call]
    return list(found.values())


def pause_before(number: int, delay: float) -> float:
    """Give the seconds to wait before a try.

    Args:
        number: Of the try; 2 is the first one that is waited for.
        delay: Seconds before try 2.
    """
    doubled = min(delay * 2.0 ** min(number - 2, 30), LONGEST_PAUSE)
    return min(doubled * random.uniform(1.0, 1.0 + _JITTER), LONGEST_PAUSE)  # noqa: S311 - spreads load, no secret


@contextlib.contextmanager
def supervised(flow: Flow, context: RunContext, reporter: TaskReporter) -> Iterator[None]:
    """Make the tries of a flow's tasks here instead of in the engine; the flow is given back unchanged.

    Args:
        flow: May be the same object in every run.
        context: Its status says whether the run goes on.
        reporter: Is told of each try.
    """
    tasks = tasks_of(flow)
    kept = [(task, {name: getattr(task, name) for name in _CHANGED}) for task in tasks]
    try:
        for task in tasks:
            _supervise(task, context, reporter)
        yield
    finally:
        for task, values in kept:
            for name, value in values.items():
                setattr(task, name, value)


def _supervise(task: Task, context: RunContext, reporter: TaskReporter) -> None:
    if any(_asks(value) for value in task.inputs.values()):
        reporter.asks_values.add(task.name)
    tries = reporter.tries[task.name] = max(0, task.retries or 0) + 1
    delay = float(getattr(task, "retry_delay_sec", RETRY_DELAY_SEC))
    task.func = _Supervisor(context, reporter, task.name, tries, delay).wrap(task.func)
    task.retries = 0
    task.timeout_sec = None  # the worker keeps it, for each try; the engine's clock runs on while a task waits


def _asks(given: Any) -> bool:
    """Whether an input names something inside of another task's output, for which the engine asks the value itself."""
    if isinstance(given, dict):
        return any(map(_asks, given.values()))
    if isinstance(given, (list, tuple)):
        return any(map(_asks, given))
    return isinstance(given, str) and ".output." in given


class UnusableResult(TypeError):
    """A task returned what cannot be passed on; another try would return the same."""


class _Supervisor:
    """Makes the tries of one task."""

    def __init__(self, context: RunContext, reporter: TaskReporter, name: str, tries: int, delay: float) -> None:
        self._context = context
        self._reporter = reporter
        self._name = name
        self._tries = tries
        self._delay = delay

    def wrap(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Give a function with the same signature, from which the engine reads what to pass."""

        @functools.wraps(function)
        def run(**inputs: Any) -> Any:
            given = GivenInputs(inputs) if self._tries > 1 else None
            for number in itertools.count(1):
                self._stop_if_over()
                if number == 1:
                    self._reporter.on_call(self._name, inputs)
                elif given is not None:
                    inputs = given.again()
                    self._reporter.on_try_start(self._name, number, given.note(number))
                try:
                    result = function(**inputs)
                except BaseException as error:  # noqa: BLE001 - told here, and by what is raised in its place
                    failure = failure_of(error, function)
                    is_last = number >= self._tries or type(error) is UnusableResult
                else:
                    self._reporter.on_result(self._name, result)
                    return result
                # Outside of "except", or the next failure would be told as a consequence of this one.
                if not isinstance(failure, TaskFailed):  # sys.exit: the engine lets it pass without a word
                    self._reporter.on_node_error(self._name, failure)
                    raise failure
                if is_last:
                    raise failure
                self._wait(self._tell(number, failure))
            raise AssertionError("unreachable")

        return run

    def _tell(self, number: int, failure: TaskFailed) -> float:
        pause = pause_before(number + 1, self._delay)
        retry_at = time.time() + pause
        self._reporter.on_try_error(self._name, number, failure, retry_at)
        said = f"try {number} of {self._tries} of task {self._name!r} failed, the next follows in {pause:.1f} s"
        with contextlib.suppress(OSError, ValueError):  # the task may have closed it
            sys.stderr.write(f"{said}: {failure}\n")  # among the task's own lines
        return retry_at

    def _wait(self, retry_at: float) -> None:
        # Looked at and not waited for: the engine changes a run's status without telling anybody.
        until = time.monotonic() + (retry_at - time.time())
        while (left := until - time.monotonic()) > 0:
            self._stop_if_over()
            time.sleep(min(left, _LOOK_EVERY))

    def _stop_if_over(self) -> None:
        if self._context.status is not RunStatus.RUNNING:
            self._reporter.on_stopped(self._name)
            raise RunStopped


def program_tasks(node: DSLNode | CaseNode) -> Iterator[Task]:
    """Yield the tasks of a program, or of a part of one, in the order of the text."""
    if isinstance(node, TaskNode):
        yield node.task
    parts = [*getattr(node, "steps", ()), getattr(node, "body", None), getattr(node, "target", None)]
    if isinstance(node, SwitchNode):
        parts += node.cases
    for part in parts:
        if isinstance(part, (DSLNode, CaseNode)):
            yield from program_tasks(part)
