"""From steps to pyoco's own nodes, and to a flow."""

import copy
from collections.abc import Callable, Mapping

from pyoco.core.models import Flow, Task
from pyoco.dsl import graph as pyoco_graph
from pyoco.dsl.nodes import CaseNode, DSLNode, SubFlowNode, SwitchNode
from pyoco.dsl.syntax import FlowFragment, TaskWrapper

from pyoco_server.model.flow.branches import BranchedFlow, Branches
from pyoco_server.model.flow.graph.steps import ControlStep, Level, Step, TaskStep
from pyoco_server.model.flow.graph.terms import ControlTerm, SwitchTerm

Compile = Callable[[ControlTerm], DSLNode]
"""Makes the node of a switch or a loop, whose bodies are still to be put in."""
_BODY = Task(lambda: None, "body")


def build_flow(level: Level, tasks: Mapping[str, Task], name: str, max_parallel: int) -> Flow:
    """Compile a graph over tasks.

    Args:
        level: The graph.
        tasks: By their names in the graph.
        name: The flow's.
        max_parallel: How many tasks run side by side at most.

    Returns:
        The flow that pyoco makes of a chain; of any other graph a ``BranchedFlow``.
    """
    compiler = Compiler(tasks)
    if not level.has_branches:
        flow = Flow(name=name)
        flow >> compiler.chain(level)  # pyoco's way to add to a flow
        return flow
    program = compiler.program(level)
    return BranchedFlow(name=name, tasks=set(compiler.used), program=program, max_parallel=max_parallel)


def compile_control(term: ControlTerm) -> DSLNode:
    """Let pyoco compile a switch or a loop over bodies that do nothing.

    Raises:
        Exception: what pyoco, or Python's compiler, raises of a bad expression.
    """
    text = control_text(term)
    flow = pyoco_graph.build_flow_from_graph(graph=text, tasks={_BODY.name: _BODY})
    node: DSLNode = flow.build_program().steps[0]  # type: ignore[no-untyped-call]
    return node


def control_text(term: ControlTerm) -> str:
    """Return the text of a switch or a loop with bodies that do nothing."""
    if not isinstance(term, SwitchTerm):
        return f"{term.head} {{ {_BODY.name} }}"
    cases = [f"{case.written}: {_BODY.name}" for case in term.cases]
    return f"{term.head} {{ {'; '.join([*cases, *([f'default: {_BODY.name}'] if term.default else [])])} }}"


class Compiler:
    """Makes the nodes of one flow.

    Args:
        tasks: By their names in the graph.
        control: Makes those of switches and loops.
    """

    def __init__(self, tasks: Mapping[str, Task], control: Compile = compile_control) -> None:
        self._tasks = tasks
        self._control = control
        self.used: list[Task] = []

    def program(self, level: Level) -> SubFlowNode:
        """Return a level's nodes."""
        if level.waits is None:
            program: SubFlowNode = self.chain(level).to_subflow()
            return program
        nodes = [node for step in level.steps for node in self._fragment(step).to_subflow().steps]
        return Branches(nodes, list(level.waits))

    def chain(self, level: Level) -> FlowFragment:
        """Return the nodes of a level that is a chain, linked as pyoco links them."""
        first, *others = map(self._fragment, level.steps)
        for other in others:
            first = first >> other
        return first

    def _fragment(self, step: Step) -> FlowFragment:
        if isinstance(step, TaskStep):
            task = self._task(step)
            self.used.append(task)
            return TaskWrapper(task)
        return FlowFragment([self._filled(step)])

    def _task(self, step: TaskStep) -> Task:
        task = self._tasks[step.task]
        if not step.is_named:
            return task
        named = copy.copy(task)  # with what is not pyoco's, such as the pause between its tries
        named.name = step.node
        named.dependencies, named.dependents = set(), set()
        named.inputs, named.outputs = dict(task.inputs), list(task.outputs)
        return named

    def _filled(self, step: ControlStep) -> DSLNode:
        """Return the node of a switch or a loop with its bodies."""
        node = self._control(step.term)
        bodies = [self.program(level) for level in step.levels]
        if isinstance(node, SwitchNode):
            for case, body in zip(node.cases, bodies, strict=True):
                assert isinstance(case, CaseNode)  # noqa: S101 - a switch has nothing else
                case.target = body
        else:
            (vars(node)["body"],) = bodies
        return node
