"""Many runs at both gateways by both clients, for workers of both systems, and what must be true of them afterwards.

By hand: ``python -m tests.moving.mixed_load SECONDS``.
"""

import contextlib
import json
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

from pyoco_server.client.http import TERMINAL
from tests.acceptance.conftest import Process, System, running_system

from .existing import Existing, installed
from .mixed import FLOW, OURS_ONLY, prepare, starts, their_worker, until

TAG = "load"
SMALL_WAITS = {
    "PYOCO_CONSUMER_ACK_WAIT_SEC": "6",
    "PYOCO_ACK_PROGRESS_INTERVAL_SEC": "1",
    "PYOCO_RECONCILE_INTERVAL_SEC": "1",
    "PYOCO_WORKER_HEARTBEAT_INTERVAL_SEC": "1",
}
_THEIR_CLIENT = """
import asyncio, json, sys
from pyoco_server import NatsBackendConfig, PyocoNatsClient
async def main():
    client = await PyocoNatsClient.connect(NatsBackendConfig(nats_url=sys.argv[1]))
    first, count = int(sys.argv[3]), int(sys.argv[4])
    made = {n: await client.submit_run('byname', {'n': n}, tag=sys.argv[2]) for n in range(first, first + count)}
    print(json.dumps(made))
    await client.close()
asyncio.run(main())
"""


@dataclass
class Load:
    """What was submitted.

    Args:
        system: Ours.
        their_url: Their gateway.
    """

    system: System
    their_url: str
    runs: dict[int, str] = field(default_factory=dict)
    """The run of each ``n``."""
    may_fail: set[int] = field(default_factory=set)
    cancelled: set[int] = field(default_factory=set)
    next: int = 10_000

    def submit(self, chance: random.Random) -> None:
        """Submit one run in one of the ways that there are."""
        n, self.next = self.next, self.next + 1
        params: dict[str, Any] = {"n": n, "sec": chance.choice([0.0, 0.0, 0.02, 0.3])}
        ways = [self._ours_yaml, self._ours_by_name, self._ours_only, self._theirs_yaml, self._theirs_by_name]
        self.runs[n] = chance.choice(ways)(params, chance)
        if chance.random() < 0.1:
            self.cancel(n)

    def cancel(self, n: int) -> None:
        """Cancel a run at our gateway."""
        if self.system.client.cancel_run(self.runs[n])["status"] in ("CANCELLED", "CANCELLING"):
            self.cancelled.add(n)

    def _ours_yaml(self, params: dict[str, Any], chance: random.Random) -> str:
        if chance.random() < 0.1:
            params["fails"] = True
            self.may_fail.add(params["n"])
        made = self.system.client.submit_run_yaml(FLOW, flow_name="main", tag=TAG, params=params)
        return str(made["run_id"])

    def _ours_only(self, params: dict[str, Any], chance: random.Random) -> str:
        text, limit = (OURS_ONLY, None) if chance.random() < 0.5 else (FLOW, 60)
        made = self.system.client.submit_run_yaml(text, flow_name="main", tag=TAG, params=params, timeout_sec=limit)
        return str(made["run_id"])

    def _ours_by_name(self, params: dict[str, Any], chance: random.Random) -> str:
        return str(self.system.client.submit_run("byname", params, tag=TAG)["run_id"])

    def _theirs_yaml(self, params: dict[str, Any], chance: random.Random) -> str:
        text = FLOW.replace("    n: 5\n    sec: 0.0\n", f"    n: {params['n']}\n    sec: {params['sec']}\n")
        answer = httpx2.post(
            f"{self.their_url}/runs/yaml", files={"workflow": text.encode()}, data={"flow_name": "main", "tag": TAG}
        )
        return str(answer.raise_for_status().json()["run_id"])

    def _theirs_by_name(self, params: dict[str, Any], chance: random.Random) -> str:
        answer = httpx2.post(f"{self.their_url}/runs", json={"flow_name": "byname", "params": params, "tag": TAG})
        return str(answer.raise_for_status().json()["run_id"])

    def add_of_their_client(self, existing: Existing, count: int) -> None:
        """Submit runs with their client that speaks to NATS."""
        first, self.next = self.next, self.next + count
        made = existing.python(
            _THEIR_CLIENT, self.system.nats_url, TAG, str(first), str(count), folder=self.system.folder
        )
        self.runs |= {int(n): run_id for n, run_id in made.items()}

    def ends(self, sec: float = 120.0) -> dict[int, dict[str, Any]]:
        """Wait for the end of all runs."""
        found: dict[int, dict[str, Any]] = {}

        def all_ended() -> bool:
            for n in self.runs.keys() - found.keys():
                run = self.system.client.get_run_with_records(self.runs[n])
                if run["status"] in TERMINAL:
                    found[n] = run
            return len(found) == len(self.runs)

        with contextlib.suppress(AssertionError):  # what has not ended is told of as lost
            until(all_ended, sec)
        return found

    def broken_rules(self, ended: dict[int, dict[str, Any]]) -> list[str]:
        """Name what must not be."""
        begun, said = starts(self.system.folder), []
        for n, run_id in self.runs.items():
            run = ended.get(n)
            if run is None:
                said.append(f"{n} {run_id}: it has not ended: {self.system.client.get_run(run_id)}")
                continue
            status, records = run["status"], run["task_records"]
            name = "by_name" if "by_name" in records else "double"
            if status == "COMPLETED" and records[name]["output"] != 2 * n:
                said.append(f"{n}: the result {records[name]['output']}")
            if status == "FAILED" and n not in self.may_fail:
                said.append(f"{n}: it failed: {run['error']}")
            if status == "CANCELLED" and n not in self.cancelled:
                said.append(f"{n}: nobody cancelled it")
            if n in self.cancelled and status != "CANCELLED" and str(run.get("worker_id")).startswith("ours"):
                said.append(f"{n}: it was cancelled, and is {status} on a worker of ours")
            if begun[n] > max(1, run.get("attempt") or 0):
                said.append(f"{n}: {begun[n]} starts, attempt {run.get('attempt')}, {status} on {run.get('worker_id')}")
            if status == "COMPLETED" and not begun[n]:
                said.append(f"{n}: completed without a start")
        return said


@contextlib.contextmanager
def both(existing: Existing, folder: Path) -> Iterator[Load]:
    """Run both systems on one NATS."""
    prepare(folder)
    with (
        running_system(folder, **SMALL_WAITS) as system,
        existing.server(system.nats_url, folder, **SMALL_WAITS) as url,
        their_worker(existing, system, TAG, "theirs-1", **SMALL_WAITS),
    ):
        until(lambda: _answers(url))
        yield Load(system, url)


def our_worker(load: Load, worker_id: str) -> Process:
    """Start a worker of ours."""
    more = {**SMALL_WAITS, "PYTHONPATH": str(load.system.folder), "PYOCO_CANCEL_GRACE_PERIOD_SEC": "2"}
    resolver = ("--flow-resolver", "mixed_tasks:resolve")
    return load.system.worker(*resolver, worker_id=worker_id, tags=TAG, **more)


def kill_in_turns(load: Load, existing: Existing, stop: threading.Event, every_sec: float) -> None:
    """Kill a worker of each system again and again, and start another one in its place."""
    number = 0
    while not stop.is_set():
        number += 1
        ours = our_worker(load, f"ours-{number}")
        with their_worker(existing, load.system, TAG, f"theirs-k{number}", **SMALL_WAITS) as theirs:
            stop.wait(every_sec)
            if not stop.is_set():
                theirs.kill()
                stop.wait(every_sec)
                ours.popen.kill()


def run_load(load: Load, existing: Existing, sec: float, pause: float = 0.1) -> dict[str, Any]:
    """Submit for so many seconds, wait for the ends, and return what happened."""
    chance, until_then = random.Random(7), time.monotonic() + sec
    while time.monotonic() < until_then:
        load.submit(chance)
        if load.next % 200 == 0:
            load.add_of_their_client(existing, 10)
        time.sleep(pause)
    ended = load.ends()
    return {
        "runs": len(load.runs),
        "ends": dict(Counter(run["status"] for run in ended.values())),
        "workers": dict(Counter(str(run.get("worker_id")) for run in ended.values())),
        "attempts": dict(Counter(str(run.get("attempt")) for run in ended.values())),
        "cancels_answered": len(load.cancelled),
        "cancelled_but_completed": {
            n: ended[n].get("worker_id") for n in load.cancelled & ended.keys() if ended[n]["status"] == "COMPLETED"
        },
        "broken": load.broken_rules(ended),
    }


def _answers(url: str) -> bool:
    try:
        return httpx2.get(f"{url}/health").status_code == 200
    except httpx2.TransportError:
        return False


def main() -> None:
    """Run it by hand."""
    existing = installed()
    stop = threading.Event()
    with tempfile.TemporaryDirectory() as folder, both(existing, Path(folder)) as load:
        our_worker(load, "ours-0")
        killer = threading.Thread(target=kill_in_turns, args=(load, existing, stop, 10.0))
        killer.start()
        print(json.dumps(run_load(load, existing, float(sys.argv[1])), indent=1), flush=True)
        stop.set()
        killer.join()


if __name__ == "__main__":
    main()
