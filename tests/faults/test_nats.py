"""NATS dies, comes back, forgets a consumer, is far away, and has no room left."""

import os
import signal
import time
from collections import Counter

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


def test_nats_is_killed_restarted_and_stopped_again_and_again(cluster: Cluster, figure: Figure) -> None:
    dice = cluster.random
    workers = [cluster.worker("--concurrency", "2", name=f"w{number}") for number in range(2)]
    done: Counter[str] = Counter()
    with Load(cluster, every=0.1, seconds=0.8).going() as load:
        for fault in dice.sample(["killed", "restarted", "stopped"] * 2, 6):
            pause(dice.uniform(0.3, 1.5))
            done[fault] += 1
            if fault == "stopped":  # its host stands still: connections stay, answers do not come
                cluster.nats.signal(signal.SIGSTOP)
                pause(dice.uniform(1.0, 2 * ACK_WAIT))
                cluster.nats.signal(signal.SIGCONT)
            else:
                cluster.nats.kill() if fault == "killed" else cluster.nats.stop()
                pause(dice.uniform(0.0, 2.0))
                cluster.nats.start().ready()
    ended = cluster.ends(load.runs, 60)
    cluster.history().check()
    assert {run["status"] for run in ended} == {"COMPLETED"}
    assert {run["attempt"] for run in ended} == {1}
    assert all(worker.is_alive for worker in workers)
    words = ", ".join(f"{count} times {fault}" for fault, count in sorted(done.items()))
    figure(f"nats-server {words} under {len(load.runs)} runs: all COMPLETED in their first attempt, 0 overlaps")


def test_nats_stands_still_for_longer_than_ack_wait(cluster: Cluster, figure: Figure) -> None:
    cluster.worker("--concurrency", "4", name="owner")
    runs = [cluster.submit("gated", {"gate": "open"}) for _ in range(4)]
    for run in runs:
        cluster.started(run)
    cluster.worker("--concurrency", "4", name="idle")
    pause(2)  # the newcomer's own start is past
    for _ in range(2):
        cluster.nats.signal(signal.SIGSTOP)
        pause(ACK_WAIT + 1.5)  # shorter than it takes anybody to notice that the connection is dead
        cluster.nats.signal(signal.SIGCONT)
        pause(ACK_WAIT)
    cluster.open_gate("open")
    ended = cluster.ends(runs)
    cluster.history().check()
    assert {(run["status"], run["attempt"], run["worker_id"]) for run in ended} == {("COMPLETED", 1, "owner")}
    figure(f"nats-server stopped twice for {ACK_WAIT + 1.5:g} s: none of 4 running runs was taken over")
