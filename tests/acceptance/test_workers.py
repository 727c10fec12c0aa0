"""Workers as an operator sees them: their figures, drained from outside, their names."""

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pyoco_server.client.errors import ApiError
from pyoco_server.client.http import PyocoHttpClient

from .conftest import BIN, Process, System, running_system

FAST = {"PYOCO_WORKER_HEARTBEAT_INTERVAL_SEC": "0.5", "PYOCO_WORKER_DISCONNECT_TIMEOUT_SEC": "3"}
GATED = """
import os, time
def t():
    kept = bytearray(b"x") * 60_000_000
    deadline = time.time() + 60
    while not os.path.exists(GATE) and time.time() < deadline:
        time.sleep(0.02)
"""


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with running_system(tmp_path_factory.mktemp("system"), **FAST) as running:
        yield running


def until(holds: Callable[[], Any], timeout: float = 20) -> Any:
    """Give what is true at last."""
    deadline = time.monotonic() + timeout
    while not (found := holds()):
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.05)
    return found


def client(system: System, *words: str, meanwhile: Callable[[], Any] | None = None) -> subprocess.CompletedProcess[str]:
    """Run the client.

    Args:
        meanwhile: Called once the server has answered it that a worker drains: what it waits for may come then.
    """
    asked = requests(system) if meanwhile else 0.0
    command = [BIN / "pyoco-client", "--server", system.url, *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        if meanwhile:
            until(lambda: requests(system) > asked or process.poll() is not None)
            meanwhile()
        out, err = process.communicate(timeout=60)
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def requests(system: System) -> float:
    """Count the answers to those who asked to drain a worker."""
    lines = system.client.get_metrics().splitlines()
    return sum(
        float(line.split()[-1]) for line in lines if "/drain" in line and line.startswith("pyoco_http_requests_total")
    )


def shown(system: System, worker_id: str) -> dict[str, Any]:
    (item,) = system.client.get_workers(scope="all", include_hidden=True, worker_id=worker_id)
    return item


def begin(system: System, gate: Path, tag: str) -> str:
    flow = system.flow(f"GATE = {str(gate)!r}\n{GATED}")
    run_id = str(system.client.submit_run_yaml(flow, flow_name="main", tag=tag)["run_id"])
    system.until(run_id, lambda run: run["tasks"].get("t") == "RUNNING")
    return run_id


def test_a_drained_worker_finishes_its_run_and_the_next_of_its_name_works(system: System, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    leaving = system.worker("--concurrency", "2", worker_id="leaving", tags="drain", **FAST)
    first = begin(system, gate, "drain")
    system.client.patch_worker_hidden("leaving", hidden=True)
    asked = json.loads(client(system, "workers", "drain", "leaving", "--reason", "new kernel").stdout)
    assert (asked["worker_id"], asked["draining"], asked["drain_reason"]) == ("leaving", True, "new kernel")
    leaving.wait_for("stopping")
    item = until(lambda: (item := shown(system, "leaving"))["draining"] and item["current_run_ids"] and item)
    assert (item["state"], item["draining"], item["current_run_ids"]) == ("RUNNING", True, [first])
    second = system.client.submit_run_yaml(system.flow("def t():\n    return 2\n"), flow_name="main", tag="drain")[
        "run_id"
    ]
    assert "the only live workers for the tag drain are draining" in client(system, "why", second).stdout
    assert leaving.popen.poll() is None
    with PyocoHttpClient(system.url) as again:
        assert again.drain_worker("leaving", reason="another")["drain_reason"] == "new kernel"
    waited = client(system, "workers", "drain", "leaving", "--wait", meanwhile=gate.touch)
    item = json.loads(waited.stdout)
    assert (waited.returncode, item["state"], item["stop_reason"]) == (0, "STOPPED_GRACEFUL", "drained: new kernel")
    assert item["draining"] is False
    assert leaving.popen.wait(30) == 0
    run = system.end(first)
    assert (run["status"], run["attempt"]) == ("COMPLETED", 1)
    assert system.client.get_run(second)["status"] == "PENDING"
    with pytest.raises(ApiError, match=r"is STOPPED_GRACEFUL: it stopped \d+ s ago \(drained: new kernel\)"):
        system.client.drain_worker("leaving")
    system.worker(worker_id="leaving", tags="drain", **FAST)
    assert system.end(second)["status"] == "COMPLETED"
    item = shown(system, "leaving")
    assert (item["draining"], item["drain_requested_at"], item["hidden"]) == (False, None, True)


def test_what_does_not_end_in_the_drain_time_goes_back_at_no_cost(system: System, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    worker = system.worker("--drain-timeout-sec", "0.5", worker_id="hasty", tags="hasty", **FAST)
    run_id = begin(system, gate, "hasty")
    waited = client(system, "workers", "drain", "hasty", "--wait")
    assert (waited.returncode, json.loads(waited.stdout)["stop_reason"]) == (0, "drained")
    assert worker.popen.wait(30) == 0
    run = system.client.get_run(run_id)
    assert (run["status"], run["attempt"]) == ("PENDING", 0)
    gate.touch()
    system.worker(worker_id="next", tags="hasty", **FAST)
    assert system.end(run_id)["attempt"] == 1


@pytest.mark.slow
def test_waiting_for_a_drain_ends_with_its_time_and_with_the_worker(system: System, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    worker = system.worker(worker_id="slow", tags="slow", **FAST)
    begin(system, gate, "slow")
    waited = client(system, "workers", "drain", "slow", "--wait", "--timeout-sec", "1")
    assert (waited.returncode, waited.stdout) == (124, "") and "it goes on draining" in waited.stderr
    waited = client(system, "workers", "drain", "slow", "--wait", meanwhile=worker.popen.kill)
    assert waited.returncode == 1 and "worker slow is DISCONNECTED" in waited.stderr
    gate.touch()


def test_figures_of_a_worker_are_shown(system: System, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    worker = system.worker("--concurrency", "3", worker_id="measured", tags="measured", **FAST)

    def figures() -> dict[str, Any]:
        item = shown(system, "measured")
        return item if item["cpu_percent"] is not None else {}

    begin(system, gate, "measured")
    busy = until(lambda: (item := figures()) and item["memory_bytes"] > 60_000_000 and item["slots_in_use"] and item)
    assert (busy["host"], busy["pid"]) == (socket.gethostname(), worker.popen.pid)
    assert (busy["slots"], busy["slots_in_use"], len(busy["current_run_ids"])) == (3, 1, 1)
    assert busy["host_cpu_count"] == os.cpu_count() and busy["version"] and busy["cpu_percent"] >= 0
    assert busy["gpus"] == [] or busy["gpus"][0]["name"]
    header, *rows = client(system, "workers", "--output", "table").stdout.splitlines()
    assert header.split()[-6:] == ["slots", "draining", "memory", "cpu", "gpus", "trouble"]
    (row,) = (row for row in rows if row.startswith("measured"))
    assert "1/3" in row and "MiB" in row and "%" in row
    assert 'pyoco_worker_slots_in_use{worker="measured"} 1.0' in system.client.get_metrics()
    gate.touch()


def test_a_name_belongs_to_one_live_process(system: System) -> None:
    holder = system.worker(worker_id="single", tags="single", **FAST)
    second = Process(
        ["pyoco-worker", "--nats-url", system.nats_url, "--worker-id", "single", "--tags", "x"], system.folder, **FAST
    )
    assert second.popen.wait(30) == 1
    said = f"is taken by process {holder.popen.pid} on host {socket.gethostname()}"
    until(lambda: any(said in line["message"] for line in second.lines))
    holder.popen.kill()
    holder.popen.wait(30)
    heir = system.worker(worker_id="single", tags="single", **FAST)  # at once: a process that is not there is dead
    assert until(lambda: shown(system, "single")["pid"] == heir.popen.pid)


def test_a_drained_worker_of_up_leaves_the_rest_alone(tmp_path: Path) -> None:
    words = "up --with-nats --nats-client-port -1 --nats-http-port -1 --port 0 --with-worker --worker-id w".split()
    server = Process(["pyoco-server", *words], tmp_path, **FAST)
    try:
        up = server.wait_for("pyoco-server is up")
        server.wait_for("worker ready")
        with PyocoHttpClient(up["url"]) as http:
            http.drain_worker("w")
            server.wait_for("a part has stopped in order; the rest goes on without it")
            item = until(lambda: http.get_workers(scope="all", state="STOPPED_GRACEFUL"))[0]
            assert (item["worker_id"], item["stop_reason"]) == ("w", "drained")
    finally:
        assert server.stop(signal.SIGTERM) == 0


@pytest.mark.parametrize("option", ["--preload=nowhere_at_all", "--flow-resolver=nowhere_at_all:f"])
def test_what_a_worker_cannot_load_is_told_before_anything_else(option: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [BIN / "pyoco-worker", "--nats-url", "nats://127.0.0.1:1", option],
        cwd=tmp_path, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 1
    assert "nowhere_at_all" in done.stderr and "error: " in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
