"""The names in an expression of the graph, such as ``{{ $ctx.results.a > $ctx.params.limit }}``."""

import ast
import dataclasses
from collections.abc import Mapping

from pyoco.core.context import LoopFrame
from pyoco.dsl import expressions
from pyoco.dsl.expressions import Expression

from pyoco_server.model.flow.yaml_source import short, suggest
from pyoco_server.model.text.spelling import Misspellings

_KNOWN = ("params", "results", "scratch", "artifacts", "loop", "loops")
_WRITTEN_BY_TASKS = ("scratch", "artifacts")
_LOOP_FIELDS = tuple(field.name for field in dataclasses.fields(LoopFrame))


@dataclasses.dataclass(frozen=True)
class ExpressionName:
    """One ``$ctx.a.b`` or ``$env.A``.

    Args:
        root: ``ctx`` or ``env``.
        path: What follows.
        certain: Whether it is looked at whenever the expression is; behind ``and`` and ``or`` it may not be.
    """

    root: str
    path: tuple[str, ...]
    certain: bool

    def problem(
        self,
        aliases: set[str],
        elsewhere: Mapping[str, str],
        misspellings: Misspellings,
        *,
        in_loop: bool,
        anything_before: bool,
    ) -> tuple[str, str] | None:
        """Return why it can never be found, and a hint; ``None`` if it can, or if it depends on more.

        Args:
            aliases: What the ``foreach`` loops around call their items.
            elsewhere: Names that stand for something in another place, each with what to write.
            misspellings: Tells what is probably misspelt.
            in_loop: Whether there is a loop around.
            anything_before: Whether a task can have run by then: its code may write more than is known.
        """
        head, rest = self.path[0], self.path[1:]
        if self.root != "ctx" or head in aliases:
            return None
        is_first = self.certain and not anything_before
        if head in ("loop", "loops"):
            return self._problem_with_loop(in_loop)
        if head in _WRITTEN_BY_TASKS and rest and is_first:
            return f"no task has run that could write {head}.{short(rest[0])}", "Only what runs before it can."
        if head in _KNOWN:
            return None
        if head in elsewhere or is_first or misspellings.is_like(head, [*_KNOWN, *sorted(aliases)]):
            known = suggest(head, [*_KNOWN, *sorted(aliases)], "Known here")
            hint = elsewhere.get(head, f"{known}. For a param write {{{{ params.{short(head)} }}}}")
            return f"there is no {short(head)!r} here", hint
        return None

    def _problem_with_loop(self, in_loop: bool) -> tuple[str, str] | None:
        if len(self.path) == 1:
            return None
        field = self.path[1]
        if self.path[0] == "loops":
            return None if hasattr([], field) else ("loops is a list and has no fields", "Write loop.index, loop.item")
        if field not in _LOOP_FIELDS and not hasattr(LoopFrame, field):
            return f"a loop has no {short(field)!r}", suggest(field, _LOOP_FIELDS, "It has")
        if self.certain and not in_loop:
            return "there is no loop around it", "loop is known inside of repeat, foreach and until."
        return None


def names_in(expression: Expression) -> list[ExpressionName]:
    """Return the names in an expression that pyoco has compiled."""
    found: list[ExpressionName] = []
    _gather(ast.parse(expressions.translate(expression.source), mode="eval").body, True, found)
    return found


def _gather(node: ast.AST, certain: bool, found: list[ExpressionName]) -> None:
    if isinstance(node, ast.Call):
        root, path = node.func, node.args[0]
        if isinstance(root, ast.Name) and isinstance(path, ast.Constant):
            found.append(ExpressionName(root.id.removeprefix("_"), tuple(str(path.value).split(".")), certain))
    elif isinstance(node, ast.BoolOp):
        for number, value in enumerate(node.values):
            _gather(value, certain and number == 0, found)
    elif isinstance(node, ast.Compare):
        _gather(node.left, certain, found)
        for number, value in enumerate(node.comparators):
            _gather(value, certain and number == 0, found)
    else:
        for child in ast.iter_child_nodes(node):
            _gather(child, certain, found)
