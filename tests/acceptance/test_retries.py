"""Tries of tasks on real runs: back-off, cancel, time limits, and what a failure means for the others."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .conftest import System, running_system

FAST = {"PYOCO_RUN_HEARTBEAT_INTERVAL_SEC": "0.1", "PYOCO_CANCEL_GRACE_PERIOD_SEC": "20"}
CODE = """\
import os, time
from pathlib import Path

def t(mark, fails, takes=0.0):
    count = len(Path(mark).read_text()) if Path(mark).exists() else 0
    Path(mark).write_text("x" * (count + 1))
    time.sleep(takes)
    if count < fails:
        raise ValueError(f"try {count + 1} is not enough")
    return count + 1

def bad():
    raise ValueError("bad")

def good():
    return 1

def lacks():
    import nowhere_to_be_found

def greedy():
    return bytearray(1 << 62)

def dies():
    os._exit(3)
"""
RESOLVER = """\
from pyoco import Flow, task
import retried_tasks

t = task(retried_tasks.t)
t.task.retries, t.task.retry_delay_sec = 2, 0.1
flow = Flow("main") >> t

def resolve(name):
    return flow
"""


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with running_system(tmp_path_factory.mktemp("system"), **FAST) as running:
        (running.folder / "retried_tasks.py").write_text(CODE)
        (running.folder / "resolver.py").write_text(RESOLVER)
        running.worker("--flow-resolver", "resolver.py:resolve", **FAST)
        yield running


def flow(graph: str, **tasks: dict[str, Any]) -> str:
    """Give a flow.yaml (JSON is YAML); each task's callable is the function of its name unless it says so."""
    named = {name: {"callable": f"retried_tasks:{name}", **keys} for name, keys in tasks.items()}
    return json.dumps({"version": 1, "flow": {"graph": graph}, "tasks": named})


def test_a_task_succeeds_in_its_third_try_after_growing_pauses(system: System, tmp_path: Path) -> None:
    started = time.monotonic()
    once = flow("t", t={"retries": 3, "retry_delay_sec": 0.3})
    run = system.run(once, params={"mark": str(tmp_path / "m"), "fails": 2})
    assert run["status"] == "COMPLETED"
    record = run["task_records"]["t"]
    assert (record["try"], record["tries"], record["output"], record["error"]) == (3, 4, 3, None)
    assert record["last_error"] == "ValueError: try 2 is not enough"
    assert time.monotonic() - started >= 0.9  # 0.3 + 0.6


def test_a_python_flow_is_tried_likewise_and_again_in_the_next_run(system: System, tmp_path: Path) -> None:
    for number in (1, 2):
        params = {"mark": str(tmp_path / f"m{number}"), "fails": 2}
        run = system.end(system.client.submit_run("main", params, tag="cpu")["run_id"])
        assert (run["status"], run["task_records"]["t"]["try"]) == ("COMPLETED", 3)


def test_a_task_that_fails_in_every_try_ends_the_run(system: System, tmp_path: Path) -> None:
    twice = flow("t", t={"retries": 1, "retry_delay_sec": 0})
    run = system.run(twice, params={"mark": str(tmp_path / "m"), "fails": 9})
    assert (run["status"], run["end_reason"]) == ("FAILED", "task_failed")
    assert run["error"] == "task 't' failed: ValueError: try 2 is not enough (in 2 tries)"
    record = run["task_records"]["t"]
    assert (record["state"], record["try"], record["error"]) == ("FAILED", 2, "ValueError: try 2 is not enough")
    place = record["exception"]
    assert (Path(place["file"]).name, place["function"]) == ("retried_tasks.py", "t")
    assert CODE.splitlines()[place["line"] - 1].strip().startswith("raise ValueError")


def test_a_cancel_during_the_pause_ends_the_run_at_once(system: System) -> None:
    waits = flow("bad", bad={"retries": 9, "retry_delay_sec": 50})
    run_id = system.client.submit_run_yaml(waits, flow_name="main", tag="cpu")["run_id"]
    waiting = system.until(run_id, lambda run: bool(run["task_records"].get("bad", {}).get("retry_at")))
    assert waiting["tasks"]["bad"] == "RUNNING"
    record = waiting["task_records"]["bad"]
    assert (record["try"], record["tries"], record["exception"]["message"]) == (1, 10, "bad")
    assert 40 < record["retry_at"] - time.time() <= 60
    asked = time.monotonic()
    system.client.cancel_run(run_id)
    run = system.end(run_id)
    assert time.monotonic() - asked < 15  # neither the pause nor the time for ending by itself is waited for
    assert (run["status"], run["tasks"]["bad"]) == ("CANCELLED", "CANCELLED")
    assert run["task_records"]["bad"]["retry_at"] is None
    assert run["cancel_requested_at"]


@pytest.mark.slow
def test_the_time_limit_is_for_each_try_and_not_for_the_pauses(system: System, tmp_path: Path) -> None:
    slow = flow("t", t={"retries": 2, "retry_delay_sec": 3.5, "timeout_sec": 3})
    params = {"mark": str(tmp_path / "m"), "fails": 1, "takes": 0.4}
    assert system.run(slow, params=params)["status"] == "COMPLETED"
    run = system.run(slow, params={"mark": str(tmp_path / "n"), "fails": 1, "takes": 60})
    assert (run["status"], run["end_reason"]) == ("FAILED", "task_timeout")
    assert run["task_records"]["t"]["error"] == run["error"]


@pytest.mark.parametrize(
    ("name", "reason", "said"),
    [
        ("lacks", "dependency_missing", "ModuleNotFoundError: No module named 'nowhere_to_be_found'"),
        ("greedy", "out_of_memory", "task 'greedy' failed: MemoryError"),
        ("dies", "child_exited", "exit code 3"),
        ("nothing_of_that_name", "invalid_flow", "has no 'nothing_of_that_name'"),
    ],
)
def test_the_end_reason_and_the_tasks_own_error(system: System, name: str, reason: str, said: str) -> None:
    run = system.run(flow(name, **{name: {}}))
    assert (run["status"], run["end_reason"]) == ("FAILED", reason)
    assert said in run["error"]
    assert run["task_records"][name]["error"] in run["error"]
    assert bool(run["task_records"][name].get("exception")) is (name in ("lacks", "greedy"))


def test_an_isolated_failure_ends_what_waits_for_it_and_nothing_else(system: System) -> None:
    tasks: dict[str, Any] = {name: {"callable": "retried_tasks:good"} for name in ("b", "c", "d")}
    run = system.run(flow("bad >> b >> c >> d", bad={"fail_policy": "isolate"}, **tasks))
    assert (run["status"], run["end_reason"], run["error"]) == ("COMPLETED", "completed", None)
    assert run["tasks"] == {"bad": "FAILED", "b": "PENDING", "c": "PENDING", "d": "PENDING"}
    assert run["skipped_tasks"] == ["b", "c", "d"]
    assert run["task_records"]["bad"]["exception"]["class"] == "ValueError"
    stopped = system.run(flow("b >> bad >> c", bad={}, b=tasks["b"], c=tasks["c"]))
    assert (stopped["status"], stopped["tasks"]["c"]) == ("FAILED", "CANCELLED")


def test_in_a_graph_with_loops_or_branches_nothing_is_isolated(system: System) -> None:
    run = system.run(flow("repeat(count=1) { bad } >> good", bad={"fail_policy": "isolate"}, good={}))
    assert (run["status"], run["end_reason"]) == ("FAILED", "task_failed")
    assert run["tasks"] == {"bad": "FAILED", "good": "CANCELLED"}
