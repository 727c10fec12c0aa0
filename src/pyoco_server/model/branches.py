"""Steps of a compiled graph that are ordered by what each of them waits for."""

from dataclasses import dataclass, field

from pyoco.dsl.nodes import CaseNode, DSLNode, SubFlowNode, SwitchNode

MAX_PARALLEL = 8
"""How many tasks of a run run side by side at most, unless its flow says something else; as in pyoco."""

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


def has_branches(node: DSLNode | CaseNode) -> bool:
    """Whether any steps of a program, or of a body or a case in it, may run side by side."""
    if isinstance(node, Branches):
        return True
    parts = [*getattr(node, "steps", ()), getattr(node, "body", None), getattr(node, "target", None)]
    if isinstance(node, SwitchNode):
        parts += node.cases
    return any(has_branches(part) for part in parts if part is not None)
