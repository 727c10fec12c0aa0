"""A child and its guardian, from the worker's side of their sockets."""

import asyncio
import contextlib
import os
import signal
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from pyoco_server.worker.child.process import ChildProcess, Template

pytestmark = pytest.mark.anyio


async def started(lease: float) -> tuple[ChildProcess, psutil.Process]:
    template = Template(None)
    await template.start(str(Path.cwd()))
    child = template.fork()
    await child.born()
    guardian = psutil.Process(child.pid).parent()  # looked up first: a short lease may be over in no time
    assert guardian is not None
    child.begin(lease)
    await template.fork().born()  # so it has heard of the lease too
    return child, guardian


async def finish(child: ChildProcess) -> None:
    await child.end()
    await child.template.end()


def wait_dead(pid: int) -> None:
    """Wait, with the event loop standing still, until a process is gone or waits to be reaped."""
    deadline = time.monotonic() + 10
    with contextlib.suppress(psutil.NoSuchProcess):
        while psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < deadline
            os.sched_yield()


async def test_a_worker_that_stood_still_still_hears_why_its_child_was_killed() -> None:
    child, guardian = await started(0.05)
    # The worker stands still: nothing of it runs until the guardian has killed the child.
    wait_dead(child.pid)
    child.renew()
    end = await asyncio.wait_for(child.wait_end(), 10)
    assert end.fenced
    assert guardian.is_running()
    await finish(child)


async def test_a_guardian_that_does_not_obey_is_ended_with_its_child(monkeypatch: Any) -> None:
    monkeypatch.setattr("pyoco_server.worker.child.process._KILL_TIMEOUT", 0.2)
    child, guardian = await started(60)
    guardian.send_signal(signal.SIGSTOP)
    for _ in range(5000):
        child.renew()  # nobody reads them, and nobody waits
    await asyncio.wait_for(child.end(), 10)
    assert not child.is_alive
    assert not child.template.is_alive
    for process in (child.pid, guardian.pid):
        wait_dead(process)


async def test_a_lease_that_is_over_is_not_renewed_when_both_stood_still() -> None:
    child, guardian = await started(1.0)
    guardian.send_signal(signal.SIGSTOP)
    deadline = time.monotonic() + 1.5
    while time.monotonic() < deadline:  # for longer than the lease nobody runs but the child
        os.sched_yield()
    child.renew()
    guardian.send_signal(signal.SIGCONT)
    end = await asyncio.wait_for(child.wait_end(), 10)
    assert end.fenced
    await finish(child)
