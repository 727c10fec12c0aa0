"""A flow.yaml: what it may hold, and what is checked before anybody runs it.

The graph's language is pyoco's with branches on top; nothing in it is run as Python.
"""

import copy
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pyoco.core.models import Flow, Task

from pyoco_server.errors import InvalidFlow
from pyoco_server.model.flow.flow_file import RETRY_DELAY_SEC, FlowFile, TaskSpec, read_file
from pyoco_server.model.flow.flow_names import FlowNames
from pyoco_server.model.flow.graph import compiler
from pyoco_server.model.flow.graph_check import GRAPH, check_graph, read_graph
from pyoco_server.model.flow.yaml_source import read_yaml

__all__ = [
    "RETRY_DELAY_SEC", "FlowFile", "TaskSpec", "Workflow", "build_flow", "graph_task_names", "parse_workflow",
]  # fmt: skip


@dataclass(frozen=True)
class Workflow:
    """A flow.yaml that can be run.

    Args:
        file: Its content.
        sha256: Hash of its text: its name in the store.
        size_bytes: Length of its text.
        node_names: The graph's task nodes, in an order in which they can run; that of the text where it may be any.
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

    def check(self, params: Mapping[str, Any], environ: Mapping[str, str] | None = None) -> None:
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
        file = read_file(source)
        node_names, names = check_graph(source, file)
    except RecursionError:
        raise source.refuse(GRAPH, "the graph nests too deeply", hint="Split it into several flows.") from None
    return Workflow(file, hashlib.sha256(raw).hexdigest(), len(raw), node_names, names)


def graph_task_names(file: FlowFile) -> list[str]:
    """Return the entries of ``tasks`` that the graph of a checked file uses, pipes included."""
    return list(dict.fromkeys(step.task for step in read_graph(file).task_steps()))


def build_flow(file: FlowFile, tasks: dict[str, Task], flow_name: str) -> Flow:
    """Compile the graph of a checked file over real tasks; with branches it is a ``BranchedFlow``."""
    return compiler.build_flow(read_graph(file), tasks, flow_name, file.runtime.max_parallel)
