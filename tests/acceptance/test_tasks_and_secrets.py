"""``up --with-nats --with-worker`` with keys: a member's task finds no secret, and stops nothing."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from pyoco_server.client.http import PyocoHttpClient
from pyoco_server.worker.child.confinement.confinement import support

from .conftest import System, running_system

pytestmark = pytest.mark.slow

PEPPER = "the-pepper-that-no-task-may-see"
SECRETS = {"PYOCO_HTTP_AUTH_MODE": "api_key", "PYOCO_AUTH_PEPPER": PEPPER}
ROOT = Path(__file__).parents[2]
MODULE = '''
import os, signal
from pathlib import Path

def spy(pids):
    """Look for the pepper wherever /proc shows something of a process, and say what of it can be read."""
    found, read = [], []
    for pid in ["self", *(name for name in os.listdir("/proc") if name.isdigit())]:
        for name in ("environ", "cmdline", "comm", "mem"):
            try:
                with open(f"/proc/{pid}/{name}", "rb", buffering=0) as file:
                    data = b"opened" if name == "mem" else file.read()
            except OSError:
                continue
            if b"the-" + b"pepper" in data:
                found.append(f"{pid} {name}")
            if pid.isdigit() and int(pid) in pids and name in ("environ", "mem") and data:
                read.append(f"{pid} {name}")
    return {"found": found, "read": read, "env": [value for value in os.environ.values() if "the-" + "pepper" in value]}

def stop(pids):
    """Send what ends processes; say to which of them it could be sent."""
    done = []
    for pid in pids:
        for number in (signal.SIGTERM, signal.SIGKILL, signal.SIGSTOP):
            try:
                os.kill(pid, number)
                done.append(pid)
            except OSError:
                pass
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        os.kill(-1, signal.SIGUSR1)  # all that it may
    except OSError:
        pass
    return done
'''


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    folder = tmp_path_factory.mktemp("secrets")
    (folder / "spying.py").write_text(MODULE)
    with (
        running_system(folder, "--with-worker", "--worker-tags", "cpu", **SECRETS) as system,
        PyocoHttpClient(system.url, api_key=made_key(system, "member")) as member,
    ):
        system.client = member
        yield system


def made_key(system: System, role: str) -> str:
    """Make a key as the admin command does."""
    made = subprocess.run(
        [sys.executable, "-m", "pyoco_server.admin_cli", *f"api-key create --tenant alpha --role {role}".split()],
        cwd=system.folder, capture_output=True, check=True, timeout=60,
        env={**os.environ, **SECRETS, "PYOCO_NATS_URL": system.nats_url},
    )  # fmt: skip
    return str(json.loads(made.stdout)["api_key"])


def parts_of(system: System, timeout: float = 30.0) -> list[psutil.Process]:
    """Return gateway, NATS, worker and guardian, as soon as the worker has started its guardian."""
    server = psutil.Process(system.server.popen.pid)
    deadline = time.monotonic() + timeout
    while True:
        parts = server.children()
        around = [server, *parts, *(guardian for part in parts for guardian in part.children())]
        if len(around) == 4:
            return around
        assert time.monotonic() < deadline, around
        time.sleep(0.05)


def call(system: System, function: str) -> Any:
    around = parts_of(system)
    inputs = {"pids": [process.pid for process in around]}
    run = system.run(f"flow: {{graph: t}}\ntasks:\n  t: {{callable: 'spying:{function}', inputs: {inputs}}}\n")
    assert run["status"] == "COMPLETED", run["error"]
    assert all(process.is_running() for process in around)
    return run["task_records"]["t"]["output"]


confinable = pytest.mark.skipif(not support().whole, reason=f"this Linux cannot confine: {support().missing}")


@confinable
def test_no_task_finds_the_pepper(guarded: System) -> None:
    assert call(guarded, "spy") == {"found": [], "read": [], "env": []}


@confinable
def test_no_task_stops_what_it_runs_on(guarded: System) -> None:
    assert call(guarded, "stop") == []
    assert guarded.client.get_workers()[0]["state"] in ("RUNNING", "IDLE")


def test_the_kernel_shows_no_secret_to_root_either(guarded: System) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root may look")
    around = parts_of(guarded)
    for process in around:
        shown = Path(f"/proc/{process.pid}/environ").read_bytes() + Path(f"/proc/{process.pid}/cmdline").read_bytes()
        assert PEPPER.encode() not in shown, process
    assert b"PYOCO_AUTH_PEPPER=" in Path(f"/proc/{around[0].pid}/environ").read_bytes()  # it was there


def test_doctor_tells_as_whom_tasks_run(guarded: System) -> None:
    with PyocoHttpClient(guarded.url, api_key=made_key(guarded, "operator")) as operator:
        codes = {finding["code"] for finding in operator.get_doctor()["findings"]}
    assert ("tasks_as_root" if os.geteuid() == 0 else "tasks_as_worker") in codes
    assert not codes & {"tasks_unconfined"}
