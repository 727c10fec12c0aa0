"""The steps of a graph, level by level: what is compiled, and what is drawn."""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pyoco_server.model.flow.branches import Wait
from pyoco_server.model.flow.graph.problems import Spot
from pyoco_server.model.flow.graph.terms import ControlTerm


@dataclass(frozen=True, eq=False)
class TaskStep:
    """A task that runs as a node of the graph."""

    task: str
    node: str
    is_named: bool
    spot: Spot


@dataclass(frozen=True, eq=False)
class ControlStep:
    """A switch, with a level for each of its cases and for its default; or a loop, with one for its body."""

    term: ControlTerm
    levels: "tuple[Level, ...]"

    @property
    def spot(self) -> Spot:
        """Return where it stands."""
        return self.term.spot


Step = TaskStep | ControlStep


@dataclass(frozen=True, eq=False)
class Level:
    """Steps in an order in which they could run one after the other.

    Args:
        steps: The steps.
        waits: What each of them waits for; ``None`` if they are a chain.
    """

    steps: Sequence[Step]
    waits: Sequence[Wait] | None

    def all_steps(self) -> Iterator[Step]:
        """Return all steps at this level and below, in order."""
        waiting = [*reversed(self.steps)]
        while waiting:
            step = waiting.pop()
            yield step
            if isinstance(step, ControlStep):
                waiting += (below for level in reversed(step.levels) for below in reversed(level.steps))

    def task_steps(self) -> Iterator[TaskStep]:
        """Return all tasks at this level and below, in order."""
        return (step for step in self.all_steps() if isinstance(step, TaskStep))

    @functools.cached_property
    def has_branches(self) -> bool:
        """Whether anything at this level or below is no chain."""
        if self.waits is not None:
            return True
        return any(level.has_branches for step in self.steps if isinstance(step, ControlStep) for level in step.levels)
