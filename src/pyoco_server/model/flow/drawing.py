"""A flow's graph as nodes, edges and groups, for a reader to draw."""

from dataclasses import dataclass, field
from typing import Any, Literal

from pyoco_server.model.flow.branches import Wait
from pyoco_server.model.flow.flow_file import FlowFile
from pyoco_server.model.flow.graph.steps import ControlStep, Level, Step, TaskStep
from pyoco_server.model.flow.graph.terms import LoopKind, LoopTerm, SwitchTerm
from pyoco_server.model.flow.graph_check import read_graph
from pyoco_server.model.text.clean import clean_text

_MOST_NODES = 2000
_MOST_EDGES = 4 * _MOST_NODES
"""A loop around a switch has an edge from each of its cases, and so has each loop around that."""
_LABEL = 80
EdgeKind = Literal["next", "any", "back"]
Exits = list[tuple[str, str | None, EdgeKind]]
"""Nodes from where the next one is reached, each with what the way is called, and of what kind it is."""


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
    """A way from one node to the next.

    Of those of the kind ``any`` that lead to a node one is enough; ``back`` leads from a loop's end to its beginning,
    where that is one node.
    """

    source: str
    target: str
    kind: EdgeKind = "next"
    label: str | None = None


@dataclass(frozen=True)
class Group:
    """A loop around nodes; ``label`` says how often, over what, or until when; ``parent`` is the loop around it."""

    id: str
    kind: LoopKind
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
    drawing = _Drawing()
    drawing.level(read_graph(file), [], None)
    return drawing.graph


def loose_graph(task_names: list[str]) -> FlowGraph:
    """Give the tasks alone, where it is not known how they depend on each other."""
    shown = task_names[:_MOST_NODES]
    nodes = [Node(f"n{number}", "task", name, name) for number, name in enumerate(shown)]
    return FlowGraph(nodes, cut=len(shown) < len(task_names))


class _Drawing:
    def __init__(self) -> None:
        self.graph = FlowGraph()

    def level(self, level: Level, entries: Exits, group: str | None) -> tuple[Exits, list[int]]:
        """Draw steps, and return from where their end is left, and at which nodes they begin."""
        exits: list[Exits] = []
        begins: list[int] = []
        left: dict[int, None] = {}
        """Steps that no other one of this level waits for."""
        for place, step in enumerate(level.steps):
            if len(self.graph.nodes) >= _MOST_NODES:
                self.graph.cut = True
                break
            wait = level.waits[place] if level.waits is not None else (frozenset({place - 1}),) if place else ()
            if not wait:
                begins.append(len(self.graph.nodes))
            exits.append(self._step(step, self._ways(wait, exits) if wait else entries, group))
            for before in wait:
                for other in before:
                    left.pop(other, None)
            left[place] = None
        return list(dict.fromkeys(way for place in left for way in exits[place])), begins

    def _ways(self, wait: Wait, exits: list[Exits]) -> Exits:
        """Return the ways that lead to what waits; no more than can be drawn."""
        ways: dict[tuple[str, str | None, EdgeKind], None] = {}
        for group in wait:
            for other in sorted(group):
                ways |= dict.fromkeys(
                    (source, label, "any" if len(group) > 1 else kind) for source, label, kind in exits[other]
                )
                if len(ways) + len(self.graph.edges) > _MOST_EDGES:
                    return list(ways)
        return list(ways)

    def _step(self, step: Step, entries: Exits, group: str | None) -> Exits:
        if isinstance(step, TaskStep):
            return [(self._node("task", step.node, step.task, entries, group), None, "next")]
        if isinstance(step.term, SwitchTerm):
            return self._switch(step, step.term, entries, group)
        return self._loop(step, step.term, entries, group)

    def _switch(self, step: ControlStep, term: SwitchTerm, entries: Exits, group: str | None) -> Exits:
        node = self._node("switch", _short(term.on.value), None, entries, group)
        labels = [*(_short(case.value) for case in term.cases), "default"]
        exits: Exits = []
        for label, level in zip(labels, step.levels, strict=False):
            exits += self.level(level, [(node, label, "next")], group)[0]
        if term.default is None:
            exits.append((node, "default", "next"))
        return list(dict.fromkeys(exits))

    def _loop(self, step: ControlStep, term: LoopTerm, entries: Exits, group: str | None) -> Exits:
        inside = Group(f"g{len(self.graph.groups)}", term.kind, _loop_label(term), group)
        self.graph.groups.append(inside)
        (body,) = step.levels
        exits, begins = self.level(body, entries, inside.id)
        # To several beginnings, side by side, the ways back would look like an order among them; the group says it.
        if len(begins) == 1 and begins[0] < len(self.graph.nodes):
            begin = self.graph.nodes[begins[0]].id
            self._edges([Edge(source, begin, "back", label) for source, label, _ in exits])
        return exits

    def _node(
        self, kind: Literal["task", "switch"], name: str, task: str | None, entries: Exits, group: str | None
    ) -> str:
        node = Node(f"n{len(self.graph.nodes)}", kind, name, task, group)
        self.graph.nodes.append(node)
        self._edges([Edge(source, node.id, way, label) for source, label, way in entries])
        return node.id

    def _edges(self, edges: list[Edge]) -> None:
        room = _MOST_EDGES - len(self.graph.edges)
        self.graph.edges += edges[:room]
        self.graph.cut = self.graph.cut or len(edges) > room


def _loop_label(term: LoopTerm) -> str:
    if term.kind == "foreach":
        item = term.arguments.get("item")
        return _short(f"{item.value if item else 'item'} in {term.over.value}")
    most = term.arguments.get("max_iter")
    return _short(term.over.value) + (f" (max {most.value})" if term.kind == "until" and most else "")


def _short(text: str) -> str:
    text = text.removeprefix("{{").removesuffix("}}").strip()
    return clean_text(text if len(text) <= _LABEL else f"{text[:_LABEL]}…")
