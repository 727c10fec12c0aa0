"""Switches and loops, checked and compiled by pyoco one by one: what it refuses is told with its place."""

import re
from collections.abc import Callable

from pyoco.dsl import graph as pyoco_graph
from pyoco.dsl.expressions import Expression
from pyoco.dsl.nodes import DSLNode

from pyoco_server.model.flow.graph.compiler import compile_control, control_text
from pyoco_server.model.flow.graph.problems import GraphProblem, Spot
from pyoco_server.model.flow.graph.terms import Argument, ControlTerm, LoopTerm
from pyoco_server.model.flow.graph.tokens import GRAPH_HINT
from pyoco_server.model.flow.yaml_source import short

_MAX_SAID = 500
"""Characters of what pyoco says that are looked at: it may quote all of a text."""
_MOST_ERRORS = 5
_PLACE = re.compile(r"^flow\.term\[0\](?:\.case\[\d+\])?: ")
_UNSUPPORTED = re.compile(r"Unsupported expression '(.*)'\.")
_EXPRESSION_HINT = "Write {{ params.x }}, or {{ $ctx.results.task > 3 }}"
_ALIAS_HINT = "pyoco takes names of letters, digits and _ here, the first an ASCII letter or _: item=row"
# What compiling an expression may raise: pyoco's errors are ValueErrors, Python's compiler adds the others.
_COMPILING = (ValueError, TypeError, SyntaxError, MemoryError, OverflowError)


class CheckedControls:
    """Compiles switches and loops, and notes where their expressions stand.

    Args:
        expression_of: Gives the expression of a node, if it has one.
    """

    def __init__(self, expression_of: Callable[[DSLNode], Expression | None]) -> None:
        self._expression_of = expression_of
        self.places: dict[str, Spot] = {}
        """By an expression, as pyoco has it: where it stands first."""

    def compile(self, term: ControlTerm) -> DSLNode:
        """Return the node of a switch or a loop, its bodies still to be put in.

        Raises:
            GraphProblem: it cannot be used.
        """
        given = term.over if isinstance(term, LoopTerm) else term.on
        try:
            report = pyoco_graph.validate_graph_terms(pyoco_graph.parse_graph(control_text(term)))
            node = None if report.errors else compile_control(term)
        except _COMPILING as error:
            raise _blame(given, error) from None
        if node is None:
            said = "; ".join(_PLACE.sub("", found) for found in report.errors[:_MOST_ERRORS])
            raise GraphProblem(said, term.spot, _ALIAS_HINT if "must be an identifier" in said else GRAPH_HINT)
        expression = self._expression_of(node)
        if expression is not None:
            self.places.setdefault(expression.source, given.spot)
        return node


def _blame(given: Argument, error: BaseException) -> GraphProblem:
    bare = _UNSUPPORTED.match(str(error)[:_MAX_SAID])
    if bare is not None and given.is_bare:  # pyoco's paths begin with an ASCII letter
        hint = f"Write {{{{ params.{short(given.value)} }}}}"
        return GraphProblem(f"the expression {short(given.value)!r} cannot be used", given.spot, hint)
    said = short(str(error), _MAX_SAID) or "it cannot be compiled"
    return GraphProblem(f"the expression {short(given.value)!r} cannot be used: {said}", given.spot, _EXPRESSION_HINT)
