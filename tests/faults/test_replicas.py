"""Three nats-servers, two gateways behind a balancer, workers: each on a host of its own, killed or cut off."""

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.conftest import Process

from .cluster import ACK_WAIT, pause, until
from .conftest import Figure
from .hosts import network
from .replicated import ReplicatedCluster
from .steady import SteadyLoad

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

PER_SECOND = 20.0
LOGS_READ = 4
"""The log of one run in so many is looked at."""
CUT = 10.0
"""Seconds for which a server is cut off: longer than it takes everybody to notice."""
LONGER_THAN_A_CUT = 12.0
"""An AckWait in which a worker that was connected to a server that is cut off has found another one."""
WORK, RUNS = "PYOCO_WORK", "KV_pyoco_runs"


@pytest.fixture
def cluster(request: pytest.FixtureRequest, tmp_path: Path, seed: int) -> Iterator[ReplicatedCluster]:
    ack_wait = getattr(request, "param", ACK_WAIT)
    with network() as made:
        system = ReplicatedCluster(tmp_path, seed, made, PYOCO_CONSUMER_ACK_WAIT_SEC=f"{ack_wait:g}")
        try:
            yield system
        finally:
            system.show_logs()
            system.close()


class Followers:
    """A run that prints numbers until it is told to end, and people who look on through the balancer."""

    def __init__(self, cluster: ReplicatedCluster, how_many: int) -> None:
        self._cluster = cluster
        self.run_id = cluster.submit("talk", {"gate": "enough"}, tag="talk")
        cluster.started(self.run_id)
        self._watches = [self._begin(n, "watch", "--until-terminal", "--output", "status") for n in range(how_many)]
        self._logs = [self._begin(n, "logs", "-f", "--output", "json") for n in range(how_many)]
        until(lambda: all(process.lines for process in (*self._watches, *self._logs)), "they have seen something")

    def _begin(self, number: int, command: str, *arguments: str) -> Process:
        line = ["pyoco-client", "--server", self._cluster.balancer.url, command, self.run_id, *arguments]
        begin = lambda: Process(line, self._cluster.folder)  # noqa: E731
        return self._cluster.member(f"{command} {number}", begin, lambda _: None).process

    def check(self) -> int:
        """End the run; everybody must see its end and every line once. How many lines is the answer."""
        self._cluster.open_gate("enough")
        assert self._cluster.end(self.run_id)["status"] == "COMPLETED"
        for process in (*self._watches, *self._logs):
            assert process.popen.wait(30) == 0, process.lines[-5:]
        said = next(line["lines"] for line in self._cluster.history().of("said"))
        for process in self._logs:
            assert [line.get("text") for line in process.lines] == [str(number) for number in range(said)]
        for process in self._watches:
            assert "\tCOMPLETED\t" in process.lines[-1]["message"], process.lines[-5:]
        return int(said)


class Outages:
    """What was done to which host, and how submissions fared until the next was done."""

    def __init__(self, load: SteadyLoad) -> None:
        self._load = load
        self._begun: list[tuple[str, float]] = []

    def begin(self, what: str) -> None:
        """Note that something is about to be done."""
        self._begun.append((what, time.monotonic()))

    def wait(self) -> None:
        """Wait until submissions are answered again, also those that were made since."""
        _, began = self._begun[-1]
        until(lambda: self._load.is_answered(time.monotonic() - 1) and time.monotonic() > began + 2, "answers", 60)

    def told(self) -> str:
        """Say how submissions fared each time."""
        ends = [began for _, began in self._begun[1:]] + [time.monotonic()]
        return "; ".join(
            f"{what}: {self._load.told(began, end)}" for (what, began), end in zip(self._begun, ends, strict=True)
        )


def check_runs(cluster: ReplicatedCluster, load: SteadyLoad) -> None:
    """Every run has ended well in its first attempt, was executed once, and has its whole log."""
    ended = cluster.ends(load.runs, 60)
    assert len(set(load.runs)) == len(load.submissions)
    assert {(run["status"], run["attempt"]) for run in ended} == {("COMPLETED", 1)}
    starts = Counter(event["run_id"] for event in cluster.history().of("start"))
    assert {run: starts[run] for run in load.runs if starts[run] != 1} == {}
    cluster.history().check()
    logs = {run: printed(cluster, run) for run in load.runs[::LOGS_READ]}
    assert {run: lines for run, lines in logs.items() if lines != [f"{run}-1"]} == {}


def printed(cluster: ReplicatedCluster, run: str) -> list[Any]:
    return [line["text"] for line in cluster.http.get(f"{cluster.url}/runs/{run}/logs").json()["lines"]]


def test_leaders_are_killed_under_load(cluster: ReplicatedCluster, figure: Figure) -> None:
    for number in range(2):
        cluster.worker_on(f"w{number}", "--concurrency", "2", tags="cpu,talk")
    followers = Followers(cluster, 1)
    with SteadyLoad(cluster, cluster.balancer.url, per_second=PER_SECOND, seconds=0.02).going() as load:
        until(lambda: len(load.runs) > PER_SECOND, "submissions are answered")
        outages = Outages(load)
        for stream in [WORK] * 5 + [RUNS]:
            name = cluster.leader(stream)
            outages.begin(f"of {stream}")
            cluster.members[name].kill()
            outages.wait()
            cluster.members[name].start()
            until(cluster.in_sync, f"{name} is back and all replicas are up to date", 60)
    lines = followers.check()
    check_runs(cluster, load)
    figure(f"under {PER_SECOND:g} submissions a second, AckWait {ACK_WAIT:g} s, leader killed {outages.told()}")
    figure(f"{len(load.runs)} runs: 0 lost, 0 started twice, all logs whole; a watch and a followed log of {lines} too")


@pytest.mark.parametrize("cluster", [LONGER_THAN_A_CUT], indirect=True)
def test_hosts_are_cut_off_under_load(cluster: ReplicatedCluster, figure: Figure) -> None:
    cluster.partitioned = True  # a worker that is cut off keeps its run
    for number in range(2):
        cluster.worker_on(f"w{number}", "--concurrency", "2", tags="cpu,talk")
        cluster.worker_on(f"c{number}", tags="cut")
    followers = Followers(cluster, 2)
    lonely = CutOffWorker(cluster)
    with SteadyLoad(cluster, cluster.balancer.url, per_second=PER_SECOND, seconds=0.02).going() as load:
        until(lambda: len(load.runs) > PER_SECOND, "submissions are answered")
        outages = Outages(load)
        cut_a_gateway(cluster, outages)
        cut_a_server(cluster, outages, leader=False)
        taken_over = lonely.check()
        cut_a_server(cluster, outages, leader=True)
    lines = followers.check()
    check_runs(cluster, load)
    assert all(cluster.members[name].is_alive for name in ("w0", "w1", "c0", "c1", "g1", "g2"))
    figure(f"a worker cut off: its run was taken over after {taken_over:.1f} s, its own result was refused")
    figure(f"cut off {outages.told()}")
    figure(f"{len(load.runs)} runs: 0 lost, 0 started twice, all logs whole; watches and followed logs of {lines} too")


class CutOffWorker:
    """A worker that is cut off with a run of its own, which another one takes over."""

    def __init__(self, cluster: ReplicatedCluster) -> None:
        self._cluster = cluster
        self._run = cluster.submit("first_only", {"gate": "go"}, tag="cut")
        cluster.started(self._run)
        self._name = until(lambda: cluster.witness.newest[self._run].get("worker_id"), "the claim is seen")
        self._cut_at = time.time()
        cluster.hosts[self._name].cut()

    def check(self) -> float:
        """The run has ended elsewhere; healed, the worker's own result does not count. After how long is the answer."""
        cluster, run = self._cluster, self._run
        ended = cluster.end(run, 40)
        assert (ended["status"], ended["attempt"]) == ("COMPLETED", 2) and ended["worker_id"] != self._name
        cluster.open_gate("go")  # the stale attempt ends too, and has a result of its own
        until(lambda: sum(line["run_id"] == run for line in cluster.history().of("end")) == 2, "the stale one ends")
        cluster.hosts[self._name].heal()
        both = [cluster.submit("gated", {"gate": "both"}, tag="cut") for _ in range(2)]
        for one in both:
            cluster.started(one)  # each worker has one slot: the lonely one has come back
        cluster.open_gate("both")
        assert {one["worker_id"] for one in cluster.ends(both)} == {"c0", "c1"}
        return float(ended["end_time"] - self._cut_at)


def cut_a_gateway(cluster: ReplicatedCluster, outages: Outages) -> None:
    """Cut one of the gateways off until the balancer knows, and heal it."""
    outages.begin("a gateway")
    host = cluster.hosts["g1"]
    host.cut()
    until(lambda: not cluster.balancer.knows_well(host.address), "the balancer sees it")
    outages.wait()
    host.heal()
    until(lambda: cluster.balancer.knows_well(host.address), "the balancer sees it again")


def cut_a_server(cluster: ReplicatedCluster, outages: Outages, *, leader: bool) -> None:
    """Cut a nats-server off for a while: the one that leads the queue, or one that leads nothing that is needed."""
    leaders = [cluster.leader(WORK), cluster.leader(RUNS)]
    name = leaders[0] if leader else next(name for name in cluster.servers if name not in leaders)
    what = "the queue's leader" if leader else "a nats-server that leads nothing"
    outages.begin(f"{what} for {CUT:g} s")
    cluster.hosts[name].cut()
    pause(CUT)
    outages.wait()
    outages.begin(f"{what} healed")
    cluster.hosts[name].heal()
    until(cluster.in_sync, f"{name} is back and all replicas are up to date", 60)
