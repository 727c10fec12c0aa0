"""Whatever a task does, a cancel ends it: within the grace period and 2 s, with every process that it made."""

import time
from typing import Any

import pytest

from .cluster import ACK_WAIT, GRACE, Cluster, alive, until, wait_dead
from .conftest import Figure

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120)]


@pytest.mark.parametrize(
    ("case", "task", "params", "processes"),
    [
        ("busy loop", "busy", {}, 0),
        ("blocking C call", "blocking", {}, 0),
        ("SIGTERM ignored", "stubborn", {}, 0),
        ("grandchildren", "family", {"place": "pids1", "how": "same group"}, 3),
        ("grandchildren in a session of their own", "family", {"place": "pids2", "how": "setsid"}, 3),
        ("a daemon", "daemon", {"place": "pids3"}, 1),
    ],
    ids=["busy", "blocking", "stubborn", "family", "family-in-its-own-session", "daemon"],
)
def test_cancel_ends_everything(
    shared: Cluster, figure: Figure, case: str, task: str, params: dict[str, Any], processes: int
) -> None:
    run = shared.submit(task, params)
    pids = [shared.started(run)["pid"]]
    if processes:
        place = shared.folder / params["place"]
        until(lambda: place.exists() and len(place.read_text().split()) == processes, "it has made its processes")
        pids += [int(text) for text in place.read_text().split()]
    assert all(alive(pid) for pid in pids)
    following = shared.submit("work", {"seconds": 0})
    asked = time.monotonic()
    assert shared.cancel(run) == "CANCELLING"
    ended = shared.end(run)
    took = time.monotonic() - asked
    left = sum(alive(pid) for pid in pids)
    assert (ended["status"], ended["end_reason"], left) == ("CANCELLED", "cancelled", 0)
    assert took < GRACE + 2
    shared.end(following)
    wait = shared.started(following)["at"] - ended["end_time"]
    assert wait < ACK_WAIT  # nobody had to miss it first
    shared.history().check()
    figure(
        f"{case}: CANCELLED in {took:.1f} s (grace {GRACE:g} s + 2 s allowed), {left} of {len(pids)} processes left; "
        f"the next run started {wait:.2f} s later"
    )


def test_cancels_at_random_moments(cluster: Cluster, figure: Figure) -> None:
    dice = cluster.random
    workers = [cluster.worker("--concurrency", "2", name=f"w{number}") for number in range(2)]
    runs = [cluster.submit("work", {"seconds": round(dice.uniform(0, 0.3), 3)}, max_attempts=20) for _ in range(60)]
    answers: dict[str, int] = {}
    for number, run in enumerate(dice.sample(runs, 40)):
        if number in (13, 27):
            victim = dice.choice(workers)
            victim.kill()
            victim.start().ready()
        answer = cluster.cancel(run)
        answers[answer] = answers.get(answer, 0) + 1
    ended = cluster.ends(runs, 60)
    cluster.history().check()
    assert {run["status"] for run in ended} == {"COMPLETED", "CANCELLED"}
    figure(f"40 of 60 runs cancelled while two workers were killed, answered {answers}: each ended as it was answered")


def test_nobody_serves_the_tag(cluster: Cluster, figure: Figure) -> None:
    run = cluster.submit("work", {"seconds": 0}, tag="nobody")
    assert cluster.cancel(run) == "CANCELLED"
    cluster.worker(tags="nobody")
    assert cluster.end(cluster.submit("work", {"seconds": 0}, tag="nobody"))["status"] == "COMPLETED"
    history = cluster.history()
    history.check()
    assert run not in history.by_run("start")
    figure("CANCELLED at once, and never started by a worker that came later")


def test_its_worker_is_killed_while_it_cancels(cluster: Cluster, figure: Figure) -> None:
    worker = cluster.worker()
    run = cluster.submit("stubborn")
    child = cluster.started(run)["pid"]
    cluster.cancel(run)
    worker.kill()
    died = wait_dead([child], 5)
    worker.start().ready()
    assert cluster.end(run)["status"] == "CANCELLED"
    cluster.history().check()
    figure(f"CANCELLED all the same, started once; its child was dead {died:.1f} s after its worker")
