"""NATS has no room left on its disk, and gets it back."""

import contextlib
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from .cluster import Cluster, pause, until
from .conftest import Figure, Start
from .load import Load

pytestmark = [pytest.mark.faults, pytest.mark.timeout(150)]

ROOM_MB = 96


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={ROOM_MB}m", "tmpfs", str(place)], capture_output=True, text=True
    )
    if mounted.returncode != 0:
        pytest.skip(f"no small file system can be mounted here: {mounted.stderr.strip()}")
    try:
        yield place
    finally:
        until(lambda: subprocess.run(["umount", str(place)]).returncode == 0, "unmounted", 10)


def fill(place: Path) -> Path:
    """Take every byte that is left."""
    filler = place / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"\0" * 4096)
    return filler


def test_the_disk_is_full_for_a_while(small_disk: Path, start: Start, figure: Figure) -> None:
    # NATS sets the room of every bounded stream aside, and has not more than the disk.
    bounded = ("PYOCO_DLQ_MAX_BYTES", "PYOCO_LOGS_MAX_BYTES", "PYOCO_AUDIT_MAX_BYTES")
    bounds = dict.fromkeys(bounded, str(1024 * 1024))
    cluster: Cluster = start(store=small_disk / "nats", **bounds)
    worker = cluster.worker("--concurrency", "4")
    runs = [cluster.submit("gated", {"gate": "open"}) for _ in range(4)]
    for run in runs:
        cluster.started(run)
    with Load(cluster, every=0.1, seconds=0).going() as load:
        until(lambda: len(load.runs) >= 1, "a submission is answered")
        filler = fill(small_disk)
        until(lambda: load.answers[503] + load.answers[507] >= 2, "submissions are refused")
        cluster.open_gate("open")  # they end while nothing can be written
        pause(3)
        before = len(load.runs)
        filler.unlink()
        # nats-server 2.15 refuses every write to a stream after one that failed, also when there is room again.
        cluster.nats.stop()
        cluster.nats.start().ready()
        freed = time.monotonic()
        until(lambda: len(load.runs) > before, "submissions are answered again")
        took = time.monotonic() - freed
    ended = cluster.ends([*runs, *load.runs], 60)
    cluster.history().check()
    assert {run["status"] for run in ended} == {"COMPLETED"}
    assert worker.is_alive
    figure(
        f"no byte left on NATS's disk under 4 running runs and {len(load.runs)} submissions: {load.answers[503]} times "
        f"503, {load.answers[507]} times 507, 0 lost, 0 failed; answered again {took:.1f} s after there was room and "
        "nats-server was restarted"
    )
