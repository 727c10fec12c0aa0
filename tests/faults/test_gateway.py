"""Gateways that are killed and stopped under clients that repeat what was not answered."""

import signal
import time
from typing import Any

import httpx2
import pytest

from .cluster import Cluster, pause
from .conftest import Figure
from .load import Load

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120)]


def test_gateways_are_killed_under_submissions(cluster: Cluster, figure: Figure) -> None:
    dice = cluster.random
    gateways = [cluster.members["gateway"], cluster.gateway("second")]
    cluster.worker("--concurrency", "2")
    kills = 0
    with Load(cluster, every=0.03, seconds=0).going() as load:
        for number in range(6):
            pause(dice.uniform(0.3, 1.0))
            gateways[number % 2].kill()
            kills += 1
            pause(dice.uniform(0.0, 0.5))
            gateways[number % 2].start().ready()
    ended = cluster.ends(load.runs, 60)
    cluster.history().check()
    assert {run["status"] for run in ended} == {"COMPLETED"}
    assert len(set(load.runs)) == len(load.runs)
    failed = sum(count for answer, count in load.answers.items() if answer != 200)
    assert failed, "no request met a dead gateway: nothing was tried"
    figure(
        f"{kills} gateways killed under {len(load.runs)} submissions, {failed} requests failed and were repeated: "
        "each answered run exists once and COMPLETED"
    )


def test_a_stopped_gateway_does_no_harm_when_it_goes_on(cluster: Cluster, figure: Figure) -> None:
    first = cluster.members["gateway"]
    second = cluster.gateway("second")
    cluster.worker()
    request: dict[str, Any] = {"json": {"flow_name": "f", "tag": "cpu"}, "headers": {"Idempotency-Key": "k"}}
    first.signal(signal.SIGSTOP)
    # It is taken by the kernel and answered by nobody; the client gives up and repeats it elsewhere.
    with pytest.raises(httpx2.TimeoutException):
        cluster.http.post(f"{cluster.urls[0]}/runs", **request, timeout=0.5)
    run = cluster.http.post(f"{cluster.urls[1]}/runs", **request).json()["run_id"]
    cluster.journal.note("answered", run, key="k")
    assert cluster.end(run)["end_reason"] == "flow_not_found"
    pause(4)
    first.signal(signal.SIGCONT)
    again = cluster.http.post(f"{cluster.urls[0]}/runs", **request)
    assert again.json()["run_id"] == run
    cluster.journal.note("answered", run, key="k")
    began = time.monotonic()
    assert cluster.end(cluster.submit("work", {"seconds": 0}))["status"] == "COMPLETED"
    cluster.history().check()
    assert second.is_alive
    figure(
        f"a repeat elsewhere and the late original gave one run; it served again {time.monotonic() - began:.1f} s later"
    )
