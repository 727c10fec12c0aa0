"""What a history of many finished runs costs: lists by every filter, /metrics, starts with and without the index file.

Usage: uv run just bench-history [--runs 100000] [--tenants]

Lists are asked for by every combination of filters, the first page and one deep in the list, 200 runs each. With
``--tenants`` API keys are asked for, and every list is one tenant's. The exit code is 1 when a figure is beyond its
bound.
"""

import argparse
import asyncio
import itertools
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

import httpx2
from benchmarks.processes import BIN, Server, size_mib

from pyoco_server.embedded.nats_server import NatsServer
from pyoco_server.model.run import EndReason, RunRecord, RunStatus
from pyoco_server.settings.environment import Settings
from pyoco_server.store import topology
from pyoco_server.store.nats.connection import Connection
from pyoco_server.store.runs import RunStore

_AT_ONCE = 64
_DICE = random.Random(1)
_FLOWS = [f"flow-{number:02}" for number in range(50)]
_TAGS = ["cpu", "gpu", "mem", "default", "rare"]
_FILES = ["".join(_DICE.choices("0123456789abcdef", k=64)) for _ in range(40)]
_WORKERS = ["w1", "w2", "w3"]
_ORIGINAL = "an-original"
_ENDS = {"COMPLETED": EndReason.COMPLETED, "FAILED": EndReason.TASK_FAILED, "CANCELLED": EndReason.CANCELLED}
# Of each filter a common and a rare value, and one that nothing has.
FILTERS: dict[str, list[str]] = {
    "status": ["COMPLETED", "FAILED", "RUNNING", "FAILED,CANCELLED"],
    "flow": [_FLOWS[0], _FLOWS[7], "none"],
    "tag": ["cpu", "rare", "none"],
    "workflow_yaml_sha256": [_FILES[0], _FILES[3]],
    "worker": ["w1", "w3"],
    "id": ["a", "abc"],
    "rerun_of": [_ORIGINAL, "none"],
    "updated_after": ["now-1h", "now-1min"],
}
BOUNDS = {
    "list_p95_ms": 100.0, "metrics_max_ms": 100.0, "ready_cold_sec": 15.0, "ready_warm_sec": 2.0,
    "gateway_rss_mib": 300.0,
}  # fmt: skip


def finished_run(number: int, count: int, now: float, tenant: bool) -> RunRecord:
    """Make the record of a run that ended, as a worker leaves it."""
    status = _DICE.choices(list(_ENDS), [90, 6, 4])[0]
    ended = now - (count - number) * 0.5
    return RunRecord(
        run_id=str(uuid.UUID(int=_DICE.getrandbits(128), version=4)),
        status=RunStatus(status), end_reason=_ENDS[status],
        flow_name=_FLOWS[0] if _DICE.random() < 0.5 else _DICE.choice(_FLOWS),
        tag=_DICE.choices(_TAGS, [50, 30, 10, 9.9, 0.1])[0], tags=["t"], params={"x": number},
        tasks={"add_one": "SUCCEEDED", "to_text": "SUCCEEDED"},
        task_records={
            name: {"state": "SUCCEEDED", "started_at": ended - 0.1, "ended_at": ended, "inputs": {"x": number}}
            for name in ("add_one", "to_text")
        },
        submitted_at=ended - 2, start_time=ended - 1, end_time=ended, heartbeat_at=ended, updated_at=ended, attempt=1,
        worker_id=_DICE.choices(_WORKERS, [60, 39.9, 0.1])[0], queue_wait_ms=1000, run_ms=1000,
        workflow_yaml_sha256=_FILES[0] if _DICE.random() < 0.6 else _DICE.choice(_FILES),
        tenant_id=_DICE.choices(["a", "b"], [80, 20])[0] if tenant else None,
        rerun_of=_ORIGINAL if _DICE.random() < 0.01 else None,
        error="a task failed: ValueError: no" if status == "FAILED" else None,
    )  # fmt: skip


async def fill(nats_url: str, count: int, *, tenant: bool) -> None:
    """Store so many finished runs."""
    settings = Settings(_env_file=None, nats_url=nats_url)
    connection = await Connection(settings, "history").start()
    await connection.wait_up(10)
    await topology.ensure(connection)
    runs, now, numbers = RunStore(connection), time.time(), iter(range(count))

    async def store() -> None:
        for number in numbers:
            await runs.create(finished_run(number, count, now, tenant))

    await asyncio.gather(*(store() for _ in range(_AT_ONCE)))
    await connection.close()


def start(folder: Path, nats_url: str, **environment: str) -> tuple[Server, dict[str, float]]:
    """Start a gateway; also tell when it was ready, and what of the processor's time it took until then."""
    server = Server(folder, "--nats-url", nats_url, **environment)
    with httpx2.Client(base_url=server.url) as http:
        while http.get("/ready").status_code != 200:
            time.sleep(0.02)
    return server, {"sec": round(time.perf_counter() - server.began, 2), "cpu_sec": server.cpu_sec()}


def ask_lists(http: httpx2.Client, *, at_most: int) -> dict[str, list[float]]:
    """Ask for the first page and one deep in the list by every combination of filters; gives milliseconds."""
    began_at, cursor = time.time(), ""
    for _ in range(60):
        cursor = http.get("/runs", params={"cursor": cursor, "limit": 200}).json()["next_cursor"] or cursor
    ago = {"now-1h": str(began_at - 3600), "now-1min": str(began_at - 60)}
    took: dict[str, list[float]] = {}
    for number in range(len(FILTERS) + 1):
        for names in itertools.combinations(FILTERS, number):
            choices = list(itertools.product(*(FILTERS[name] for name in names)))
            for values in _DICE.sample(choices, min(len(choices), at_most)):
                query = {name: ago.get(value, value) for name, value in zip(names, values, strict=True)}
                for place in ("", cursor):
                    spent = ask(http, "/runs", {**query, "limit": "200", "cursor": place})
                    took.setdefault(names[0] if number == 1 else f"{number} filters", []).append(spent)
    return took


def ask_others(http: httpx2.Client) -> dict[str, list[float]]:
    """Ask what else looks at the whole history; gives milliseconds."""
    paths = {"metrics": "/metrics", "counts": "/runs/counts", "counts of 2": "/runs/counts?flow=flow-00&tag=cpu"}
    return {name: [ask(http, path, {}) for _ in range(40)] for name, path in paths.items()}


def ask(http: httpx2.Client, path: str, query: dict[str, str]) -> float:
    """Ask once; gives milliseconds."""
    began = time.perf_counter()
    answer = http.get(path, params=query) if query else http.get(path)
    took = (time.perf_counter() - began) * 1000
    if answer.status_code != 200:
        raise SystemExit(f"{path} {query} answered {answer.status_code}: {answer.text}")
    return took


def spread(took: list[float]) -> dict[str, float]:
    """Give how often something was asked, and the percentiles in milliseconds."""
    found = {"p50_ms": statistics.median(took), "p95_ms": p95(took), "max_ms": max(took)}
    return {"asked": len(took), **{name: round(value, 1) for name, value in found.items()}}


def p95(values: list[float]) -> float:
    """Give the 95th percentile, never beyond the largest value."""
    return statistics.quantiles(values, n=100, method="inclusive")[94]


def make_key(folder: Path, nats_url: str) -> str:
    """Make an API key of tenant a that may see everything of it, metrics too."""
    command = [
        BIN / "pyoco-server-admin", "--nats-url", nats_url, "api-key", "create", "--tenant", "a", "--role", "admin",
    ]  # fmt: skip
    return str(json.loads(subprocess.check_output(command, cwd=folder, text=True))["api_key"])


async def measure(count: int, *, tenants: bool, at_most: int) -> dict[str, Any]:
    """Fill a store, and measure a gateway on it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with NatsServer(folder / "nats", client_port=-1, http_port=-1, sync="interval") as nats:
            began = time.perf_counter()
            await fill(nats.url, count, tenant=tenants)
            figures: dict[str, Any] = {"runs": count, "fill_sec": round(time.perf_counter() - began, 1)}
            figures["store_mib"] = size_mib(folder / "nats" / "data")
            environment = {"PYOCO_HTTP_AUTH_MODE": "api_key"} if tenants else {}
            headers = {"X-API-Key": make_key(folder, nats.url)} if tenants else {}
            server, ready = await asyncio.to_thread(start, folder, nats.url, **environment)
            figures |= {f"ready_cold_{name}": value for name, value in ready.items()}
            try:
                figures["gateway_rss_at_start_mib"] = server.memory()["gateway"]
                with httpx2.Client(base_url=server.url, timeout=60, headers=headers) as http:
                    lists = await asyncio.to_thread(ask_lists, http, at_most=at_most)
                    others = await asyncio.to_thread(ask_others, http)
                figures["gateway_rss_mib"] = server.memory()["gateway"]
            finally:
                await asyncio.to_thread(server.stop)
            figures["lists"] = {name: spread(took) for name, took in lists.items()}
            figures |= {name: spread(took) for name, took in others.items()}
            figures["list_p95_ms"] = max(found["p95_ms"] for found in figures["lists"].values())
            figures["metrics_max_ms"] = figures["metrics"]["max_ms"]
            figures["index_mib"] = size_mib(folder / ".pyoco" / "index")
            server, ready = await asyncio.to_thread(start, folder, nats.url, **environment)
            figures |= {f"ready_warm_{name}": value for name, value in ready.items()}
            await asyncio.to_thread(server.stop)
    figures["within"] = {name: figures[name] <= bound for name, bound in BOUNDS.items()}
    return figures


def main() -> None:
    """Measure, print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--tenants", action="store_true")
    parser.add_argument("--at-most", type=int, default=40, help="Values of one combination of filters that are tried.")
    wanted = parser.parse_args()
    figures = asyncio.run(measure(wanted.runs, tenants=wanted.tenants, at_most=wanted.at_most))
    print(json.dumps(figures, indent=2))
    sys.exit(0 if all(figures["within"].values()) else 1)


if __name__ == "__main__":
    main()
