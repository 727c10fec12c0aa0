"""Whether a task stands in two places that may run at the same time: it has one record in a run."""

from pyoco_server.model.flow.graph.problems import GraphProblem
from pyoco_server.model.flow.graph.steps import ControlStep, Level, Step, TaskStep
from pyoco_server.model.flow.graph.waits import all_before
from pyoco_server.model.flow.yaml_source import short

_Uses = dict[str, TaskStep]
"""By node: one of the places where it stands."""


def check_overlaps(level: Level) -> None:
    """Check that no node runs in two places at the same time.

    Raises:
        GraphProblem: one may.
    """
    if level.has_branches:
        _uses_in(level)


def _uses_in(level: Level) -> _Uses:
    found: _Uses = {}
    if level.waits is None:
        for step in level.steps:
            for node, use in _uses_of(step).items():
                found.setdefault(node, use)
        return found
    certain = all_before(level.waits, certain=True)
    last: dict[str, int] = {}
    for place, step in enumerate(level.steps):
        for node, use in _uses_of(step).items():
            if node in found and not certain[place] >> last[node] & 1:
                message = f"{short(node)!r} stands in two places that may run at the same time"
                hint = f"Give each use a node name, such as again: {short(use.task)}, or put '>>' between the two."
                raise GraphProblem(message, use.spot, hint)
            found.setdefault(node, use)
            last[node] = place
    return found


def _uses_of(step: Step) -> _Uses:
    if isinstance(step, TaskStep):
        return {step.node: step}
    assert isinstance(step, ControlStep)  # noqa: S101 - there are no other steps
    found: _Uses = {}
    for level in step.levels:
        for node, use in _uses_in(level).items():
            found.setdefault(node, use)
    return found
