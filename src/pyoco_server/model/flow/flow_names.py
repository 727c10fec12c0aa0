"""The names that a flow uses in ``inputs`` and in the expressions of its graph, checked before it runs.

What the graph decides is checked once, when the flow is read: whether there is such a node, and whether it can have
run by then. What the params and the environment of the worker decide is checked for each run, for the tasks that this
run is expected to reach: behind a ``switch`` a task may never ask.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pyoco.core.models import Task
from pyoco.dsl.nodes import DSLNode, ForEachNode, SubFlowNode, TaskNode

from pyoco_server.errors import InvalidFlow
from pyoco_server.model.flow.expression_names import ExpressionName, names_in
from pyoco_server.model.flow.flow_order import FlowOrder
from pyoco_server.model.flow.references import EnvVar, NodeOutput, Param
from pyoco_server.model.flow.run_names import Lacking, RunNames, Use, expression_of
from pyoco_server.model.flow.yaml_source import Place, short, suggest
from pyoco_server.model.text.spelling import Misspellings

_LATER = "Only what stands before it can be used. "


@dataclass
class Entry:
    """An entry of ``tasks:``: its references, and where its output goes beside its own node."""

    uses: list[Use] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    needed: int | None = None
    """The bits of the nodes among the references, once they are known."""
    written: int | None = None
    """The bits of the outputs."""


class FlowNames:
    """The names of one flow.

    Args:
        program: Its compiled graph.
        entries: The entries of ``tasks:`` that it runs.
        entry_of: Gives the entry of ``tasks:`` that a node runs.
        place_of: Gives the place of an expression.
        params: Names of params that every run has.
        exposed: Names of the variables that the flow may read.

    Raises:
        InvalidFlow: a name can never be found.
    """

    def __init__(
        self,
        program: SubFlowNode,
        entries: Mapping[str, Entry],
        entry_of: Callable[[Task], str],
        place_of: Callable[[str], Place],
        params: Iterable[str] = (),
        exposed: Iterable[str] = (),
    ) -> None:
        self._exposed = frozenset(exposed)
        self._entries = entries
        self._entry_of = entry_of
        self._place_of = place_of
        self._bits: dict[tuple[str, str], int] = {}
        self._written: dict[str, int] = {}
        self._nodes: dict[str, list[str]] = {}
        """By entry: the nodes that run it."""
        self._order = FlowOrder(program, self._written_by)
        self._expressions: dict[int, list[ExpressionName]] = {}
        self._misspellings = Misspellings()
        self._elsewhere = {name: f"Write {{{{ params.{short(name)} }}}} for the param." for name in params}
        for alias in {alias for point, _, _ in self._order.points for alias in _aliases(point)}:
            self._elsewhere[alias] = f"Write {{{{ $ctx.{short(alias)} }}}} for the item, inside of its foreach."
        for kind, name in self._bits:
            if kind == "results":
                self._elsewhere[name] = f"Write {{{{ results.{short(name)} }}}} for what that node gave."
        for point, scopes, in_loop in self._order.points:
            if isinstance(point, TaskNode):
                self._check_task(point)
            else:
                self._check_expression(point, scopes, in_loop)
        for use in (use for entry in self._entries.values() for use in entry.uses if use.in_braces):
            hint = f"Write {short(use.text.strip('{} '))} without the braces."
            raise use.place.refuse(f"{short(use.text)!r}: inputs have no templates", hint)

    @property
    def ask_for_params(self) -> bool:
        """Whether what ``check`` finds depends on a run's params; without them, on the environment alone."""
        uses = (use for entry in self._entries.values() for use in entry.uses)
        names = (name for found in self._expressions.values() for name in found)
        return any(isinstance(use.reference, Param) for use in uses) or any(name.path[0] == "params" for name in names)

    def check(self, params: Mapping[str, Any], environ: Mapping[str, str] | None = None) -> None:
        """Check what the params of a run decide, and the environment of the process that runs it if that is known.

        Raises:
            InvalidFlow: a task, or the graph, asks for something that is not there.
        """
        run = RunNames(params, environ, self._bits, self._elsewhere, self._place_of)
        found: dict[str, Lacking] = {}
        for point in self._order.expected(run.value_of):
            if isinstance(point, TaskNode):
                name = self._entry_of(point.task)
                if name not in found:
                    found[name] = run.lacking_inputs(self._entries[name].uses)
                lacking = found[name]
            else:
                run.check_count(point)
                lacking = run.lacking_names(point, self._expressions.get(id(point), []))
            if lacking.error is not None:
                raise lacking.error()
            if lacking.bits & ~self._order.before(point):
                late = lacking.bits & ~self._order.before_again(point)
                for bit, error in lacking.unless.items() if late else ():
                    if bit & late:
                        raise error()

    def _written_by(self, task: Task) -> int:
        if task.name not in self._written:
            name = self._entry_of(task)
            self._nodes.setdefault(name, []).append(task.name)
            entry = self._entries[name]
            if entry.written is None:
                entry.written = 0
                for target in entry.outputs:
                    root, _, path = target.partition(".")
                    if root in ("results", "params"):
                        entry.written |= self._bit(root, (path or root).partition(".")[0])
            self._written[task.name] = self._bit("results", task.name) | entry.written
        return self._written[task.name]

    def _bit(self, kind: str, name: str) -> int:
        return self._bits.setdefault((kind, name), 1 << len(self._bits))

    def _check_task(self, point: TaskNode) -> None:
        entry = self._entries[self._entry_of(point.task)]
        if entry.needed is None:
            entry.needed = 0
            for use in entry.uses:
                if isinstance(use.reference, EnvVar):
                    self._check_exposed(use.reference.name, use.text, use.place)
                elif isinstance(use.reference, NodeOutput):
                    entry.needed |= self._known_node(use.reference.node, use.text, use.place)
        lacking = entry.needed & ~self._order.before(point)
        if lacking and (lacking := lacking & ~self._order.before_again(point)):
            for use in entry.uses:
                if isinstance(use.reference, NodeOutput) and self._bits["results", use.reference.node] & lacking:
                    raise self._too_early(point, use.reference.node, use.text, use.place, point.task.name)

    def _check_exposed(self, name: str, text: str, place: Place) -> None:
        if name not in self._exposed:
            names = ", ".join([*sorted(self._exposed), name])
            message = f"{short(text)!r}: the environment variable {short(name)!r} is not exposed to this flow"
            raise place.refuse(
                message, f"Write at the top level of the file: runtime: {{expose_env: [{short(names)}]}}"
            )

    def _known_node(self, name: str, text: str, place: Place) -> int:
        bit = self._bits.get(("results", name))
        if bit is not None:
            return bit
        if name in self._nodes:
            hint = f"The task {short(name)!r} stands in the graph as {', '.join(map(short, self._nodes[name][:5]))}"
        else:
            hint = suggest(name, [known for kind, known in self._bits if kind == "results"], "Nodes of the graph")
        raise place.refuse(f"{short(text)!r}: the graph has no node {short(name)!r}", hint)

    def _too_early(self, point: DSLNode, name: str, text: str, place: Place, who: str) -> InvalidFlow:
        before = self._order.before_again(point)
        names = [known for (kind, known), bit in self._bits.items() if kind == "results" and bit & before]
        if beside := self._order.beside(point, self._bits["results", name]):
            message = f"{short(text)!r}: {short(who)!r} may run before {short(name)!r} has ended"
            hint = "Let it wait: put '>>' between the two parts of the graph that they stand in."
            if all(isinstance(step, TaskNode) for step in beside):
                hint = f"Let it wait, by a line of the graph: {short(name)} >> {short(who)}"
            return place.refuse(message, hint)
        if isinstance(point, TaskNode) and point.task.name == name:
            message = f"{short(text)!r}: {short(name)!r} would need its own output before it has run"
        else:
            message = f"{short(text)!r}: {short(name)!r} cannot have run before {short(who)!r}"
        return place.refuse(message, _LATER + suggest(name, names, "Before it can have run"))

    def _check_expression(self, point: DSLNode, scopes: tuple[ForEachNode, ...], in_loop: bool) -> None:
        expression = expression_of(point)
        if expression is None:
            return
        names = names_in(expression)
        self._expressions[id(point)] = names
        place, text = self._place_of(expression.source), expression.source
        before = self._order.before(point)
        aliases = {alias for scope in scopes for alias in _aliases(scope)}
        for name in names:
            found = name.problem(
                aliases, self._elsewhere, self._misspellings, in_loop=in_loop, anything_before=bool(before)
            )
            if found is not None:
                raise place.refuse(f"{short(text)!r}: {found[0]}", found[1])
            if name.root == "env":
                self._check_exposed(name.path[0], text, place)
            if name.root == "ctx" and name.path[0] == "results" and len(name.path) > 1:
                bit = self._known_node(name.path[1], text, place)
                if name.certain and not bit & before and not bit & self._order.before_again(point):
                    raise self._too_early(point, name.path[1], text, place, _kind(point))


def _aliases(point: DSLNode) -> list[str]:
    return [name for name in (point.alias, point.index_alias) if name] if isinstance(point, ForEachNode) else []


def _kind(point: DSLNode) -> str:
    return type(point).__name__.removesuffix("Node").lower()
