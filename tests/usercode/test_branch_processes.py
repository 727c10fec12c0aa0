"""What tasks of branches do to the process that they share: forks, exits, output, threads, time limits, pauses."""

import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.acceptance.conftest import System
from tests.usercode.conftest import FAST, Module, output

pytestmark = pytest.mark.usercode

MEET = """
    import os, subprocess, sys, threading, time
    from pathlib import Path
    HERE = Path({here!r})
    def meet(me, *others):
        (HERE / me).touch()
        until = time.monotonic() + 20
        while not all((HERE / other).exists() for other in others):
            if time.monotonic() > until:
                raise TimeoutError(f"{{me}} waits in vain")
            time.sleep(0.01)
        return me
"""


@pytest.fixture
def made(module: Callable[..., Module], tmp_path: Path) -> Callable[..., Module]:
    return lambda code, graph: module(MEET.format(here=str(tmp_path)) + code, graph)


def with_policies(text: str, **policies: dict[str, Any]) -> str:
    """Return a flow.yaml whose tasks have policies."""
    flow = yaml.safe_load(text)
    for name, policy in policies.items():
        flow["tasks"][name] |= policy
    return yaml.safe_dump(flow, sort_keys=False)


def test_forks_in_branches_end_with_their_tasks(isolation: str, made: Callable[..., Module], tmp_path: Path) -> None:
    code = """
    def forks(me):
        meet(me, "a", "b")
        pid = os.fork()
        if pid == 0:
            return "nobody hears it"
        os.waitpid(pid, 0)
        return me
    def a(): return forks("a")
    def b(): return forks("b")
    def c():
        with open(HERE / "calls", "a") as file:
            file.write("c")
        return threading.current_thread() is threading.main_thread()
    """
    run = made(code, "(a & b) >> c").run(isolation, "a", "b", "c")
    assert (output(run, "a"), output(run, "b"), output(run, "c")) == ("a", "b", True)
    assert (tmp_path / "calls").read_text() == "c" and run["attempt"] == 1


def test_an_exit_in_a_branch_fails_the_run_and_lets_end_what_runs(isolation: str, made: Callable[..., Module]) -> None:
    code = """
    def leaves():
        meet("leaves", "runs")
        sys.exit(3)
    def runs():
        return meet("runs", "leaves")
    def never(): (HERE / "never").touch()
    """
    run = made(code, "(leaves & runs) >> never").run(isolation, "leaves", "runs", "never")
    assert (run["status"], run["end_reason"]) == ("FAILED", "task_failed"), run["error"]
    assert "task 'leaves' failed: SystemExit: 3" in run["error"]
    assert run["tasks"] == {"leaves": "FAILED", "runs": "SUCCEEDED", "never": "CANCELLED"}


def test_each_line_stands_under_the_task_that_printed_it(
    system: System, isolation: str, made: Callable[..., Module]
) -> None:
    code = """
    def says(me):
        meet(me, "a", "b", "c")
        for number in range(100):
            print(f"{me} {number}")
            print(f"{me} {number}", file=sys.stderr)
        print(me, "begins", end="")
        meet(me + "2", "a2", "b2", "c2")
        print(" and ends")
    def a(): says("a")
    def b(): says("b")
    def c(): says("c")
    """
    run = made(code, "a & b & c").run(isolation, "a", "b", "c")
    assert run["status"] == "COMPLETED", run["error"]
    lines = [line for line in system.client.get_logs(run["run_id"])["lines"] if line["task"]]
    for name in "abc":
        for stream, more in (("stdout", [f"{name} begins and ends"]), ("stderr", [])):
            texts = [line["text"] for line in lines if line["task"] == name and line["stream"] == stream]
            assert texts == [*(f"{name} {number}" for number in range(100)), *more]


def test_branches_leave_no_threads(made: Callable[..., Module]) -> None:
    """A kept process takes the next run only if nothing is left of the last one."""
    code = """
    def who(me): return meet(me, "a", "b") and os.getpid()
    def a(): return who("a")
    def b(): return who("b")
    """
    flow = made(code, "a & b")
    first, second = (flow.run("shared", "a", "b") for _ in range(2))
    assert output(first, "a") == output(first, "b") == output(second, "a") == output(second, "b")


def test_a_time_limit_names_the_one_of_three_that_took_too_long(
    system: System, isolation: str, made: Callable[..., Module]
) -> None:
    code = """
    def waits(me):
        meet(me, "x", "y", "z")
        time.sleep(60)
    def x(): waits("x")
    def y(): waits("y")
    def z(): waits("z")
    """
    module = made(code, "x & y & z")
    text = with_policies(module.flow("x", "y", "z"), y={"timeout_sec": 2, "retries": 3}, z={"timeout_sec": 50})
    run = system.run(text, tag=isolation)
    assert (run["status"], run["end_reason"]) == ("FAILED", "task_timeout")
    assert run["error"] == "task 'y' took longer than its timeout_sec of 2 s"
    assert run["tasks"] == dict.fromkeys("xyz", "FAILED")


def test_a_cancel_ends_a_pause_in_one_branch_and_a_task_in_another(
    system: System, isolation: str, made: Callable[..., Module]
) -> None:
    code = """
    def fails():
        meet("fails", "runs")
        raise ValueError("no")
    def runs(ctx):
        meet("runs", "fails")
        for _ in range(2000):
            if ctx.is_cancelled:
                return "heard of it"
            time.sleep(0.01)
    def never(): (HERE / "never").touch()
    """
    module = made(code, "(fails & runs) >> never")
    text = with_policies(module.flow("fails", "runs", "never"), fails={"retries": 5, "retry_delay_sec": 60})
    run_id = system.client.submit_run_yaml(text, flow_name="f", tag=isolation)["run_id"]
    system.until(run_id, lambda run: run["task_records"].get("fails", {}).get("retry_at"))
    why = system.client.why_run(run_id)
    assert (why["code"], why["details"]["tasks"], why["details"]["retrying"]) == ("running", ["runs"], ["fails"])
    asked = time.time()
    system.client.cancel_run(run_id)
    run = system.end(run_id)
    assert run["status"] == "CANCELLED" and run["end_time"] < asked + 30
    assert run["tasks"] == {"fails": "CANCELLED", "runs": "SUCCEEDED", "never": "CANCELLED"}
    assert run["task_records"]["runs"]["output"] == "heard of it"


def test_a_failure_ends_the_pauses_of_other_branches(
    system: System, isolation: str, made: Callable[..., Module]
) -> None:
    code = """
    def tries():
        (HERE / "tried").touch()
        raise ValueError("again")
    def fails():
        meet("fails", "tried")
        raise KeyError("for good")
    """
    module = made(code, "tries & fails")
    text = with_policies(module.flow("tries", "fails"), tries={"retries": 5, "retry_delay_sec": 60})
    run = system.run(text, tag=isolation)
    assert run["status"] == "FAILED" and "task 'fails' failed: KeyError: 'for good'" in run["error"]
    assert run["tasks"] == {"tries": "CANCELLED", "fails": "FAILED"}


def test_what_a_round_can_do_without_does_not_end_its_loop(
    system: System, isolation: str, made: Callable[..., Module]
) -> None:
    code = """
    def fails(): raise ValueError("no")
    def works(): return 1
    def counts():
        with open(HERE / "calls", "a") as file:
            file.write("c")
    def last(): return (HERE / "calls").read_text()
    """
    module = made(code, "repeat(count=3) { (fails | works) >> counts } >> last")
    text = with_policies(module.flow("fails", "works", "counts", "last"), fails={"fail_policy": "isolate"})
    run = system.run(text, tag=isolation)
    assert output(run, "last") == "ccc"
    assert run["tasks"] == {"fails": "FAILED", "works": "SUCCEEDED", "counts": "SUCCEEDED", "last": "SUCCEEDED"}


def test_after_the_death_of_a_worker_all_branches_run_anew(
    system: System, made: Callable[..., Module], tmp_path: Path
) -> None:
    code = """
    def called(me):
        with open(HERE / "calls", "a") as file:
            file.write(me)
        return (HERE / "calls").read_text().count(me)
    def quick(): return called("q")
    def slow():
        times = called("s")
        if times == 1:
            time.sleep(60)
        return times
    def last(quick, slow): return [quick, slow, called("l")]
    """
    text = made(code, "(quick & slow) >> last").flow("quick", "slow", "last")
    doomed = system.worker(worker_id="doomed", tags="dying", **FAST)
    run_id = system.client.submit_run_yaml(text, flow_name="f", tag="dying")["run_id"]
    system.until(run_id, lambda run: run["tasks"] == {"quick": "SUCCEEDED", "slow": "RUNNING", "last": "PENDING"})
    doomed.stop(signal.SIGKILL)
    system.worker(worker_id="heir", tags="dying", **FAST)
    run = system.end(run_id)
    assert (run["attempt"], output(run, "last")) == (2, [2, 2, 1])
    assert run["tasks"] == dict.fromkeys(("quick", "slow", "last"), "SUCCEEDED")
