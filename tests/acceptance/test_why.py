"""Why is a run where it is: on real states, from the route and the command."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from pyoco_server.client.errors import ApiError

from .conftest import BIN, TUTORIAL, System, running_system

ACK_WAIT = {"PYOCO_CONSUMER_ACK_WAIT_SEC": "5", "PYOCO_ACK_PROGRESS_INTERVAL_SEC": "1"}
FAST = {
    **ACK_WAIT, "PYOCO_WORKER_HEARTBEAT_INTERVAL_SEC": "0.5", "PYOCO_WORKER_DISCONNECT_TIMEOUT_SEC": "2",
    "PYOCO_RUN_HEARTBEAT_INTERVAL_SEC": "0.1", "PYOCO_CANCEL_GRACE_PERIOD_SEC": "4",
}  # fmt: skip


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with running_system(tmp_path_factory.mktemp("system"), **FAST) as running:
        yield running


def submit(system: System, code: str, tag: str) -> str:
    return str(system.client.submit_run_yaml(system.flow(code), flow_name="main", tag=tag)["run_id"])


def until(system: System, run_id: str, code: str, timeout: float = 20) -> dict[str, Any]:
    """Ask until the answer has a code."""
    deadline = time.monotonic() + timeout
    while (answer := system.client.why_run(run_id))["code"] != code:
        assert time.monotonic() < deadline, answer
        os.sched_yield()
    assert answer["message"]
    return answer


SLEEP = "import time\ndef t():\n    time.sleep(60)\n"


def test_a_run_without_a_worker_names_the_command_that_helps(system: System) -> None:
    first = system.client.submit_run_yaml(TUTORIAL, flow_name="main", tag="nobody")["run_id"]
    second = system.client.submit_run_yaml(TUTORIAL, flow_name="main", tag="nobody")["run_id"]
    until(system, first, "no_worker")
    deadline = time.monotonic() + 10
    while (answer := system.client.why_run(second))["details"]["ahead"] != 1:
        assert time.monotonic() < deadline, answer
    assert answer["message"] == "It waits: no worker serves the tag nobody; runs ahead of it: 1."
    assert answer["hint"] == f"Start one: pyoco-worker --nats-url {system.nats_url} --tags nobody --worker-id nobody-1"
    assert (answer["run_id"], answer["status"]) == (second, "PENDING")


def test_busy_running_cancelling_and_ended(system: System) -> None:
    system.worker(tags="busy", worker_id="busy-1", **FAST)
    running = submit(system, SLEEP, "busy")
    system.until(running, lambda run: run["tasks"].get("t") == "RUNNING")
    answer = until(system, running, "running")
    details = answer["details"]
    assert (details["worker_id"], details["attempt"], details["tasks"]) == ("busy-1", 1, ["t"])
    assert "on worker busy-1 (attempt 1 of 3); last sign of life" in answer["message"]
    waiting = submit(system, SLEEP, "busy")
    answer = until(system, waiting, "all_busy")
    assert (answer["details"]["slots"], answer["details"]["ahead"], answer["details"]["workers"]) == (1, 0, ["busy-1"])
    # A cooperative cancel cannot end a sleep: the grace period is shown while it lasts.
    system.client.cancel_run(running, reason="enough")
    answer = until(system, running, "cancelling")
    assert ": enough; its worker busy-1 kills it at" in answer["message"]
    assert answer["details"]["killed_by"] - answer["details"]["cancel_requested_at"] == pytest.approx(4)
    system.client.cancel_run(waiting)
    assert "before it started" in until(system, waiting, "cancelled")["message"]
    system.end(running)
    assert "while it was running" in until(system, running, "cancelled")["message"]


def test_a_failed_run_names_task_exception_and_line(system: System) -> None:
    system.worker(tags="bad", worker_id="bad-1", **FAST)
    run_id = submit(system, "def t():\n    raise ValueError('no')\n", "bad")
    system.end(run_id)
    answer = system.client.why_run(run_id)
    assert answer["code"] == "task_failed"
    assert "task 't' failed: ValueError: no, at " in answer["message"]
    assert answer["message"].endswith(".py:2.")
    assert (answer["details"]["task"], answer["details"]["exception_class"]) == ("t", "ValueError")
    retried = system.flow("def t():\n    raise ValueError('no')\n") + "    retries: 3\n    retry_delay_sec: 50\n"
    run_id = system.client.submit_run_yaml(retried, flow_name="main", tag="bad")["run_id"]
    answer = until(system, run_id, "retry_wait")
    assert "try 2 of 4; the last one failed: ValueError: no." in answer["message"]
    assert answer["details"]["retry_at"] > time.time() + 30
    system.client.cancel_run(run_id)
    assert system.end(run_id)["status"] == "CANCELLED"


def test_a_lost_worker_and_when_its_run_is_delivered_again(system: System) -> None:
    mortal = system.worker(tags="risky", worker_id="mortal", **FAST)
    run_id = submit(system, SLEEP, "risky")
    system.until(run_id, lambda run: run["tasks"].get("t") == "RUNNING")
    mortal.stop(signal.SIGKILL)
    killed = time.time()
    answer = until(system, run_id, "worker_silent_no_other")
    assert "no live worker takes runs of the tag risky; attempts left: 2." in answer["message"]
    assert killed - 10 < answer["details"]["last_seen_at"] <= killed + 1
    assert answer["details"]["expected_by"] - answer["details"]["last_seen_at"] == pytest.approx(5)  # AckWait
    waiting = system.client.submit_run_yaml(TUTORIAL, flow_name="main", tag="risky")["run_id"]
    answer = until(system, waiting, "workers_gone")
    assert "mortal is DISCONNECTED" in answer["message"]
    system.worker(tags="risky", worker_id="heir", **FAST)
    anew = until(system, run_id, "running")
    assert (anew["details"]["worker_id"], anew["details"]["attempt"]) == ("heir", 2)
    system.client.cancel_run(run_id)
    assert system.end(run_id)["status"] == "CANCELLED"
    assert system.end(waiting)["status"] == "COMPLETED"


def test_a_cancel_that_waits_exits_by_what_came_first(system: System) -> None:
    system.worker(tags="stop", worker_id="stop-1", **FAST)
    running, done = submit(system, SLEEP, "stop"), submit(system, "def t():\n    pass\n", "stop")
    system.until(running, lambda run: run["tasks"].get("t") == "RUNNING")

    def cancel(run_id: str) -> tuple[int, str]:
        words = [str(BIN / "pyoco-client"), "--server", system.url, "cancel", "--run-id", run_id, "--wait"]
        ended = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
        return ended.returncode, ended.stderr

    assert cancel(running) == (8, "")
    assert system.end(done)["status"] == "COMPLETED"
    assert cancel(done) == (0, f"run {done}: it had already COMPLETED before the cancel\n")
    system.server.wait_for("a cancel came after the end of the run")


def test_the_command_and_both_languages(system: System, http: httpx2.Client) -> None:
    run_id = system.client.submit_run_yaml(TUTORIAL, flow_name="main", tag="nowhere")["run_id"]
    until(system, run_id, "no_worker")

    def command(*arguments: str, **environment: str) -> list[str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG"))}
        words = [str(BIN / "pyoco-client"), "--server", system.url, "why", run_id, *arguments]
        done = subprocess.run(words, env={**kept, **environment}, capture_output=True, timeout=30, check=True)
        return done.stdout.decode().splitlines()

    english = command()
    assert english[0].startswith("It waits: no worker")
    assert english[1].startswith("Start one: pyoco-worker")
    assert command("--lang", "ja", LC_ALL="C.UTF-8")[0].startswith("待機中")
    assert command(LANG="ja_JP.UTF-8", PYTHONUTF8="1")[0].startswith("待機中")
    assert json.loads("\n".join(command("--output", "json")))["code"] == "no_worker"
    path = f"/runs/{run_id}/why"
    assert http.get(path, headers={"Accept-Language": "ja,en;q=0.5"}).json()["message"].startswith("待機中")
    assert http.get(path, params={"lang": "en"}, headers={"Accept-Language": "ja"}).json()["message"].startswith("It")
    assert http.get(path, params={"lang": "fr"}).status_code == 422
    with pytest.raises(ApiError, match="run not found"):
        system.client.why_run("nobody-knows-it")
