"""Flows whose tasks run side by side: order, bound, failures and cancels, against a reference of its own."""

import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyoco.core.engine import Engine
from pyoco.core.exceptions import SwitchNoMatch, UntilMaxIterationsExceeded
from pyoco.core.models import Flow, RunContext, RunStatus, Task, TaskState
from pyoco.dsl.expressions import ensure_expression
from pyoco.dsl.nodes import CaseNode, DSLNode, ForEachNode, RepeatNode, SubFlowNode, SwitchNode, TaskNode, UntilNode

from pyoco_server.model.flow.branches import BranchedFlow, Branches, Wait
from pyoco_server.worker.child.flow.wiring import WiredContext
from pyoco_server.worker.child.tasks.engine import RunEngine
from pyoco_server.worker.child.tasks.scheduler import Scheduler
from tests.unit.random_programs import Silent


@pytest.fixture(autouse=True, scope="module")
def _elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Run where pyoco may make its directory of artifacts."""
    here = Path.cwd()
    os.chdir(tmp_path_factory.mktemp("runs"))
    yield
    os.chdir(here)


def flow_of(program: SubFlowNode, tasks: list[Task], max_parallel: int = 8) -> BranchedFlow:
    return BranchedFlow(name="t", tasks=set(tasks), program=program, max_parallel=max_parallel)


@dataclass
class Diary:
    """What tasks did, and how many at once."""

    began: list[str] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    threads: set[str] = field(default_factory=set)
    at_once: int = 0
    most: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def task(self, name: str, does: Callable[[], Any] = lambda: None, **policy: Any) -> Task:
        def call() -> Any:
            with self.lock:
                self.began.append(name)
                self.threads.add(threading.current_thread().name)
                self.at_once += 1
                self.most = max(self.most, self.at_once)
            try:
                return does()
            finally:
                with self.lock:
                    self.at_once -= 1
                    self.ended.append(name)

        task = Task(func=call, name=name)
        for key, value in policy.items():
            setattr(task, key, value)
        return task


def run(flow: Flow, context: RunContext | None = None, **params: Any) -> RunContext:
    context = context or RunContext(run_id="r")
    RunEngine(trace_backend=Silent()).run(flow, params=params, run_context=context)
    return context


def dag(tasks: list[Task], waits: list[Wait], max_parallel: int = 8) -> BranchedFlow:
    return flow_of(Branches([TaskNode(task) for task in tasks], waits), tasks, max_parallel)


def states(context: RunContext) -> dict[str, str]:
    return {name: state.value for name, state in context.tasks.items()}


def fails() -> None:
    raise ValueError("no")


# Order and bound


@settings(max_examples=15)
@given(seed=st.integers(0, 2**32), most=st.sampled_from([1, 2, 3, 8]))
def test_nothing_begins_before_what_it_waits_for(seed: int, most: int) -> None:
    dice = random.Random(seed)
    diary, size = Diary(), 200
    waits: list[Wait] = []
    for step in range(size):
        groups = dice.randint(0, min(step, 3))
        waits.append(tuple(frozenset(dice.sample(range(step), dice.randint(1, min(step, 3)))) for _ in range(groups)))
    order: list[tuple[str, set[str]]] = []
    lock = threading.Lock()

    def note(name: str) -> None:
        with diary.lock:
            known = set(diary.ended)
        with lock:
            order.append((name, known))

    tasks = [diary.task(f"t{n}", lambda n=n: note(f"t{n}")) for n in range(size)]  # type: ignore[misc]
    context = run(dag(tasks, waits, most))
    assert context.status is RunStatus.COMPLETED and set(states(context).values()) == {"SUCCEEDED"}
    assert sorted(diary.began) == sorted(task.name for task in tasks)
    assert diary.most <= most
    for name, before in order:
        for group in waits[int(name[1:])]:
            assert before & {f"t{n}" for n in group}, name


def test_branches_really_run_side_by_side() -> None:
    meeting, diary = threading.Barrier(3), Diary()
    tasks = [diary.task(name, lambda: meeting.wait(10)) for name in "abc"]
    context = run(dag(tasks, [(), (), ()]))
    assert context.status is RunStatus.COMPLETED and "MainThread" not in diary.threads


@pytest.mark.parametrize("waits", [[(), (frozenset({0}),), (frozenset({1}),)]])
def test_a_task_that_runs_alone_runs_in_the_main_thread(waits: list[Wait]) -> None:
    diary = Diary()
    run(dag([diary.task(name) for name in "abc"], waits))
    run(dag([diary.task(name) for name in "def"], [(), (), ()], max_parallel=1))
    assert diary.threads == {"MainThread"}


def test_any_of_several_is_enough() -> None:
    let_go, diary = threading.Event(), Diary()
    slow, quick = diary.task("slow", lambda: let_go.wait(10)), diary.task("quick")
    last = diary.task("last", let_go.set)
    context = run(dag([slow, quick, last], [(), (), (frozenset({0, 1}),)]))
    assert context.status is RunStatus.COMPLETED and diary.ended[-1] == "slow"


# Failures and cancels, against a reference


def lost_with(failed: set[int], waits: list[Wait]) -> set[int]:
    """Work out by the plainest rule what can never start once these have failed."""
    lost = set(failed)
    while more := {
        step for step, groups in enumerate(waits) if step not in lost and any(group <= lost for group in groups)
    }:  # fmt: skip
        lost |= more
    return lost


@settings(max_examples=40)
@given(data=st.data())
def test_what_an_isolated_failure_takes_with_it(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 14))
    waits: list[Wait] = [
        tuple(
            frozenset(group)
            for group in data.draw(st.lists(st.sets(st.integers(0, step - 1), min_size=1, max_size=3), max_size=3))
        )
        if step
        else ()
        for step in range(size)
    ]
    broken = data.draw(st.sets(st.integers(0, size - 1)))
    diary = Diary()
    tasks = [diary.task(f"t{n}", fails if n in broken else lambda: None, fail_policy="isolate") for n in range(size)]
    context = run(dag(tasks, waits, data.draw(st.sampled_from([1, 2, 8]))))
    never = lost_with(broken, waits)
    begun = lost_with(set(), waits) | {n for n in range(size) if n not in never}
    assert context.status is RunStatus.COMPLETED
    assert states(context) == {f"t{n}": "FAILED" if n in never else "SUCCEEDED" for n in range(size)}
    assert {int(name[1:]) for name in diary.began} - broken == begun - broken


def test_a_failure_ends_the_run_and_what_runs_beside_it_is_let_end() -> None:
    both, diary = threading.Barrier(2), Diary()

    def fail() -> None:
        both.wait(10)
        raise ValueError("no")

    tasks = [diary.task("bad", fail), diary.task("good", lambda: both.wait(10)), diary.task("never")]
    context = RunContext(run_id="r")
    with pytest.raises(ValueError, match="no"):
        run(dag(tasks, [(), (), (frozenset({0}),)]), context)
    assert context.status is RunStatus.FAILED and sorted(diary.ended) == ["bad", "good"]
    assert context.tasks["never"] is TaskState.PENDING


@pytest.mark.parametrize("most", [1, 8])
def test_a_cancel_starts_nothing_more(most: int) -> None:
    diary, context = Diary(), RunContext(run_id="r")

    def cancel() -> None:
        context.status = RunStatus.CANCELLING

    tasks = [diary.task("a", cancel), *(diary.task(f"t{n}") for n in range(5))]
    after_a: Wait = (frozenset({0}),)
    run(dag(tasks, [(), *[after_a] * 5], most), context)
    assert context.status is RunStatus.CANCELLED and diary.began == ["a"]
    assert states(context) == {"a": "SUCCEEDED", **{f"t{n}": "CANCELLED" for n in range(5)}}


def test_steps_that_wait_for_each_other_are_told_of() -> None:
    diary = Diary()
    with pytest.raises(RuntimeError, match="cycle"):
        run(dag([diary.task("a"), diary.task("b")], [(frozenset({1}),), (frozenset({0}),)]))


def test_a_program_without_steps_is_done() -> None:
    assert run(flow_of(Branches([], []), [])).status is RunStatus.COMPLETED


def test_four_thousand_steps_without_a_task_need_no_stack() -> None:
    diary = Diary()
    empty = [RepeatNode(SubFlowNode([TaskNode(diary.task("never"))]), 0) for _ in range(4000)]
    waits: list[Wait] = [(frozenset({step - 1}),) if step else () for step in range(4000)]
    assert run(flow_of(Branches(list(empty), waits), [])).status is RunStatus.COMPLETED


# Loops and switches


def test_each_branch_has_its_own_loop() -> None:
    meeting = threading.Barrier(2)
    seen: dict[str, list[Any]] = {"l": [], "r": []}

    def body(side: str) -> Task:
        def call(ctx: Any) -> None:
            meeting.wait(10)
            item, frames = ctx.get_var("item"), [frame.item for frame in ctx.loops]
            meeting.wait(10)
            assert ctx.get_var("item") == item and [frame.item for frame in ctx.loops] == frames
            seen[side].append((item, frames))

        return Task(func=call, name=side)

    tasks = [body("l"), body("r")]
    loops: list[DSLNode] = [
        ForEachNode(SubFlowNode([TaskNode(task)]), ensure_expression(f"$ctx.params.{task.name}"), alias="item")
        for task in tasks
    ]
    context = run(flow_of(Branches(loops, [(), ()]), tasks), l=[1, 2, 3], r=["x", "y", "z"])
    assert context.status is RunStatus.COMPLETED
    assert seen == {"l": [(n, [n]) for n in (1, 2, 3)], "r": [(c, [c]) for c in "xyz"]}


def test_an_isolated_failure_in_a_loop_loses_its_later_rounds_and_what_comes_behind() -> None:
    diary = Diary()
    bad, after, beside = diary.task("bad", fails, fail_policy="isolate"), diary.task("after"), diary.task("beside")
    inside = diary.task("inside")
    loop = RepeatNode(SubFlowNode([TaskNode(bad), TaskNode(inside)]), 3)
    steps: list[DSLNode] = [loop, TaskNode(after), TaskNode(beside)]
    context = run(flow_of(Branches(steps, [(), (frozenset({0}),), ()]), [bad, after, beside, inside]))
    assert states(context) == {"bad": "FAILED", "inside": "FAILED", "after": "FAILED", "beside": "SUCCEEDED"}
    assert context.status is RunStatus.COMPLETED and diary.began.count("bad") == 1


PARAMS = {"n": 2, "x": "x", "items": ["i", "j"]}
_NAMES = "abcdef"
_COUNTS = st.one_of(st.integers(0, 2), st.sampled_from(["$ctx.params.n", "$ctx.params.x"]))
_LISTS = st.sampled_from(["$ctx.params.items", "$ctx.params.n"])
_CONDITIONS = st.sampled_from(["$ctx.loop.iteration >= 2", "$ctx.params.n > 5"])
_VALUES = st.sampled_from(["$ctx.params.n", "$ctx.params.x"])


def _around(nodes: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    chain = st.lists(nodes, min_size=1, max_size=2)
    return st.one_of(
        st.tuples(st.just("repeat"), _COUNTS, chain),
        st.tuples(st.just("foreach"), _LISTS, chain),
        st.tuples(st.just("until"), _CONDITIONS, chain),
        st.tuples(st.just("switch"), _VALUES, chain, chain, st.booleans()),
    )


_CHAINS = st.lists(st.recursive(st.sampled_from(_NAMES), _around, max_leaves=6), min_size=1, max_size=3)


def build(chain: list[Any], tasks: dict[str, Task]) -> SubFlowNode:
    nodes: list[DSLNode] = []
    for node in chain:
        if isinstance(node, str):
            nodes.append(TaskNode(tasks[node]))
        elif node[0] == "repeat":
            count = node[1] if isinstance(node[1], int) else ensure_expression(node[1])
            nodes.append(RepeatNode(build(node[2], tasks), count))
        elif node[0] == "foreach":
            nodes.append(ForEachNode(build(node[2], tasks), ensure_expression(node[1]), alias="it", index_alias="at"))
        elif node[0] == "until":
            nodes.append(UntilNode(build(node[2], tasks), ensure_expression(node[1]), max_iter=3))
        else:
            cases = [CaseNode(2, build(node[2], tasks)), CaseNode("*" if node[4] else "other", build(node[3], tasks))]
            nodes.append(SwitchNode(ensure_expression(node[1]), cases))
    return SubFlowNode(nodes)


@settings(max_examples=100)
@given(chain=_CHAINS, broken=st.sampled_from([*_NAMES, ""]))
def test_a_chain_runs_as_pyocos_own_engine_runs_it(chain: list[Any], broken: str) -> None:
    told = []
    for ours in (False, True):
        seen: list[Any] = []

        def task(name: str, seen: list[Any] = seen) -> Task:
            def call(ctx: Any) -> str:
                frames = [(frame.path, frame.iteration, frame.count, frame.condition) for frame in ctx.loops]
                seen.append((name, frames, ctx.get_var("it"), ctx.get_var("at")))
                if name == broken:
                    raise ValueError(name)
                return name

            return Task(func=call, name=name)

        tasks = {name: task(name) for name in _NAMES}
        program = build(chain, tasks)
        flow = flow_of(program, list(tasks.values()))
        context, error = RunContext(run_id="r"), None
        try:
            if ours:
                context.tasks.update(dict.fromkeys(tasks, TaskState.PENDING))
                wired = WiredContext(params=dict(PARAMS), run_context=context)
                Scheduler(RunEngine(trace_backend=Silent()), wired, context, 8).run(program)
                context.status = RunStatus.COMPLETED
            else:
                Engine(trace_backend=Silent()).run(flow, params=dict(PARAMS), run_context=context)
        except (ValueError, TypeError, SwitchNoMatch, UntilMaxIterationsExceeded) as raised:
            error = (type(raised), str(raised))
        told.append((seen, error, states(context), context.status))
    assert told[0] == told[1]


def test_a_hundred_parallel_loops_need_no_more_threads_than_may_run() -> None:
    diary = Diary()
    tasks = [diary.task(f"t{n}", lambda: time.sleep(0.0005)) for n in range(100)]
    loops: list[DSLNode] = [RepeatNode(SubFlowNode([TaskNode(task)]), 5) for task in tasks]
    context = run(flow_of(Branches(loops, [()] * 100), tasks, max_parallel=4))
    assert context.status is RunStatus.COMPLETED and len(diary.began) == 500
    assert 2 <= diary.most <= 4 and len(diary.threads) <= 4
