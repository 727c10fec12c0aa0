"""No process of a run survives it, and no run survives its worker's silence."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from .conftest import TUTORIAL, Process, System, running_system

pytestmark = pytest.mark.usercode

FAST = {
    "PYOCO_CONSUMER_ACK_WAIT_SEC": "3",
    "PYOCO_ACK_PROGRESS_INTERVAL_SEC": "1",
    "PYOCO_WORKER_HEARTBEAT_INTERVAL_SEC": "0.5",
    "PYOCO_WORKER_DISCONNECT_TIMEOUT_SEC": "3",
    "PYOCO_CANCEL_GRACE_PERIOD_SEC": "2",
}
# Daemons leave the process group and the session, and their parent ends at once.
FORKS = """\
import os, signal, subprocess, sys, time
DAEMON = "import os, sys, time; os.setsid(); os.fork() and os._exit(0); print(os.getpid(), flush=True); time.sleep(600)"
def fork():
    plain = subprocess.Popen(["sleep", "600"]).pid
    daemon = subprocess.Popen([sys.executable, "-c", DAEMON], stdout=subprocess.PIPE).stdout.readline()
    with open(PLACE + ".new", "w") as file:
        file.write(f"{os.getpid()} {plain} {int(daemon)}")
    os.rename(PLACE + ".new", PLACE)
"""


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with running_system(tmp_path_factory.mktemp("system"), **FAST) as running:
        running.worker(**FAST)
        yield running


def forking(system: System, place: Path, then: str) -> str:
    return system.flow(f"PLACE = {str(place)!r}\n{FORKS}\ndef t():\n    fork()\n    {then}\n")


def pids(place: Path) -> list[int]:
    return [int(word) for word in within(lambda: place.exists() and place.read_text()).split()]


def within(holds, timeout: float = 20):
    """Wait for what offers no event."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if found := holds():
            return found
        os.sched_yield()
    raise AssertionError("it never came true")


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def submit(system: System, flow: str, tag: str = "cpu") -> str:
    return str(system.client.submit_run_yaml(flow, flow_name="main", tag=tag)["run_id"])


@pytest.mark.parametrize("then", ["return 1", "os._exit(3)", "time.sleep(600)"])
def test_daemons_of_a_run_end_with_it(system: System, tmp_path: Path, then: str) -> None:
    place = tmp_path / "pids"
    run_id = submit(system, forking(system, place, then))
    left = pids(place)
    if "sleep" in then:
        system.client.cancel_run(run_id)
    run = system.end(run_id)
    assert run["status"] == {"r": "COMPLETED", "o": "FAILED", "t": "CANCELLED"}[then[0]]
    within(lambda: all(is_gone(pid) for pid in left))
    assert system.run(TUTORIAL)["status"] == "COMPLETED"


def test_nothing_of_a_run_outlives_its_worker(system: System, tmp_path: Path) -> None:
    place = tmp_path / "pids"
    worker = system.worker(worker_id="mortal", tags="mortal", **FAST)
    run_id = submit(system, forking(system, place, "while True: pass"), "mortal")
    left = pids(place)
    worker.stop(signal.SIGKILL)
    within(lambda: all(is_gone(pid) for pid in left))
    system.client.cancel_run(run_id)


def test_a_worker_that_stands_still_loses_its_run_and_stops_it_first(system: System, tmp_path: Path) -> None:
    log, go = tmp_path / "log", tmp_path / "go"
    code = (
        "import os, time\ndef t():\n"
        f"    with open({str(log)!r}, 'a') as file: file.write(f'{{os.getpid()}}\\n')\n"
        f"    while not os.path.exists({str(go)!r}): time.sleep(0.01)\n    return os.getpid()\n"
    )
    stopped = system.worker(worker_id="stopped", tags="still", **FAST)
    run_id = submit(system, system.flow(code), "still")
    first = int(within(lambda: log.exists() and log.read_text()))
    stopped.popen.send_signal(signal.SIGSTOP)
    try:
        system.worker(worker_id="other", tags="still", **FAST)
        second = int(within(lambda: log.read_text().split()[1:])[0])
        assert is_gone(first)  # never two at once: the guardian ended it before the job was given away
    finally:
        stopped.popen.send_signal(signal.SIGCONT)
    stopped.wait_for("the run is no longer ours")
    go.touch()
    run = system.end(run_id)
    assert (run["status"], run["attempt"], run["worker_id"]) == ("COMPLETED", 2, "other")
    assert run["task_records"]["t"]["output"] == second


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import os\ndef t():\n    os.closerange(3, 200)\n    return 1", "cut its connection to the worker"),
        ("import os, signal\ndef t():\n    os.kill(os.getppid(), signal.SIGKILL)\n    while True: pass", "SIGKILL"),
        (
            "import os, time\n"
            "def t():\n"
            "    for descriptor in range(3, 200):\n"
            "        try: os.write(descriptor, b'\\0\\0\\0\\x0b{\"hello\":1}')\n"
            "        except OSError: pass\n"
            "    time.sleep(600)",
            "sent its worker what it does not understand",
        ),
    ],
)
def test_a_run_that_attacks_its_surroundings_ends_alone(system: System, code: str, said: str) -> None:
    run = system.run(system.flow(code))
    assert run["status"] == "FAILED"
    assert said in run["error"]
    assert system.run(TUTORIAL)["status"] == "COMPLETED"


def test_a_second_signal_hands_the_run_back_at_once(system: System, tmp_path: Path) -> None:
    leaving = system.worker("--drain-timeout-sec", "600", worker_id="leaving", tags="drain", **FAST)
    go = tmp_path / "go"
    code = f"import os, time\ndef t():\n    while not os.path.exists({str(go)!r}): time.sleep(0.01)\n"
    run_id = submit(system, system.flow(code), "drain")
    system.until(run_id, lambda run: run["tasks"].get("t") == "RUNNING")
    leaving.popen.send_signal(signal.SIGTERM)
    leaving.wait_for("stopping")
    assert system.client.get_run(run_id)["status"] == "RUNNING"
    assert leaving.stop(signal.SIGTERM) == 0
    waiting = system.client.get_run(run_id)
    assert (waiting["status"], waiting["attempt"]) == ("PENDING", 0)
    go.touch()
    system.worker(worker_id="staying", tags="drain", **FAST)
    assert system.end(run_id)["attempt"] == 1


def test_a_worker_for_one_run_hands_it_back_too(system: System) -> None:
    process = Process(
        ["pyoco-worker", "--nats-url", system.nats_url, "--worker-id", "once", "--tags", "once", "--run-once",
         "--poll-timeout", "30", "--drain-timeout-sec", "0.5"],
        system.folder, **FAST,
    )  # fmt: skip
    run_id = submit(system, system.flow("import time\ndef t():\n    time.sleep(600)"), "once")
    system.until(run_id, lambda run: run["tasks"].get("t") == "RUNNING")
    assert process.stop() == 0
    waiting = system.client.get_run(run_id)
    assert (waiting["status"], waiting["attempt"]) == ("PENDING", 0)
    system.client.cancel_run(run_id)


def test_a_flow_of_too_many_tasks_is_refused_by_its_worker(system: System, tmp_path: Path) -> None:
    (tmp_path / "many.py").write_text(
        "from pyoco import Flow\nfrom pyoco.core.models import Task\n"
        "def resolve(name):\n"
        "    flow = Flow(name)\n"
        "    for n in range(5000):\n"
        "        flow.add_task(Task(func=lambda: 1, name=f'a_task_with_a_long_name_{n}'))\n"
        "    return flow\n"
    )
    system.worker("--flow-resolver", f"{tmp_path}/many.py:resolve", worker_id="many", tags="many", **FAST)
    run = system.end(system.client.submit_run("main", tag="many")["run_id"])
    assert (run["status"], run["end_reason"]) == ("FAILED", "output_too_large")
    assert "the flow has 5000 tasks" in run["error"]


def test_a_consumer_made_anew_does_not_take_a_run_from_its_living_worker(system: System, tmp_path: Path) -> None:
    import asyncio

    import nats

    log, go = tmp_path / "log", tmp_path / "go"
    code = (
        "import os, time\ndef t():\n"
        f"    with open({str(log)!r}, 'a') as file: file.write('x')\n"
        f"    while not os.path.exists({str(go)!r}): time.sleep(0.01)\n"
    )
    system.worker(worker_id="holder", tags="anew", **FAST)
    run_id = submit(system, system.flow(code), "anew")
    within(lambda: log.exists() and log.read_text())
    idle = system.worker(worker_id="idle", tags="anew", **FAST)

    async def delete() -> None:
        client = await nats.connect(system.nats_url)
        await client.jetstream().delete_consumer("PYOCO_WORK", "pyoco_workers_anew")
        await client.close()

    asyncio.run(delete())
    idle.wait_for("a job came again though its run is held")
    go.touch()
    run = system.end(run_id)
    assert (run["status"], run["attempt"], run["worker_id"]) == ("COMPLETED", 1, "holder")
    assert log.read_text() == "x"


@pytest.fixture
def memory_group() -> Iterator[Path]:
    """A control group with 250 MB of memory, where this machine lets us make one."""
    version_1 = Path("/sys/fs/cgroup/memory")
    group = (version_1 if version_1.is_dir() else Path("/sys/fs/cgroup")) / f"pyoco-test-{os.getpid()}"
    limit = "memory.limit_in_bytes" if version_1.is_dir() else "memory.max"
    try:
        group.mkdir()
        (group / limit).write_text("250000000")
    except OSError as error:
        pytest.skip(f"no control group can be made here: {error}")
    try:
        yield group
    finally:
        within(lambda: not (group / "cgroup.procs").read_text())
        group.rmdir()


def test_the_kernel_out_of_memory_is_told_from_a_signal(system: System, memory_group: Path) -> None:
    small = system.worker(worker_id="small", tags="small", **FAST)
    for process in (psutil.Process(small.popen.pid), *psutil.Process(small.popen.pid).children(recursive=True)):
        (memory_group / "cgroup.procs").write_text(str(process.pid))
    try:
        run = system.run(system.flow("def t():\n    return len(bytearray(10**9))"), tag="small")
        assert (run["status"], run["end_reason"]) == ("FAILED", "out_of_memory")
        assert run["error"].endswith("for want of memory while task 't' was running")
        run = system.run(system.flow("import os\ndef t():\n    os.kill(os.getpid(), 9)"), tag="small")
        assert run["end_reason"] == "child_killed_by_signal"
        assert small.popen.poll() is None
    finally:
        small.stop()
