"""Steps of a compiled graph that are ordered by what each of them waits for."""

from dataclasses import dataclass, field

from pyoco.core.models import Flow
from pyoco.dsl.nodes import SubFlowNode

MAX_PARALLEL = 8
"""Tasks of a run that run side by side at most unless its flow says otherwise; as many as in pyoco."""
Wait = tuple[frozenset[int], ...]
"""When a step starts: as soon as of each of these groups at least one step is done. Empty: at once."""


@dataclass
class Branches(SubFlowNode):
    """The steps of a graph, or of a body or a case in it, some of which may run side by side.

    The steps stand in an order in which they could run one after the other, so that whoever reads them as pyoco's plain
    sequence sees every step after all that it waits for.

    Attributes:
        waits: For each step, what it waits for; steps are named by their place in ``steps``.
    """

    waits: list[Wait] = field(default_factory=list)


@dataclass
class BranchedFlow(Flow):
    """A flow with branches somewhere in its graph.

    Attributes:
        program: Its compiled graph.
        max_parallel: How many of its tasks run side by side at most.
    """

    program: SubFlowNode = field(default_factory=Branches)
    max_parallel: int = MAX_PARALLEL

    def has_control_flow(self) -> bool:
        """Return that pyoco's scheduler for plain dependencies cannot run it."""
        return True

    def build_program(self) -> SubFlowNode:
        """Return the compiled graph."""
        return self.program
