"""How flows with branches end before their last task: exits, cancels, and loops that have no task to wait for."""

import sys
import threading
from typing import Any

import pytest
from pyoco.core.exceptions import UntilMaxIterationsExceeded
from pyoco.core.models import Flow, RunContext, RunStatus, Task
from pyoco.dsl.expressions import ensure_expression
from pyoco.dsl.nodes import DSLNode, RepeatNode, SubFlowNode, TaskNode, UntilNode

from pyoco_server.model.flow.branches import BranchedFlow, Branches
from pyoco_server.worker.child.tasks.engine import RunEngine
from pyoco_server.worker.child.tasks.failures import TaskExited, TaskFailed
from tests.unit.random_programs import Silent
from tests.unit.test_retries import Run, task


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def beside(*tasks: Task) -> BranchedFlow:
    steps: list[DSLNode] = [TaskNode(task) for task in tasks]
    return BranchedFlow(name="f", tasks=set(tasks), program=Branches(steps, [()] * len(steps)))


def spinning(*, until: str, rounds: int) -> UntilNode:
    """Return a loop whose rounds have no task."""
    never = RepeatNode(SubFlowNode([TaskNode(task(lambda: None, "never"))]), 0)
    return UntilNode(SubFlowNode([never]), ensure_expression(until), max_iter=rounds)


def test_an_exit_in_a_branch_ends_the_tries_of_the_others() -> None:
    has_failed = threading.Event()

    def fails() -> None:
        has_failed.set()
        raise ValueError("no")

    def leaves() -> None:
        assert has_failed.wait(10)
        sys.exit(3)

    run = Run(beside(task(fails, "fails", delay=10.0, retries=1), task(leaves, "leaves")))
    assert isinstance(run.raised, TaskExited)
    assert run.reporter.task_that_raised(run.raised) == "leaves"
    assert {name: record["state"] for name, record in run.records.items()} == {"fails": "CANCELLED", "leaves": "FAILED"}
    assert run.records["fails"]["try"] == 1


def test_a_failure_ends_the_pauses_of_the_others_and_lets_end_what_runs() -> None:
    is_waiting, go_on = threading.Event(), threading.Event()

    def fails() -> None:
        assert is_waiting.wait(10)
        raise ValueError("no")

    def hears(fields: dict[str, Any]) -> bool:
        if fields["name"] == "waits" and fields.get("retry_at"):
            is_waiting.set()
        if fields["name"] == "waits" and fields["state"] == "CANCELLED":
            go_on.set()
        return False

    flow = beside(
        task(lambda: 1 / 0, "waits", delay=10.0, retries=1), task(fails, "fails"), task(lambda: go_on.wait(10), "runs")
    )
    run = Run(flow, cancel_when=hears)
    assert isinstance(run.raised, TaskFailed) and run.reporter.task_that_raised(run.raised) == "fails"
    assert {name: record["state"] for name, record in run.records.items()} == {
        "waits": "CANCELLED", "fails": "FAILED", "runs": "SUCCEEDED",
    }  # fmt: skip
    assert run.records["runs"]["output"] is True


def test_a_cancel_ends_the_pauses_in_all_branches() -> None:
    pausing: set[str] = set()

    def both_pause(fields: dict[str, Any]) -> bool:
        if fields.get("retry_at"):
            pausing.add(fields["name"])
        return len(pausing) == 2

    flow = beside(*(task(lambda: 1 / 0, name, delay=10.0, retries=1) for name in "ab"))
    run = Run(flow, cancel_when=both_pause)
    assert {record["state"] for record in run.records.values()} == {"CANCELLED"}
    assert run.context.status in (RunStatus.CANCELLING, RunStatus.CANCELLED)


@pytest.mark.parametrize("alone", [True, False])
def test_a_cancel_ends_a_loop_without_tasks(alone: bool) -> None:
    context = RunContext(run_id="r")

    def cancel() -> None:
        context.status = RunStatus.CANCELLING

    loop, canceller = spinning(until="1 == 2", rounds=200_000), task(cancel, "cancels")
    steps: list[DSLNode] = [TaskNode(canceller), loop]
    after = frozenset({0})
    flow = BranchedFlow(name="f", tasks={canceller}, program=Branches(steps, [(), (after,) if alone else ()]))
    RunEngine(Silent()).run(flow, params={}, run_context=context)
    assert context.status is RunStatus.CANCELLED


def test_a_loop_without_tasks_lets_the_other_branches_go_on() -> None:
    """It waits for what the last task of the branch beside it writes down."""
    chain = [task(lambda n=n: n, f"t{n}") for n in range(5)]  # type: ignore[misc]
    chain[0].outputs = chain[4].outputs = ["scratch.reached"]
    steps: list[DSLNode] = [*map(TaskNode, chain), spinning(until="$ctx.scratch.reached == 4", rounds=200_000)]
    waits = [(), *((frozenset({place}),) for place in range(4)), (frozenset({0}),)]
    context = RunContext(run_id="r")
    flow = BranchedFlow(name="f", tasks=set(chain), program=Branches(steps, waits))
    RunEngine(Silent()).run(flow, params={}, run_context=context)
    assert context.status is RunStatus.COMPLETED


def test_an_until_in_a_branch_has_an_end() -> None:
    other = task(lambda: 1, "other")
    for rounds, limit in ((7, 7), (None, 1000)):
        loop = spinning(until="1 == 2", rounds=7)
        loop.max_iter = rounds
        flow = BranchedFlow(name="f", tasks={other}, program=Branches([loop, TaskNode(other)], [(), ()]))
        context = RunContext(run_id="r")
        with pytest.raises(UntilMaxIterationsExceeded, match=f"max_iter={limit}$"):
            RunEngine(Silent()).run(flow, params={}, run_context=context)
        assert context.status is RunStatus.FAILED


def test_of_two_tasks_of_a_name_in_a_python_flow_the_first_one_runs() -> None:
    ran: list[int] = []
    one, two = task(lambda: ran.append(1), "t"), task(lambda: ran.append(2), "t")
    flow = Flow("f")
    flow.add_task(one)
    flow._definition = [TaskNode(one), TaskNode(two)]
    assert Run(flow).raised is None and ran == [1]


def test_what_a_task_sets_is_there_for_a_loop_behind_it() -> None:
    seen: list[Any] = []

    def sets(ctx: Any) -> None:
        ctx.set_var("times", 2)

    first, other = task(sets, "first"), task(lambda: None, "other")
    inner = task(lambda ctx: seen.append(ctx.get_var("times")), "inner")
    loop = RepeatNode(SubFlowNode([TaskNode(inner)]), ensure_expression("$ctx.times"))
    steps: list[DSLNode] = [TaskNode(first), TaskNode(other), loop]
    flow = BranchedFlow(name="f", tasks={first, other, inner})
    flow.program = Branches(steps, [(), (), (frozenset({0}),)])
    RunEngine(Silent()).run(flow, params={}, run_context=RunContext(run_id="r"))
    assert seen == [2, 2]
