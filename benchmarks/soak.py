"""Whether store and memory level while many more runs go by than are kept. Real gateway, real NATS, real workers.

Usage: uv run just bench-soak [--runs 200000] [--keep 20000] [--mode workers|store] [--folder DIR]

Runs are submitted over HTTP, and workers run them. With ``--mode store`` they are ended by the same writes as a
worker's (claim, log, terminal record, acknowledgement), without a child process, which is faster. One run in fifty has
a flow.yaml of its own, so that flows come and go too. With ``--folder`` what is there is gone on with.

The second half is judged: of each column the mean of the last quarter of the runs may lie 10 % above that of the third
quarter, or less than a few MiB or messages. What grows beyond that is named, and the exit code is 1.
"""

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx2
from benchmarks.processes import Server, Worker, size_mib

from pyoco_server.model.job import Job
from pyoco_server.model.run import EndReason, RunStatus, claim, settle
from pyoco_server.model.runlog import LogChunk
from pyoco_server.settings.environment import Settings
from pyoco_server.store.logs import LogStore
from pyoco_server.store.nats.connection import Connection
from pyoco_server.store.queue.job_queue import JobQueue
from pyoco_server.store.runs import RunStore

TASK = """
def say(x=0):
    print("run", x)
    return x
"""
FLOW = """
version: 1
flow:
  graph: |
    say
tasks:
  say:
    callable: soak_task:say
"""
_CLIENTS = 16
_ENDERS = 16
_MOST_WAITING = 400
_OWN_FLOW_EVERY = 50
_STREAMS = {
    "runs": "KV_pyoco_runs", "flows": "KV_pyoco_flows", "logs": "PYOCO_LOGS", "audit": "PYOCO_AUDIT",
    "jobs": "PYOCO_WORK",
}  # fmt: skip
_GROWTH = 0.1
_SMALL = {"mib": 4.0, "n": float(_MOST_WAITING)}
"""Growth below this is none: a block of a file more or less, the runs that wait."""


class Pace:
    """Counts what was submitted and what has ended, and keeps the two near to each other."""

    def __init__(self, runs: int) -> None:
        self.runs = runs
        self.submitted = 0
        self.ended = 0
        self.refused = 0

    @property
    def is_over(self) -> bool:
        """Tell whether every run has ended."""
        return self.ended >= self.runs


async def submit(http: httpx2.AsyncClient, pace: Pace) -> None:
    """Submit until there are enough, never far ahead of the ends."""
    while pace.submitted < pace.runs:
        if pace.submitted - pace.ended >= _MOST_WAITING:
            await asyncio.sleep(0.02)
            continue
        pace.submitted += 1
        number = pace.submitted
        own = f"# {os.getpid()} {time.time()} {number}\n" if number % _OWN_FLOW_EVERY == 0 else ""
        files = {"workflow": ("f", f"{own}{FLOW}".encode())}
        answer = await http.post("/runs/yaml", data={"flow_name": "soak"}, files=files)
        if answer.status_code != 200:
            pace.refused += 1
            pace.submitted -= 1
            await asyncio.sleep(0.5)


async def end_runs(settings: Settings, pace: Pace) -> None:
    """End runs as a worker does, by the same writes and in the same order."""
    connection = await Connection(settings, "soak").start()
    await connection.wait_up(10)
    runs, logs, queue = RunStore(connection), LogStore(connection), JobQueue(connection)
    await queue.ensure_consumer("default")
    pull = await connection.js.pull_subscribe_bind(queue.consumer_name("default"), settings.work_stream)

    async def end_one(message: Any) -> None:
        job = Job.from_json(message.data)
        stored = await runs.get(job.run_id)
        if stored is not None and not stored.record.status.is_terminal:
            seq = message.metadata.sequence.stream
            ours = await runs.update(
                claim(stored.record, worker_id="soak", instance_id="soak", job_seq=seq), stored.revision
            )
            await logs.publish(job.run_id, LogChunk(1, 0, []), "1")
            await runs.update(settle(ours.record, RunStatus.COMPLETED, EndReason.COMPLETED, None), ours.revision)
        await message.ack()
        pace.ended += 1

    while not pace.is_over:
        try:
            messages = await pull.fetch(_ENDERS, timeout=2)
        except asyncio.TimeoutError:
            continue
        await asyncio.gather(*map(end_one, messages))
    await connection.close()


async def count_ends(http: httpx2.AsyncClient, pace: Pace) -> None:
    """Learn from the gateway's own counter how many runs the workers have ended."""
    while not pace.is_over:
        text = (await http.get("/metrics")).text
        ends = [line for line in text.splitlines() if line.startswith("pyoco_runs_ended_total")]
        pace.ended = int(sum(float(line.rsplit(" ", 1)[1]) for line in ends))
        await asyncio.sleep(0.5)


async def look(
    http: httpx2.AsyncClient, server: Server, workers: list[Worker], folder: Path, pace: Pace, began: float
) -> dict[str, Any]:
    """Measure everything once."""
    ready = (await http.get("/ready")).json()
    memory = server.memory()
    found = {
        "sec": round(time.monotonic() - began),
        "ended": pace.ended,
        "kept_n": ready["index"]["runs"],
        "gateway_mib": memory["gateway"],
        "nats_mib": memory["nats"],
        "workers_mib": round(sum(worker.memory() for worker in workers), 1),
        "index_mib": size_mib(folder / ".pyoco" / "index"),
        "store_mib": size_mib(folder / ".pyoco" / "nats" / "data"),
    }
    for name, stream in _STREAMS.items():
        found[f"{name}_n"] = ready["streams"][stream]["messages"]
        found[f"{name}_mib"] = round(ready["streams"][stream]["bytes"] / 2**20, 1)
        found[f"{name}_disk_mib"] = size_mib(folder / ".pyoco" / "nats" / "data", f"jetstream/*/streams/{stream}/**/*")
    return found


def judge(curve: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Compare the third quarter of the runs with the last, column by column."""
    last = curve[-1]["ended"]
    third = [one for one in curve if last * 0.5 <= one["ended"] < last * 0.75]
    fourth = [one for one in curve if one["ended"] >= last * 0.75]
    if not third or not fourth:
        raise SystemExit("too few points to judge: look more often (--every), or soak for longer (--runs)")
    found = {}
    for column in curve[0]:
        if column in ("sec", "ended"):
            continue
        before, after = (statistics.mean(one[column] for one in some) for some in (third, fourth))
        small = _SMALL[column.rsplit("_", 1)[1]]
        level = after - before <= max(small, before * _GROWTH)
        found[column] = {
            "third_quarter": round(before, 1), "last_quarter": round(after, 1),
            "most": max(one[column] for one in curve), "judged": "level" if level else "grows",
        }  # fmt: skip
    return found


async def soak(wanted: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Run it, and print the curve as it grows."""
    environment = {
        "PYOCO_RUN_RETENTION_MAX_RUNS": str(wanted.keep), "PYOCO_FLOW_RETENTION_SEC": "60",
        "PYOCO_LOGS_MAX_BYTES": str(256 << 20), "PYOCO_NATS_SYNC": wanted.sync,
    }  # fmt: skip
    ports = ["--nats-client-port", "-1", "--nats-http-port", "-1"]
    workers: list[Worker] = []
    (folder / "soak_task.py").write_text(TASK)
    with Server(folder, "--with-nats", *ports, **environment) as server:
        pace, began, curve = Pace(wanted.runs), time.monotonic(), list[dict[str, Any]]()
        async with httpx2.AsyncClient(base_url=server.url, timeout=60) as http:
            if wanted.mode == "workers":
                names = [f"soak-{number}" for number in range(wanted.workers)]
                workers = [Worker(folder, server.nats_url, name) for name in names]
                ender = asyncio.create_task(count_ends(http, pace))
            else:
                ender = asyncio.create_task(end_runs(Settings(_env_file=None, nats_url=server.nats_url), pace))
            tasks = [ender, *(asyncio.create_task(submit(http, pace)) for _ in range(_CLIENTS))]
            try:
                while not pace.is_over:
                    if broken := next((task for task in tasks if task.done() and task.exception()), None):
                        broken.result()
                    await asyncio.wait([ender], timeout=wanted.every)
                    curve.append(await look(http, server, workers, folder, pace, began))
                    if len(curve) == 1:
                        print("\t".join(curve[0]))
                    print("\t".join(str(value) for value in curve[-1].values()), flush=True)
            finally:
                for task in tasks:
                    task.cancel()
                for worker in workers:
                    worker.stop()
        judged = judge(curve)
        return {
            "mode": wanted.mode, "sync": wanted.sync, "runs": wanted.runs, "keep": wanted.keep, "refused": pace.refused,
            "took_sec": curve[-1]["sec"], "runs_a_second": round(pace.ended / curve[-1]["sec"], 1),
            "second_half": judged, "warnings": server.warnings[-3:],
            "grows": [column for column, found in judged.items() if found["judged"] == "grows"],
        }  # fmt: skip


def main() -> None:
    """Soak, print the curve and then one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200_000)
    parser.add_argument("--keep", type=int, default=20_000)
    parser.add_argument("--mode", choices=["workers", "store"], default="workers")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--sync", choices=["always", "interval"], default="always", help="Of the embedded NATS.")
    parser.add_argument("--every", type=float, default=15.0, help="Seconds between two points of the curve.")
    parser.add_argument("--folder", type=Path, help="Where to keep it; a temporary folder when not given.")
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = wanted.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        found = asyncio.run(soak(wanted, folder))
    print(json.dumps(found, indent=2))
    sys.exit(1 if found["grows"] else 0)


if __name__ == "__main__":
    main()
