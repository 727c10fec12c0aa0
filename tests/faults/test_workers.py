"""Workers that are killed, stopped, and killed by what they run."""

import itertools
from collections import defaultdict

import pytest

from .cluster import ACK_WAIT, Cluster, pause
from .conftest import Figure

pytestmark = [pytest.mark.faults, pytest.mark.timeout(180)]


def test_100_runs_while_workers_are_killed_at_random_moments(cluster: Cluster, figure: Figure) -> None:
    dice = cluster.random
    workers = [cluster.worker("--concurrency", "2", name=f"w{number}") for number in range(2)]
    runs = [cluster.submit("work", {"seconds": round(dice.uniform(0, 0.8), 3)}, max_attempts=20) for _ in range(100)]
    deaths: list[tuple[float, int]] = []
    while any(cluster.witness.newest.get(run, {}).get("status") != "COMPLETED" for run in runs) and len(deaths) < 12:
        pause(dice.uniform(0.3, 2.0))
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
