"""NATS dies, comes back, forgets a consumer, is far away, and has no room left."""

import os
import time

import pytest

from .cluster import ACK_WAIT, Cluster, pause, until
from .conftest import Figure
from .load import Load

pytestmark = [pytest.mark.faults, pytest.mark.timeout(240)]

AWAY = float(os.environ.get("FAULTS_NATS_AWAY_SEC") or 12)
"""Seconds without NATS: four times AckWait. 60 is what is promised; it takes a minute more."""


def test_nats_dies_under_running_runs_and_steady_submissions(cluster: Cluster, figure: Figure) -> None:
    workers = [cluster.worker("--concurrency", "10", name=f"w{number}") for number in range(2)]
    runs = [cluster.submit("gated", {"gate": f"open{number % 2}"}) for number in range(20)]
    for run in runs:
        cluster.started(run, timeout=60)
    with Load(cluster, every=0.2, seconds=0.05).going() as load:
        until(lambda: len(load.runs) >= 3, "submissions are answered")
        cluster.nats.kill()
        pause(AWAY / 2)
        cluster.open_gate("open0")  # they end while nobody can be told
        pause(AWAY / 2)
        before = len(load.runs)
        cluster.nats.start().ready()
        back = time.monotonic()
        until(lambda: len(load.runs) > before, "submissions are answered again", every=0.01)
        answered = time.monotonic() - back
        cluster.end(load.runs[before])
        pulled = time.monotonic() - back
        pause(2 * ACK_WAIT)  # nobody may take over what is still running
        cluster.open_gate("open1")
    ended = cluster.ends([*runs, *load.runs], 60)
    cluster.history().check()
    assert {run["status"] for run in ended} == {"COMPLETED"}
    assert {run["attempt"] for run in ended} == {1}
    assert load.answers[503] > AWAY and set(load.answers) == {200, 503}
    assert all(worker.is_alive for worker in workers)
    assert pulled < 10
    figure(
        f"NATS dead for {AWAY:g} s under 20 running runs and {len(load.runs)} submissions: 0 lost, 0 failed, 0 started "
        f"twice; {load.answers[503]} times 503 (the slowest took {load.slowest_refusal:.1f} s); "
        f"submissions answered {answered:.1f} s and a run done {pulled:.1f} s after NATS's return"
    )


def test_a_consumer_is_deleted_under_load(cluster: Cluster, figure: Figure) -> None:
    workers = [cluster.worker("--concurrency", "2", name=f"w{number}") for number in range(2)]
    deleted, slowest = 0, 0.0
    with Load(cluster, every=0.1, seconds=0.5).going() as load:
        for _ in range(4):
            pause(cluster.random.uniform(0.5, 2.0))
            cluster.witness.delete_consumer("cpu")
            deleted += 1
            began, seen = time.monotonic(), len(load.runs)
            until(lambda seen=seen: len(load.runs) > seen, "another submission")  # type: ignore[misc]
            cluster.end(load.runs[seen])
            slowest = max(slowest, time.monotonic() - began)
    ended = cluster.ends(load.runs, 60)
    cluster.history().check()
    assert {run["status"] for run in ended} == {"COMPLETED"}
    assert all(worker.is_alive for worker in workers)
    figure(
        f"consumer deleted {deleted} times under {len(load.runs)} runs: all COMPLETED, 0 overlaps; "
        f"work went on within {slowest:.1f} s"
    )
