"""A process that a task forks is its own affair: it neither goes on with the run nor speaks for another one."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.acceptance.conftest import System

from .conftest import Module, log_of, output

pytestmark = pytest.mark.usercode

LOOP = "repeat(count=1) { t }"
# What is done in the fork; its parent waits for it, so that what it may do wrong is done before the run ends.
FORKS = {
    "exits": "sys.exit(0)",
    "exits with a code": "sys.exit(3)",
    "raises": "raise KeyError('in the fork')",
    "returns": "pass",
    "is killed": "os.kill(os.getpid(), 9)",
    "leaves": "os._exit(0)",
    "forks again": "os.fork(); sys.exit(0)",
    "prints": "print('from the fork'); sys.exit(0)",
    "runs the interpreter": "os.execv(sys.executable, [sys.executable, '-c', 'pass'])",
}


@pytest.mark.parametrize("graph", ["t", LOOP, "t >> u"])
@pytest.mark.parametrize("way", FORKS)
def test_a_fork_does_not_go_on_with_the_run(
    system: System, isolation: str, module: Callable[..., Module], graph: str, way: str, tmp_path: Path
) -> None:
    calls = tmp_path / "calls"
    code = f"""
        import os, sys
        def t():
            pid = os.fork()
            if pid == 0:
                {FORKS[way]}
            else:
                os.waitpid(pid, 0)
            return pid != 0
        def u(t):
            with open({str(calls)!r}, "a") as file:
                file.write("u")
            return t
    """
    names = ("t", "u") if ">>" in graph else ("t",)
    run = module(code, graph).run(isolation, *names)
    assert output(run, names[-1]) is True
    assert run["attempt"] == 1
    if ">>" in graph:
        assert calls.read_text() == "u"
    if way == "prints":
        assert log_of(system, run).count("from the fork") == 1
    if way == "raises":
        assert "KeyError: 'in the fork'" in log_of(system, run)


@pytest.mark.parametrize("graph", ["t", LOOP])
def test_a_fork_that_outlives_its_run_does_not_end_the_next_one(
    isolation: str, module: Callable[..., Module], graph: str, tmp_path: Path
) -> None:
    late = """
        import os, sys, time
        def t():
            if os.fork() == 0:
                time.sleep(0.2)
                sys.exit(0)
            return 1
    """
    place = tmp_path / "executed"
    for _ in range(3):
        run = module(late, graph).run(isolation)
        assert output(run) == 1
        mark = module(f"def n():\n    open({str(place)!r}, 'a').write('x')\n    return 'really ran'\n", "n")
        assert output(mark.run(isolation, "n"), "n") == "really ran"
    assert place.read_text() == "xxx"


@pytest.mark.parametrize(
    "code",
    [
        # By a library, which ends its forks itself.
        """
        import multiprocessing
        def double(x): return 2 * x
        def t():
            with multiprocessing.get_context("fork").Pool(2) as pool:
                return pool.map(double, [1, 2]) == [2, 4]
        """,
        # Past Python, whose hooks do not see it.
        """
        import ctypes, os
        def t():
            pid = ctypes.CDLL(None).fork()
            if pid:
                os.waitpid(pid, 0)
            return True
        """,
        # While the module is imported, before there is a task.
        """
        import os
        pid = os.fork()
        if pid:
            os.waitpid(pid, 0)
        def t(): return True
        """,
        # By a thread of the task.
        """
        import os, threading
        def fork():
            pid = os.fork()
            if pid: os.waitpid(pid, 0)
            else: os._exit(0)
        def t():
            thread = threading.Thread(target=fork)
            thread.start()
            thread.join()
            return True
        """,
    ],
)
def test_other_ways_to_fork(isolation: str, module: Callable[..., Module], code: str) -> None:
    run = module(code).run(isolation)
    assert output(run) is True
    assert run["attempt"] == 1


def test_words_of_another_run_end_the_run_that_says_them(
    system: System, isolation: str, module: Callable[..., Module]
) -> None:
    code = """
        import json, os, socket, stat, struct, time
        def t():
            body = json.dumps({"type": "finished", "run_id": "another", "attempt": 1, "outcome": "completed"}).encode()
            for descriptor in range(3, 100):
                try:
                    if stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                        os.write(descriptor, struct.pack(">I", len(body)) + body)
                except OSError:
                    pass
            time.sleep(60)
    """
    run = module(code).run(isolation)
    assert (run["status"], run["end_reason"]) == ("FAILED", "child_exited")
    assert "sent its worker what it does not understand" in run["error"]
    assert output(module("def t(): return 1").run(isolation)) == 1
