"""The texts of a flow's graph: its own and those of its pipes, read, and bounded together."""

from collections.abc import Mapping
from dataclasses import dataclass

from pyoco_server.model.flow.graph.parser import MOST_DEPTH, MOST_TERMS, SPLIT_HINT, ParsedText, parse
from pyoco_server.model.flow.graph.problems import GraphProblem
from pyoco_server.model.flow.graph.terms import Lines, PipeTerm
from pyoco_server.model.flow.yaml_source import short, suggest

_MOST_PIPES = 128
"""Pipes in each other, as in pyoco."""


@dataclass(frozen=True, eq=False)
class GraphTexts:
    """What a graph says, and what each of its pipes says."""

    graph: Lines
    pipes: Mapping[str, Lines]


def read_texts(graph: str, pipes: Mapping[str, str]) -> GraphTexts:
    """Read a graph and its pipes, each once.

    Raises:
        GraphProblem: one of them is not in the language, a pipe is not known or leads back to itself, or they are too
            large together.
    """
    read = parse(graph)
    parsed = {name: parse(text, name) for name, text in pipes.items()}
    _Sizes(parsed).of(read, ())
    return GraphTexts(read.lines, {name: found.lines for name, found in parsed.items()})


class _Sizes:
    """How large texts are with their pipes; nothing is expanded for it."""

    def __init__(self, pipes: Mapping[str, ParsedText]) -> None:
        self._pipes = pipes
        self._known: dict[str, tuple[int, int, int]] = {}

    def of(self, text: ParsedText, inside: tuple[str, ...]) -> tuple[int, int, int]:
        """Return a text's terms, its depth, and how many pipes there are in each other."""
        terms, depth, chain = text.terms, text.depth, 0
        for pipe, at_depth in text.pipes:
            more, below, longer = self._of_pipe(pipe, inside)
            terms, depth, chain = terms + more, max(depth, at_depth + below), max(chain, longer + 1)
            if terms > MOST_TERMS:
                message = f"its pipes expand to more than {MOST_TERMS} terms"
                raise GraphProblem(message, pipe.spot, SPLIT_HINT)
            if chain > _MOST_PIPES or depth > MOST_DEPTH:
                raise GraphProblem("the graph nests too deeply", pipe.spot, SPLIT_HINT)
        return terms, depth, chain

    def _of_pipe(self, pipe: PipeTerm, inside: tuple[str, ...]) -> tuple[int, int, int]:
        name = pipe.name
        if name not in self._pipes:
            hint = suggest(name, self._pipes, "Defined under pipes")
            raise GraphProblem(f"Unknown pipe {short(name)!r}", pipe.spot, hint)
        if name not in self._known:
            if name in inside:
                raise GraphProblem(f"Cyclic pipes: {short(name)!r} leads back to itself", pipe.spot)
            if len(inside) >= _MOST_PIPES:
                raise GraphProblem("the graph nests too deeply", pipe.spot, SPLIT_HINT)
            self._known[name] = self.of(self._pipes[name], (*inside, name))
        return self._known[name]
