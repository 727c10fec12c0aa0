"""A flow's graph as nodes, edges and groups, for a reader to draw."""

from dataclasses import dataclass, field
from typing import Any, Literal

from pyoco.dsl import graph as pyoco_graph
from pyoco.dsl.graph_terms import ForEachTerm, Pipeline, RepeatTerm, SwitchTerm, TaskTerm, Term, UntilTerm

from pyoco_server.model.text import clean_text
from pyoco_server.model.workflow import FlowFile

_MOST_NODES = 2000
_MOST_EDGES = 4 * _MOST_NODES
"""A loop around a switch has an edge from each of its cases, and so has each loop around that."""
_LABEL = 80
Exits = list[tuple[str, str | None]]
"""Nodes from where the next one is reached, each with what the way is called."""


@dataclass(frozen=True)
class Node:
    """A task of the graph, or a point where it divides.

    Attributes:
        id: Its own name in this graph.
        kind: What it is.
        name: The task's name in the run (``tasks``, ``task_records``); of a switch what it looks at.
        task: The entry of ``tasks:`` that it runs.
        group: The loop that it stands in.
    """

    id: str
    kind: Literal["task", "switch"]
    name: str
    task: str | None = None
    group: str | None = None


@dataclass(frozen=True)
class Edge:
    """A way from one node to the next; ``back`` leads from a loop's end to its beginning."""

    source: str
    target: str
    kind: Literal["next", "back"] = "next"
    label: str | None = None


@dataclass(frozen=True)
class Group:
    """A loop around nodes; ``label`` says how often, over what, or until when; ``parent`` is the loop around it."""

    id: str
    kind: Literal["repeat", "foreach", "until"]
    label: str
    parent: str | None = None


@dataclass
class FlowGraph:
    """The whole graph. ``cut`` says that it is too large and not all of it is here."""

    nodes: list[Node] = field(default_factory=list)
    edges: list[Edge] = field(default_factory=list)
    groups: list[Group] = field(default_factory=list)
    cut: bool = False

    def as_json(self) -> dict[str, Any]:
        """Give it as plain data."""
        parts: dict[str, list[Any]] = {"nodes": self.nodes, "edges": self.edges, "groups": self.groups}
        return {name: [dict(vars(part)) for part in found] for name, found in parts.items()} | {"cut": self.cut}


def flow_graph(file: FlowFile) -> FlowGraph:
    """Draw the graph of a checked flow.yaml.

    Args:
        file: Its content.
    """
    resolved = pyoco_graph.resolve_pipe_refs(pyoco_graph.parse_graph(file.flow.graph), dict(file.pipes))
    drawing = _Drawing()
    drawing.pipeline(resolved, [], None)
    return drawing.graph


def loose_graph(task_names: list[str]) -> FlowGraph:
    """Give the tasks alone, where it is not known how they depend on each other."""
    shown = task_names[:_MOST_NODES]
    nodes = [Node(f"n{number}", "task", name, name) for number, name in enumerate(shown)]
    return FlowGraph(nodes, cut=len(shown) < len(task_names))


class _Drawing:
    def __init__(self) -> None:
        self.graph = FlowGraph()

    def pipeline(self, pipeline: Pipeline, entries: Exits, group: str | None) -> Exits:
        for term in pipeline.terms:
            if len(self.graph.nodes) >= _MOST_NODES:
                self.graph.cut = True
                break
            entries = self._term(term, entries, group)
        return entries

    def _term(self, term: Term, entries: Exits, group: str | None) -> Exits:
        if isinstance(term, TaskTerm):
            node = self._node("task", term.node_name or term.name, term.name, entries, group)
            return [(node, None)]
        if isinstance(term, SwitchTerm):
            return self._switch(term, entries, group)
        return self._loop(term, entries, group)

    def _switch(self, term: SwitchTerm, entries: Exits, group: str | None) -> Exits:
        node = self._node("switch", _short(term.on), None, entries, group)
        exits: Exits = []
        for case in term.cases:
            exits += self.pipeline(case.branch, [(node, _short(str(case.value)))], group)
        default = self.pipeline(term.default, [(node, "default")], group) if term.default else [(node, "default")]
        return list(dict.fromkeys([*exits, *default]))

    def _loop(self, term: Term, entries: Exits, group: str | None) -> Exits:
        inside = Group(f"g{len(self.graph.groups)}", *_loop_label(term), group)
        self.graph.groups.append(inside)
        first = len(self.graph.nodes)
        exits = self.pipeline(term.body, entries, inside.id)  # type: ignore[attr-defined]
        if first < len(self.graph.nodes):
            begin = self.graph.nodes[first].id
            self._edges([Edge(source, begin, "back", label) for source, label in exits])
        return exits

    def _node(
        self, kind: Literal["task", "switch"], name: str, task: str | None, entries: Exits, group: str | None
    ) -> str:
        node = Node(f"n{len(self.graph.nodes)}", kind, name, task, group)
        self.graph.nodes.append(node)
        self._edges([Edge(source, node.id, label=label) for source, label in entries])
        return node.id

    def _edges(self, edges: list[Edge]) -> None:
        room = _MOST_EDGES - len(self.graph.edges)
        self.graph.edges += edges[:room]
        self.graph.cut = self.graph.cut or len(edges) > room


def _loop_label(term: Term) -> tuple[Literal["repeat", "foreach", "until"], str]:
    if isinstance(term, RepeatTerm):
        return "repeat", _short(str(term.count))
    if isinstance(term, ForEachTerm):
        return "foreach", _short(f"{term.item or 'item'} in {term.over}")
    assert isinstance(term, UntilTerm)  # noqa: S101 - there are no other terms
    most = f" (max {term.max_iter})" if term.max_iter else ""
    return "until", f"{_short(term.cond)}{most}"


def _short(text: str) -> str:
    text = text.removeprefix("{{").removesuffix("}}").strip()
    return clean_text(text if len(text) <= _LABEL else f"{text[:_LABEL]}…")
