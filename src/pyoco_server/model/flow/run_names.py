"""What only a run decides of the names in its flow: params, and the environment of the process that runs it."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pyoco.dsl.expressions import Expression
from pyoco.dsl.nodes import DSLNode, ForEachNode, RepeatNode, SwitchNode, UntilNode

from pyoco_server.errors import InvalidFlow
from pyoco_server.model.flow.expression_names import ExpressionName
from pyoco_server.model.flow.flow_order import UNKNOWN
from pyoco_server.model.flow.references import EnvVar, Param, Reference, descend, find_param, known_fields
from pyoco_server.model.flow.yaml_source import Place, short, suggest

_PARAM_PATH = re.compile(r"\$ctx\.params\.([\w.]+)")


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
        error: Makes what is raised for certain. Only one is ever told of many, and each costs a search among all names.
        unless: By bit: makes what is raised unless a task may have written it by then.
    """

    error: Callable[[], InvalidFlow] | None = None
    unless: dict[int, Callable[[], InvalidFlow]] = field(default_factory=dict)
    bits: int = 0

    def note(self, error: Callable[[], InvalidFlow], bit: int = 0) -> None:
        """Add one."""
        if bit:
            self.unless.setdefault(bit, error)
            self.bits |= bit
        else:
            self.error = self.error or error


class RunNames:
    """The names of one run.

    Args:
        params: The run's params.
        environ: The environment of the process that runs it; ``None`` where that is not known.
        bits: What tasks write, by ``results`` or ``params`` and the name.
        elsewhere: What to write for names that stand for something else than a param.
        place_of: Gives the place of an expression.
    """

    def __init__(
        self,
        params: Mapping[str, Any],
        environ: Mapping[str, str] | None,
        bits: Mapping[tuple[str, str], int],
        elsewhere: Mapping[str, str],
        place_of: Callable[[str], Place],
    ) -> None:
        self._params = dict(params)
        self._environ = environ
        self._bits = bits
        self._elsewhere = elsewhere
        self._place_of = place_of

    def value_of(self, expression: Expression) -> Any:
        """Return what an expression gives, where that is the value of a param that no task writes."""
        path = _PARAM_PATH.fullmatch(expression.source)
        if path is None or ("params", path[1].partition(".")[0]) in self._bits:
            return UNKNOWN
        try:
            return descend(self._params, tuple(path[1].split(".")))
        except LookupError:
            return UNKNOWN

    def lacking_inputs(self, uses: list[Use]) -> Lacking:
        """Return what is not there of the references in a task's inputs."""
        lacking = Lacking()
        for use in uses:
            if isinstance(use.reference, EnvVar):
                self._look_for_variable(lacking, use.place, use.text, use.reference.name)
            elif isinstance(use.reference, Param):
                try:
                    find_param(self._params, use.reference.key)
                except LookupError as error:
                    self._no_param(lacking, use.place, use.text, use.reference.key, str(error.args[0]))
        return lacking

    def lacking_names(self, point: DSLNode, names: list[ExpressionName]) -> Lacking:
        """Return what is not there of the names in a point's expression."""
        lacking, expression = Lacking(), expression_of(point)
        for name in names:
            assert expression is not None  # noqa: S101 - it has names
            text, place = expression.source, self._place_of(expression.source)
            if name.root == "env" and name.certain:
                self._look_for_variable(lacking, place, text, name.path[0])
            elif name.path[0] == "params" and name.certain:
                try:
                    descend(self._params, name.path[1:])
                except LookupError as error:
                    self._no_param(lacking, place, text, ".".join(name.path[1:]), str(error.args[0]))
        return lacking

    def _no_param(self, lacking: Lacking, place: Place, text: str, key: str, why: str) -> None:
        bit = self._bits.get(("params", key.partition(".")[0]), 0)
        lacking.note(lambda: self._param_error(place, text, key, why), bit)

    def _param_error(self, place: Place, text: str, key: str, why: str) -> InvalidFlow:
        root = key.partition(".")[0]
        message = f"{short(text)!r}: the run's params have no {short(key)!r}"
        if root in self._params:
            message += f": {short(why)}"
        known = suggest(key, known_fields(self._params, key), "They have")
        if root in self._elsewhere and root not in self._params:
            known = self._elsewhere[root].rstrip(".")
        ways = f"Give it with the run, under flow: defaults, or let a task before it write it: outputs: [params.{root}]"
        return place.refuse(message, f"{known}. {short(ways, 200)}")

    def check_count(self, point: DSLNode) -> None:
        """Check how often a loop is to run, where a param says it.

        Raises:
            InvalidFlow: it is not the kind of value that the loop takes.
        """
        expression = expression_of(point)
        value = UNKNOWN if expression is None else self.value_of(expression)
        if expression is None or value is UNKNOWN:
            return
        problem = ""
        if isinstance(point, ForEachNode) and not isinstance(value, (list, tuple)):
            problem = f"foreach goes over a list, this param is of the type {type(value).__name__}"
        elif isinstance(point, RepeatNode) and (not isinstance(value, int) or value < 0):
            problem = f"repeat takes a whole number from 0 on, this param is of the type {type(value).__name__}"
        if problem:
            raise self._place_of(expression.source).refuse(f"{short(expression.source)!r}: {problem}")

    def _look_for_variable(self, lacking: Lacking, place: Place, text: str, name: str) -> None:
        if self._environ is not None and name not in self._environ:
            message = f"{short(text)!r}: the environment variable {short(name)!r} is not set where this worker runs"
            hint = "Set it for the worker. What a task sets itself, another one reads from os.environ."
            lacking.note(lambda: place.refuse(message, hint))


def expression_of(point: DSLNode) -> Expression | None:
    """Return the expression that is looked at when a point is reached; ``None`` if there is none."""
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
