"""From a job to a pyoco Flow, inside the child: the resolver's flows, and flow.yaml files.

Callables are imported here and not by pyoco, which only prints a failing import and later misses the task.
"""

import importlib
import importlib.util
import os
import sys
from collections import OrderedDict
from pathlib import Path
from types import ModuleType
from typing import Any

from pyoco.core.models import Flow, Task
from pyoco.discovery.loader import TaskLoader
from pyoco.schemas.config import PyocoConfig, TaskConfig

from pyoco_server.model.flow.workflow import FlowFile, TaskSpec, Workflow, build_flow, graph_task_names, parse_workflow
from pyoco_server.model.run import EndReason
from pyoco_server.worker.child.flow.carried import unpack
from pyoco_server.worker.child.flow.exposure import expose
from pyoco_server.worker.child.flow.modules import CannotLoad, load_function, missing_attribute, refused_argument
from pyoco_server.worker.child.flow.python_flows import check_flow
from pyoco_server.worker.child.flow.resolver import Resolver
from pyoco_server.worker.child.flow.wiring import wire
from pyoco_server.worker.child.freshness import FreshLoader

_CACHED_FLOWS = 64
_NOT_FOUND = f"{EndReason.FLOW_NOT_FOUND.value}: "
"""Programs look for this word in the ``error`` of a run whose flow nobody knows."""
_POLICIES = {"retries", "retry_delay_sec", "timeout_sec", "fail_policy"}


class BadResolver(ValueError):
    """What a resolver's spec names is no resolver; the message says why."""


class FlowProblem(Exception):
    """The flow of a run cannot be made.

    Args:
        reason: How the run ends.
        message: Why, in a sentence.
        task: The task whose callable is at fault, if it is one.
    """

    def __init__(self, reason: EndReason, message: str, task: str | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.task = task


class FlowSource:
    """Makes flows, and remembers the compiled ones by their text."""

    def __init__(self, resolver: Resolver | None) -> None:
        self._resolver = resolver
        self._compiled: OrderedDict[tuple[str, str], tuple[Workflow, Flow]] = OrderedDict()

    def from_yaml(self, text: str, flow_name: str, params: dict[str, Any]) -> tuple[Flow, dict[str, Any]]:
        """Compile a flow.yaml.

        Args:
            text: The file.
            flow_name: What the run calls it.
            params: What the run was given.

        Returns:
            The flow, and the params over its defaults.

        Raises:
            FlowProblem: a callable cannot be imported, a plug-in task is unknown, …
            InvalidFlow: the text is no flow, or asks for a param or a variable of the environment that is not there.
        """
        key = (text, flow_name)
        if key not in self._compiled:
            raw = text.encode()
            workflow = parse_workflow(raw, max_bytes=len(raw))
            workflow.check({**workflow.defaults, **params})  # before anything of the user's is imported
            made = build_flow(workflow.file, _load_tasks(workflow.file), flow_name)
            expose(made, workflow.file.runtime.expose_env)
            self._compiled[key] = (workflow, made)
            if len(self._compiled) > _CACHED_FLOWS:
                self._compiled.popitem(last=False)
        self._compiled.move_to_end(key)
        workflow, flow = self._compiled[key]
        params = {**workflow.defaults, **params}
        workflow.check(params, os.environ)  # the modules may have set variables
        return flow, params

    def from_resolver(self, flow_name: str, params: dict[str, Any]) -> Flow:
        """Ask the resolver for a flow.

        Args:
            flow_name: Which.
            params: What the run was given.

        Raises:
            FlowProblem: there is no resolver, or it knows no such flow.
            InvalidFlow: a task of the flow refers to what is not there.
        """
        if self._resolver is None:
            raise FlowProblem(
                EndReason.FLOW_NOT_FOUND,
                f"{_NOT_FOUND}flow {flow_name!r} not found: this worker was started without --flow-resolver",
            )
        try:
            flow = self._resolver(flow_name)
        except LookupError:
            flow = None
        if flow is None:
            text = f"{_NOT_FOUND}flow {flow_name!r} not found by the worker's --flow-resolver"
            raise FlowProblem(EndReason.FLOW_NOT_FOUND, text)
        if not isinstance(flow, Flow):
            raise FlowProblem(
                EndReason.INVALID_FLOW,
                f"the --flow-resolver gave a {type(flow).__name__} for {flow_name!r}, not a pyoco.Flow",
            )
        check_flow(flow, params, os.environ)
        return flow


def load_resolver(spec: str | dict[str, Any]) -> Resolver | None:
    """Import a resolver named ``module:function`` or ``path/file.py:function``, or take the one that was sent.

    Returns:
        The resolver; ``None`` where only the places were sent that modules of its program lie in.

    Raises:
        BadResolver: the spec has another form, or what it names is not there or not callable.
        Exception: whatever importing the module raises.
    """
    if not isinstance(spec, str):
        return unpack(spec)
    place, _, attribute = spec.rpartition(":")
    if not place or not attribute:
        raise BadResolver(f"{spec!r} must look like module:function or path/file.py:function")
    module = _load_file(Path(place)) if place.endswith(".py") else _import(place)
    resolver: Any = module
    for name in attribute.split("."):
        if not hasattr(resolver, name):
            named = place.endswith(".py") and resolver is module
            text = f"the file {place} has no {name!r}" if named else missing_attribute(module, resolver, name)
            raise BadResolver(text)
        resolver = getattr(resolver, name)
    if not callable(resolver):
        raise BadResolver(f"{attribute} in {place} is of the type {type(resolver).__name__}, no function")
    found: Resolver = resolver
    return found


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise  # it is there, and imports another one that is not
        raise BadResolver(f"there is no module {error.name!r} here") from None


def _load_file(path: Path) -> ModuleType:
    path = path.expanduser().resolve()
    if not path.is_file():
        raise BadResolver(f"there is no file {path}")
    # Modules that lie beside it can be imported, as when Python runs the file itself.
    sys.path.append(str(path.parent))
    name = f"_pyoco_resolver_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path, loader=FreshLoader(name, str(path)))
    if spec is None or spec.loader is None:
        raise BadResolver(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _load_tasks(file: FlowFile) -> dict[str, Task]:
    """Load the tasks that the graph names, and no others."""
    wanted = {name: file.tasks[name] for name in graph_task_names(file)}
    tasks = {name: _from_callable(name, spec) for name, spec in wanted.items() if spec.callable}
    plugged = {name: spec for name, spec in wanted.items() if spec.use}
    if plugged:
        tasks.update(_from_plugins(plugged))
    for name, task in tasks.items():
        spec = wanted[name]
        if problem := refused_argument(task.func, spec.inputs):
            raise FlowProblem(EndReason.INVALID_FLOW, f"task {name!r}: {spec.callable or spec.use} {problem}", name)
        for policy in sorted(_POLICIES & spec.model_fields_set):  # what is not given stays as the plug-in made it
            setattr(task, policy, getattr(spec, policy))
    return tasks


def _from_callable(name: str, spec: TaskSpec) -> Task:
    try:
        function = load_function(str(spec.callable))
    except CannotLoad as error:
        raise FlowProblem(error.reason, f"task {name!r}: {error}", name) from error.__cause__
    return Task(func=function, name=name, inputs=wire(spec.inputs), outputs=list(spec.outputs))


def _from_plugins(plugged: dict[str, TaskSpec]) -> dict[str, Task]:
    """Let pyoco find the plug-in tasks; it clones them under the flow's own names."""
    config = PyocoConfig(
        version=1,
        flow=None,
        tasks={
            name: TaskConfig(use=spec.use, inputs=wire(spec.inputs), outputs=list(spec.outputs))
            for name, spec in plugged.items()
        },
    )
    loader = TaskLoader(config)
    try:
        loader.load()  # type: ignore[no-untyped-call]
    except ValueError as error:
        broken = [f"{report['name']}: {report['error']}" for report in loader.plugin_reports if report.get("error")]
        detail = f"; plug-ins that failed to load: {', '.join(broken)}" if broken else ""
        raise FlowProblem(EndReason.DEPENDENCY_MISSING, f"{error}{detail}") from error
    return {name: loader.tasks[name] for name in plugged}
