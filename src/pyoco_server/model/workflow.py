"""A flow.yaml: what it may hold, and what is checked before anybody runs it.

The graph's language is pyoco's own: its parser and compiler are used, never Python's.
"""

import difflib
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError
from pyoco.core.models import Flow, Task
from pyoco.dsl import graph as pyoco_graph
from pyoco.dsl.graph_terms import Pipeline, SwitchTerm, TaskTerm, Term

from pyoco_server.errors import InvalidFlow
from pyoco_server.model.yaml_source import YamlSource, read_yaml

_POSITION = re.compile(r"position (\d+)")
_REFUSED = {
    "flows": "one workflow a file: write it under 'flow:'",
    "discovery": "name what you need with tasks.<name>.callable or tasks.<name>.use",
}

Identifier = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_]\w*$")]
Mapping = Annotated[dict[str, Any], BeforeValidator(lambda value: {} if value is None else value)]
Texts = Annotated[list[str], BeforeValidator(lambda value: [] if value is None else value)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class FlowSpec(_Part):
    """``flow:``."""

    graph: Annotated[str, StringConstraints(min_length=1, strip_whitespace=False)]
    defaults: Mapping = Field(default_factory=dict)


class TaskSpec(_Part):
    """One entry of ``tasks:``."""

    callable: Annotated[str, StringConstraints(pattern=r"^\w+(\.\w+)*:\w+(\.\w+)*$")] | None = None
    use: Annotated[str, StringConstraints(min_length=1)] | None = None
    inputs: Mapping = Field(default_factory=dict)
    outputs: Texts = Field(default_factory=list)
    retries: Annotated[int, Field(ge=0, le=1000, strict=True)] = 0
    timeout_sec: Annotated[float, Field(gt=0)] | None = None
    fail_policy: Literal["stop", "isolate"] = "stop"


class RuntimeSpec(_Part):
    """``runtime:``."""

    expose_env: Texts = Field(default_factory=list)


class FlowFile(_Part):
    """The whole file."""

    version: Literal[1] = 1
    flow: FlowSpec
    tasks: dict[Identifier, TaskSpec]
    pipes: Annotated[dict[Identifier, str], BeforeValidator(lambda value: {} if value is None else value)] = Field(
        default_factory=dict
    )
    runtime: Annotated[RuntimeSpec, BeforeValidator(lambda value: {} if value is None else value)] = RuntimeSpec()


@dataclass(frozen=True)
class Workflow:
    """A flow.yaml that can be run.

    Args:
        file: Its content.
        sha256: Hash of its text: its name in the store.
        size_bytes: Length of its text.
        node_names: The graph's task nodes, in the order in which they are written.
    """

    file: FlowFile
    sha256: str
    size_bytes: int
    node_names: tuple[str, ...]

    @property
    def defaults(self) -> dict[str, Any]:
        """The params that a run has unless it is given others."""
        return dict(self.file.flow.defaults)


def parse_workflow(raw: bytes, *, max_bytes: int) -> Workflow:
    """Read and check a flow.yaml.

    Args:
        raw: The file.
        max_bytes: Largest size accepted.

    Raises:
        InvalidFlow: it cannot be run; the message names line and key.
        TooLarge: it is larger than ``max_bytes``.
    """
    source = read_yaml(raw, max_bytes=max_bytes)
    file = _read_file(source)
    try:
        node_names = _check_graph(source, file)
    except RecursionError:
        raise InvalidFlow(
            "the graph nests too deeply", key="flow.graph", line=source.line_of(("flow", "graph"))
        ) from None
    return Workflow(file, hashlib.sha256(raw).hexdigest(), len(raw), node_names)


def graph_task_names(file: FlowFile) -> list[str]:
    """Give the entries of ``tasks`` that the graph uses, pipes included."""
    terms = _task_terms(pyoco_graph.resolve_pipe_refs(pyoco_graph.parse_graph(file.flow.graph), dict(file.pipes)))
    return list(dict.fromkeys(term.name for term in terms))


def build_flow(file: FlowFile, tasks: dict[str, Task], flow_name: str) -> Flow:
    """Let pyoco compile the graph over real (or placeholder) tasks."""
    return pyoco_graph.build_flow_from_graph(
        graph=file.flow.graph, tasks=tasks, pipes=dict(file.pipes), flow_name=flow_name
    )


def _read_file(source: YamlSource) -> FlowFile:
    for key, advice in _REFUSED.items():
        if key in source.data:
            raise InvalidFlow("this key is not supported", hint=advice, key=key, line=source.line_of((key,)))
    try:
        file = FlowFile.model_validate(source.data)
    except ValidationError as error:
        raise _first_problem(source, error) from None
    if not file.flow.graph.strip():
        raise InvalidFlow("the graph is empty", key="flow.graph", line=source.line_of(("flow", "graph")))
    for name, task in file.tasks.items():
        if (task.callable is None) == (task.use is None):
            both = "both 'callable' and 'use'" if task.use else "neither 'callable' nor 'use'"
            raise InvalidFlow(
                f"the task has {both}",
                hint="Give one: callable: package.module:function, or use: plugin/task",
                key=f"tasks.{name}",
                line=source.line_of(("tasks", name)),
            )
    return file


def _first_problem(source: YamlSource, error: ValidationError) -> InvalidFlow:
    problems = sorted(error.errors(), key=lambda item: source.line_of(item["loc"]) or 0)
    first = problems[0]
    path = tuple(part for part in first["loc"] if part != "[key]")
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    message, hint = first["msg"][0].lower() + first["msg"][1:], ""
    if first["type"] == "extra_forbidden":
        known = _known_keys(path[:-1])
        message, hint = f"unknown key {path[-1]!r}", f"Known here: {', '.join(known)}"
        close = difflib.get_close_matches(str(path[-1]), known, n=1)
        hint = f"Did you mean {close[0]!r}? {hint}" if close else hint
    elif first["type"] == "missing":
        message = "this key is missing"
    elif path[-1:] == ("callable",):
        hint = "Write it as package.module:function"
    return InvalidFlow(message + more, hint=hint, key=".".join(map(str, path)), line=source.line_of(path))


def _known_keys(parent: tuple[str | int, ...]) -> list[str]:
    parts: dict[str, type[_Part]] = {"flow": FlowSpec, "tasks": TaskSpec, "runtime": RuntimeSpec}
    part = parts.get(str(parent[0]), FlowFile) if parent else FlowFile
    return list(part.model_fields)


def _check_graph(source: YamlSource, file: FlowFile) -> tuple[str, ...]:
    """Compile the graph over placeholders; what pyoco refuses now cannot surprise a worker later."""
    for name, text in file.pipes.items():
        _parse(source, ("pipes", name), text)
    pipeline = _parse(source, ("flow", "graph"), file.flow.graph)
    line = source.line_of(("flow", "graph"))
    try:
        pipeline = pyoco_graph.resolve_pipe_refs(pipeline, dict(file.pipes))
        for term in _task_terms(pipeline):
            if term.name not in file.tasks:
                raise _unknown_task(source, file, term.name)
        report = pyoco_graph.validate_graph_terms(pipeline)
        if report.errors:
            raise InvalidFlow("; ".join(report.errors), key="flow.graph", line=line)
        flow = build_flow(file, {name: Task(func=_placeholder, name=name) for name in file.tasks}, "main")
    except InvalidFlow:
        raise
    except (ValueError, TypeError, SyntaxError, MemoryError, OverflowError) as error:
        raise InvalidFlow(str(error), key="flow.graph", line=line) from None
    names = [term.node_name or term.name for term in _task_terms(pipeline)]
    twice = next((name for name in names if names.count(name) > 1), None) if len(set(names)) < len(names) else None
    if twice is not None and not flow.has_control_flow():
        raise InvalidFlow(
            f"the task {twice!r} stands in the graph twice",
            hint=f"Give the second one a node name of its own: again: {twice}",
            key="flow.graph",
            line=line,
        )
    return tuple(dict.fromkeys(names))


def _placeholder() -> None:
    """Stand in for a task's function while a graph is only checked."""


def _parse(source: YamlSource, path: tuple[str, ...], text: str) -> Pipeline:
    try:
        return pyoco_graph.parse_graph(text)
    except pyoco_graph.GraphSyntaxError as error:
        found = _POSITION.search(str(error))
        line = _line_in(source, path, text, int(found[1])) if found else source.line_of(path)
        raise InvalidFlow(
            str(error),
            hint="A graph reads like: a >> b >> switch(on=x) { 1: c; default: d }",
            key=".".join(path),
            line=line,
        ) from None


def _unknown_task(source: YamlSource, file: FlowFile, name: str) -> InvalidFlow:
    path: tuple[str, ...] = ("flow", "graph")
    texts: dict[tuple[str, ...], str] = {path: file.flow.graph}
    texts.update({("pipes", pipe): text for pipe, text in file.pipes.items()})
    line = source.line_of(path)
    for place, text in texts.items():
        token = next((token for token in pyoco_graph.tokenize_graph(text) if token.value == name), None)
        if token is not None:
            path, line = place, _line_in(source, place, text, token.pos)
            break
    close = difflib.get_close_matches(name, file.tasks, n=1)
    guess = f"Did you mean {close[0]!r}? " if close else ""
    hint = f"{guess}Defined under tasks: {', '.join(file.tasks) or 'none'}"
    return InvalidFlow(
        f"the graph names the task {name!r}, which is not defined", hint=hint, key=".".join(path), line=line
    )


def _line_in(source: YamlSource, path: tuple[str, ...], text: str, position: int) -> int | None:
    """Turn a position in a text value into a line of the file."""
    node = source.scalar(path)
    if node is None:
        return source.line_of(path)
    start: int = node.start_mark.line + 1
    if node.style == "|":
        return start + 1 + text.count("\n", 0, position)
    return start


def _task_terms(pipeline: Pipeline) -> Iterator[TaskTerm]:
    for term in pipeline.terms:
        if isinstance(term, TaskTerm):
            yield term
        for branch in _branches(term):
            yield from _task_terms(branch)


def _branches(term: Term) -> list[Pipeline]:
    if isinstance(term, SwitchTerm):
        return [case.branch for case in term.cases] + ([term.default] if term.default else [])
    body = getattr(term, "body", None)
    return [body] if body is not None else []
