"""How fast runs go through the whole system: gateway, NATS, one worker with one slot, all as real processes.

Usage: uv run just bench [--runs 2000] [--clients 32] [--idle 200] [--nats-sync always|interval] [--rights]
    [--isolation process|shared]
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil

from pyoco_server.client.http import TERMINAL, PyocoHttpClient
from pyoco_server.embedded.demo import FLOW

BIN = Path(sys.executable).parent
ROOT = Path(__file__).parents[1]


def main() -> None:
    """Start the system, measure, print one JSON object."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--idle", type=int, default=200)
    parser.add_argument("--nats-sync", choices=["always", "interval"], default="always")
    parser.add_argument("--rights", action="store_true", help="with deploy/nats/nats-server.conf, a user for each")
    parser.add_argument("--isolation", choices=["process", "shared"], help="of runs; the worker's default")
    print(json.dumps(measure(parser.parse_args()), indent=2))


def measure(wanted: argparse.Namespace) -> dict:
    """Give all figures of one run of the system."""
    with tempfile.TemporaryDirectory() as folder, system(wanted, Path(folder)) as (url, pids):
        figures: dict = {"memory_at_rest_mib": memory(pids)}
        figures |= measure_idle(url, wanted.idle)
        before = cpu_seconds(pids)
        figures |= measure_load(url, wanted.runs, wanted.clients)
        figures["cpu_ms_per_run"] = round((cpu_seconds(pids) - before) / wanted.runs * 1000, 2)
        return figures | {"memory_after_mib": memory(pids)}


@contextlib.contextmanager
def system(wanted: argparse.Namespace, folder: Path) -> Iterator[tuple[str, list[int]]]:
    """Start gateway, NATS and one worker; give the gateway's address and the processes that we started."""
    started: list[subprocess.Popen] = []

    def start(*command: str | Path, **environment: str) -> subprocess.Popen:
        started.append(
            subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True, env=os.environ | environment)
        )
        return started[-1]

    isolation = {"PYOCO_ISOLATION": wanted.isolation} if wanted.isolation else {}
    try:
        if wanted.rights:
            nats_url = start_nats(start, folder, wanted.nats_sync)
            gateway = start(BIN / "pyoco-server", "up", "--port", "0", "--nats-url", nats_url, **user("gateway"))
            url = wait_for(gateway, "pyoco-server is up")["url"]
            tags = ("--nats-url", nats_url, "--tags", "bench")
            worker = start(BIN / "pyoco-worker", *tags, **user("worker"), **isolation)
        else:
            arguments = "up --port 0 --with-nats --nats-client-port -1 --nats-http-port -1 --with-worker"
            sync = ("--worker-tags", "bench", "--nats-sync", wanted.nats_sync)
            worker = gateway = start(BIN / "pyoco-server", *arguments.split(), *sync, **isolation)
            url = wait_for(gateway, "pyoco-server is up")["url"]
        wait_for(worker, "worker ready")
        # They print a line for each run from here on; nobody may wait for us to read it.
        drains = ThreadPoolExecutor(len(started))
        for process in started:
            drains.submit(lambda output=process.stdout: [None for _ in output or ()])
        yield url, [process.pid for process in started]
    finally:
        for process in reversed(started):
            process.terminate()
            process.wait(60)


def user(name: str) -> dict[str, str]:
    """Give a process its user in NATS."""
    return {"PYOCO_NATS_USER": name, "PYOCO_NATS_PASSWORD": f"{name}-pass"}


def start_nats(start: Callable[..., subprocess.Popen], folder: Path, sync: str) -> str:
    """Start nats-server with the rights that we tell users to give; its address is the answer."""
    text = (ROOT / "deploy/nats/nats-server.conf").read_text()
    config = folder / "nats-server.conf"
    config.write_text(text if sync == "always" else text.replace("sync_interval: always", ""))
    passwords = {f"{name}_PASSWORD": f"{name.lower()}-pass" for name in "GATEWAY WORKER ADMIN KEYS KEYS_ADMIN".split()}
    flags = ["--addr", "127.0.0.1", "--port", "-1", "--http_port", "-1", "--ports_file_dir", folder]
    flags += ["--log", folder / "nats-server.log"]
    nats = start(BIN / "nats-server", "--config", config, *flags, NATS_STORE_DIR=str(folder / "data"), **passwords)
    ports = folder / f"nats-server_{nats.pid}.ports"
    while not ports.is_file() or not ports.read_text():
        time.sleep(0.01)
    return json.loads(ports.read_text())["nats"][0]


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


def cpu_seconds(pids: list[int]) -> float:
    """CPU time of the whole system up to now, with that of processes that have ended."""
    roots = [psutil.Process(pid) for pid in pids]
    total = 0.0
    for process in [one for root in roots for one in (root, *root.children(recursive=True))]:
        with contextlib.suppress(psutil.Error):
            total += sum(process.cpu_times()[:4])
    return total


def memory(pids: list[int]) -> dict[str, float]:
    """Memory that each process of the system holds for itself, in MiB."""
    roots = [psutil.Process(pid) for pid in pids]
    sizes: dict[str, float] = {}
    for process in [one for root in roots for one in (root, *root.children(recursive=True))]:
        with contextlib.suppress(psutil.ZombieProcess, psutil.NoSuchProcess):  # of a run that has just ended
            line = " ".join(process.cmdline())
            name = next((name for word, name in _NAMES if word in line), "other")
            sizes[name] = round(sizes.get(name, 0) + process.memory_full_info().uss / 2**20, 1)
    return sizes


_NAMES = [
    ("child.template", "template and its runs"),
    ("cli.worker", "worker"),
    ("nats-server ", "nats-server"),
    ("pyoco-server", "gateway"),
]


if __name__ == "__main__":
    main()
