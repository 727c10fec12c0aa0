"""The names that a flow uses in ``inputs`` and in the expressions of its graph, checked before it runs.

What the graph decides is checked once, when the flow is read: whether there is such a node, and whether it can have
run by then. What the params and the environment of the worker decide is checked for each run, for the tasks that this
run is expected to reach: behind a ``switch`` a task may never ask.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pyoco.core.models import Task
from pyoco.dsl.expressions import Expression
from pyoco.dsl.nodes import DSLNode, ForEachNode, RepeatNode, SubFlowNode, SwitchNode, TaskNode, UntilNode

from pyoco_server.errors import InvalidFlow
from pyoco_server.model.expression_names import ExpressionName, names_in
from pyoco_server.model.flow_order import UNKNOWN, FlowOrder
from pyoco_server.model.references import EnvVar, NodeOutput, Param, Reference, descend, find_param, known_fields
from pyoco_server.model.yaml_source import Place, short, suggest

_PARAM_PATH = re.compile(r"\$ctx\.params\.([\w.]+)")
_LATER = "Only what stands before it can be used. "


@dataclass(frozen=True)
class Use:
    """A reference in the inputs of a task."""

    place: Place
    text: str
    reference: Reference
    in_braces: bool = False
    """Whether it is written as a template, which inputs have not: said when nothing else is wrong with it."""


@dataclass
class Lacking:
    """What is not there, of the names at one point.

    Args:
        error: What is raised for certain.
        unless: By bit: what is raised unless a task may have written it by then.
    """

    error: InvalidFlow | None = None
    unless: dict[int, InvalidFlow] = field(default_factory=dict)
    bits: int = 0

    def note(self, error: InvalidFlow, bit: int = 0) -> None:
        """Add one."""
        if bit:
            self.unless.setdefault(bit, error)
            self.bits |= bit
        else:
            self.error = self.error or error


@dataclass
class Entry:
    """An entry of ``tasks:``: its references, and the bits of the nodes among them."""

    uses: list[Use]
    needed: int = 0
    checked: bool = field(default=False)


class FlowNames:
    """The names of one flow.

    Args:
        program: Its compiled graph.
        uses: The references of each task that it runs, by what ``entry_of`` gives.
        entry_of: Gives the entry of ``tasks:`` that a node runs.
        place_of: Gives the place of an expression.
        params: Names of params that every run has.

    Raises:
        InvalidFlow: a name can never be found.
    """

    def __init__(
        self,
        program: SubFlowNode,
        uses: Mapping[str, list[Use]],
        entry_of: Callable[[Task], str],
        place_of: Callable[[str], Place],
        params: Iterable[str] = (),
    ) -> None:
        self._entries = {name: Entry(some) for name, some in uses.items()}
        self._entry_of = entry_of
        self._place_of = place_of
        self._bits: dict[tuple[str, str], int] = {}
        self._written: dict[str, int] = {}
        self._nodes: dict[str, list[str]] = {}
        """By entry: the nodes that run it."""
        self._order = FlowOrder(program, self._written_by)
        self._expressions: dict[int, list[ExpressionName]] = {}
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

    def check(self, params: Mapping[str, Any], environ: Mapping[str, str] | None = None) -> None:
        """Check what the params of a run decide, and the environment of the process that runs it if that is known.

        Raises:
            InvalidFlow: a task, or the graph, asks for something that is not there.
        """
        given = dict(params)
        found: dict[str, Lacking] = {}
        for point in self._order.expected(lambda expression: self._value(expression, given)):
            if isinstance(point, TaskNode):
                name = self._entry_of(point.task)
                if name not in found:
                    found[name] = self._lacking_inputs(name, given, environ)
                lacking = found[name]
            else:
                lacking = self._lacking_names(point, given, environ)
            if lacking.error is not None:
                raise lacking.error
            if lacking.bits & ~self._order.before(point):
                late = lacking.bits & ~self._order.before_again(point)
                for bit, error in lacking.unless.items():
                    if bit & late:
                        raise error

    def _written_by(self, task: Task) -> int:
        if task.name not in self._written:
            bits = self._bit("results", task.name)
            for target in task.outputs:
                root, _, path = str(target).partition(".")
                if root in ("results", "params"):
                    bits |= self._bit(root, (path or root).partition(".")[0])
            self._written[task.name] = bits
            self._nodes.setdefault(self._entry_of(task), []).append(task.name)
        return self._written[task.name]

    def _bit(self, kind: str, name: str) -> int:
        return self._bits.setdefault((kind, name), 1 << len(self._bits))

    def _check_task(self, point: TaskNode) -> None:
        entry = self._entries.get(self._entry_of(point.task))
        if entry is None:
            return
        if not entry.checked:
            for use in entry.uses:
                if isinstance(use.reference, NodeOutput):
                    entry.needed |= self._known_node(use.reference.node, use.text, use.place)
            entry.checked = True
        lacking = entry.needed & ~self._order.before(point)
        if lacking and (lacking := lacking & ~self._order.before_again(point)):
            for use in entry.uses:
                if isinstance(use.reference, NodeOutput) and self._bits["results", use.reference.node] & lacking:
                    raise self._too_early(point, use.reference.node, use.text, use.place, point.task.name)

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
        if isinstance(point, TaskNode) and point.task.name == name:
            message = f"{short(text)!r}: {short(name)!r} would need its own output before it has run"
        else:
            message = f"{short(text)!r}: {short(name)!r} cannot have run before {short(who)!r}"
        return place.refuse(message, _LATER + suggest(name, names, "Before it can have run"))

    def _check_expression(self, point: DSLNode, scopes: tuple[ForEachNode, ...], in_loop: bool) -> None:
        expression = _expression_of(point)
        if expression is None:
            return
        names = names_in(expression)
        self._expressions[id(point)] = names
        place, text = self._place_of(expression.source), expression.source
        before = self._order.before(point)
        aliases = {alias for scope in scopes for alias in _aliases(scope)}
        for name in names:
            found = name.problem(aliases, self._elsewhere, in_loop=in_loop, anything_before=bool(before))
            if found is not None:
                raise place.refuse(f"{short(text)!r}: {found[0]}", found[1])
            if name.root == "ctx" and name.path[0] == "results" and len(name.path) > 1:
                bit = self._known_node(name.path[1], text, place)
                if name.certain and not bit & before and not bit & self._order.before_again(point):
                    raise self._too_early(point, name.path[1], text, place, _kind(point))

    def _value(self, expression: Expression, params: dict[str, Any]) -> Any:
        """Return what an expression gives, where that is the value of a param that no task writes."""
        path = _PARAM_PATH.fullmatch(expression.source)
        if path is None or ("params", path[1].partition(".")[0]) in self._bits:
            return UNKNOWN
        try:
            return descend(params, tuple(path[1].split(".")))
        except LookupError:
            return UNKNOWN

    def _lacking_inputs(self, entry: str, params: dict[str, Any], environ: Mapping[str, str] | None) -> Lacking:
        lacking = Lacking()
        for use in self._entries[entry].uses if entry in self._entries else ():
            if isinstance(use.reference, EnvVar):
                _look_for_variable(lacking, use.place, use.text, use.reference.name, environ)
            elif isinstance(use.reference, Param):
                try:
                    find_param(params, use.reference.key)
                except LookupError as error:
                    self._no_param(lacking, use.place, use.text, use.reference.key, error, params)
        return lacking

    def _lacking_names(self, point: DSLNode, params: dict[str, Any], environ: Mapping[str, str] | None) -> Lacking:
        lacking, expression = Lacking(), _expression_of(point)
        for name in self._expressions.get(id(point), ()) if expression else ():
            assert expression is not None  # noqa: S101 - it has names
            text, place = expression.source, self._place_of(expression.source)
            if name.root == "env" and name.certain:
                _look_for_variable(lacking, place, text, name.path[0], environ)
            elif name.path[0] == "params" and name.certain:
                try:
                    descend(params, name.path[1:])
                except LookupError as error:
                    self._no_param(lacking, place, text, ".".join(name.path[1:]), error, params)
        return lacking

    def _no_param(
        self, lacking: Lacking, place: Place, text: str, key: str, error: LookupError, params: dict[str, Any]
    ) -> None:
        root = key.partition(".")[0]
        message = f"{short(text)!r}: the run's params have no {short(key)!r}"
        if root in params:
            message += f": {short(str(error.args[0]))}"
        known = suggest(key, known_fields(params, key), "They have")
        if root in self._elsewhere and root not in params:
            known = self._elsewhere[root].rstrip(".")
        ways = f"Give it with the run, under flow: defaults, or let a task before it write it: outputs: [params.{root}]"
        lacking.note(place.refuse(message, f"{known}. {short(ways, 200)}"), self._bits.get(("params", root), 0))


def _look_for_variable(lacking: Lacking, place: Place, text: str, name: str, environ: Mapping[str, str] | None) -> None:
    if environ is not None and name not in environ:
        message = f"{short(text)!r}: the environment variable {short(name)!r} is not set where this worker runs"
        hint = "Set it for the worker. What a task sets itself, another one reads from os.environ."
        lacking.note(place.refuse(message, hint))


def _expression_of(point: DSLNode) -> Expression | None:
    found: Any = None
    if isinstance(point, SwitchNode):
        found = point.expression
    elif isinstance(point, RepeatNode):
        found = point.count
    elif isinstance(point, ForEachNode):
        found = point.source
    elif isinstance(point, UntilNode):
        found = point.condition
    return found if isinstance(found, Expression) else None


def _aliases(point: DSLNode) -> list[str]:
    return [name for name in (point.alias, point.index_alias) if name] if isinstance(point, ForEachNode) else []


def _kind(point: DSLNode) -> str:
    return type(point).__name__.removesuffix("Node").lower()
