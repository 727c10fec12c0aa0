"""The real commands as subprocesses: one system for all tests of a module, workers as each test wants them."""

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest

from pyoco_server.client.http import TERMINAL, PyocoHttpClient

BIN = Path(sys.executable).parent
DEADLINE = 30.0


class Process:
    """A command with its JSON log lines."""

    def __init__(self, arguments: list[str], folder: Path, **environment: str) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PYOCO_")}
        self.popen = subprocess.Popen(
            [str(BIN / arguments[0]), *arguments[1:]],
            cwd=folder,
            env={**kept, "PYTHONUNBUFFERED": "1", **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines: list[dict[str, Any]] = []
        self._fresh: queue.Queue[dict[str, Any] | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.popen.stdout is not None
        for text in self.popen.stdout:
            try:
                line = json.loads(text)
            except ValueError:
                line = {"message": text.rstrip()}
            self.lines.append(line)
            self._fresh.put(line)
        self._fresh.put(None)

    def wait_for(self, message: str, timeout: float = DEADLINE) -> dict[str, Any]:
        """Wait for a log line."""
        deadline = time.monotonic() + timeout
        while (left := deadline - time.monotonic()) > 0:
            with contextlib.suppress(queue.Empty):
                line = self._fresh.get(timeout=left)
                if line is None:
                    break
                if line["message"] == message:
                    return line
        raise AssertionError(f"no line {message!r} in {[line['message'] for line in self.lines]}")

    def stop(self, sig: signal.Signals = signal.SIGTERM, timeout: float = DEADLINE) -> int:
        """Send a signal and give the exit code."""
        if self.popen.poll() is None:
            self.popen.send_signal(sig)
        try:
            return self.popen.wait(timeout)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            raise


@dataclass
class System:
    """A running gateway with an embedded NATS."""

    folder: Path
    url: str
    nats_url: str
    server: Process
    client: PyocoHttpClient
    processes: list[Process] = field(default_factory=list)

    def worker(self, *arguments: str, worker_id: str = "w", tags: str = "cpu", **environment: str) -> Process:
        """Start a worker and wait until it serves."""
        process = Process(
            ["pyoco-worker", "--nats-url", self.nats_url, "--worker-id", worker_id, "--tags", tags, *arguments],
            self.folder,
            **environment,
        )
        self.processes.append(process)
        process.wait_for("worker ready")
        return process

    def flow(self, code: str, graph: str = "t", name: str = "t") -> str:
        """Write a module with one task function and give a flow.yaml for it."""
        module = f"user_{abs(hash(code)) % 10**9}"
        (self.folder / f"{module}.py").write_text(code)
        return f"version: 1\nflow:\n  graph: {graph}\ntasks:\n  t:\n    callable: {module}:{name}\n"

    def run(self, workflow: str, tag: str = "cpu", **options: Any) -> dict[str, Any]:
        """Submit and wait for the end."""
        return self.end(self.client.submit_run_yaml(workflow, flow_name="main", tag=tag, **options)["run_id"])

    def end(self, run_id: str, timeout: int = 30) -> dict[str, Any]:
        """Wait for a run's end."""
        snapshot: dict[str, Any] = {}
        for event in self.client.watch_run(run_id, include_records=True, timeout_sec=timeout):
            snapshot = event["data"].get("snapshot", snapshot)
        assert snapshot["status"] in TERMINAL, snapshot
        return snapshot

    def letter(self) -> dict[str, Any]:
        """Wait for the one dead letter: it is published a moment after its run's end."""
        deadline = time.monotonic() + DEADLINE
        while not (found := self.client.list_dead_letters()):
            assert time.monotonic() < deadline, "no dead letter came"
            time.sleep(0.05)
        [letter] = found
        return letter

    def until(self, run_id: str, holds: Callable[[dict[str, Any]], bool], timeout: int = 30) -> dict[str, Any]:
        """Wait until a run's snapshot satisfies a condition."""
        for event in self.client.watch_run(run_id, include_records=True, timeout_sec=timeout):
            snapshot = event["data"].get("snapshot")
            if snapshot and holds(snapshot):
                return dict(snapshot)
        raise AssertionError(f"it never came true for run {run_id}")

    def stopped(self, worker_id: str) -> dict[str, Any]:
        """Wait until the gateway has heard that a worker stopped in order: a moment after its process ended."""
        deadline = time.monotonic() + DEADLINE
        while not (found := self.client.get_workers(scope="all", state="STOPPED_GRACEFUL", worker_id=worker_id)):
            assert time.monotonic() < deadline, f"the end of the worker {worker_id} was never seen"
            time.sleep(0.05)
        [worker] = found
        return worker


TUTORIAL = """\
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


@contextlib.contextmanager
def running_system(folder: Path, *options: str, **environment: str) -> Iterator[System]:
    """Start ``pyoco-server up`` on free ports; stop it and every worker afterwards."""
    arguments = "up --with-nats --nats-client-port -1 --nats-http-port -1 --port 0".split()
    server = Process(["pyoco-server", *arguments, *options], folder, **environment)
    system = None
    try:
        up = server.wait_for("pyoco-server is up")
        with PyocoHttpClient(up["url"]) as client:
            system = System(folder, up["url"], up["nats_url"], server, client)
            yield system
    finally:
        for process in system.processes if system else []:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.stop()
        server.stop()


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A system shared by the tests of a module."""
    with running_system(tmp_path_factory.mktemp("system")) as running:
        yield running


@pytest.fixture
def http(system: System) -> Iterator[httpx2.Client]:
    """A plain HTTP client to the gateway."""
    with httpx2.Client(base_url=system.url, timeout=10) as client:
        yield client
