"""From terms to steps: which there are at each level of a graph, and what each waits for.

A level is the graph itself, a body or a case. A level that is one chain has a step for each of its terms, as in pyoco.
In any other one the same name is the same step wherever it stands: several lines say together what it waits for.
"""

import itertools
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field

from pyoco_server.model.flow.branches import Wait
from pyoco_server.model.flow.graph.problems import GraphProblem, Spot
from pyoco_server.model.flow.graph.steps import ControlStep, Level, Step, TaskStep
from pyoco_server.model.flow.graph.terms import Line, Lines, LoopTerm, PipeTerm, SwitchTerm, TaskTerm, Term
from pyoco_server.model.flow.graph.texts import GraphTexts
from pyoco_server.model.flow.graph.waits import MOST_WAITS, TooManyWaits, both, circle_in, either, in_order, size_of
from pyoco_server.model.flow.yaml_source import short

_MOST_SHOWN = 12
"""Names of a way round that are told."""


def plan(texts: GraphTexts, tasks: Collection[str]) -> Level:
    """Find the steps of a graph.

    Args:
        texts: The graph and its pipes.
        tasks: The names under ``tasks:``.

    Raises:
        GraphProblem: steps wait for each other in a circle, or for too many others.
    """
    return _Planner(texts, tasks).level(texts.graph)


class _Planner:
    def __init__(self, texts: GraphTexts, tasks: Collection[str]) -> None:
        self.texts = texts
        self.tasks = tasks
        self._chains: dict[Lines, bool] = {}
        self._pipes: dict[str, Lines] = {}

    def level(self, lines: Lines) -> Level:
        if self._is_chain(lines):
            return Level([self.step(term) for term in self._chain_of(lines)], None)
        return _Branching(self, lines).level()

    def step(self, term: Term) -> Step:
        """Return the step of a term that is neither a pipe nor lines in parentheses."""
        if isinstance(term, TaskTerm):
            return TaskStep(term.task, term.node or term.task, term.node is not None, term.spot)
        if isinstance(term, LoopTerm):
            return ControlStep(term, (self.level(term.body),))
        assert isinstance(term, SwitchTerm)  # noqa: S101 - there are no other terms
        below = [*(case.lines for case in term.cases), *([term.default] if term.default else [])]
        return ControlStep(term, tuple(self.level(lines) for lines in below))

    def lines_of(self, term: Term) -> Lines | None:
        """Return what stands in parentheses, or in a pipe."""
        if isinstance(term, PipeTerm):
            return self._pipe(term.name)
        return term if isinstance(term, Lines) else None

    def _pipe(self, name: str) -> Lines:
        """Return what a pipe says; one that is nothing but another pipe costs nothing at each use."""
        if name not in self._pipes:
            lines = self.texts.pipes[name]
            self._pipes[name] = self._pipe(lines.only.name) if isinstance(lines.only, PipeTerm) else lines
        return self._pipes[name]

    def _is_chain(self, lines: Lines) -> bool:
        if lines not in self._chains:
            self._chains[lines] = len(lines.lines) == 1 and lines.lines[0].sign == ">>" and all(
                below is None or self._is_chain(below) for below in map(self.lines_of, lines.lines[0].terms)
            )  # fmt: skip
        return self._chains[lines]

    def _chain_of(self, lines: Lines) -> Iterator[Term]:
        for term in lines.lines[0].terms:
            below = self.lines_of(term)
            if below is None:
                yield term
            else:
                yield from self._chain_of(below)


@dataclass(frozen=True)
class _Reach:
    """Where lines begin and end.

    Args:
        begins: The steps that nothing in the same lines stands before, each with the place where it is written.
        ends: What is done when the lines are.
        later: Steps that something in the lines stands before.
        passed: What is done for certain before the end is.
    """

    begins: dict[int, Spot]
    ends: Wait
    later: set[int]
    passed: set[frozenset[int]]


def _together(reaches: Iterable[_Reach]) -> dict[int, Spot]:
    begins: dict[int, Spot] = {}
    for reach in reaches:
        for number, spot in reach.begins.items():
            begins.setdefault(number, spot)
    return begins


@dataclass
class _Branching:
    """One level that is no chain, while its lines are read."""

    planner: _Planner
    lines: Lines
    terms: list[Term] = field(default_factory=list)
    waits: list[list[tuple[Wait, Spot]]] = field(default_factory=list)
    numbers: dict[str | Term, int] = field(default_factory=dict)
    """By a task's node, or by another term: the step."""
    named: dict[str, TaskTerm] = field(default_factory=dict)
    size: int = 0

    def level(self) -> Level:
        self._find_names(self.lines)
        self._read(self.lines)
        waits = [both(wait for wait, _ in found) if len(found) != 1 else found[0][0] for found in self.waits]
        order = in_order(waits)
        if len(order) < len(self.terms):
            raise self._circle(circle_in(waits, order))
        places = {number: place for place, number in enumerate(order)}
        moved: dict[int, Wait] = {}
        for wait in waits:
            if id(wait) not in moved:
                moved[id(wait)] = tuple(frozenset(map(places.__getitem__, group)) for group in wait)
        steps = [self.planner.step(self._term_of(number)) for number in order]
        ordered = [moved[id(waits[number])] for number in order]
        is_chain = all(wait == ((frozenset({place - 1}),) if place else ()) for place, wait in enumerate(ordered))
        return Level(steps, None if is_chain else ordered)

    def _term_of(self, number: int) -> Term:
        term = self.terms[number]
        return self.named.get(term.task, term) if isinstance(term, TaskTerm) and term.node is None else term

    # Names -----------------------------------------------------------------------------------------------------------

    def _find_names(self, lines: Lines) -> None:
        """Find the names that nodes have here; elsewhere at this level such a name stands for its node."""
        for term in (term for line in lines.lines for term in line.terms):
            below = self.planner.lines_of(term)
            if below is not None:
                self._find_names(below)
            elif isinstance(term, TaskTerm) and term.node is not None:
                first = self.named.setdefault(term.node, term)
                if first.task != term.task:
                    message = f"the node {short(term.node)!r} is the task {short(first.task)!r} in another place"
                    raise GraphProblem(message, term.spot, "Give one of them another name.")

    def _number(self, term: Term) -> int:
        key: str | Term = term
        if isinstance(term, TaskTerm):
            key = term.node or term.task
            if term.node is None and key in self.named and key in self.planner.tasks and self.named[key].task != key:
                message = f"{short(key)!r} stands in the graph twice: as a task, and as the name of a node"
                raise GraphProblem(message, term.spot, "Give the node another name.")
        if key not in self.numbers:
            self.numbers[key] = len(self.terms)
            self.terms.append(term)
            self.waits.append([])
        return self.numbers[key]

    # Lines -----------------------------------------------------------------------------------------------------------

    def _read(self, lines: Lines) -> "_Reach":
        """Note what waits for what."""
        reaches = [self._read_line(line) for line in lines.lines]
        if len(reaches) == 1:
            return reaches[0]
        later = set[int]().union(*(reach.later for reach in reaches))
        passed = set[frozenset[int]]().union(*(reach.passed for reach in reaches))
        begins = _together(reaches)
        ends = both(reach.ends for reach in reaches)
        # What another line leads to does not begin here, and what another line goes on from is not the end.
        return _Reach(
            {number: spot for number, spot in begins.items() if number not in later} or begins,
            tuple(group for group in ends if group not in passed) or ends,
            later,
            passed,
        )

    def _read_line(self, line: Line) -> "_Reach":
        reaches = [self._read_term(term) for term in line.terms]
        if len(reaches) == 1:
            return reaches[0]
        later = set[int]().union(*(reach.later for reach in reaches))
        passed = set[frozenset[int]]()
        if line.sign != "|":  # behind it, only one of the terms is known to be done
            passed = passed.union(*(reach.passed for reach in reaches))
        if line.sign != ">>":
            self._refuse_twice(line)
            return _Reach(_together(reaches), self._joined(line, [reach.ends for reach in reaches]), later, passed)
        for before, after in itertools.pairwise(reaches):
            for number, spot in after.begins.items():
                self._wait(number, before.ends, spot)
            later |= after.begins.keys()
            passed |= set(before.ends)
        return _Reach(reaches[0].begins, reaches[-1].ends, later, passed)

    def _read_term(self, term: Term) -> "_Reach":
        below = self.planner.lines_of(term)
        if below is not None:
            return self._read(below)
        number = self._number(term)
        return _Reach({number: term.spot}, (frozenset({number}),), set(), set())

    def _joined(self, line: Line, ends: list[Wait]) -> Wait:
        try:
            return both(ends) if line.sign == "&" else either(ends)
        except TooManyWaits:
            message = "'|' joins too many groups of '&' here"
            raise GraphProblem(message, line.terms[0].spot, "Put a task behind each group, and join these.") from None

    def _refuse_twice(self, line: Line) -> None:
        seen: set[str] = set()
        for term in line.terms:
            if isinstance(term, TaskTerm):
                name = term.node or term.task
                if name in seen:
                    hint = f"Leave it out once, or give this use a node name of its own: again: {short(term.task)}"
                    raise GraphProblem(f"{short(name)!r} stands twice beside {line.sign!r}", term.spot, hint)
                seen.add(name)

    def _wait(self, number: int, wait: Wait, spot: Spot) -> None:
        self.size += size_of(wait)
        if self.size > MOST_WAITS:
            message = f"its steps wait for more than {MOST_WAITS} others, added up"
            raise GraphProblem(message, spot, "Put one task between two large groups.")
        self.waits[number].append((wait, spot))

    def _circle(self, way: list[int]) -> GraphProblem:
        """Return the error that names the way round, at the place that closes it."""
        closing = 0
        latest: tuple[bool, Spot] | None = None
        for place, number in enumerate(way):
            before = way[place - 1]
            for wait, spot in self.waits[number]:
                if any(before in group for group in wait):
                    found = (spot.pipe is None, spot)
                    if latest is None or (found[0], found[1].at) > (latest[0], latest[1].at):
                        closing, latest = place, found
        assert latest is not None  # noqa: S101 - each step of the way waits for the one before it
        names = [self._name(number) for number in (*way[closing:], *way[:closing])]
        shown = names if len(names) <= _MOST_SHOWN else [*names[: _MOST_SHOWN - 2], "…", names[-1]]
        message = f"{names[0]!r} leads back to itself: {' >> '.join([*shown, names[0]])}"
        hint = f"Leave out one '>>'. To run it once more, give that use a node name of its own: again: {names[0]}"
        return GraphProblem(message, latest[1], hint)

    def _name(self, number: int) -> str:
        term = self.terms[number]
        if isinstance(term, TaskTerm):
            return short(term.node or term.task, 40)
        return term.kind if isinstance(term, LoopTerm) else "switch"
