"""What a graph's text says: terms, the lines that order them, and where each stands.

Terms are compared by identity: the same words at two places are two terms.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from pyoco_server.model.flow.graph.problems import Spot

Sign = Literal[">>", "&", "|"]
LoopKind = Literal["repeat", "foreach", "until"]


@dataclass(frozen=True, eq=False)
class TaskTerm:
    """``task``, or ``node: task``."""

    task: str
    node: str | None
    spot: Spot


@dataclass(frozen=True, eq=False)
class PipeTerm:
    """``pipe(name)``: the pipe's text in parentheses."""

    name: str
    spot: Spot


@dataclass(frozen=True, eq=False)
class Argument:
    """What is given to a control term after ``=``.

    Args:
        value: As pyoco reads it.
        is_bare: Whether it is a name without quotes and braces.
        spot: Where it stands.
    """

    value: str
    is_bare: bool
    spot: Spot


@dataclass(frozen=True, eq=False)
class Line:
    """Terms with the sign between them; a single one has ``>>``."""

    sign: Sign
    terms: "tuple[Term, ...]"


@dataclass(frozen=True, eq=False)
class Lines:
    """A whole graph, a body, or what stands in parentheses."""

    lines: tuple[Line, ...]
    spot: Spot

    @property
    def only(self) -> "Term | None":
        """Return the one term that stands there, if it is one."""
        return self.lines[0].terms[0] if len(self.lines) == len(self.lines[0].terms) == 1 else None


@dataclass(frozen=True, eq=False)
class Case:
    """A case of a switch: its key as it is written, and as pyoco reads it."""

    written: str
    value: str
    lines: Lines


@dataclass(frozen=True, eq=False)
class SwitchTerm:
    """``switch(on=…) { key: …; default: … }``.

    Args:
        head: Its text before the brace.
        on: What it looks at.
        cases: In the order of the text; ``default`` stands last and has no key.
        spot: Where it stands.
    """

    head: str
    on: Argument
    cases: tuple[Case, ...]
    default: Lines | None
    spot: Spot


@dataclass(frozen=True, eq=False)
class LoopTerm:
    """``repeat(count=…) {…}``, ``foreach(over=…) {…}`` or ``until(cond=…) {…}``.

    Args:
        kind: Which one.
        head: Its text before the brace.
        over: Its count, its list or its condition.
        arguments: All that is given to it.
        body: What it does again and again.
        spot: Where it stands.
    """

    kind: LoopKind
    head: str
    over: Argument
    arguments: Mapping[str, Argument]
    body: Lines
    spot: Spot


ControlTerm = SwitchTerm | LoopTerm
Term = TaskTerm | PipeTerm | SwitchTerm | LoopTerm | Lines
