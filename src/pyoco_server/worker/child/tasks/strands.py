"""What stands between two tasks, as pyoco's own engine does it: sequences, switches and loops.

Each is a generator that yields what is to run next, and goes on when that has ended. So a loop that waits for its body
is an object, and no thread.
"""

import contextlib
import itertools
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pyoco.core.context import LoopFrame
from pyoco.core.exceptions import SwitchNoMatch, UntilMaxIterationsExceeded
from pyoco.core.models import Task
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

from pyoco_server.model.flow.branches import Branches
from pyoco_server.worker.child.flow.wiring import WiredContext
from pyoco_server.worker.child.tasks.joins import Join

_MOST_ROUNDS = 1000
"""Of an ``until`` that names no limit, as in pyoco."""
_NO_NAMES: Mapping[str, Any] = {}


class Isolated(Exception):
    """A task failed alone: what comes behind it in its own sequence is lost, and the run goes on.

    Attributes:
        lost: What comes behind it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.lost: list[DSLNode] = []


@dataclass
class Ask:
    """A task that is to run."""

    task: Task
    ctx: WiredContext


Strand = Generator[Ask | Join | None, None, None]
"""Yields the task, or the steps, that it waits for; ``None`` before each round of a loop, where others may go on."""


class Strands:
    """Makes strands.

    Args:
        value: Returns the value of an expression of the graph, or what is no expression as it is.
    """

    def __init__(self, value: Callable[[Any, WiredContext], Any]) -> None:
        self._value = value

    def all(self, steps: SubFlowNode, ctx: WiredContext) -> Strand:
        """Return the strand of a program, a body or a case."""
        if isinstance(steps, Branches):
            yield Join(steps, ctx)
            return
        for at, node in enumerate(steps.steps):
            try:
                yield from self.one(node, ctx)
            except Isolated as isolated:
                isolated.lost += steps.steps[at + 1 :]
                raise

    def one(self, node: DSLNode, ctx: WiredContext) -> Strand:
        """Return the strand of a step."""
        if isinstance(node, TaskNode):
            yield Ask(node.task, ctx)
        elif isinstance(node, SwitchNode):
            yield from self._switch(node, ctx)
        elif isinstance(node, RepeatNode):
            yield from self._repeat(node, ctx)
        elif isinstance(node, ForEachNode):
            yield from self._foreach(node, ctx)
        elif isinstance(node, UntilNode):
            yield from self._until(node, ctx)
        else:
            raise TypeError(f"Unknown node type: {type(node)}")

    def _switch(self, node: SwitchNode, ctx: WiredContext) -> Strand:
        value = self._value(node.expression, ctx)
        default = None
        for case in node.cases:
            if case.value == DEFAULT_CASE_VALUE:
                default = default or case
            elif case.value == value:
                return self.all(case.target, ctx)
        if default is None:
            raise SwitchNoMatch(node.expression.source)
        return self.all(default.target, ctx)

    def _repeat(self, node: RepeatNode, ctx: WiredContext) -> Strand:
        count = self._value(node.count, ctx)
        if not isinstance(count, int):
            raise TypeError("Repeat count must evaluate to an integer.")
        if count < 0:
            raise ValueError("Repeat count cannot be negative.")
        for index in range(count):
            yield None
            with _inside(ctx, LoopFrame("repeat", "repeat", index, index + 1, count)):
                yield from self.all(node.body, ctx)

    def _foreach(self, node: ForEachNode, ctx: WiredContext) -> Strand:
        items = self._value(node.source, ctx)
        if not isinstance(items, (list, tuple)):
            raise TypeError("ForEach source must evaluate to a list or tuple.")
        name, count = f"foreach:{node.alias or node.source.source}", len(items)
        for index, item in enumerate(items):
            yield None
            names = {alias: value for alias, value in ((node.alias, item), (node.index_alias, index)) if alias}
            with _inside(ctx, LoopFrame(name, "foreach", index, index + 1, count, item), names):
                yield from self.all(node.body, ctx)

    def _until(self, node: UntilNode, ctx: WiredContext) -> Strand:
        most = node.max_iter or _MOST_ROUNDS
        reached: bool | None = None
        for index in itertools.count():
            yield None
            with _inside(ctx, LoopFrame("until", "until", index, index + 1, most, condition=reached)):
                yield from self.all(node.body, ctx)
                reached = bool(self._value(node.condition, ctx))
            if reached:
                return
            if index + 1 >= most:
                raise UntilMaxIterationsExceeded(node.condition.source, most)


@contextlib.contextmanager
def _inside(ctx: WiredContext, frame: LoopFrame, names: Mapping[str, Any] = _NO_NAMES) -> Iterator[None]:
    """While it lasts, a context is in a round of a loop."""
    ctx.push_loop(frame)
    for name, value in names.items():
        ctx.set_var(name, value)
    try:
        yield
    finally:
        for name in names:
            ctx.clear_var(name)
        ctx.pop_loop()
