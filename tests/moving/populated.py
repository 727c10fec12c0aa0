"""A store as the real 0.5.1 makes and uses it: runs of each kind, jobs that wait, wheels, keys."""

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

from tests.wheels import wheel_members, wheel_name, write_wheel

from .existing import Existing

DEADLINE_SEC = 20.0
_TRIES = 4
FLOW = """\
version: 1
flow:
  graph: |
    add_one >> to_text
  defaults:
    x: 1
tasks:
  add_one:
    callable: pyoco_server._workflow_test_tasks:add_one
  to_text:
    callable: pyoco_server._workflow_test_tasks:to_text
"""
STRICTER = FLOW.replace("version: 1\n", "version: 1.0\n")
"""A flow that the existing system takes, and ours refuses."""


@dataclass
class Populated:
    """What is in a store.

    Attributes:
        url: Of its NATS.
        finished: Runs that have ended, with their status.
        queued: Runs that wait for the tag ``later``.
        cancelled: A run that was cancelled while it waited.
        keys: API keys, by tenant; that of ``gone`` is revoked.
        wheels: File names.
    """

    url: str
    finished: dict[str, str] = field(default_factory=dict)
    queued: list[str] = field(default_factory=list)
    cancelled: str = ""
    keys: dict[str, dict[str, Any]] = field(default_factory=dict)
    wheels: list[str] = field(default_factory=list)


def until(found: Callable[[], Any], what: str) -> Any:
    """Wait until something is found; return it."""
    deadline = time.monotonic() + DEADLINE_SEC
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx2.TransportError):
            if answer := found():
                return answer
        time.sleep(0.05)
    raise AssertionError(f"waited in vain for {what}")


@contextlib.contextmanager
def asking(url: str) -> Iterator[httpx2.Client]:
    """Ask a gateway, once it serves."""
    with httpx2.Client(base_url=url, timeout=10) as http:
        until(lambda: http.get("/health").is_success, "the gateway")
        yield http


def submit_yaml(http: httpx2.Client, text: str, tag: str) -> str:
    """Submit a flow.yaml; return the run."""
    answer = http.post(
        "/runs/yaml", files={"workflow": ("flow.yaml", text.encode())}, data={"flow_name": "main", "tag": tag}
    )
    assert answer.is_success, answer.text
    return str(answer.json()["run_id"])


def submit(http: httpx2.Client, flow: str, tag: str) -> str:
    """Submit a flow by its name; return the run."""
    answer = http.post("/runs", json={"flow_name": flow, "params": {"n": 3}, "tag": tag})
    assert answer.is_success, answer.text
    return str(answer.json()["run_id"])


def ended(http: httpx2.Client, run_id: str) -> dict[str, Any]:
    """Wait for a run's end; return its snapshot with records."""

    def look() -> dict[str, Any] | None:
        told: dict[str, Any] = http.get(f"/runs/{run_id}", params={"include": "full"}).json()
        return told if told["status"] in ("COMPLETED", "FAILED", "CANCELLED") else None

    return dict(until(look, f"the end of {run_id}"))


def populate(existing: Existing, nats_url: str, folder: Path) -> Populated:
    """Let the real 0.5.1 make a store and use it."""
    made = Populated(nats_url)
    with existing.server(nats_url, folder) as url, asking(url) as http:
        runs = [submit_yaml(http, FLOW, "now") for _ in range(6)] + [submit(http, "nowhere", "now")]
        made.queued = [submit_yaml(http, FLOW, "later") for _ in range(2)]
        made.queued += [submit_yaml(http, STRICTER, "later"), submit(http, "report", "later")]
        made.cancelled = submit_yaml(http, FLOW, "later")
        http.post(f"/runs/{made.cancelled}/cancel").raise_for_status()
        for version in ("0.1.0", "0.2.0"):
            name = wheel_name("task-cpu", version)
            wheel = write_wheel(folder / name, wheel_members("task-cpu", version))
            sent = http.post("/wheels", files={"wheel": (name, wheel.read_bytes())}, data={"tags": "later"})
            assert sent.is_success, sent.text
            made.wheels.append(name)
        made.keys = keys(existing, nats_url, folder)
        # Last: their worker is best at jobs that are there before it.
        told = run_by_them(existing, made.url, folder, http, runs)
        made.finished = {run["run_id"]: str(run["status"]) for run in told}
    return made


def run_by_them(
    existing: Existing, nats_url: str, folder: Path, http: httpx2.Client, runs: list[str]
) -> list[dict[str, Any]]:
    """Let a worker of theirs run what waits; return the runs' snapshots. One that stands still is started again."""
    for left in reversed(range(_TRIES)):
        with their_worker(existing, nats_url, folder):
            try:
                return [ended(http, run_id) for run_id in runs]
            except AssertionError:
                if not left:
                    raise
    raise AssertionError("unreachable")


@contextlib.contextmanager
def their_worker(existing: Existing, nats_url: str, folder: Path) -> Iterator[None]:
    """Run a worker of the existing system for the tag ``now``.

    A job that comes when it gives up waiting for one is lost to it for as long as AckWait, so that is short.
    """
    arguments = ["--nats-url", nats_url, "--tags", "now", "--worker-id", "theirs"]
    soon = {"PYOCO_CONSUMER_ACK_WAIT_SEC": "3", "PYOCO_ACK_PROGRESS_INTERVAL_SEC": "1"}
    with existing.running("pyoco-worker", *arguments, folder=folder, **soon):
        yield


def keys(existing: Existing, nats_url: str, folder: Path) -> dict[str, dict[str, Any]]:
    """Make three API keys, and revoke the last one."""
    admin = ["pyoco-server-admin", "--nats-url", nats_url, "api-key"]
    made = {}
    for tenant in ("demo", "other", "gone"):
        made[tenant] = json.loads(existing.run(*admin, "create", "--tenant", tenant, folder=folder).stdout)
    existing.run(*admin, "revoke", "--key-id", made["gone"]["key_id"], folder=folder)
    return made
