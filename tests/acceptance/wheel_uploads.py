"""Uploads as the gateway makes them, and what the tests of wheels ask of a system."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2

from .conftest import System


def upload(system: System, path: Path, *tags: str) -> float:
    """Upload a wheel; the answer is when that was answered (unix seconds)."""
    with path.open("rb") as file:
        answer = httpx2.post(
            f"{system.url}/wheels", files={"wheel": (path.name, file)}, data={"tags": ",".join(tags)}, timeout=60
        )
    assert answer.status_code == 200, answer.text
    return time.time()


def change(system: System, method: str, path: str) -> None:
    """Pin, unpin or delete a wheel."""
    answer = httpx2.request(method, f"{system.url}/wheels/{path}", timeout=60)
    assert answer.status_code == 200, answer.text


def wheels_of(system: System, worker_id: str) -> dict[str, Any]:
    """Give a worker's ``wheel_sync``."""
    return next(item for item in system.client.get_workers() if item["worker_id"] == worker_id)["wheel_sync"]


def until_wheels(system: System, worker_id: str, holds: Callable[[dict[str, Any]], bool], timeout: float = 20) -> dict:
    """Wait until a worker's ``wheel_sync`` satisfies a condition."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        found = wheels_of(system, worker_id)
        if holds(found):
            return found
        os.sched_yield()
    raise AssertionError(f"it never came true: {found}")


def installed(found: dict[str, Any]) -> list[str]:
    """Give the installed wheels as ``package==version``."""
    return [f"{wheel['package_name']}=={wheel['package_version']}" for wheel in found["installed_wheels"]]


def flow_of(*callables: str) -> str:
    """Give a flow.yaml that calls functions one after the other."""
    names = [f"t{number}" for number in range(len(callables))]
    tasks = "".join(f"  {name}:\n    callable: {target}\n" for name, target in zip(names, callables, strict=True))
    return f"version: 1\nflow:\n  graph: {' >> '.join(names)}\ntasks:\n{tasks}"


def outputs(run: dict[str, Any]) -> list[Any]:
    """Give the outputs of a completed run's tasks, in order."""
    assert run["status"] == "COMPLETED", run
    return [record["output"] for _, record in sorted(run["task_records"].items())]
