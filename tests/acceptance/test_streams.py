"""Commands whose output cannot be written: a sentence, an exit code, and never a traceback."""

import os
import shlex
import signal
import subprocess
import time

import pytest

from .conftest import BIN, DEADLINE, System

pytestmark = pytest.mark.slow

PROGRAMS = ["pyoco-client", "pyoco-server", "pyoco-worker", "pyoco-server-admin"]
LOST = "error: the output cannot be written: "


def shell(line: str) -> subprocess.CompletedProcess[str]:
    """Run a line in bash; the exit code is the last one of a pipe that is not 0."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYOCO_")}
    environment = {**kept, "PATH": f"{BIN}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {line}"], env=environment, capture_output=True, text=True, timeout=60
    )
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr, done.stderr
    return done


@pytest.mark.parametrize("program", PROGRAMS)
def test_help(program: str) -> None:
    full = shell(f"{program} --help > /dev/full")
    assert (full.returncode, full.stderr) == (1, f"{LOST}No space left on device\n")
    broken = shell(f"{program} --help | head -0")
    assert (broken.returncode, broken.stderr) == (1, "")


def test_what_is_closed() -> None:
    closed = shell("pyoco-client --version >&-")
    assert (closed.returncode, closed.stderr) == (1, f"{LOST}it is closed\n")
    assert shell("pyoco-client --help 2>&- <&-").returncode == 0


@pytest.mark.parametrize(
    "words",
    ["list", "list --output table", "list-vnext", "metrics", "doctor", "workers", "wheels", "dlq list", "get {run}",
     "logs {run}", "why {run}", "watch {run} --timeout-sec 1", "submit --tag nobody", "cancel --run-id {run}"],
)  # fmt: skip
def test_the_client(system: System, words: str) -> None:
    run_id = system.client.submit_run("main", tag="nobody")["run_id"]
    command = f"pyoco-client --server {system.url} {words.format(run=run_id)}"
    full = shell(f"{command} > /dev/full")
    if "logs" in words:  # there is nothing to print
        assert (full.returncode, full.stderr) == (0, "")
        return
    assert (full.returncode, full.stderr) == (1, f"{LOST}No space left on device\n")


def test_others_that_ask_nats(system: System) -> None:
    nats = f"--nats-url {system.nats_url}"
    for line, reason in {
        f"pyoco-server check {nats} > /dev/full": "No space left on device",
        f"pyoco-server-admin {nats} api-key list >&-": "it is closed",
        f"pyoco-server backup {nats} - > /dev/full": "No space left on device",
        f"pyoco-server backup {nats} - | head -0": "",
    }.items():
        done = shell(line)
        assert done.returncode == 1 and (f"{LOST}{reason}" in done.stderr) is bool(reason), done.stderr


def test_stderr_stops_no_command(system: System) -> None:
    command = f"pyoco-client --server {system.url}"
    for where in ("2> /dev/full", "2>&-"):
        assert "run_id" in shell(f"{command} submit --param x=NaN --tag nobody {where}").stdout
        assert shell(f"{command} get nobody {where}").returncode == 5


@pytest.mark.parametrize("where", ["> /dev/full", ">&-", ">&- 2>&- <&-", "| head -0"])
def test_a_worker_does_its_work_without_a_log(system: System, where: str) -> None:
    tag = "tag" + "".join(char for char in where if char.isalnum())
    arguments = f"pyoco-worker --nats-url {shlex.quote(system.nats_url)} --worker-id {tag} --tags {tag}"
    line = f"set -o pipefail; {arguments} {where}"
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYOCO_")}
    environment = {**kept, "PATH": f"{BIN}:{os.environ['PATH']}"}
    with subprocess.Popen(["bash", "-c", line], env=environment, cwd=system.folder, stderr=subprocess.PIPE, text=True,
                          start_new_session=True) as process:  # fmt: skip
        try:
            flow = system.flow("def t():\n    print('x')\n    return 1\n")
            run_id = system.client.submit_run_yaml(flow, flow_name="m", tag=tag)["run_id"]
            assert system.end(run_id)["status"] == "COMPLETED"
            os.killpg(process.pid, signal.SIGTERM)
            deadline = time.monotonic() + DEADLINE
            system.stopped(tag)
            assert process.wait(max(1.0, deadline - time.monotonic())) in (0, -signal.SIGTERM, 128 + signal.SIGTERM)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
        told = process.stderr.read() if process.stderr else ""
    assert "Traceback" not in told and told.count("log lines are lost") == (0 if "2>" in where else 1), told
