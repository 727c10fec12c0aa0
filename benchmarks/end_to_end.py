"""How fast runs go through the whole system: gateway, NATS, one worker with one slot, all as real processes.

Usage: uv run just bench [--runs 2000] [--clients 32] [--idle 200]
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil

from pyoco_server.client.http import TERMINAL, PyocoHttpClient
from pyoco_server.embedded.demo import FLOW

BIN = Path(sys.executable).parent


def main() -> None:
    """Start the system, measure, print one JSON object."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--idle", type=int, default=200)
    wanted = parser.parse_args()
    arguments = "up --port 0 --with-nats --nats-client-port -1 --nats-http-port -1 --with-worker --worker-tags bench"
    with tempfile.TemporaryDirectory() as folder:
        server = subprocess.Popen(
            [BIN / "pyoco-server", *arguments.split(), "--log-level", "INFO"],
            cwd=folder, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            url = wait_for(server, "pyoco-server is up")["url"]
            wait_for(server, "worker ready")
            # Both print a line for each run from here on; nobody may wait for us to read it.
            drain = ThreadPoolExecutor(1)
            drain.submit(lambda: [None for _ in server.stdout or ()])
            figures = {"memory_at_rest_mib": memory(server.pid)}
            figures |= measure_idle(url, wanted.idle)
            figures |= measure_load(url, wanted.runs, wanted.clients)
            figures["memory_after_mib"] = memory(server.pid)
            print(json.dumps(figures, indent=2))
        finally:
            server.terminate()
            server.wait(60)


def wait_for(server: subprocess.Popen, message: str) -> dict:
    """Read log lines until one has this message."""
    for text in server.stdout:
        line = json.loads(text)
        if line["message"] == message:
            return line
    raise SystemExit(f"the server ended before it said {message!r}")


def measure_idle(url: str, count: int) -> dict[str, float]:
    """Time from the submission to the terminal snapshot, one run after the other."""
    took = []
    with PyocoHttpClient(url) as client:
        for _ in range(count):
            started = time.perf_counter()
            run_id = client.submit_run_yaml(FLOW, flow_name="bench", tag="bench")["run_id"]
            for event in client.watch_run(run_id):
                if event["data"].get("snapshot", {}).get("status") in TERMINAL:
                    break
            took.append((time.perf_counter() - started) * 1000)
    cuts = statistics.quantiles(took, n=100)
    return {"idle_submit_to_terminal_p50_ms": round(cuts[49], 2), "idle_submit_to_terminal_p99_ms": round(cuts[98], 2)}


def measure_load(url: str, count: int, clients: int) -> dict[str, float]:
    """Submit from many clients at once, and wait until all have ended."""

    def submit(number: int) -> None:
        with PyocoHttpClient(url, timeout=60) as client:
            for _ in range(number, count, clients):
                client.submit_run_yaml(FLOW, flow_name="load", tag="bench")

    started = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(submit, range(clients)))
    submitted = time.perf_counter()
    with PyocoHttpClient(url) as client:
        # One worker with one slot takes runs in their order: when nothing waits or runs, all have ended.
        while any(client.list_runs(flow="load", status=status, limit=1) for status in ("PENDING", "RUNNING")):
            time.sleep(0.02)
    ended = time.perf_counter()
    return {
        "submissions_per_second": round(count / (submitted - started)),
        "runs_per_second_end_to_end": round(count / (ended - started)),
    }


def memory(pid: int) -> dict[str, float]:
    """Memory that each process of the system holds for itself, in MiB."""
    root = psutil.Process(pid)
    sizes: dict[str, float] = {}
    for process in [root, *root.children(recursive=True)]:
        line = " ".join(process.cmdline())
        name = next((name for word, name in _NAMES if word in line), "other")
        sizes[name] = round(sizes.get(name, 0) + process.memory_full_info().uss / 2**20, 1)
    return sizes


_NAMES = [
    ("worker.guardian", "child and guardian"),
    ("cli.worker", "worker"),
    ("nats-server ", "nats-server"),
    ("pyoco-server", "gateway"),
]


if __name__ == "__main__":
    main()
