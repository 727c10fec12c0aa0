"""Workers that are killed, stopped, and killed by what they run."""

import contextlib
import itertools
import os
import signal
import time
from collections import defaultdict
from typing import Any

import pytest

from tests.acceptance.conftest import DEADLINE

from .cluster import ACK_WAIT, GRACE, Cluster, descendants, pause, until, wait_dead
from .conftest import Figure
from .history import TERMINAL

pytestmark = [pytest.mark.faults, pytest.mark.timeout(180)]


def test_100_runs_while_workers_are_killed_at_random_moments(cluster: Cluster, figure: Figure) -> None:
    dice = cluster.random
    workers = [cluster.worker("--concurrency", "2", name=f"w{number}") for number in range(2)]
    runs = [cluster.submit("work", {"seconds": round(dice.uniform(0.1, 1.5), 3)}, max_attempts=20) for _ in range(100)]
    deaths: list[tuple[float, int]] = []
    while any(cluster.witness.newest.get(run, {}).get("status") != "COMPLETED" for run in runs) and len(deaths) < 12:
        pause(dice.uniform(0.1, 1.0))
        victim = dice.choice(workers)
        deaths.append((victim.kill(), victim.pid))
        victim.start().ready()
    ended = cluster.ends(runs, timeout=90)
    history = cluster.history()
    history.check()
    assert {run["status"] for run in ended} == {"COMPLETED"}
    waits = recoveries(cluster, deaths)
    assert len(deaths) >= 5 and waits, "no run was running when a worker died: nothing was tried"
    assert max(waits) <= ACK_WAIT + 2
    figure(
        f"100 runs, {len(deaths)} workers killed, {len(waits)} attempts lost with them: 100 COMPLETED, 0 lost, "
        f"0 overlaps; new start at most {max(waits):.1f} s after the kill (AckWait {ACK_WAIT:g} s + 2 s allowed)"
    )


def recoveries(cluster: Cluster, deaths: list[tuple[float, int]]) -> list[float]:
    """Give the seconds from each death of a worker to the next start of each run that it was running."""
    killed = {pid: at for at, pid in deaths}
    starts, ends = defaultdict(list), set()
    for line in cluster.journal.read():
        if line["what"] == "start":
            starts[line["run_id"]].append(line)
        elif line["what"] == "end":
            ends.add((line["run_id"], line["attempt"]))
    waits = []
    for run_id, lines in starts.items():
        for line, following in itertools.pairwise(lines):
            if line["worker"] in killed and (run_id, line["attempt"]) not in ends:
                waits.append(following["at"] - killed[line["worker"]])
    return waits


def test_a_stopped_worker_that_comes_back_writes_nothing(cluster: Cluster, figure: Figure) -> None:
    first = cluster.worker(name="first")
    runs = [cluster.submit("first_only", {"gate": "never"})]
    child = cluster.started(runs[0])["pid"]
    second = cluster.worker(name="second")
    first.signal(signal.SIGSTOP)
    stopped = time.monotonic()
    ended = cluster.ends(runs, ACK_WAIT + 10)
    took = time.monotonic() - stopped
    assert [(run["status"], run["attempt"], run["worker_id"]) for run in ended] == [("COMPLETED", 2, "second")]
    pause(max(0.0, 3 * ACK_WAIT - took))
    first.signal(signal.SIGCONT)
    died = wait_dead([child], 5)
    runs.append(cluster.submit("work", {"seconds": 0}))
    second.stop()  # so that it is the first one that shows whether it still works
    runs += [cluster.submit("work", {"seconds": 0}) for _ in range(3)]
    assert {run["status"] for run in cluster.ends(runs)} == {"COMPLETED"}
    history = cluster.history()
    history.check()
    stale = sum(history.records[run_id]["worker_id"] == "first" for run_id in runs[:1])
    figure(
        f"worker stopped for {3 * ACK_WAIT:g} s: the run went on elsewhere {took:.1f} s after the stop; {stale} stale "
        f"writes; its child was dead {died:.1f} s after it came back, and it took runs again"
    )


def test_a_stopped_child_can_be_cancelled_and_a_continued_one_finishes(cluster: Cluster, figure: Figure) -> None:
    cluster.worker()
    run = cluster.submit("gated", {"gate": "open"})
    child = cluster.started(run)["pid"]
    os.kill(child, signal.SIGSTOP)
    pause(2 * ACK_WAIT)  # nobody else may take it: its worker is alive
    os.kill(child, signal.SIGCONT)
    cluster.open_gate("open")
    assert (cluster.end(run)["status"], cluster.end(run)["attempt"]) == ("COMPLETED", 1)
    run = cluster.submit("gated", {"gate": "never"})
    child = cluster.started(run)["pid"]
    os.kill(child, signal.SIGSTOP)
    asked = time.monotonic()
    cluster.cancel(run)
    assert cluster.end(run)["status"] == "CANCELLED"
    took = time.monotonic() - asked
    assert took < GRACE + 2
    wait_dead([child], 1)
    cluster.history().check()
    figure(f"child stopped for {2 * ACK_WAIT:g} s and continued: COMPLETED; a stopped one CANCELLED in {took:.1f} s")


def test_a_killed_child_and_a_killed_guardian(cluster: Cluster, figure: Figure) -> None:
    worker = cluster.worker()
    run = cluster.submit("gated", {"gate": "never"})
    os.kill(cluster.started(run)["pid"], signal.SIGKILL)
    ended = cluster.end(run)
    assert (ended["status"], ended["end_reason"]) == ("FAILED", "child_killed_by_signal")
    assert "SIGKILL" in ended["error"]
    said = [ended["error"]]
    run = cluster.submit("first_only", {"gate": "never"})
    child = cluster.started(run)["pid"]
    others = [process.pid for process in descendants(worker.pid) if process.pid != child]
    for pid in others:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    ended = cluster.end(run)
    said.append(f"{ended['status']} {ended['end_reason']}: {ended['error']}")
    wait_dead([child], 5)
    assert worker.is_alive
    assert cluster.end(cluster.submit("work", {"seconds": 0}))["status"] == "COMPLETED"
    cluster.history().check()
    figure(f"killed child: {said[0]!r}; killed guardian: {said[1]!r}; the worker went on")


@pytest.mark.parametrize("slots", [1, 4], ids=["two-workers", "one-worker-with-four-slots"])
def test_a_task_that_kills_its_worker(cluster: Cluster, figure: Figure, slots: int) -> None:
    workers = [
        cluster.worker("--concurrency", str(slots), name=f"w{number}") for number in range(2 if slots == 1 else 1)
    ]
    seconds = 0.02 if slots == 1 else 0.2  # with more slots the neighbours die with their worker, time and again
    neighbours = [cluster.submit("work", {"seconds": seconds}) for _ in range(30)]
    killer = cluster.submit("kill_worker")
    neighbours += [cluster.submit("work", {"seconds": seconds}) for _ in range(70)]
    restarts = 0
    deadline = time.monotonic() + 60
    while cluster.witness.newest.get(killer, {}).get("status") not in TERMINAL and time.monotonic() < deadline:
        for worker in workers:
            if not worker.is_alive:  # what a service manager does
                worker.start().ready()
                restarts += 1
        pause(0.05)
    ended = cluster.end(killer)
    assert {run["status"] for run in cluster.ends(neighbours)} == {"COMPLETED"}
    history = cluster.history()
    history.check()
    starts = len(history.by_run("start")[killer])
    assert (ended["status"], ended["end_reason"], starts) == ("FAILED", "worker_lost", 3)
    letters = until(lambda: [letter for letter in cluster.letters() if letter["run_id"] == killer], "a dead letter")
    assert [letter["reason"] for letter in letters] == ["attempts_exhausted"]
    figure(f"a task that kills its worker: {starts} starts, 1 dead letter; 100 of 100 neighbours COMPLETED")


@pytest.mark.parametrize("how", ["signal", "request"])
def test_drain(cluster: Cluster, figure: Figure, how: str) -> None:
    worker = cluster.worker("--concurrency", "2", "--drain-timeout-sec", "2", name="leaving")
    short, long = cluster.submit("gated", {"gate": "short"}), cluster.submit("gated", {"gate": "long"})
    for run in (short, long):
        cluster.started(run)
    waiting = cluster.submit("work", {"seconds": 0})
    if how == "signal":
        worker.signal(signal.SIGTERM)
    else:
        assert cluster.http.post(f"{cluster.url}/workers/leaving/drain").status_code == 200
    worker.process.wait_for("stopping")
    began = time.monotonic()
    cluster.open_gate("short")
    assert cluster.end(short)["status"] == "COMPLETED"
    assert worker.process.popen.wait(15) == 0
    took = time.monotonic() - began
    assert [cluster.get(run)["status"] for run in (long, waiting)] == ["PENDING", "PENDING"]
    assert cluster.get(long)["attempt"] == 0
    # A second SIGTERM does not wait for the end of the drain time.
    hasty = cluster.worker("--concurrency", "2", "--drain-timeout-sec", "60", name="hasty")
    cluster.started(long, attempt=1)
    until(
        lambda: sum(line["what"] == "start" and line["run_id"] == long for line in cluster.journal.read()) == 2, "again"
    )
    hasty.signal(signal.SIGTERM)
    hasty.process.wait_for("stopping")
    asked = time.monotonic()
    hasty.signal(signal.SIGTERM)
    assert hasty.process.popen.wait(15) == 0
    at_once = time.monotonic() - asked
    assert at_once < 5
    cluster.open_gate("long")
    cluster.worker(name="staying")
    ended = cluster.ends([long, waiting])
    assert [(run["status"], run["attempt"]) for run in ended] == [("COMPLETED", 1), ("COMPLETED", 1)]
    cluster.handed_back[long] = 2
    cluster.history().check()
    figure(
        f"drain of 2 s by {how}: left after {took:.1f} s, one run finished, one handed back at no cost; "
        f"second SIGTERM: left after {at_once:.1f} s"
    )


@pytest.mark.parametrize("who", ["nats", "worker"])
def test_a_wish_to_drain_outlives_what_dies_with_it(cluster: Cluster, figure: Figure, who: str) -> None:
    """NATS is killed with the word on its way; the worker is killed, and the next of its name is not the one meant."""
    worker = cluster.worker(name="leaving")
    run = cluster.submit("gated", {"gate": "g"}, max_attempts=5)
    cluster.started(run)
    if who == "nats":
        worker.signal(signal.SIGSTOP)  # so that the word cannot come before NATS is dead
    assert cluster.http.post(f"{cluster.url}/workers/leaving/drain", json={"reason": "r"}).status_code == 200
    if who == "nats":
        cluster.nats.kill()
        worker.signal(signal.SIGCONT)
        pause(2.0)
        cluster.nats.start().ready()
        worker.process.wait_for("stopping")
        cluster.open_gate("g")
        assert worker.process.popen.wait(DEADLINE) == 0
        gone = until(lambda: _stopped(cluster), "the worker's goodbye")
        assert gone["stop_reason"] == "drained: r"
    else:
        worker.kill()
        worker.start().ready()
        cluster.open_gate("g")
    assert cluster.end(run)["status"] == "COMPLETED"
    assert worker.is_alive is (who == "worker")
    cluster.history().check()
    figure(
        f"asked to drain, then the {who} killed: 1 of 1 run COMPLETED, "
        + ("drained" if who == "nats" else "not drained")
    )


def _stopped(cluster: Cluster) -> dict[str, Any] | None:
    (item,) = cluster.http.get(f"{cluster.url}/workers?scope=all&worker_id=leaving").json()
    return dict(item) if item["state"] == "STOPPED_GRACEFUL" else None
