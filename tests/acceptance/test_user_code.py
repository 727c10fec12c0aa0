"""User code cannot hurt the worker: whatever it does ends its own run, with the true cause, and nothing else."""

import os
import signal
import time
from collections.abc import Iterator

import psutil
import pytest

from .conftest import TUTORIAL, System, running_system
from .test_processes import is_gone, within

pytestmark = pytest.mark.usercode

ACK_WAIT = {"PYOCO_CONSUMER_ACK_WAIT_SEC": "2", "PYOCO_ACK_PROGRESS_INTERVAL_SEC": "0.5"}
FAST = {**ACK_WAIT, "PYOCO_WORKER_HEARTBEAT_INTERVAL_SEC": "0.5", "PYOCO_CANCEL_GRACE_PERIOD_SEC": "2"}


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with running_system(tmp_path_factory.mktemp("system"), **FAST) as running:
        running.worker(**FAST)
        yield running


@pytest.mark.parametrize(
    ("code", "reason", "said"),
    [
        ("def t():\n    raise ValueError('bad \\ud800 text')", "task_failed", "'t' failed: ValueError: bad ? text"),
        ("import sys\ndef t():\n    sys.exit(4)", "task_failed", "SystemExit: 4"),
        ("import os\ndef t():\n    os._exit(3)", "child_exited", "exit code 3 while task 't' was running"),
        ("import ctypes\ndef t():\n    ctypes.string_at(0)", "child_killed_by_signal", "SIGSEGV"),
        ("import nowhere_to_be_found\ndef t():\n    pass", "dependency_missing", "'nowhere_to_be_found'"),
        ("x = 1 / 0\ndef t():\n    pass", "invalid_flow", "ZeroDivisionError"),
        ("def other():\n    pass", "invalid_flow", "has no 't'"),
    ],
)
def test_the_cause_of_death_is_named_and_the_next_run_works(system: System, code: str, reason: str, said: str) -> None:
    run = system.run(system.flow(code))
    assert (run["status"], run["end_reason"]) == ("FAILED", reason)
    assert said in run["error"]
    assert run["tasks"]["t"] == "FAILED"
    assert run["worker_id"] == "w"
    assert system.run(TUTORIAL)["status"] == "COMPLETED"
    assert all(item["run_id"] for item in system.client.list_runs(limit=200))


def test_an_exception_tells_class_file_line_and_traceback(system: System) -> None:
    run = system.run(system.flow("def t():\n    x = {}\n    return x['missing']\n"))
    record = run["task_records"]["t"]
    assert record["exception"]["class"] == "KeyError"
    assert record["exception"]["line"] == 3
    assert "return x['missing']" in record["traceback"]


def test_holding_the_interpreter_past_ack_wait_stops_neither_heartbeat_nor_acks(system: System) -> None:
    # PyDLL keeps the interpreter's lock during the call: no other thread of the child runs for 5 s.
    code = "import ctypes\ndef t():\n    ctypes.PyDLL(None).usleep(5_000_000)\n    return 1\n"
    run_id = system.client.submit_run_yaml(system.flow(code), flow_name="main", tag="cpu")["run_id"]
    system.until(run_id, lambda run: run["status"] == "RUNNING")
    beats = set()
    while system.client.get_run(run_id)["status"] == "RUNNING":
        beats.add(system.client.get_workers()[0]["last_heartbeat_at"])
    assert len(beats) >= 4
    run = system.end(run_id)
    assert (run["status"], run["attempt"]) == ("COMPLETED", 1)


def test_cancel_stops_an_endless_loop_and_its_children(system: System) -> None:
    code = (
        "import signal, subprocess\n"
        "def t():\n"
        "    child = subprocess.Popen(['sleep', '1000'])\n"
        "    open(PLACE, 'w').write(str(child.pid))\n"
        "    while True: pass\n"
    )
    place = system.folder / "grandchild.pid"
    run_id = system.client.submit_run_yaml(system.flow(f"PLACE = {str(place)!r}\n{code}"), flow_name="main", tag="cpu")[
        "run_id"
    ]
    system.until(run_id, lambda run: run["tasks"].get("t") == "RUNNING")
    deadline = time.monotonic() + 10
    while not (place.exists() and place.read_text()) and time.monotonic() < deadline:
        os.sched_yield()
    grandchild = int(place.read_text())
    asked = time.monotonic()
    assert system.client.cancel_run(run_id, reason="enough")["status"] == "CANCELLING"
    run = system.end(run_id)
    assert (run["status"], run["end_reason"]) == ("CANCELLED", "cancelled")
    assert time.monotonic() - asked < 20
    within(lambda: is_gone(grandchild))
    assert system.run(TUTORIAL)["status"] == "COMPLETED"


def test_a_waiting_run_is_cancelled_at_once_and_never_runs(system: System) -> None:
    run_id = system.client.submit_run_yaml(TUTORIAL, flow_name="main", tag="later")["run_id"]
    assert system.client.cancel_run(run_id)["status"] == "CANCELLED"
    system.worker(worker_id="late", tags="later", **FAST)
    assert system.run(TUTORIAL, tag="later")["status"] == "COMPLETED"
    assert system.client.get_run(run_id)["attempt"] == 0


def test_a_run_over_its_time_limit_is_ended(system: System) -> None:
    run = system.run(system.flow("import time\ndef t():\n    time.sleep(60)"), timeout_sec=1)
    assert (run["status"], run["end_reason"]) == ("FAILED", "run_timeout")


def test_a_task_over_its_time_limit_ends_the_run(system: System) -> None:
    flow = system.flow("def t():\n    while True: pass") + "    timeout_sec: 0.5\n"
    run = system.run(flow)
    assert (run["status"], run["end_reason"]) == ("FAILED", "task_timeout")
    assert "'t' took longer than its timeout_sec of 0.5 s" in run["error"]


def test_a_large_output_is_cut_and_small_ones_stay(system: System) -> None:
    code = "def big():\n    return 'x' * 400_000\ndef small():\n    return 7\n"
    flow = system.flow(code, graph="a >> b", name="big")
    module = flow.split("callable: ")[1].split(":")[0]
    flow = flow.replace("  t:\n", "  a:\n") + f"  b:\n    callable: {module}:small\n"
    run = system.run(flow)
    assert run["status"] == "COMPLETED"
    assert run["task_records"]["a"]["output"]["truncated"] is True
    assert run["task_records"]["b"]["output"] == 7


def test_a_killed_worker_gives_its_run_to_the_next_after_ack_wait(system: System) -> None:
    first = system.worker(worker_id="mortal", tags="risky", **FAST)
    code = "import os, time\ndef t():\n    time.sleep(60 if not os.path.exists(MARK) else 0)\n"
    mark = system.folder / "second"
    run_id = system.client.submit_run_yaml(system.flow(f"MARK = {str(mark)!r}\n{code}"), flow_name="main", tag="risky")[
        "run_id"
    ]
    system.until(run_id, lambda run: run["tasks"].get("t") == "RUNNING")
    children = psutil.Process(first.popen.pid).children()
    first.stop(signal.SIGKILL)
    mark.touch()
    within(lambda: all(is_gone(child.pid) for child in children))
    system.worker(worker_id="mortal", tags="risky", **FAST)  # the same name: its holder is dead
    run = system.end(run_id)
    assert (run["status"], run["attempt"]) == ("COMPLETED", 2)


def test_a_worker_that_is_stopped_hands_its_run_back_without_costing_an_attempt(system: System) -> None:
    leaving = system.worker("--drain-timeout-sec", "0.5", worker_id="leaving", tags="drain", **FAST)
    code = "import os, time\ndef t():\n    time.sleep(60 if not os.path.exists(MARK) else 0)\n"
    mark = system.folder / "drained"
    run_id = system.client.submit_run_yaml(system.flow(f"MARK = {str(mark)!r}\n{code}"), flow_name="main", tag="drain")[
        "run_id"
    ]
    system.until(run_id, lambda run: run["tasks"].get("t") == "RUNNING")
    assert leaving.stop(signal.SIGTERM) == 0
    waiting = system.client.get_run(run_id)
    assert (waiting["status"], waiting["attempt"]) == ("PENDING", 0)
    system.stopped("leaving")
    gone = system.client.get_workers(scope="all", state="STOPPED_GRACEFUL")
    assert [worker["worker_id"] for worker in gone] == ["leaving"]
    mark.touch()
    system.worker(worker_id="staying", tags="drain", **FAST)
    assert system.end(run_id)["attempt"] == 1


def test_a_module_that_is_not_there_has_no_place(system: System) -> None:
    run = system.run("version: 1\nflow: {graph: t}\ntasks: {t: {callable: 'nowhere_at_all:t'}}\n")
    assert run["end_reason"] == "dependency_missing"
    assert run["task_records"]["t"]["exception"]["file"] is None
    assert "importlib" not in system.client.why_run(run["run_id"])["message"]


def test_a_task_does_not_find_what_opens_nats_and_the_api(system: System) -> None:
    names = "NATS_USER NATS_PASSWORD AUTH_NATS_USER AUTH_NATS_PASSWORD AUTH_PEPPER API_KEY"
    secrets = {f"PYOCO_{name}": "top-secret" for name in names.split()}
    system.worker(
        worker_id="open", tags="open", **secrets, PYOCO_NATS_URL="nats://u:top-secret@other:1", PYOCO_MARK="kept"
    )
    code = (
        "import os\n"
        "def t():\n"
        "    parent = open(f'/proc/{os.getppid()}/environ').read()\n"
        "    seen = {k: v for k, v in os.environ.items() if k.startswith('PYOCO_') and k[6:10] != 'RUN_'}\n"
        "    return [seen, 'top-secret' in parent]\n"
    )
    run = system.run(system.flow(code), tag="open")
    found, in_parent = run["task_records"]["t"]["output"]
    assert found == {"PYOCO_MARK": "kept", "PYOCO_NATS_URL": "nats://other:1"}
    assert in_parent is False
