"""What of a flow.yaml a worker of the existing system would run in another way than ours.

Such a worker knows fewer keys, lets Python read the graph, and passes on what stands inside lists and mappings as it is
written. A flow of which it would make something else must not come to it: its job is sealed (see ``model/job``).
"""

import keyword
import re
from collections.abc import Iterator
from typing import Any

from pyoco_server.model.flow.flow_file import FlowFile
from pyoco_server.model.flow.references import has_meaning

_TASK = {"callable", "inputs", "outputs"}
_FLOW = {"graph", "defaults"}
_RUNTIME = {"expose_env"}
_REFERENCES = ("$node.", "$ctx.", "$env.")
_COMMENT = re.compile(r"#[^\n]*")
_NAME = re.compile(r"[^\W\d]\w*")
_MORE_THAN_CHAINS = re.compile(r"[^\w\s>&|()]|[\w)]\s*\(")
_NESTED = re.compile(r"\([^)]*\(")
_TAKEN = {"flow", "switch", *keyword.kwlist}
"""Names that mean something else in the graph there."""
_SHOWN = 3


def own_workers_only(file: FlowFile) -> str | None:
    """Say what of a flow only workers of ours run as it is meant; ``None`` if there is nothing of the kind."""
    found = [*_keys(file), *_inputs(file), *_graph(file)]
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return f"the flow has {', '.join(found[:_SHOWN])}{more}" if found else None


def _keys(file: FlowFile) -> Iterator[str]:
    if file.pipes:
        yield "pipes"
    yield from sorted(f"flow.{key}" for key in file.flow.model_fields_set - _FLOW)
    yield from sorted(f"runtime.{key}" for key in file.runtime.model_fields_set - _RUNTIME)
    for name, task in file.tasks.items():
        yield from sorted(f"tasks.{name}.{key}" for key in task.model_fields_set - _TASK)


def _inputs(file: FlowFile) -> Iterator[str]:
    for name, task in file.tasks.items():
        for key, value in task.inputs.items():
            plain = not isinstance(value, str) or not value.startswith("$") or value.startswith(_REFERENCES)
            if not plain or (isinstance(value, (list, dict)) and any(map(has_meaning, _texts(value)))):
                yield f"more than one reference as tasks.{name}.inputs.{key}"


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from _texts(item)


def _graph(file: FlowFile) -> Iterator[str]:
    text = _COMMENT.sub("", file.flow.graph)
    lines = [line for line in text.splitlines() if line.strip()]
    names = _NAME.findall(text)
    if _MORE_THAN_CHAINS.search(text) or _NESTED.search(text) or ("|" in text and len(lines) > 1):
        yield "a graph of more than chains and (a & b)"
    if any(len(found) > len(set(found)) for found in map(_NAME.findall, lines)):
        yield "a task twice in one chain"
    if taken := sorted(_TAKEN & {*names, *file.tasks}):
        yield f"a task named {taken[0]}"
    if unused := sorted(file.tasks.keys() - set(names)):
        yield f"a task that the graph does not use ({unused[0]})"
