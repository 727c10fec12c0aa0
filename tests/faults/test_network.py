"""The way to NATS: slow, cut, and silent."""

import time
from collections.abc import Iterator

import pytest

from .cluster import ACK_WAIT, Cluster, alive, pause, until, wait_dead
from .conftest import Figure
from .load import Load
from .proxy import Proxy

pytestmark = [pytest.mark.faults, pytest.mark.timeout(150)]


@pytest.fixture
def proxy(cluster: Cluster) -> Iterator[Proxy]:
    with Proxy(cluster.nats_port).running() as proxy:
        yield proxy


def test_a_slow_and_broken_way_for_everybody(cluster: Cluster, proxy: Proxy, figure: Figure) -> None:
    dice = cluster.random
    cluster.urls.clear()
    cluster.gateway("behind", nats_url=proxy.url)
    workers = [cluster.worker("--concurrency", "2", name=f"w{number}", nats_url=proxy.url) for number in range(2)]
    cuts = 0
    with Load(cluster, every=0.2, seconds=0.1, clients=6).going() as load:
        for _ in range(6):
            proxy.delay = dice.choice([0.0, 0.02, 0.1])
            pause(dice.uniform(0.5, 3.0))
            proxy.cut()
            cuts += 1
    proxy.heal()
    ended = cluster.ends(load.runs, 60)
    cluster.history().check()
    assert {run["status"] for run in ended} == {"COMPLETED"}
    assert {run["attempt"] for run in ended} == {1}
    assert all(worker.is_alive for worker in workers)
    figure(
        f"delays of up to 100 ms a way and {cuts} cuts under {len(load.runs)} runs: "
        "all COMPLETED in their first attempt, 0 overlaps"
    )


def test_a_worker_in_a_black_hole(cluster: Cluster, proxy: Proxy, figure: Figure) -> None:
    cluster.partitioned = True  # it keeps its run while NATS is away; what counts is that its result does not
    lonely = cluster.worker(name="lonely", nats_url=proxy.url)
    run = cluster.submit("first_only", {"gate": "go"})
    cluster.started(run)
    proxy.swallow()
    cut = time.monotonic()
    cluster.worker(name="other")
    ended = cluster.end(run, ACK_WAIT + 15)
    took = time.monotonic() - cut
    assert (ended["status"], ended["attempt"], ended["worker_id"]) == ("COMPLETED", 2, "other")
    cluster.open_gate("go")  # the stale attempt ends now, and has a result of its own
    until(lambda: sum(line["what"] == "end" for line in cluster.journal.read()) == 2, "the stale attempt's task ends")
    pause(1)
    proxy.heal()
    runs = [cluster.submit("gated", {"gate": "both"}) for _ in range(2)]
    for following in runs:
        cluster.started(following)  # each worker has one slot: the lonely one has come back
    cluster.open_gate("both")
    assert {following["worker_id"] for following in cluster.ends(runs)} == {"lonely", "other"}
    cluster.history().check()
    assert lonely.is_alive
    figure(f"taken over {took:.1f} s after the cut; the stale attempt's result was refused; its worker serves again")


def test_a_stale_attempt_that_still_runs_is_ended(cluster: Cluster, proxy: Proxy, figure: Figure) -> None:
    cluster.partitioned = True
    cluster.worker(name="lonely", nats_url=proxy.url)
    run = cluster.submit("first_only", {"gate": "never"})
    child = cluster.started(run)["pid"]
    proxy.swallow()
    cluster.worker(name="other")
    assert cluster.end(run, ACK_WAIT + 15)["attempt"] == 2
    assert alive(child)
    proxy.heal()
    died = wait_dead([child], 15)
    cluster.history().check()
    figure(f"the stale attempt's process was dead {died:.1f} s after NATS's return")


def test_a_gateway_in_a_black_hole(cluster: Cluster, proxy: Proxy, figure: Figure) -> None:
    cluster.urls.clear()
    cluster.gateway("behind", nats_url=proxy.url)
    cluster.worker()
    assert cluster.end(cluster.submit("work", {"seconds": 0}))["status"] == "COMPLETED"
    proxy.swallow()
    asked = time.monotonic()
    answer = cluster.post("work", {"seconds": 0}, key="k")
    first = time.monotonic() - asked
    assert answer.status_code == 503
    until(lambda: not cluster.is_ready(), "/ready says so", 20)
    asked = time.monotonic()
    assert cluster.post("work", {"seconds": 0}, key="k").status_code == 503
    later = time.monotonic() - asked
    proxy.heal()
    healed = time.monotonic()
    answer = until(lambda: (got := cluster.post("work", {"seconds": 0}, key="k")).status_code == 200 and got, "again")
    back = time.monotonic() - healed
    assert cluster.end(answer.json()["run_id"])["status"] == "COMPLETED"
    cluster.history().check()
    assert first < 15 and later < 6
    figure(
        f"503 after {first:.1f} s at first and {later:.1f} s later on; submissions worked {back:.1f} s after the end"
    )
