"""Whether store, index and memory level while many more runs go by than are kept. Real gateway, real NATS.

Usage: uv run just bench-soak [--runs 200000] [--keep 20000] [--mode store|workers] [--folder DIR]

Runs are submitted over HTTP. With ``--mode workers`` real workers run them. With ``--mode store`` they are ended by the
same writes as a worker's (claim, log, terminal record, acknowledgement), without a child process, which is faster.
One run in fifty has a flow.yaml of its own, so that flows come and go too. With ``--folder`` what is there is gone on
with: a soak can be made in pieces.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx2
from benchmarks.processes import BIN, Server, size_mib

from pyoco_server.embedded.demo import FLOW
from pyoco_server.model.job import Job
from pyoco_server.model.run import EndReason, RunStatus, claim, settle
from pyoco_server.model.runlog import LogChunk
from pyoco_server.settings import Settings
from pyoco_server.store.connection import Connection
from pyoco_server.store.logs import LogStore
from pyoco_server.store.queue import JobQueue
from pyoco_server.store.runs import RunStore

_CLIENTS = 16
_ENDERS = 16
_MOST_WAITING = 400
_OWN_FLOW_EVERY = 50
_PARTS = ("gateway_mib", "nats_mib", "store_mib", "index_mib", "runs_bytes", "flows", "log_messages")


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
        if number % _OWN_FLOW_EVERY:
            answer = await http.post("/runs/yaml", data={"flow_name": "soak"}, files={"workflow": ("f", FLOW.encode())})
        else:
            text = f"# {os.getpid()} {time.time()} {number}\n{FLOW}".encode()
            answer = await http.post("/runs/yaml", data={"flow_name": "own"}, files={"workflow": ("f", text)})
        if answer.status_code != 200:
            pace.refused += 1
            pace.submitted -= 1
            await asyncio.sleep(0.5)


async def end_runs(nats_url: str, pace: Pace) -> None:
    """End runs as a worker does, by the same writes and in the same order."""
    settings = Settings(_env_file=None, nats_url=nats_url)
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
        ends = [
            float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith("pyoco_runs_ended_total")
        ]
        pace.ended = int(sum(ends))
        await asyncio.sleep(0.2)


def start_worker(folder: Path, nats_url: str, number: int) -> "subprocess.Popen[bytes]":
    """Start a real worker with one slot."""
    command = [BIN / "pyoco-worker", "--nats-url", nats_url, "--worker-id", f"soak-{number}"]
    with (folder / f"worker-{number}.log").open("wb") as log:
        return subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)


async def look(http: httpx2.AsyncClient, server: Server, folder: Path, pace: Pace, began: float) -> dict[str, Any]:
    """Measure everything once."""
    ready = (await http.get("/ready")).json()
    memory = server.memory()
    streams = ready["streams"]
    return {
        "sec": round(time.monotonic() - began),
        "ended": pace.ended,
        "kept": ready["index"]["runs"],
        "gateway_mib": memory["gateway"],
        "nats_mib": memory["nats"],
        "store_mib": size_mib(folder / ".pyoco" / "nats" / "data"),
        "index_mib": size_mib(folder / ".pyoco" / "index"),
        "runs_bytes": streams["KV_pyoco_runs"]["bytes"],
        "run_messages": streams["KV_pyoco_runs"]["messages"],
        "flows": streams["KV_pyoco_flows"]["messages"],
        "log_messages": streams["PYOCO_LOGS"]["messages"],
    }


def summary(curve: list[dict[str, Any]]) -> dict[str, Any]:
    """Compare the third quarter of the runs with the last."""
    last = curve[-1]["ended"]
    third = [one for one in curve if last * 0.5 <= one["ended"] < last * 0.75]
    fourth = [one for one in curve if one["ended"] >= last * 0.75]
    found = {}
    for part in _PARTS:
        before, after = (statistics.mean(one[part] for one in some) for some in (third, fourth))
        growth = round((after / before - 1) * 100, 1) if before else None
        found[part] = {"third_quarter": round(before, 1), "last_quarter": round(after, 1), "growth_percent": growth}
    return found


async def soak(wanted: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Run it, and print the curve as it grows."""
    environment = {
        "PYOCO_RUN_RETENTION_MAX_RUNS": str(wanted.keep), "PYOCO_FLOW_RETENTION_SEC": "60",
        "PYOCO_LOGS_MAX_BYTES": str(256 << 20),
    }  # fmt: skip
    ports = ["--nats-client-port", "-1", "--nats-http-port", "-1"]
    workers: list[subprocess.Popen[bytes]] = []
    with Server(folder, "--with-nats", *ports, **environment) as server:
        pace, began, curve = Pace(wanted.runs), time.monotonic(), []
        async with httpx2.AsyncClient(base_url=server.url, timeout=60) as http:
            if wanted.mode == "workers":
                workers = [start_worker(folder, server.nats_url, number) for number in range(wanted.workers)]
                ender = asyncio.create_task(count_ends(http, pace))
            else:
                ender = asyncio.create_task(end_runs(server.nats_url, pace))
            tasks = [ender, *(asyncio.create_task(submit(http, pace)) for _ in range(_CLIENTS))]
            print(
                "sec\tended\tkept\tgateway_mib\tnats_mib\tstore_mib\tindex_mib\truns_bytes\trun_messages\tflows\tlogs"
            )
            try:
                while not pace.is_over:
                    if broken := next((task for task in tasks if task.done() and task.exception()), None):
                        broken.result()
                    await asyncio.sleep(wanted.every)
                    curve.append(await look(http, server, folder, pace, began))
                    print("\t".join(str(value) for value in curve[-1].values()), flush=True)
            finally:
                for worker in workers:
                    worker.terminate()
                for worker in workers:
                    worker.wait(60)
                for task in tasks:
                    task.cancel()
        return {
            "mode": wanted.mode, "runs": wanted.runs, "keep": wanted.keep, "refused": pace.refused,
            "took_sec": curve[-1]["sec"], "runs_a_second": round(pace.ended / curve[-1]["sec"], 1),
            "second_half": summary(curve), "warnings": len(server.warnings),
        }  # fmt: skip


def main() -> None:
    """Soak, print the curve and then one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200_000)
    parser.add_argument("--keep", type=int, default=20_000)
    parser.add_argument("--mode", choices=["store", "workers"], default="store")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--every", type=float, default=10.0, help="Seconds between two points of the curve.")
    parser.add_argument("--folder", type=Path, help="Where to keep it; a temporary folder when not given.")
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = wanted.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        print(json.dumps(asyncio.run(soak(wanted, folder)), indent=2))
    sys.stdout.flush()


if __name__ == "__main__":
    main()
