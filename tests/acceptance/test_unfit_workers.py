"""A worker whose machine cannot begin runs: nothing fails there, it says why, and it takes runs again by itself."""

import os
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from .conftest import BIN, DEADLINE, TUTORIAL, Process, System, running_system

pytestmark = pytest.mark.slow

FAST = {
    "PYOCO_CONSUMER_ACK_WAIT_SEC": "5",
    "PYOCO_ACK_PROGRESS_INTERVAL_SEC": "1",
    "PYOCO_WORKER_HEARTBEAT_INTERVAL_SEC": "0.5",
    "PYOCO_WORKER_DISCONNECT_TIMEOUT_SEC": "5",
}
RUNS = 20
AGAIN_SEC = 30.0
"""The machine is mended soon after the fault: by then the time between two tries is still short."""


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with running_system(tmp_path_factory.mktemp("system"), **FAST) as running:
        yield running


def begin(system: System, folder: Path, name: str, tag: str, *options: str, **environment: str) -> Process:
    """Start a worker in a directory of its own, and wait until it serves."""
    folder.mkdir(exist_ok=True)
    process = Process(
        ["pyoco-worker", "--nats-url", system.nats_url, "--worker-id", name, "--tags", tag, *options],
        folder, **{**FAST, **environment},
    )  # fmt: skip
    system.processes.append(process)
    process.wait_for("worker ready")
    return process


def submit(system: System, tag: str, count: int, flow: str = TUTORIAL) -> list[str]:
    return [str(system.client.submit_run_yaml(flow, flow_name="main", tag=tag)["run_id"]) for _ in range(count)]


def worker(system: System, name: str) -> dict[str, Any]:
    [found] = system.client.get_workers(worker_id=name)
    return dict(found)


def until(holds: Callable[[], Any], what: str, timeout: float = DEADLINE) -> Any:
    """Wait for what offers no event."""
    deadline = time.monotonic() + timeout
    while not (value := holds()):
        assert time.monotonic() < deadline, f"not within {timeout:g} s: {what}"
        time.sleep(0.05)
    return value


def findings(system: System, lang: str = "en") -> dict[str, dict[str, Any]]:
    return {one["code"]: one for one in system.client.get_doctor(lang=lang)["findings"]}


class Fault:
    """Something that is wrong with a worker's machine from some moment on, until it is mended."""

    said = ""
    slots = "2"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment: dict[str, str] = {}

    def strike(self, process: Process) -> None:
        """Break the machine while the worker runs."""

    def mend(self, process: Process) -> None:
        """Mend it."""


class FileInPlace(Fault):
    """A file lies where the directory of runs should be."""

    said = "Not a directory (ENOTDIR)"

    def strike(self, process: Process) -> None:
        state = self.folder / ".pyoco"
        shutil.rmtree(state, ignore_errors=True)
        state.touch()

    def mend(self, process: Process) -> None:
        (self.folder / ".pyoco").unlink()


class StartRemoved(Fault):
    """A deploy removes the directory in which the worker was started."""

    said = "No such file or directory (ENOENT)"

    def strike(self, process: Process) -> None:
        shutil.rmtree(self.folder)

    def mend(self, process: Process) -> None:
        self.folder.mkdir()


class NoDescriptors(Fault):
    """The worker has as many files open as it may."""

    said = "Too many open files (EMFILE)"
    slots = "1"

    def strike(self, process: Process) -> None:
        self._limit(process, lambda hard: len(list(Path(f"/proc/{process.popen.pid}/fd").iterdir())))

    def mend(self, process: Process) -> None:
        self._limit(process, lambda hard: hard)

    @staticmethod
    def _limit(process: Process, soft: Callable[[int], int]) -> None:
        _, hard = resource.prlimit(process.popen.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(process.popen.pid, resource.RLIMIT_NOFILE, (soft(hard), hard))


class FullDisk(Fault):
    """A disk of 1 MB with 8 inodes, all of them used."""

    said = "No space left on device (ENOSPC)"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.disk = folder.parent / "disk"
        self.disk.mkdir()
        options = ["-t", "tmpfs", "-o", "size=1m,nr_inodes=8"]
        mounted = subprocess.run(["mount", *options, "tmpfs", str(self.disk)], capture_output=True, text=True)
        if mounted.returncode != 0:
            pytest.skip(f"no small file system can be mounted here: {mounted.stderr.strip()}")
        self.environment = {"PYOCO_STATE_DIR": str(self.disk)}

    def strike(self, process: Process) -> None:
        number = 0
        while True:
            try:
                (self.disk / f"filler-{number}").touch()
            except OSError:
                return
            number += 1

    def mend(self, process: Process) -> None:
        for filler in self.disk.glob("filler-*"):
            filler.unlink()

    def unmount(self) -> None:
        until(lambda: subprocess.run(["umount", str(self.disk)]).returncode == 0, "unmounted")


@contextmanager
def struck(kind: type[Fault], folder: Path) -> Iterator[Fault]:
    fault = kind(folder)
    try:
        yield fault
    finally:
        if isinstance(fault, FullDisk):
            fault.unmount()


@pytest.mark.parametrize(
    "kind",
    [
        StartRemoved,
        FullDisk,
        FileInPlace,
        NoDescriptors,
    ],
)
def test_nothing_fails_on_a_machine_that_breaks_and_it_takes_runs_again(
    system: System, tmp_path: Path, kind: type[Fault]
) -> None:
    tag = kind.__name__
    with struck(kind, tmp_path / "bad") as fault:
        bad = begin(system, fault.folder, f"bad-{tag}", tag, "--concurrency", fault.slots, **fault.environment)
        good = begin(system, tmp_path / "good", f"good-{tag}", tag)
        fault.strike(bad)
        ends = [system.end(run_id) for run_id in submit(system, tag, RUNS)]
        assert {(run["status"], run["attempt"]) for run in ends} == {("COMPLETED", 1)}
        told = until(lambda: worker(system, f"bad-{tag}")["trouble"], "the worker says what is wrong")
        late = [run for run in ends if run["worker_id"] != f"good-{tag}" and run["start_time"] > told["since"]]
        # A slot without a process does not keep the other one, which still has its own, from working.
        assert kind.said in told["reason"] and (not late or kind is NoDescriptors)
        assert told["since"] <= told["next_try_at"] and worker(system, f"good-{tag}")["trouble"] is None
        assert [letter for letter in system.client.list_dead_letters() if letter["tag"] == tag] == []
        good.stop()
        [waiting] = submit(system, tag, 1)
        until(lambda: system.client.why_run(waiting)["code"] == "workers_unfit", "why it waits")
        fault.mend(bad)
        run = system.end(waiting, timeout=60)
        assert (run["status"], run["attempt"], run["worker_id"]) == ("COMPLETED", 1, f"bad-{tag}")
        until(lambda: worker(system, f"bad-{tag}")["trouble"] is None, "it says that all is well")
        bad.stop()


def test_a_state_directory_that_cannot_be_used_is_told_everywhere(system: System, tmp_path: Path) -> None:
    bad = begin(system, tmp_path / "bad", "nowhere", "nowhere", PYOCO_STATE_DIR="/proc/x")
    [line] = [line for line in bad.lines if line["message"] == "this machine cannot begin runs; trying again by itself"]
    reason = "run directories cannot be made in /proc/x/runs (PYOCO_STATE_DIR): No such file or directory (ENOENT)"
    assert (line["level"], line["reason"]) == ("ERROR", reason)
    begin(system, tmp_path / "good", "somewhere", "nowhere", "--no-wheel-sync")
    ends = [system.end(run_id) for run_id in submit(system, "nowhere", RUNS)]
    assert {(run["status"], run["worker_id"], run["attempt"]) for run in ends} == {("COMPLETED", "somewhere", 1)}
    shown = worker(system, "nowhere")
    assert (shown["state"], shown["trouble"]["reason"], shown["trouble"]["kind"]) == ("IDLE", reason, "state_directory")
    english, japanese = (findings(system, lang)["worker_unfit"] for lang in ("en", "ja"))
    assert english["severity"] == "error"
    assert reason in english["message"] and "worker nowhere on " in english["message"]
    assert reason in japanese["message"] and "受け付けていません" in japanese["message"]
    assert english["details"]["next_try_at"] > 0
    assert "tag_without_worker" not in findings(system)
    metrics = system.client.get_metrics()
    assert "pyoco_workers_unfit 1.0" in metrics
    assert 'pyoco_worker_slots_unfit{worker="nowhere"} 1.0' in metrics
    assert 'pyoco_worker_slots_unfit{worker="somewhere"} 0.0' in metrics
    assert 'pyoco_workers_serving{tag="nowhere"} 1.0' in metrics
    table = subprocess.run(
        [str(BIN / "pyoco-client"), "--server", system.url, "workers", "--output", "table"],
        capture_output=True, text=True, timeout=DEADLINE, env={**os.environ, "COLUMNS": "400"}, check=True,
    ).stdout  # fmt: skip
    assert "trouble" in table and reason in table
    system.processes[-1].stop()
    [waiting] = submit(system, "nowhere", 1)
    answer = until(lambda: (why := system.client.why_run(waiting))["code"] == "workers_unfit" and why, "why it waits")
    assert f"nowhere: {reason}; it tries again at " in answer["message"]
    assert answer["details"]["workers"] == ["nowhere"]
    until(lambda: "tag_without_worker" in findings(system), "the tag has nobody")
    assert "the machines of nowhere cannot begin runs" in findings(system)["tag_without_worker"]["message"]
    system.client.cancel_run(waiting)
    bad.stop()
    assert system.stopped("nowhere")["trouble"] is None


def test_a_worker_for_one_run_says_that_it_cannot(system: System, tmp_path: Path) -> None:
    ended = subprocess.run(
        [str(BIN / "pyoco-worker"), "--nats-url", system.nats_url, "--tags", "once", "--worker-id", "o", "--run-once"],
        capture_output=True, text=True, timeout=DEADLINE, cwd=tmp_path,
        env={**os.environ, "PYOCO_STATE_DIR": "/proc/x"},
    )  # fmt: skip
    assert ended.returncode == 1
    assert ended.stderr.endswith(
        "error: this machine cannot begin runs: run directories cannot be made in /proc/x/runs (PYOCO_STATE_DIR): "
        "No such file or directory (ENOENT)\n"
    )


def test_a_worker_in_a_directory_that_is_gone_does_not_start(system: System, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    ended = subprocess.run(
        ["sh", "-c", f'rmdir {gone}; exec "$0" --nats-url {system.nats_url} --tags x', str(BIN / "pyoco-worker")],
        capture_output=True, text=True, timeout=DEADLINE, cwd=gone,
    )  # fmt: skip
    assert ended.returncode == 1
    assert "error: the current directory cannot be used: No such file or directory (ENOENT)\n" in ended.stderr


def test_code_of_a_start_directory_that_was_made_anew_is_used(system: System, tmp_path: Path) -> None:
    place = tmp_path / "app"
    flow = "version: 1\nflow:\n  graph: t\ntasks:\n  t:\n    callable: deployed:t\n"
    resolver = "import deployed, pyoco\ndef get(name):\n    return pyoco.Flow('f') >> pyoco.task(deployed.t)\n"

    def deploy(version: int) -> None:
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        (place / "deployed.py").write_text(f"def t():\n    return {version}\n")
        (place / "flows.py").write_text(resolver)

    deploy(1)
    begin(system, place, "deployed", "deployed", "--flow-resolver", "flows.py:get")
    for version in (1, 2, 3):
        if version > 1:
            deploy(version)
        for run_id in (*submit(system, "deployed", 1, flow), system.client.submit_run("f", tag="deployed")["run_id"]):
            run = system.end(run_id, timeout=60)
            assert (run["status"], run["task_records"]["t"]["output"]) == ("COMPLETED", version), run
            assert run["attempt"] == 1


def test_a_resolver_that_breaks_later_fails_its_runs_only(system: System, tmp_path: Path) -> None:
    place = tmp_path / "app"
    place.mkdir()
    (place / "flows.py").write_text("def get(name):\n    return None\n")
    process = begin(system, place, "resolving", "resolving", "--flow-resolver", "flows.py:get")
    (place / "flows.py").write_text("def get(name:\n")
    run = system.end(system.client.submit_run("f", tag="resolving")["run_id"])
    assert run["status"] == "FAILED" and "SyntaxError" in run["error"]
    [template] = children(process)
    os.kill(template, signal.SIGKILL)
    run = system.end(system.client.submit_run("f", tag="resolving")["run_id"])
    assert run["status"] == "FAILED" and "SyntaxError" in run["error"]
    (place / "flows.py").write_text("def get(name):\n    return None\n")
    assert system.run(TUTORIAL, tag="resolving")["status"] == "COMPLETED"
    assert worker(system, "resolving")["trouble"] is None
    for _ in range(5):  # at any moment, of a fork too
        [template] = children(process)
        os.kill(template, signal.SIGKILL)
        until(lambda gone=template: not Path(f"/proc/{gone}").exists(), "the template is gone")
        assert system.run(TUTORIAL, tag="resolving")["status"] == "COMPLETED"
        assert worker(system, "resolving")["trouble"] is None


def children(process: Process) -> list[int]:
    pid = process.popen.pid
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_a_full_disk_in_a_task_is_the_runs_own(system: System, tmp_path: Path) -> None:
    begin(system, tmp_path / "app", "writing", "writing")
    (tmp_path / "app/writer.py").write_text("def t():\n    open('/dev/full', 'w').write('x' * 100_000)\n")
    flow = "version: 1\nflow:\n  graph: t\ntasks:\n  t:\n    callable: writer:t\n"
    run = system.run(flow, tag="writing")
    assert (run["status"], run["end_reason"]) == ("FAILED", "task_failed") and "No space left" in run["error"]
    assert worker(system, "writing")["trouble"] is None
