"""A backup under load, a system that is wiped, and what comes back."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import time
from typing import Any

import pytest

from tests.acceptance.conftest import BIN
from tests.wheels import make_wheel

from .cluster import Cluster, until
from .conftest import Figure, Start
from .history import TERMINAL
from .load import Load

pytestmark = [pytest.mark.faults, pytest.mark.timeout(240)]

OLD_RUNS = 200
"""They make the snapshot of the records take so long that records change meanwhile."""
SOON = {"PYOCO_RECONCILE_AFTER_SEC": "2", "PYOCO_RECONCILE_INTERVAL_SEC": "0.5"}


def command(cluster: Cluster, *arguments: str) -> subprocess.Popen[bytes]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYOCO_")}
    return subprocess.Popen(
        [BIN / "pyoco-server", *arguments, "--nats-url", cluster.nats_url],
        cwd=cluster.folder, env={**kept, **cluster.environment}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def done(cluster: Cluster, *arguments: str) -> dict[str, Any]:
    process = command(cluster, *arguments)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err.decode()
    return dict(json.loads(out))


def doctor(cluster: Cluster) -> list[str]:
    """What the doctor finds that is more than good to know; nothing of it may be an error."""
    arguments = ["--server", cluster.url, "doctor", "--output", "json"]
    told = subprocess.run([BIN / "pyoco-client", *arguments], capture_output=True, timeout=60, check=True)
    return [finding["code"] for finding in json.loads(told.stdout)["findings"] if finding["severity"] != "info"]


def digests(cluster: Cluster) -> dict[str, str]:
    """Each record as it is stored now."""
    return {run_id: hashlib.sha256(raw).hexdigest() for run_id, raw in cluster.witness.stored().items()}


def wipe(cluster: Cluster) -> None:
    """The machine is lost; what the gateway keeps for itself stays."""
    for name, member in cluster.members.items():
        if name != "gateway" and member.is_alive:
            member.kill()
    shutil.rmtree(cluster.store)
    cluster.nats.start().ready()


def listed(cluster: Cluster) -> dict[str, str]:
    found: dict[str, str] = {}
    cursor: str | None = ""
    while cursor is not None:
        page = cluster.http.get(f"{cluster.url}/runs", params={"cursor": cursor, "limit": 200}).json()
        found.update({run["run_id"]: run["status"] for run in page["items"]})
        cursor = page["next_cursor"]
    return found


def test_backup_under_load_wipe_restore(start: Start, figure: Figure, tmp_path: Any) -> None:
    cluster: Cluster = start(**SOON)
    wheel = make_wheel(tmp_path, "some", "1", {"some.py": "x = 1\n"})
    uploaded = cluster.http.post(f"{cluster.url}/wheels", files={"wheel": (wheel.name, wheel.read_bytes())})
    assert uploaded.status_code == 200, uploaded.text
    cluster.witness.fill(OLD_RUNS, size=100_000)
    workers = [cluster.worker("--concurrency", "4", name=f"w{number}") for number in range(2)]
    with Load(cluster, every=0.05, seconds=0.2, clients=2).going() as load:
        until(lambda: len(load.runs) >= 40, "submissions are answered")
        before = list(load.runs)
        backup = done(cluster, "backup", "b.tar")
        seen = len(load.runs)
        until(lambda: len(load.runs) >= seen + 10, "submissions go on")
        for worker in workers:
            worker.kill()
    truth = {run_id: hashlib.sha256(raw).hexdigest() for run_id, raw in cluster.witness.ends.items()}
    cluster.members["gateway"].kill()
    wipe(cluster)
    restored_at = time.time()
    done(cluster, "restore", "b.tar")
    restored = cluster.witness.stored()
    assert set(before) <= set(restored)
    ended = {run_id for run_id, raw in restored.items() if json.loads(raw)["status"] in TERMINAL}
    ours = ended & set(load.runs)
    first = {run_id: hashlib.sha256(restored[run_id]).hexdigest() for run_id in ended}
    assert {run_id: first[run_id] for run_id in ours} == {run_id: truth[run_id] for run_id in ours}
    open_ = set(restored) - ended
    assert ours and open_, "the backup was to be taken in the middle of it"

    cluster.members["gateway"].start().ready()  # with its index of before
    assert set(listed(cluster)) == set(restored)
    for worker in workers:
        worker.start()
    until(lambda: set(listed(cluster).values()) == {"COMPLETED"}, "all runs end", 60)
    now = digests(cluster)
    assert set(now) == set(restored)  # submitted in the meantime, and not in the backup: gone
    assert {run_id: now[run_id] for run_id in ended} == first
    again = {line["run_id"] for line in cluster.journal.read() if line["what"] == "start" and line["at"] > restored_at}
    assert again <= open_
    assert cluster.http.get(f"{cluster.url}/wheels/{wheel.name}").content == wheel.read_bytes()
    assert cluster.letters() == []
    assert doctor(cluster) == []
    figure(
        f"backed up in {backup['seconds']} s under load, wiped, restored: of {len(before)} runs answered before it "
        f"0 lost; {len(ended)} ended records with the same digest, none executed again; {len(open_)} went on; "
        f"{len(set(load.runs) - set(restored))} submitted later are gone"
    )


def test_a_restore_is_killed_while_a_gateway_runs_on(start: Start, figure: Figure) -> None:
    cluster: Cluster = start(**SOON)
    cluster.witness.fill(60, size=100_000)
    kept = cluster.submit("work", {"seconds": 0.0})
    done(cluster, "backup", "b.tar")
    lost = cluster.submit("work", {"seconds": 0.0})
    until(lambda: lost in listed(cluster), "the list shows it")
    wipe(cluster)
    until(cluster.is_ready, "the gateway has made its streams anew")
    options = ["--while-running", "--replace"]
    killed = 0
    for line in ("KV_pyoco_flows", "KV_pyoco_runs"):
        process = command(cluster, "restore", "b.tar", *options)
        assert process.stderr is not None
        for told in process.stderr:
            if told.decode().startswith(f"{line}: ") and b"restored" in told:
                process.send_signal(signal.SIGKILL)
                killed += 1
        process.wait(30)
        assert "has not ended" in cluster.http.get(f"{cluster.url}/ready").text
    done(cluster, "restore", "b.tar", *options)
    until(lambda: set(listed(cluster)) == set(cluster.witness.stored()), "the gateway shows what was restored")
    assert kept in listed(cluster) and lost not in listed(cluster)
    until(cluster.is_ready, "the gateway is well")
    cluster.worker()
    until(lambda: listed(cluster)[kept] == "COMPLETED", "the run goes on", 60)
    another = cluster.submit("work", {"seconds": 0.0})
    until(lambda: listed(cluster).get(another) == "COMPLETED", "so does a new one", 60)
    figure(f"restore killed {killed} times under a gateway that runs on, and repeated: it shows what was restored")
