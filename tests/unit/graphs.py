"""Graphs for tests: read, compiled, and told as plain data."""

from typing import Any

from pyoco.core.models import Flow, Task
from pyoco.dsl.nodes import ForEachNode, RepeatNode, SubFlowNode, SwitchNode, TaskNode, UntilNode

from pyoco_server.model.flow.branches import Branches
from pyoco_server.model.flow.graph.compiler import build_flow
from pyoco_server.model.flow.graph.plan import plan
from pyoco_server.model.flow.graph.steps import Level, TaskStep
from pyoco_server.model.flow.graph.texts import read_texts


class AnyTask(dict[str, Task]):
    """Tasks of every name."""

    def __missing__(self, name: str) -> Task:
        self[name] = Task(print, name)
        return self[name]

    def get(self, name: str, default: Any = None) -> Any:
        return self[name]


def level_of(text: str, pipes: dict[str, str] | None = None, tasks: str = "abcdefgh") -> Level:
    """Return the steps of a graph."""
    return plan(read_texts(text, pipes or {}), set(tasks))


def compiled(text: str, pipes: dict[str, str] | None = None) -> Flow:
    """Return the flow of a graph."""
    return build_flow(level_of(text, pipes), AnyTask(), "main", 8)


def waits_of(level: Level) -> dict[str, list[set[str]]]:
    """Return by each node what it waits for; a switch or a loop is named after its kind and its place."""
    names = [step.node if isinstance(step, TaskStep) else type(step.term).__name__ for step in level.steps]
    if level.waits is None:
        return {name: [{names[place - 1]}] if place else [] for place, name in enumerate(names)}
    return {
        name: [{names[other] for other in group} for group in wait]
        for name, wait in zip(names, level.waits, strict=True)
    }


def told(node: Any) -> Any:
    """Return a compiled graph as plain data."""
    if isinstance(node, TaskNode):
        return node.task.name, node.task.func.__name__
    if isinstance(node, Branches):
        return "branches", [told(step) for step in node.steps], node.waits
    if isinstance(node, SubFlowNode):
        return [told(step) for step in node.steps]
    if isinstance(node, SwitchNode):
        return "switch", node.expression.source, [(repr(case.value), told(case.target)) for case in node.cases]
    if isinstance(node, RepeatNode):
        return "repeat", getattr(node.count, "source", node.count), node.collect, told(node.body)
    if isinstance(node, ForEachNode):
        return "foreach", node.source.source, node.alias, node.index_alias, node.collect, told(node.body)
    assert isinstance(node, UntilNode)
    return "until", node.condition.source, node.max_iter, node.collect, told(node.body)


def told_flow(flow: Flow) -> Any:
    """Return all of a flow as plain data."""
    links = {task.name: (sorted(t.name for t in task.dependencies), sorted(t.name for t in task.dependents))
             for task in flow.tasks}  # fmt: skip
    return flow.name, flow.has_control_flow(), told(flow.build_program()), links
