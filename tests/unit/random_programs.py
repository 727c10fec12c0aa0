"""Random programs, branches inside of loops and switches inside of branches, and a plain recursive walk of them."""

import random
import threading
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st
from pyoco.core.models import Flow, RunContext, RunStatus, Task
from pyoco.dsl.expressions import ensure_expression
from pyoco.dsl.nodes import (
    DEFAULT_CASE_VALUE,
    CaseNode,
    DSLNode,
    ForEachNode,
    RepeatNode,
    SubFlowNode,
    SwitchNode,
    TaskNode,
    UntilNode,
)
from pyoco.trace.backend import TraceBackend

from pyoco_server.model.flow.branches import BranchedFlow, Branches, Wait
from pyoco_server.worker.child.tasks.engine import RunEngine

ITEMS = ["i", "j"]
SEEDS, MOST = st.integers(0, 2**32), st.sampled_from([1, 2, 8])
Frames = tuple[tuple[str, int], ...]
Calls = dict[tuple[str, Frames], str]


class Silent(TraceBackend):
    """Tells nobody."""

    def on_flow_start(self, *_: Any, **__: Any) -> None: ...
    def on_flow_end(self, *_: Any, **__: Any) -> None: ...
    def on_node_start(self, *_: Any, **__: Any) -> None: ...
    def on_node_end(self, *_: Any, **__: Any) -> None: ...
    def on_node_error(self, *_: Any, **__: Any) -> None: ...


@dataclass(eq=False)
class Level:
    """A graph: its steps, and what each waits for; ``None`` for a chain."""

    steps: list["Step"]
    waits: list[Wait] | None

    def names(self) -> list[str]:
        return [name for step in self.steps for name in step.names()]


@dataclass(eq=False)
class Step:
    """A task, or a loop or a switch around levels; ``number`` is its rounds, or the case that is taken."""

    kind: str
    name: str
    number: int = 0
    levels: list[Level] = field(default_factory=list)

    def names(self) -> list[str]:
        return [self.name] if self.kind == "task" else [name for level in self.levels for name in level.names()]


class Maker:
    """Makes a random program, in which each task stands once."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.made = 0

    def level(self, depth: int) -> Level:
        steps = [self.step(depth) for _ in range(self.dice.randint(1, 4 if depth else 6))]
        if self.dice.random() < 0.25:
            return Level(steps, None)
        waits: list[Wait] = []
        for place in range(len(steps)):
            groups = self.dice.randint(0, min(place, 2))
            waits.append(
                tuple(
                    frozenset(self.dice.sample(range(place), self.dice.choice([1, 1, min(2, place)])))
                    for _ in range(groups)
                )
            )
        return Level(steps, waits)

    def step(self, depth: int) -> Step:
        self.made += 1
        name = f"n{self.made}"
        kind = self.dice.choice(["task", "task", "repeat", "foreach", "until", "switch"]) if depth < 3 else "task"
        if kind == "task":
            return Step(kind, name)
        levels = [self.level(depth + 1) for _ in range(2 if kind == "switch" else 1)]
        return Step(kind, name, self.dice.randint(1 if kind == "until" else 0, 2), levels)


def certain(level: Level, outside: frozenset[str] = frozenset()) -> dict[str, frozenset[str]]:
    """By task: those that have ended whenever it begins, as far as the waits of its step and of those around it say."""
    found: dict[str, frozenset[str]] = {}
    for place, step in enumerate(level.steps):
        if level.waits is None:
            before = set(range(place))
        else:
            before = {other for group in level.waits[place] if len(group) == 1 for other in group}
        known = outside | {name for other in before for name in level.steps[other].names()}
        if step.kind == "task":
            found[step.name] = known
        for below in step.levels:
            found |= certain(below, known)
    return found


def told(name: str, frames: Frames, names: dict[str, Any], results: dict[str, Any], before: frozenset[str]) -> str:
    """What a task returns: the same for the same loops, loop variables and results before it."""
    seen = sorted(f"{other}={results[other]}" for other in before if other in results)
    return f"{name}{frames}{sorted(names.items())}:{hash(tuple(seen)) % 10**8}"


class Reference:
    """Runs a program step by step, by the rules as the documentation puts them."""

    def __init__(self, program: Level, broken: set[str]) -> None:
        self.before = certain(program)
        self.broken = broken
        self.results: dict[str, Any] = {}
        self.calls: Calls = {}
        self.went_well = self.level(program, (), {})

    def level(self, level: Level, frames: Frames, names: dict[str, Any]) -> bool:
        well: list[bool] = []
        for place, step in enumerate(level.steps):
            if level.waits is None:
                can = all(well)
            else:
                can = all(any(well[other] for other in group) for group in level.waits[place])
            well.append(can and self.step(step, frames, names))
        needed = {other for groups in level.waits or () for group in groups for other in group}
        return all(ok for place, ok in enumerate(well) if level.waits is None or place not in needed)

    def step(self, step: Step, frames: Frames, names: dict[str, Any]) -> bool:
        if step.kind == "task":
            value = told(step.name, frames, names, self.results, self.before[step.name])
            self.calls[step.name, frames] = value
            if step.name not in self.broken:
                self.results[step.name] = value
            return step.name not in self.broken
        if step.kind == "switch":
            return self.level(step.levels[min(step.number, 1)], frames, names)
        for index in range(len(ITEMS) if step.kind == "foreach" else step.number):
            inside = {**names, step.name: ITEMS[index]} if step.kind == "foreach" else names
            if not self.level(step.levels[0], (*frames, (step.kind, index)), inside):
                return False
        return True


class Ours:
    """The same program for the scheduler."""

    def __init__(self, program: Level, broken: set[str], policy: str, cancels: str = "") -> None:
        self.before = certain(program)
        self.aliases: list[str] = []
        self.tasks: list[Task] = []
        self.broken, self.policy, self.cancels = broken, policy, cancels
        self.calls: Calls = {}
        self.at_once = self.most = self.late = 0
        self.lock = threading.Lock()
        self.context = RunContext(run_id="r")
        self.program = self.level(program)

    def level(self, level: Level) -> SubFlowNode:
        steps = [self.step(step) for step in level.steps]
        return SubFlowNode(steps) if level.waits is None else Branches(steps, level.waits)

    def step(self, step: Step) -> DSLNode:
        if step.kind == "task":
            self.tasks.append(Task(func=self.function(step.name), name=step.name, fail_policy=self.policy))
            return TaskNode(self.tasks[-1])
        levels = [self.level(below) for below in step.levels]
        if step.kind == "switch":
            cases = [CaseNode(0, levels[0]), CaseNode(DEFAULT_CASE_VALUE, levels[1])]
            return SwitchNode(ensure_expression(f"$ctx.params.{step.name}"), cases)
        if step.kind == "repeat":
            return RepeatNode(levels[0], step.number)
        if step.kind == "until":
            return UntilNode(levels[0], ensure_expression(f"$ctx.loop.iteration >= {step.number}"))
        self.aliases.append(step.name)
        return ForEachNode(levels[0], ensure_expression("$ctx.params.items"), alias=step.name)

    def function(self, name: str) -> Any:
        def call(ctx: Any) -> str:
            with self.lock:
                self.at_once += 1
                self.most = max(self.most, self.at_once)
                self.late += self.context.status is RunStatus.CANCELLING
                frames = tuple((frame.type, frame.index) for frame in ctx.loops)
                names = {alias: ctx.get_var(alias) for alias in self.aliases if ctx.get_var(alias) is not None}
                value = told(name, frames, names, ctx.results, self.before[name])
                assert (name, frames) not in self.calls
                self.calls[name, frames] = value
            try:
                if name == self.cancels:
                    self.context.status = RunStatus.CANCELLING
                if name in self.broken:
                    raise ValueError(name)
                return value
            finally:
                with self.lock:
                    self.at_once -= 1

        return call

    def run(self, params: dict[str, Any], max_parallel: int) -> Any:
        return self.run_flow(
            BranchedFlow(name="t", tasks=set(self.tasks), program=self.program, max_parallel=max_parallel), params
        )

    def run_flow(self, flow: Flow, params: dict[str, Any]) -> Any:
        return RunEngine(trace_backend=Silent()).run(flow, params=params, run_context=self.context)
