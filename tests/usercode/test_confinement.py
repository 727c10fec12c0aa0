"""Tasks that attack the processes around them: nothing of it works; what ordinary code does works all the same."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from pyoco_server.worker.child.confinement.confinement import support
from tests.acceptance.conftest import System, running_system

from .attacks_on_processes import ATTACKS
from .conftest import FAST, ISOLATIONS, output

pytestmark = [
    pytest.mark.usercode,
    pytest.mark.skipif(not support().whole, reason=f"this Linux cannot confine: {support().missing}"),
]
ROOT = Path(__file__).parents[2]
FLOW = "version: 1\nflow: {graph: t}\ntasks:\n  t: {callable: 'tests.usercode.%s', inputs: %s}\n"
WITHOUT = {**FAST, "PYTHONPATH": str(ROOT)}
CONFINED = {**WITHOUT, "PYOCO_CONFINE_TASKS": "on"}


@pytest.fixture(scope="module")
def confined(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A system without keys, so that nothing but the confinement keeps tasks from the gateway."""
    with running_system(tmp_path_factory.mktemp("confined"), **FAST) as running:
        for isolation in ISOLATIONS:
            running.worker("--isolation", isolation, worker_id=isolation, tags=isolation, **CONFINED)
        running.worker(worker_id="loose", tags="loose", **WITHOUT)
        running.worker(worker_id="other", tags="other", **CONFINED)
        yield running


def call(system: System, tag: str, function: str, **inputs: Any) -> Any:
    """Run a function of this package as a task; return what it gives."""
    return output(system.run(FLOW % (function, inputs), tag=tag))


def everybody(system: System) -> dict[str, int]:
    """Return the processes of gateway, NATS, workers, guardians and runs that are there."""
    roots = [process.popen.pid for process in (system.server, *system.processes)]
    found = [psutil.Process(pid) for pid in roots]
    found += [below for process in found for below in process.children(recursive=True)]
    return {f"{process.name()} {process.pid}": process.pid for process in found}


def own_children(system: System, worker_id: str) -> set[int]:
    """Return the processes of one worker's runs, present and to come."""
    [worker] = [process for process in system.processes if worker_id in process.popen.args]  # type: ignore[operator]
    templates = psutil.Process(worker.popen.pid).children()
    return {child.pid for template in templates for child in template.children(recursive=True)}


def test_nothing_outside_of_a_run_is_reached(confined: System, isolation: str) -> None:
    text = FLOW % ("ordinary_processes:rest", {"seconds": 600})
    run_id = confined.client.submit_run_yaml(text, flow_name="main", tag="other")["run_id"]
    confined.until(run_id, lambda snapshot: snapshot["tasks"].get("t") == "RUNNING")
    try:
        own = own_children(confined, isolation)
        victims = {who: pid for who, pid in everybody(confined).items() if pid not in own}
        assert len(victims) >= 10
        assert own_children(confined, "other") <= set(victims.values())
        assert call(confined, isolation, "attacks_on_processes:succeed", victims=victims) == {}
        assert call(confined, isolation, "attacks_on_processes:succeed_on_the_machine") == []
        assert all(psutil.pid_exists(pid) for pid in victims.values())
        assert confined.client.get_run(run_id)["status"] == "RUNNING"
    finally:
        confined.client.cancel_run(run_id)
    assert confined.end(run_id)["status"] == "CANCELLED"  # those outside still reach it


def test_the_same_attacks_work_from_a_task_that_is_not_confined(confined: System) -> None:
    with subprocess.Popen(["sleep", "600"]) as victim:
        worked = call(confined, "loose", "attacks_on_processes:succeed", victims={"sleep": victim.pid})
        victim.kill()
    # Where only a process's parents may trace it, fewer do.
    expected = set(ATTACKS) if os.geteuid() == 0 else {"kill", "pidfd", "prlimit", "setpriority", "sched_setaffinity"}
    assert expected - {"killpg", "setpriority of the group"} <= set(worked["sleep"])


def test_ordinary_code_works(confined: System, isolation: str) -> None:
    assert call(confined, isolation, "ordinary_processes:fail") == {}


def test_workers_tell_how_their_tasks_run(confined: System) -> None:
    told = {worker["worker_id"]: worker["tasks_run"] for worker in confined.client.get_workers()}
    assert {name: run["confinement"] for name, run in told.items()} == {
        "process": "whole", "shared": "whole", "other": "whole", "loose": "off",
    }  # fmt: skip
    assert told["process"]["root"] == (os.geteuid() == 0)
    assert told["process"]["missing"] is None
