"""Ordinary user code on a real worker, with each isolation."""

import os
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.conftest import System, running_system

FAST = {
    "PYOCO_CONSUMER_ACK_WAIT_SEC": "6",
    "PYOCO_ACK_PROGRESS_INTERVAL_SEC": "1",
    "PYOCO_WORKER_HEARTBEAT_INTERVAL_SEC": "0.5",
    "PYOCO_CANCEL_GRACE_PERIOD_SEC": "2",
}
ISOLATIONS = ("process", "shared")


@pytest.fixture(scope="session")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A gateway with one worker for each isolation; a run's tag says which."""
    folder = tmp_path_factory.mktemp("usercode")
    with running_system(folder, **FAST) as running:
        for isolation in ISOLATIONS:
            running.worker("--isolation", isolation, worker_id=isolation, tags=isolation, **FAST)
        yield running


@pytest.fixture(params=ISOLATIONS)
def isolation(request: pytest.FixtureRequest) -> str:
    """The tag of a worker, and its isolation."""
    return str(request.param)


class Module:
    """A module of the user's, beside the worker, and the flow of its function ``t``."""

    _made = 0

    def __init__(self, system: System, code: str, graph: str = "t") -> None:
        Module._made += 1
        self.name = f"mine_{os.getpid()}_{Module._made}"
        self._system = system
        self.path = system.folder / f"{self.name}.py"
        self._graph = graph
        self.write(code)

    def write(self, code: str) -> None:
        """Write its code; every task of the graph is a function of that name."""
        self.path.write_text(textwrap.dedent(code))

    def flow(self, *names: str) -> str:
        """Return a flow.yaml whose tasks are functions of this module."""
        tasks = "".join(f'  {name}: {{callable: "{self.name}:{name}"}}\n' for name in names or ("t",))
        return f"version: 1\nflow:\n  graph: |\n    {self._graph}\ntasks:\n{tasks}"

    def run(self, tag: str, *names: str, **options: Any) -> dict[str, Any]:
        """Run it to the end."""
        return self._system.run(self.flow(*names), tag=tag, **options)


@pytest.fixture
def module(system: System) -> Callable[..., Module]:
    """Make a module."""
    return lambda code, graph="t": Module(system, code, graph)


def output(run: dict[str, Any], task: str = "t") -> Any:
    """Return what a task of a completed run returned."""
    assert run["status"] == "COMPLETED", (run["status"], run["error"], run["task_records"])
    return run["task_records"][task]["output"]


def log_of(system: System, run: dict[str, Any]) -> str:
    """Return the lines of a run's log."""
    return "\n".join(str(line["text"]) for line in system.client.get_logs(run["run_id"])["lines"])


def shared_memory() -> set[str]:
    """Return what lies in the machine's shared memory."""
    return {path.name for path in Path("/dev/shm").iterdir()}
