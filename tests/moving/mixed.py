"""One NATS with workers, gateways and clients of both systems."""

import contextlib
import json
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.acceptance.conftest import System

from .existing import Existing

DEADLINE = 30.0
FLOW = """\
version: 1
flow:
  graph: |
    double >> text
  defaults:
    n: 5
    sec: 0.0
    fails: false
tasks:
  double:
    callable: mixed_tasks:double
    inputs:
      n: $ctx.params.n
      sec: $ctx.params.sec
      fails: $ctx.params.fails
  text:
    callable: mixed_tasks:text
    inputs:
      double: $node.double.output
"""
OURS_ONLY = FLOW.replace("mixed_tasks:double\n", "mixed_tasks:double\n    retries: 1\n")


def prepare(folder: Path) -> None:
    """Put the tasks where workers of both systems find them."""
    shutil.copy(Path(__file__).with_name("mixed_tasks.py"), folder)


@contextlib.contextmanager
def their_worker(
    existing: Existing, system: System, tag: str, worker_id: str = "theirs", **environment: str
) -> Iterator[Any]:
    """Run a worker of the existing system, and wait until our gateway knows it."""
    arguments = ["--nats-url", system.nats_url, "--tags", tag, "--worker-id", worker_id, "--poll-timeout", "0.2"]
    environment = {"PYTHONPATH": str(system.folder), **environment}
    with existing.running(
        "pyoco-worker", *arguments, "--flow-resolver", "mixed_tasks:resolve", folder=system.folder, **environment
    ) as process:
        until(lambda: any(each["worker_id"] == worker_id for each in system.client.get_workers()))
        yield process


def until(holds: Callable[[], Any], sec: float = DEADLINE) -> Any:
    """Wait until something is so; return it."""
    deadline = time.monotonic() + sec
    while not (found := holds()):
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.05)
    return found


def starts(folder: Path) -> Counter[int]:
    """Count how often each ``n`` was begun."""
    journal = folder / "journal.jsonl"
    return (
        Counter(json.loads(line)["n"] for line in journal.read_text().splitlines()) if journal.exists() else Counter()
    )
