"""Nine ways to end badly, each named for what it was."""

import contextlib
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from .cluster import FLOW, Cluster, until
from .conftest import Figure

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120)]

NOWHERE = FLOW.replace("fault_tasks", "no_such_module")
MEMORY = 400 * 1024 * 1024


def test_nine_injected_ends(shared: Cluster, figure: Figure) -> None:
    worker = shared.members["w"]
    expected = {
        "an exception": ("task_failed", "ValueError: as injected", shared.submit("raises")),
        "an exit code": ("child_exited", "exit code 3", shared.submit("exits")),
        "a segfault": ("child_killed_by_signal", "SIGSEGV", shared.submit("segfault")),
        "a task's time limit": ("task_timeout", "0.5 s", shared.submit("busy", flow=FLOW + "    timeout_sec: 0.5\n")),
        "a run's time limit": ("run_timeout", "1 s", shared.submit("busy", timeout_sec="1")),
        "an import error": ("dependency_missing", "no_such_module", shared.submit("busy", flow=NOWHERE)),
    }
    shared.ends(run for _, _, run in expected.values())
    assert worker.is_alive
    run = shared.submit("busy")
    shared.started(run)
    shared.cancel(run)
    shared.end(run)
    expected["a cancel"] = ("cancelled", "", run)
    run = shared.submit("kill_worker", max_attempts=1)
    until(lambda: not worker.is_alive, "the worker is dead")
    worker.start().ready()
    shared.end(run)
    expected["a killed worker"] = ("worker_lost", "attempt 1 of 1", run)
    with memory_limit(MEMORY, worker.pid) as limited:
        if limited:
            run = shared.submit("eat_memory")
            shared.end(run, 60)
            expected["too little memory"] = ("out_of_memory", "for want of memory", run)
            assert shared.end(shared.submit("work", {"seconds": 0}))["status"] == "COMPLETED"
            assert worker.is_alive
        worker.stop()
    shared.history().check()
    for case, (reason, said, run) in expected.items():
        ended = shared.get(run)
        assert (case, ended["end_reason"]) == (case, reason)
        assert said in (ended["error"] or "")
        assert ended["status"] == ("CANCELLED" if case == "a cancel" else "FAILED")
    figure(f"{len(expected)} injected ends, {len(expected)} named rightly: {', '.join(expected)}")


@contextlib.contextmanager
def memory_limit(limit: int, pid: int) -> Iterator[bool]:
    """Put a process and its children into a control group with little memory; ``False`` where none can be made."""
    second = Path("/sys/fs/cgroup/cgroup.controllers").exists()
    group = Path("/sys/fs/cgroup", "" if second else "memory", f"faults-{os.getpid()}")
    try:
        if second and "memory" not in (group.parent / "cgroup.subtree_control").read_text().split():
            (group.parent / "cgroup.subtree_control").write_text("+memory")
        group.mkdir()
        (group / ("memory.max" if second else "memory.limit_in_bytes")).write_text(str(limit))
    except OSError as error:
        warnings.warn(f"out of memory is not tried: no control group can be made here ({error})", stacklevel=2)
        yield False
        return
    try:
        for process in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True)):
            (group / "cgroup.procs").write_text(str(process.pid))
        yield True
    finally:
        until(lambda: not (group / "cgroup.procs").read_text().split(), "the group is empty", 10)
        group.rmdir()
