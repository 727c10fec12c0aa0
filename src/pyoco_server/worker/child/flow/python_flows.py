"""The references of a flow that is made in Python, checked before its first task runs.

No order is asked of them: tasks of such a flow may run side by side.
"""

from collections.abc import Collection, Mapping
from typing import Any

from pyoco.core.models import Flow

from pyoco_server.errors import InvalidFlow
from pyoco_server.model.flow.references import (
    BadReference,
    EnvVar,
    NodeOutput,
    Param,
    find_param,
    known_fields,
    read_text,
)
from pyoco_server.model.flow.yaml_source import short, suggest
from pyoco_server.worker.child.flow.exposure import exposed_by
from pyoco_server.worker.child.tasks.retries import tasks_of


def check_flow(flow: Flow, params: dict[str, Any], environ: Mapping[str, str]) -> None:
    """Check that what the inputs of a flow's tasks refer to can be there.

    Raises:
        InvalidFlow: an input is no reference of pyoco's, or names what there is not.
    """
    tasks = tasks_of(flow)
    written: dict[str, set[str]] = {"results": {task.name for task in tasks}, "params": set()}
    for target in (str(target).split(".") for task in tasks for target in task.outputs):
        if target[0] in written:
            written[target[0]].add((target[1:] or target)[0])
    exposed = exposed_by(flow)
    sure = not flow.has_control_flow()  # else a task may never ask for what only the run decides
    for task in tasks:
        for name, value in task.inputs.items():
            if isinstance(value, str) and value.startswith("$"):
                problem = _problem(value, written, params if sure else None, environ, exposed)
                if problem is not None:
                    text = f"task {short(task.name)!r}, input {short(str(name))!r}: {short(value)!r}: {problem[0]}"
                    raise InvalidFlow(text, hint=short(problem[1], 500))


def _problem(
    text: str,
    written: Mapping[str, set[str]],
    params: dict[str, Any] | None,
    environ: Mapping[str, str],
    exposed: Collection[str],
) -> tuple[str, str] | None:
    """Return what is wrong with a reference, and a hint; ``params`` are given where its task runs for certain."""
    try:
        meant = read_text(text)
    except BadReference as error:
        return error.message, error.hint
    if isinstance(meant, Param) and params is not None and meant.key.partition(".")[0] not in written["params"]:
        try:
            find_param(params, meant.key)
        except LookupError as error:
            return f"the run's params: {error.args[0]}", suggest(
                meant.key, known_fields(params, meant.key), "They have"
            )
    if isinstance(meant, NodeOutput) and meant.node not in written["results"]:
        return f"there is no task {short(meant.node)!r}", suggest(meant.node, sorted(written["results"]), "Tasks")
    if isinstance(meant, EnvVar) and meant.name not in exposed:
        hint = f"Write flow.expose_env = [{short(meant.name)!r}] where the flow is made."
        return f"the environment variable {short(meant.name)!r} is not exposed to this flow", hint
    if isinstance(meant, EnvVar) and params is not None and meant.name not in environ:
        return f"the environment variable {short(meant.name)!r} is not set where this worker runs", ""
    return None
