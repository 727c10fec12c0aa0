"""What a flow.yaml may hold: its keys, their types, and what is said of those that are wrong."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from pyoco_server.errors import InvalidFlow
from pyoco_server.model.flow.branches import MAX_PARALLEL
from pyoco_server.model.flow.yaml_source import YamlSource, short, suggest
from pyoco_server.model.text.spelling import normal_name

RETRY_DELAY_SEC = 1.0
"""Seconds before a task's second try; twice as long before each further one."""
MOST_PARALLEL = 64
_PLACED, _SHOWN = 100, 5
"""Of all that is wrong with a file's keys, how many problems are looked for in it, and how many are told."""
_REFUSED = {
    "flows": "one workflow a file: write it under 'flow:'",
    "discovery": "name what you need with tasks.<name>.callable or tasks.<name>.use",
}
_KINDS = dict.fromkeys(("dict_type", "model_type", "model_attributes_type"), "this must be a mapping (key: value)")
_KINDS |= {"missing": "this key is missing", "string_type": "this must be text", "list_type": "this must be a list"}
_WRITE = {
    "callable": "Write it as package.module:function",
    "graph": "Write the graph as text under flow: graph: a >> b",
    "flow": "Write flow: and under it graph: a >> b",
    "tasks": "Give each task of the graph a callable: package.module:function",
    "version": "Write version: 1",
    "max_parallel": f"Write how many tasks may run side by side: a whole number from 1 to {MOST_PARALLEL}",
    "[key]": "A name has letters, digits and _, and does not begin with a digit.",
}

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


def _version(given: Any) -> Any:
    """Read a version that was put in quotes."""
    return int(given) if isinstance(given, str) and given.strip() == "1" else given


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
    max_parallel: Annotated[int, Field(ge=1, le=MOST_PARALLEL, strict=True)] = MAX_PARALLEL


class FlowFile(_Part):
    """The whole file."""

    version: Annotated[int, Field(ge=1, le=1, strict=True), BeforeValidator(_version)] = 1
    flow: Annotated[FlowSpec, _EmptyMap]
    tasks: Annotated[dict[Identifier, Annotated[TaskSpec, _EmptyMap]], _EmptyMap]
    pipes: Annotated[dict[Identifier, str], _EmptyMap] = Field(default_factory=dict)
    runtime: Annotated[RuntimeSpec, _EmptyMap] = RuntimeSpec()


def read_file(source: YamlSource) -> FlowFile:
    """Read the content of a flow.yaml.

    Raises:
        InvalidFlow: a key is missing, unknown or of another type.
    """
    for key, advice in _REFUSED.items():
        if key in source.data:
            raise source.refuse((key,), "this key is not supported", hint=advice)
    try:
        file = FlowFile.model_validate(source.data)
    except ValidationError as error:
        raise _first_problem(source, error) from None
    for key, kept in (("tasks", file.tasks), ("pipes", file.pipes)):
        if len(kept) < len(source.data.get(key) or {}):
            raise source.refuse((key,), "two of these names are the same to Python", hint="Give one another name.")
    for name, task in file.tasks.items():
        if (task.callable is None) == (task.use is None):
            both = "both 'callable' and 'use'" if task.use else "neither 'callable' nor 'use'"
            hint = "Give one: callable: package.module:function, or use: plugin/task"
            raise source.refuse(("tasks", name), f"the task has {both}", hint=hint)
    return file


def _first_problem(source: YamlSource, error: ValidationError) -> InvalidFlow:
    problems = error.errors(include_url=False, include_input=False, include_context=False)
    # Only so many are placed: a file of unknown keys alone must not cost their number squared.
    placed = sorted(problems[:_PLACED], key=lambda item: source.line_of(item["loc"]) or 0)[:_SHOWN]
    first, *others = [_problem(item) for item in placed]
    path, message, hint = first
    more = [str(source.refuse(place, text)) for place, text, _ in others]
    if len(problems) > len(placed):
        more.append(f"and {len(problems) - len(placed)} more")
    return source.refuse(path, "; ".join([message, *more]), hint=hint)


def _problem(item: ErrorDetails) -> tuple[tuple[str | int, ...], str, str]:
    """Return where something is wrong, what, and what to write instead."""
    path = tuple(part for part in item["loc"] if part != "[key]")
    if item["type"] == "extra_forbidden":
        parts: dict[str, type[_Part]] = {"flow": FlowSpec, "tasks": TaskSpec, "runtime": RuntimeSpec}
        fields = (parts[str(path[0])] if len(path) > 1 else FlowFile).model_fields
        return path, f"unknown key {short(str(path[-1]))!r}", suggest(str(path[-1]), fields, "Known here")
    message = _KINDS.get(item["type"], item["msg"][0].lower() + item["msg"][1:])
    return path, message, _WRITE.get(str(item["loc"][-1]), "")
