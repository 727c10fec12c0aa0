"""Confinement where the kernel, or a container, has not all of it: in processes of their own."""

import json
import subprocess
import sys
from typing import Any

import pytest

from pyoco_server.worker.child.confinement.landlock import SIGNALS_ABI, landlock_abi

CODE = """\
import json, os, resource, subprocess, sys, tempfile
from pathlib import Path
from pyoco_server.worker.child.confinement import confinement
from pyoco_server.worker.child.confinement.barrier import Barrier

abi = int(sys.argv[1])
confinement.landlock_abi = lambda: abi
barrier = Barrier(confine=True, run_as=None)
listener = barrier.filter_calls(asking=False)
barrier.change_user()
barrier.put_up()

def move():
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        Path(one, "x").write_text("1")
        Path(one, "x").rename(Path(other, "y"))

def limit(pid):
    resource.prlimit(pid, resource.RLIMIT_CORE, resource.prlimit(pid, resource.RLIMIT_CORE))

def lower():
    with subprocess.Popen(["sleep", "60"]) as child:
        try:
            os.setpriority(os.PRIO_PROCESS, child.pid, 1)
        finally:
            child.kill()

outside = os.getppid()
doings = {
    "move": move,
    "start": lambda: subprocess.run(["true"], check=True),
    "own limit": lambda: limit(0),
    "lower a child": lower,
    "signal": lambda: os.kill(outside, 0),
    "limit": lambda: limit(outside),
    "look": lambda: Path(f"/proc/{outside}/environ").read_bytes(),
}
works = []
for name, doing in doings.items():
    try:
        doing()
        works.append(name)
    except PermissionError:
        pass
print(json.dumps({"works": works, "listener": listener}))
"""
ORDINARY = ["move", "start", "own limit", "lower a child"]


@pytest.mark.skipif(landlock_abi() < SIGNALS_ABI, reason="a newer kernel can stand for an older one, not the reverse")
@pytest.mark.parametrize(
    ("abi", "more"),
    [
        (SIGNALS_ABI, []),
        (4, ["signal"]),  # Ubuntu 24.04
        (2, ["signal"]),  # Debian 12
        (0, ["signal"]),  # without Landlock the closed memory is what is left; this parent has not closed its own
    ],
)
def test_what_there_is_of_it_is_used(abi: int, more: list[str]) -> None:
    done = subprocess.run([sys.executable, "-c", CODE, str(abi)], capture_output=True, check=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["listener"] is None  # nobody was to be asked
    works = [name for name in found["works"] if abi or name != "look"]
    assert works == [*ORDINARY, *more]
