"""What is checked of a graph when a flow.yaml is read: it is compiled over stand-ins for the tasks.

What is refused now cannot surprise a worker later.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from pyoco.core.models import Task
from pyoco.dsl.nodes import SubFlowNode

from pyoco_server.errors import InvalidFlow
from pyoco_server.model.flow.flow_file import FlowFile
from pyoco_server.model.flow.flow_names import Entry, FlowNames
from pyoco_server.model.flow.graph.compiler import Compiler
from pyoco_server.model.flow.graph.controls import CheckedControls
from pyoco_server.model.flow.graph.overlaps import check_overlaps
from pyoco_server.model.flow.graph.plan import plan
from pyoco_server.model.flow.graph.problems import GraphProblem, Spot
from pyoco_server.model.flow.graph.steps import Level, TaskStep
from pyoco_server.model.flow.graph.texts import read_texts
from pyoco_server.model.flow.references import BadReference, has_meaning, inner_reference, read_text
from pyoco_server.model.flow.run_names import Use, expression_of
from pyoco_server.model.flow.yaml_source import Path, Place, YamlSource, short, suggest
from pyoco_server.model.text.spelling import normal_name

GRAPH: Path = ("flow", "graph")


def read_graph(file: FlowFile) -> Level:
    """Return the steps of a flow's graph.

    Raises:
        GraphProblem: it is no graph.
    """
    return plan(read_texts(file.flow.graph, file.pipes), file.tasks)


def check_graph(source: YamlSource, file: FlowFile) -> tuple[tuple[str, ...], FlowNames]:
    """Compile the graph over placeholders, and check the names in it and in the inputs of its tasks.

    Returns:
        The names of its nodes, and what is to be checked for each run.

    Raises:
        InvalidFlow: it cannot be run.
    """
    try:
        level = read_graph(file)
        nodes = _check_nodes(level, file)
        check_overlaps(level)
        controls = CheckedControls(expression_of)
        stand_ins = {name: Task(_StandIn(name), name) for name in file.tasks}
        program = Compiler(stand_ins, controls.compile).program(level)
    except GraphProblem as problem:
        raise _refused(source, file, problem) from None
    run = {step.task for step in level.task_steps()}
    return nodes, _check_references(source, file, program, controls.places, run)


def _refused(source: YamlSource, file: FlowFile, problem: GraphProblem) -> InvalidFlow:
    path, text = _text_of(file, problem.spot)
    return source.refuse(path, problem.message, hint=problem.hint, at=(text, problem.spot.at))


def _text_of(file: FlowFile, spot: Spot) -> tuple[Path, str]:
    return (GRAPH, file.flow.graph) if spot.pipe is None else (("pipes", spot.pipe), file.pipes[spot.pipe])


def _check_references(
    source: YamlSource, file: FlowFile, program: SubFlowNode, spots: dict[str, Spot], run: set[str]
) -> FlowNames:
    """Check the names in the inputs of the tasks that are run, and in the graph."""
    written = source.texts_below("tasks", "*", "inputs").items()
    uses = {normal_name(name): list(_read_inputs(found)) for name, found in written if normal_name(name) in run}
    entries = {name: Entry(uses.get(name, []), file.tasks[name].outputs) for name in run}
    # What is kept with a flow must not keep its whole source.
    places, anywhere = _expression_places(source, file, spots), source.place(GRAPH)
    return FlowNames(
        program, entries, _entry_of, lambda text: places.get(text, anywhere), file.flow.defaults,
        file.runtime.expose_env,
    )  # fmt: skip


def _entry_of(task: Task) -> str:
    assert isinstance(task.func, _StandIn)  # noqa: S101 - the graph was compiled over nothing else
    return task.func.name


@dataclass(frozen=True)
class _StandIn:
    """Stands in for the function of an entry of ``tasks`` while a graph is only checked."""

    name: str

    def __call__(self) -> None:
        """Nothing is run."""


def _read_inputs(texts: list[tuple[Place, str]]) -> Iterator[Use]:
    for place, text in texts:
        if not has_meaning(text):
            continue
        if (inner := inner_reference(text)) is not None:
            yield Use(place, text, inner, in_braces=True)
        else:
            try:
                read = read_text(text)
            except BadReference as error:
                raise place.refuse(f"{short(text)!r}: {error.message}", error.hint) from None
            if not isinstance(read, str):
                yield Use(place, text, read)


def _expression_places(source: YamlSource, file: FlowFile, spots: dict[str, Spot]) -> dict[str, Place]:
    """Find the places of the graph's expressions, text by text from its beginning to its end."""
    found: dict[str, Place] = {}
    by_text: dict[str | None, list[tuple[int, str]]] = {}
    for expression, spot in spots.items():
        by_text.setdefault(spot.pipe, []).append((spot.at, expression))
    for pipe, expressions in by_text.items():
        path, text = _text_of(file, Spot(pipe, 0))
        expressions.sort()
        places = source.places_in(path, text, [at for at, _ in expressions])
        found.update((expression, place) for (_, expression), place in zip(expressions, places, strict=True))
    return found


def _check_nodes(level: Level, file: FlowFile) -> tuple[str, ...]:
    """Check the name of every node, and return them in the order in which they run."""
    straight = level.waits is None and all(isinstance(step, TaskStep) for step in level.steps)
    named: dict[str, bool] = {}
    for step in level.task_steps():
        for name in (step.task, step.node):
            if name != normal_name(name):  # the same name to Python, but not to pyoco
                hint = f"Write {short(normal_name(name))}, which Python reads for it."
                raise GraphProblem(f"the name {short(name)!r} has signs in another form", step.spot, hint)
        if step.task not in file.tasks:
            hint = suggest(step.task, file.tasks, "Defined under tasks")
            if step.task == "flow":
                hint = f"Leave it out: the graph begins with its first task. {hint}"
            message = f"the graph names the task {short(step.task)!r}, which is not defined"
            raise GraphProblem(message, step.spot, hint)
        if step.node in named and (straight or step.is_named or named[step.node]):  # pyoco would run it once
            hint = f"Give each use a node name of its own, such as again: {short(step.task)}"
            raise GraphProblem(f"{short(step.node)!r} stands in the graph twice", step.spot, hint)
        named[step.node] = step.is_named
    return tuple(named)
