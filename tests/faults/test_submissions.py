"""10,000 submissions while gateways and NATS are killed: whatever was answered exists, once, and runs, once."""

import asyncio
import os
import threading
import time
from collections import Counter
from typing import Any

import httpx2
import pytest

from pyoco_server.client.async_http import AsyncPyocoHttpClient

from .cluster import Cluster, pause, until
from .conftest import Figure, Start

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

SUBMISSIONS = int(os.environ.get("FAULTS_SUBMISSIONS") or 10_000)
CLIENTS = 32
PATIENCE_SEC = 150
"""On a busy machine a gateway may be killed several times before it answers."""
REPEATED = 20
"""One in so many submissions is made a second time after its answer, and at once through both gateways."""
FLOW = """\
version: 1
flow:
  graph: t
tasks:
  t:
    callable: counting:t
"""
TASK = """\
import os
def t(key):
    handle = os.open("{path}", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(handle, (key + "\\n").encode())
    os.close(handle)
"""


class Clients:
    """Patient clients, each with one gateway; they journal what they were answered."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._numbers = iter(range(SUBMISSIONS))
        self.answers: dict[str, set[str]] = {}
        self.made = 0
        self.repeats: Counter[str] = Counter()

    async def run(self) -> None:
        """Make all submissions."""
        await asyncio.gather(*(self._client(number) for number in range(CLIENTS)))

    async def _client(self, number: int) -> None:
        urls = self._cluster.urls
        async with (
            AsyncPyocoHttpClient(urls[number % 2], retry_sec=PATIENCE_SEC, timeout=15, on_retry=self._note) as mine,
            AsyncPyocoHttpClient(
                urls[1 - number % 2], retry_sec=PATIENCE_SEC, timeout=15, on_retry=self._note
            ) as other,
        ):
            for item in self._numbers:
                key = f"submission-{item}"
                if item % REPEATED:
                    await self._submit(mine, key)
                else:
                    await asyncio.gather(self._submit(mine, key), self._submit(other, key))
                    await self._submit(mine, key)

    async def _submit(self, client: AsyncPyocoHttpClient, key: str) -> None:
        answer = await client.submit_run_yaml(
            FLOW, flow_name="counted", tag="cpu", params={"key": key}, idempotency_key=key
        )
        self.answers.setdefault(key, set()).add(answer["run_id"])
        self.made += answer["created"]

    def _note(self, error: Any) -> None:
        status = getattr(error, "status", None)
        self.repeats[str(status or type(error.__cause__).__name__)] += 1


def kill_in_turn(cluster: Cluster, over: threading.Event) -> Counter[str]:
    """Kill gateways and nats-server, and start each again a moment later, until it is over."""
    kills: Counter[str] = Counter()
    while not over.is_set():
        for name in ("gateway", "nats", "second"):
            over.wait(cluster.random.uniform(1.5, 4.0))
            if over.is_set():
                break
            cluster.members[name].kill()
            kills[name] += 1
            pause(cluster.random.uniform(0.1, 1.5))
            cluster.members[name].start()
    return kills


def test_every_answered_run_exists_exactly_once(start: Start, figure: Figure) -> None:
    cluster: Cluster = start()
    cluster.gateway("second")
    counted = cluster.folder / "counted"
    (cluster.folder / "counting.py").write_text(TASK.format(path=counted))
    workers = [cluster.worker("--concurrency", "2", name=f"w{number}") for number in range(2)]
    clients, over, kills = Clients(cluster), threading.Event(), []
    chaos = threading.Thread(target=lambda: kills.append(kill_in_turn(cluster, over)), name="chaos")
    began = time.monotonic()
    chaos.start()
    try:
        asyncio.run(clients.run())
    finally:
        over.set()
        chaos.join(30)
    submitted = time.monotonic() - began
    for url in cluster.urls:
        until(lambda url=url: cluster.is_ready(url), f"{url} is ready")  # type: ignore[misc]

    assert len(clients.answers) == SUBMISSIONS
    assert all(len(runs) == 1 for runs in clients.answers.values())
    run_of = {key: next(iter(runs)) for key, runs in clients.answers.items()}
    assert len(set(run_of.values())) == SUBMISSIONS
    ended = {run["run_id"]: run for run in cluster.ends(run_of.values(), 150)}
    done = time.monotonic() - began
    records = cluster.witness.records()
    assert set(records) == set(run_of.values()) == set(ended)  # no run that nobody was told of
    assert {run["status"] for run in records.values()} == {"COMPLETED"}
    assert {run["idempotency_key"]: run_id for run_id, run in records.items()} == run_of
    times = Counter(counted.read_text().splitlines())
    assert set(times) == set(run_of)
    attempts = Counter(run["attempt"] for run in records.values())
    assert sum(times.values()) <= sum(count * attempt for attempt, count in attempts.items())
    for url in cluster.urls:
        until(lambda url=url: indexed(url) == SUBMISSIONS, f"{url} lists them all")  # type: ignore[misc]
    until(lambda: waiting(cluster) == 0, "the queue is empty")
    assert all(worker.is_alive for worker in workers)
    assert httpx2.get(f"{cluster.url}/dlq", timeout=10).json() == []
    figure(
        f"{SUBMISSIONS} submissions of {CLIENTS} clients under {sum(kills[0].values())} kills ({dict(kills[0])}) in "
        f"{submitted:.0f} s, all run after {done:.0f} s: 0 lost, 0 doubled, {len(times)} executed "
        f"{sum(times.values())} times (attempts {dict(attempts)}); repeats {dict(clients.repeats)}; "
        f"{SUBMISSIONS - clients.made} answers got lost and were asked for again"
    )


def indexed(url: str) -> int:
    return int(httpx2.get(f"{url}/ready", timeout=10).json()["index"]["runs"])


def waiting(cluster: Cluster) -> int:
    streams = httpx2.get(f"{cluster.url}/ready", timeout=10).json()["streams"]
    return int(streams["PYOCO_WORK"]["messages"])
