"""A flow.yaml: what it may hold, and what is checked before anybody runs it.

The graph's language is pyoco's own: its parser and compiler are used, never Python's.
"""

import copy
import hashlib
import itertools
import re
from collections.abc import Iterator
from collections.abc import Mapping as MappingType
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError
from pydantic_core import PydanticCustomError
from pyoco.core.models import Flow, Task
from pyoco.dsl import expressions
from pyoco.dsl import graph as pyoco_graph
from pyoco.dsl.graph_terms import Pipeline, PipeRefTerm, SwitchTerm, TaskTerm, Term

from pyoco_server.errors import InvalidFlow
from pyoco_server.model.flow_names import FlowNames, Use
from pyoco_server.model.references import BadReference, has_meaning, inner_reference, read_text
from pyoco_server.model.yaml_source import Path, Place, YamlSource, normal_name, read_yaml, short, suggest

_GRAPH: Path = ("flow", "graph")
_MAX_EXPANDED = 300_000
RETRY_DELAY_SEC = 1.0
"""Seconds before a task's second try; twice as long before each further one."""
_POSITION = re.compile(r" at position (\d+)")
_REFUSED = {
    "flows": "one workflow a file: write it under 'flow:'",
    "discovery": "name what you need with tasks.<name>.callable or tasks.<name>.use",
}
_QUOTED_BRANCH = re.compile(r":\s*[\"']")
_EXPRESSION_HINT = "Write {{ params.x }}, or {{ $ctx.results.task > 3 }}"
_GRAPH_HINT = "A graph reads like: a >> b >> switch(on=x) { 1: c; default: d }"
_KINDS = dict.fromkeys(("dict_type", "model_type", "model_attributes_type"), "this must be a mapping (key: value)")
_KINDS |= {"missing": "this key is missing", "string_type": "this must be text", "list_type": "this must be a list"}
_WRITE = {
    "callable": "Write it as package.module:function",
    "graph": "Write the graph as text under flow: graph: a >> b",
    "flow": "Write flow: and under it graph: a >> b",
    "tasks": "Give each task of the graph a callable: package.module:function",
    "version": "Write version: 1",
    "[key]": "A name has letters, digits and _, and does not begin with a digit.",
}
# What compiling a graph or an expression may raise: pyoco's errors are ValueErrors, Python's compiler adds the others.
_COMPILING = (ValueError, TypeError, SyntaxError, MemoryError, OverflowError)

_EmptyMap = BeforeValidator(lambda value: {} if value is None else value)
_EmptyList = BeforeValidator(lambda value: [] if value is None else value)
Mapping = Annotated[dict[str, Any], _EmptyMap]
Texts = Annotated[list[str], _EmptyList]


def _identifier(name: str) -> str:
    """Check a name as Python does, which takes letters of every script, and give the form that Python compares."""
    if not name.isidentifier():
        raise PydanticCustomError("not_a_name", "this is not in the form that is needed")
    return normal_name(name)


def _callable(path: str) -> str:
    module, colon, function = path.partition(":")
    if not colon:
        raise PydanticCustomError("not_a_callable", "this is not in the form that is needed")
    parts = [".".join(map(_identifier, part.split("."))) for part in (module, function)]
    return ":".join(parts)


def _arguments(inputs: dict[str, Any]) -> dict[str, Any]:
    """Name inputs as Python names the parameters that take them."""
    named = {normal_name(name): value for name, value in inputs.items()}
    if len(named) < len(inputs):
        raise PydanticCustomError("same_name", "two of these names are the same to Python")
    return named


Identifier = Annotated[str, AfterValidator(_identifier)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class FlowSpec(_Part):
    """``flow:``."""

    graph: Annotated[str, StringConstraints(min_length=1, strip_whitespace=False)]
    defaults: Mapping = Field(default_factory=dict)


class TaskSpec(_Part):
    """One entry of ``tasks:``."""

    callable: Annotated[str, AfterValidator(_callable)] | None = None
    use: Annotated[str, StringConstraints(min_length=1)] | None = None
    inputs: Annotated[Mapping, AfterValidator(_arguments)] = Field(default_factory=dict)
    outputs: Texts = Field(default_factory=list)
    retries: Annotated[int, Field(ge=0, le=1000, strict=True)] = 0
    retry_delay_sec: Annotated[float, Field(ge=0, le=60, strict=True)] = RETRY_DELAY_SEC
    timeout_sec: Annotated[float, Field(gt=0, lt=1e9, strict=True)] | None = None
    fail_policy: Literal["stop", "isolate"] = "stop"


class RuntimeSpec(_Part):
    """``runtime:``."""

    expose_env: Texts = Field(default_factory=list)


class FlowFile(_Part):
    """The whole file."""

    version: Annotated[int, Field(ge=1, le=1, strict=True)] = 1
    flow: Annotated[FlowSpec, _EmptyMap]
    tasks: Annotated[dict[Identifier, Annotated[TaskSpec, _EmptyMap]], _EmptyMap]
    pipes: Annotated[dict[Identifier, str], _EmptyMap] = Field(default_factory=dict)
    runtime: Annotated[RuntimeSpec, _EmptyMap] = RuntimeSpec()


@dataclass(frozen=True)
class Workflow:
    """A flow.yaml that can be run.

    Args:
        file: Its content.
        sha256: Hash of its text: its name in the store.
        size_bytes: Length of its text.
        node_names: The graph's task nodes, in the order in which they are written.
        names: The names that inputs and graph use.
    """

    file: FlowFile
    sha256: str
    size_bytes: int
    node_names: tuple[str, ...]
    names: FlowNames = field(repr=False, compare=False)

    @property
    def defaults(self) -> dict[str, Any]:
        """The params that a run has unless it is given others; a copy, since workflows are remembered."""
        return copy.deepcopy(self.file.flow.defaults)

    def check(self, params: Mapping, environ: MappingType[str, str] | None = None) -> None:
        """Check what the params of a run decide, and the environment of the process that runs it if that is known.

        Raises:
            InvalidFlow: a task asks for a param or a variable that is not there; the message names line and key.
        """
        try:
            self.names.check(params, environ)
        except RecursionError:
            raise InvalidFlow("the graph nests too deeply", hint="Split it into several flows.") from None


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
    try:
        file = _read_file(source)
        node_names, names = _check_graph(source, file)
    except RecursionError:
        raise source.refuse(_GRAPH, "the graph nests too deeply", hint="Split it into several flows.") from None
    return Workflow(file, hashlib.sha256(raw).hexdigest(), len(raw), node_names, names)


def graph_task_names(file: FlowFile) -> list[str]:
    """Give the entries of ``tasks`` that the graph uses, pipes included."""
    resolved = pyoco_graph.resolve_pipe_refs(pyoco_graph.parse_graph(file.flow.graph), dict(file.pipes))
    return list(dict.fromkeys(term.name for term in _terms(resolved) if isinstance(term, TaskTerm)))


def build_flow(file: FlowFile, tasks: dict[str, Task], flow_name: str) -> Flow:
    """Let pyoco compile the graph over real (or placeholder) tasks."""
    return pyoco_graph.build_flow_from_graph(
        graph=file.flow.graph, tasks=tasks, pipes=dict(file.pipes), flow_name=flow_name
    )


def _read_file(source: YamlSource) -> FlowFile:
    for key, advice in _REFUSED.items():
        if key in source.data:
            raise source.refuse((key,), "this key is not supported", hint=advice)
    try:
        file = FlowFile.model_validate(source.data)
    except ValidationError as error:
        raise _first_problem(source, error) from None
    for name, task in file.tasks.items():
        if (task.callable is None) == (task.use is None):
            both = "both 'callable' and 'use'" if task.use else "neither 'callable' nor 'use'"
            hint = "Give one: callable: package.module:function, or use: plugin/task"
            raise source.refuse(("tasks", name), f"the task has {both}", hint=hint)
    return file


def _first_problem(source: YamlSource, error: ValidationError) -> InvalidFlow:
    problems = error.errors(include_url=False, include_input=False, include_context=False)
    # Only so many are placed: a file of unknown keys alone must not cost their number squared.
    first = min(problems[:100], key=lambda item: source.line_of(item["loc"]) or 0)
    path = tuple(part for part in first["loc"] if part != "[key]")
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    message = _KINDS.get(first["type"], first["msg"][0].lower() + first["msg"][1:])
    hint = _WRITE.get(str(first["loc"][-1]), "")
    if first["type"] == "extra_forbidden":
        parts: dict[str, type[_Part]] = {"flow": FlowSpec, "tasks": TaskSpec, "runtime": RuntimeSpec}
        fields = (parts[str(path[0])] if len(path) > 1 else FlowFile).model_fields
        message, hint = f"unknown key {short(str(path[-1]))!r}", suggest(str(path[-1]), fields, "Known here")
    return source.refuse(path, message + more, hint=hint)


def _check_graph(source: YamlSource, file: FlowFile) -> tuple[tuple[str, ...], FlowNames]:
    """Compile the graph over placeholders; what pyoco refuses now cannot surprise a worker later."""
    texts: dict[Path, str] = {_GRAPH: file.flow.graph} | {("pipes", name): text for name, text in file.pipes.items()}
    _check_pipes(source, texts, {path: _parse(source, path, text) for path, text in texts.items()})
    try:
        resolved = pyoco_graph.resolve_pipe_refs(pyoco_graph.parse_graph(file.flow.graph), dict(file.pipes))
        names = _check_names(source, texts, file, resolved)
        report = pyoco_graph.validate_graph_terms(resolved)
        if report.errors:
            raise source.refuse(_GRAPH, "; ".join(report.errors), hint=_GRAPH_HINT)
        stand_ins = {name: Task(_StandIn(name), name, outputs=list(task.outputs)) for name, task in file.tasks.items()}
        program = build_flow(file, stand_ins, "main").build_program()  # type: ignore[no-untyped-call]
    except _COMPILING as error:
        raise _blame(source, texts, error) from None
    run = {term.name for term in _terms(resolved) if isinstance(term, TaskTerm)}
    places = _expression_places(source, texts)
    uses = {name: list(_read_inputs(found)) for name, found in source.texts_below("tasks", "*", "inputs").items()}
    return names, FlowNames(
        program,
        {normal_name(name): some for name, some in uses.items() if name in run},
        lambda task: task.func.name,  # type: ignore[attr-defined]
        lambda text: places.get(text) or source.place(_GRAPH),
        file.flow.defaults,
    )


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


def _expression_places(source: YamlSource, texts: dict[Path, str]) -> dict[str, Place]:
    """Find the expressions of the graph by what pyoco makes of them."""
    found: dict[str, Place] = {}
    for path, text in texts.items():
        tokens = [
            token
            for before, token in itertools.pairwise(pyoco_graph.tokenize_graph(text))
            if before.kind == "EQUAL" and token.kind in ("IDENT", "STRING", "TEMPLATE")
        ]
        for token, place in zip(tokens, source.places_in(path, text, [token.pos for token in tokens]), strict=True):
            inner = token.value.removeprefix("{{").removesuffix("}}").strip()
            for expression in (inner, f"$ctx.params.{inner}", f"$ctx.{inner}", f"${inner}"):
                found.setdefault(expression, place)
    return found


def _parse(source: YamlSource, path: Path, text: str) -> Pipeline:
    try:
        return pyoco_graph.parse_graph(text)
    except pyoco_graph.GraphSyntaxError as error:
        message, found = _POSITION.sub("", str(error)), _POSITION.search(str(error))
        if found is None or _QUOTED_BRANCH.search(text):  # there, the position may count from the inner quote
            raise source.refuse(path, message, hint=_GRAPH_HINT) from None
        at = int(found[1])
        near = short(text[at:].partition("\n")[0], 40) or "the end"
        raise source.refuse(path, f"{message} (near {near!r})", hint=_GRAPH_HINT, at=(text, at)) from None


def _check_pipes(source: YamlSource, texts: dict[Path, str], parsed: dict[Path, Pipeline]) -> None:
    """Bound what pyoco would expand: it reads a pipe's text again at each use, for minutes if it is let."""
    sizes: dict[Path, int] = {}

    def size(path: Path, inside: tuple[Path, ...]) -> int:
        if path in sizes:
            return sizes[path]
        total = len(texts[path]) if inside else 0
        for term in _terms(parsed[path]):
            if not isinstance(term, PipeRefTerm):
                continue
            pipe: Path = ("pipes", term.name)
            if pipe not in texts:
                hint = suggest(term.name, [str(name) for top, name in texts if top == "pipes"], "Defined under pipes")
                raise source.refuse(
                    path, f"Unknown pipe {short(term.name)!r}", hint=hint, at=_find(texts, term.name, path)[1]
                )
            if pipe in (*inside, path):
                message = f"Cyclic pipes: {short(term.name)!r} leads back to itself"
                raise source.refuse(path, message, at=_find(texts, term.name, path)[1])
            total += size(pipe, (*inside, path))
        if total > _MAX_EXPANDED:
            raise source.refuse(path, f"its pipes expand to more than {_MAX_EXPANDED} characters")
        sizes[path] = total
        return total

    size(_GRAPH, ())


def _check_names(source: YamlSource, texts: dict[Path, str], file: FlowFile, resolved: Pipeline) -> tuple[str, ...]:
    """Check every task term, and give the names of the nodes."""
    straight = all(isinstance(term, TaskTerm) for term in resolved.terms)
    named: dict[str, bool] = {}
    for term in _terms(resolved):
        if not isinstance(term, TaskTerm):
            continue
        if term.name not in file.tasks:
            path, at = _find(texts, term.name)
            hint = suggest(term.name, file.tasks, "Defined under tasks")
            message = f"the graph names the task {short(term.name)!r}, which is not defined"
            raise source.refuse(path, message, hint=hint, at=at)
        node, has_name = term.node_name or term.name, term.node_name is not None
        if node in named and (straight or has_name or named[node]):  # pyoco would deadlock, or run it once
            path, at = _find(texts, node, nth=1)
            hint = f"Give each use a node name of its own, such as again: {short(term.name)}"
            raise source.refuse(path, f"{short(node)!r} stands in the graph twice", hint=hint, at=at)
        named[node] = has_name
    return tuple(named)


def _blame(source: YamlSource, texts: dict[Path, str], error: BaseException) -> InvalidFlow:
    """Find the expression that pyoco could not compile; its errors do not always name it."""
    said = str(error) or "it cannot be compiled"
    for path, text in texts.items():
        for token in pyoco_graph.tokenize_graph(text):
            if token.kind not in ("TEMPLATE", "STRING"):
                continue
            try:
                expressions.Expression(token.value.removeprefix("{{").removesuffix("}}").strip())
            except _COMPILING as problem:
                if repr(token.value)[1:-1] in said or str(problem) == str(error):
                    message = f"the expression {short(token.value)!r} cannot be used: {said}"
                    return source.refuse(path, message, hint=_EXPRESSION_HINT, at=(text, token.pos))
    return source.refuse(_GRAPH, said, hint=_GRAPH_HINT)


def _find(
    texts: dict[Path, str], name: str, inside: Path | None = None, *, nth: int = 0
) -> tuple[Path, tuple[str, int] | None]:
    """Find a name in the graph or a pipe: the path of the text, and the text with the position."""
    for path, text in texts.items():
        tokens = pyoco_graph.tokenize_graph(text) if inside in (None, path) else []
        places = [
            token.pos
            for before, token, after in zip([None, *tokens], tokens, tokens[1:], strict=False)
            if token.value == name and after.kind not in ("EQUAL", "LPAREN") and (not before or before.kind != "EQUAL")
        ]
        if places:
            return path, (text, places[min(nth, len(places) - 1)])
    return inside or _GRAPH, None


def _terms(pipeline: Pipeline) -> Iterator[Term]:
    for term in pipeline.terms:
        yield term
        branches = [case.branch for case in term.cases] if isinstance(term, SwitchTerm) else []
        for branch in (*branches, getattr(term, "default", None), getattr(term, "body", None)):
            if branch is not None:
                yield from _terms(branch)
