"""What may have been done before a point of a graph, and which points are expected to be reached.

A point is where a task starts, or where the expression of a ``switch``, ``repeat``, ``foreach`` or ``until`` is looked
at. What is done is counted in bits of an integer: each task has those of the names that its end writes.
"""

import itertools
import operator
from collections.abc import Callable, Iterator
from typing import Any

from pyoco.core.models import Task
from pyoco.dsl.expressions import Expression
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

from pyoco_server.model.flow.branches import Branches
from pyoco_server.model.flow.graph.waits import all_before

Loop = RepeatNode | ForEachNode | UntilNode
UNKNOWN = object()
"""What an expression gives if that is not known yet."""


class FlowOrder:
    """The order of a compiled graph.

    Args:
        program: The graph.
        written: Gives the bits that the end of a task sets.
    """

    def __init__(self, program: SubFlowNode, written: Callable[[Task], int]) -> None:
        self._program = program
        self._written = written
        self._parent: dict[int, DSLNode | CaseNode] = {}
        self._made: dict[int, int] = {}
        """By node: all that its tasks write."""
        self._beside: dict[int, dict[int, int]] = {}
        """By sequence or switch, for each of its parts: all that the others write."""
        self._first: dict[int, int] = {}
        """By point: what may have been done when it is reached for the first time, no round of a loop before it."""
        self.points: list[tuple[DSLNode, tuple[ForEachNode, ...], bool]] = []
        """Every point, with the ``foreach`` loops around it, and whether it is inside a loop."""
        self._walk(program, 0, (), False)

    def before(self, point: DSLNode) -> int:
        """Return what may have been done before a point is reached for the first time, in the order as it is written.

        Whatever is needed there and has no bit in it needs ``before_again``.
        """
        return self._first[id(point)]

    def before_again(self, point: DSLNode) -> int:
        """Return the same with what an earlier round of a loop may do that goes another way, past the point."""
        found = self._first[id(point)]
        current: DSLNode | CaseNode = point
        around: int | None = None
        """What is done in one round that leaves the point out; ``None`` if no round can."""
        while (steps := self._parent.get(id(current))) is not None:
            assert isinstance(steps, SubFlowNode)  # noqa: S101 - nodes stand in steps alone
            if around is not None:
                around |= self._made_beside(steps, current)
            holder = self._parent.get(id(steps))
            if isinstance(holder, CaseNode):
                switch = self._parent[id(holder)]
                assert isinstance(switch, SwitchNode)  # noqa: S101 - cases stand in switches alone
                if len(switch.cases) > 1:
                    around = (around or 0) | self._made_beside(switch, holder)
                holder = switch
            elif holder is not None:
                if around is not None and _may_repeat(holder):
                    found |= around
                if around is None and _may_skip(holder):
                    around = 0
            else:
                break
            current = holder
        return found

    def _made_beside(self, holder: SubFlowNode | SwitchNode, left_out: DSLNode | CaseNode) -> int:
        """Return all that is written in a sequence or a switch, one of its parts left out."""
        if id(holder) not in self._beside:
            parts: list[Any] = [*(holder.steps if isinstance(holder, SubFlowNode) else holder.cases)]
            made = [self._made[id(part)] for part in parts]
            earlier = itertools.accumulate(made, operator.or_, initial=0)
            later = [*itertools.accumulate(reversed(made), operator.or_, initial=0)][-2::-1]
            self._beside[id(holder)] = {
                id(part): first | last for part, first, last in zip(parts, earlier, later, strict=False)
            }
        return self._beside[id(holder)][id(left_out)]

    def beside(self, point: DSLNode, bit: int) -> tuple[DSLNode, DSLNode] | None:
        """Return two steps of one level that may run at the same time, whichever of them is first.

        Args:
            point: Is one of them, or inside of it.
            bit: Is written by the other one.
        """
        current: DSLNode | CaseNode = point
        while (holder := self._parent.get(id(current))) is not None:
            if isinstance(holder, Branches):
                before = all_before(holder.waits, certain=False)
                place = next(number for number, node in enumerate(holder.steps) if node is current)
                for number, node in enumerate(holder.steps):
                    is_free = not before[place] >> number & 1 and not before[number] >> place & 1
                    if number != place and is_free and self._made[id(node)] & bit:
                        return holder.steps[place], node
            current = holder
        return None

    def expected(self, value_of: Callable[[Expression], Any]) -> Iterator[DSLNode]:
        """Yield the points that are reached unless a ``switch`` goes another way or a loop has nothing to do.

        Args:
            value_of: Gives what an expression will give, or ``UNKNOWN``.
        """
        yield from self._expected(self._program, value_of)

    def _expected(self, steps: SubFlowNode, value_of: Callable[[Expression], Any]) -> Iterator[DSLNode]:
        for node in steps.steps:
            if isinstance(node, UntilNode):
                yield from self._expected(node.body, value_of)
            yield node
            if isinstance(node, SwitchNode):
                value = value_of(node.expression)
                for case in _chosen(node, value):
                    yield from self._expected(case.target, value_of)
            elif isinstance(node, RepeatNode):
                count = node.count if isinstance(node.count, int) else value_of(node.count)
                if count is UNKNOWN or (isinstance(count, int) and count > 0):
                    yield from self._expected(node.body, value_of)
            elif isinstance(node, ForEachNode):
                items = value_of(node.source)
                if items is UNKNOWN or (isinstance(items, (list, tuple)) and items):
                    yield from self._expected(node.body, value_of)

    def _walk(self, steps: SubFlowNode, done: int, scopes: tuple[ForEachNode, ...], in_loop: bool) -> int:
        """Note every point inside; the bits that may be set there are the answer."""
        made = 0
        ended: list[int] = []
        """By step: what may have been done when it ends, where not all before it has."""
        for place, node in enumerate(steps.steps):
            before = done | made
            if isinstance(steps, Branches):
                before = done
                for group in steps.waits[place]:
                    for other in group:
                        before |= ended[other]
            self._parent[id(node)] = steps
            inside = self._through(node, before, scopes, in_loop)
            is_until = isinstance(node, UntilNode)
            self._first[id(node)] = before | (inside if is_until else 0)
            self.points.append((node, scopes, in_loop or is_until))
            self._made[id(node)] = inside
            ended.append(before | inside)
            made |= inside
        return made

    def _through(self, node: DSLNode, done: int, scopes: tuple[ForEachNode, ...], in_loop: bool) -> int:
        if isinstance(node, TaskNode):
            return self._written(node.task)
        if isinstance(node, SwitchNode):
            made = 0
            for case in node.cases:
                self._parent[id(case)], self._parent[id(case.target)] = node, case
                self._made[id(case)] = self._walk(case.target, done, scopes, in_loop)
                made |= self._made[id(case)]
            return made
        if isinstance(node, (RepeatNode, ForEachNode, UntilNode)):
            self._parent[id(node.body)] = node
            inside = (*scopes, node) if isinstance(node, ForEachNode) else scopes
            made = self._walk(node.body, done, inside, True)
            return 0 if isinstance(node, RepeatNode) and node.count == 0 else made
        return 0


def _chosen(node: SwitchNode, value: Any) -> list[CaseNode]:
    """Return the case that a value leads to, if that is known."""
    if value is UNKNOWN:
        return []
    named = [case for case in node.cases if case.value != DEFAULT_CASE_VALUE and case.value == value]
    return (named or [case for case in node.cases if case.value == DEFAULT_CASE_VALUE])[:1]


def _may_repeat(loop: DSLNode | CaseNode) -> bool:
    if isinstance(loop, RepeatNode):
        return not isinstance(loop.count, int) or loop.count > 1
    return not isinstance(loop, UntilNode) or loop.max_iter != 1


def _may_skip(loop: DSLNode | CaseNode) -> bool:
    if isinstance(loop, RepeatNode):
        return not isinstance(loop.count, int) or loop.count == 0
    return isinstance(loop, ForEachNode)
