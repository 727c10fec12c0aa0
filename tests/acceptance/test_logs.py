"""What real tasks print, through worker, NATS and gateway, to the one who asks."""

import json
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from .conftest import BIN, DEADLINE, System, running_system

CHATTY = """
import logging, os, subprocess, sys
log = logging.getLogger("mine")
def t():
    print("printed"); print("to stderr", file=sys.stderr); log.info("logged %d", 1); log.debug("not shown")
    sys.stdout.buffer.write("bytes: 日本\\n".encode()); print("half", end="", flush=True); print(" whole")
    subprocess.run(["sh", "-c", "echo from a subprocess; echo its stderr >&2"])
    os.write(1, b"from C\\n")
    if os.fork() == 0:
        print("from a fork"); os._exit(0)
    os.wait(); print("bad \\ud800"); print("no line end", end="")
"""
TWO = """
import threading
from pyoco import Flow, task
turn = threading.Barrier(2)
def speak(name):
    turn.wait(20)
    for n in range(200): print(f"{name} {n}")
    turn.wait(20)
@task
def a(): speak("a")
@task
def b(): speak("b")
@task
def c(): pass
def resolve(name): return Flow(name=name) >> (a & b) >> c
"""


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with running_system(tmp_path_factory.mktemp("system")) as running:
        running.worker(PYOCO_RUN_LOG_MAX_BYTES="200000")
        yield running


def lines(system: System, run_id: str, **query: Any) -> list[tuple[str, str | None, str]]:
    return [(line["stream"], line["task"], line["text"]) for line in system.client.get_logs(run_id, **query)["lines"]]


def test_everything_that_a_task_prints_is_kept_under_its_name(system: System) -> None:
    run = system.run(system.flow(CHATTY))
    assert run["status"] == "COMPLETED", run["error"]
    found = lines(system, run["run_id"])
    assert {task for _, task, _ in found} == {"t"}
    # What goes around Python comes on a way of its own: at another place among the lines of Python.
    errors = [text for stream, _, text in found if stream == "stderr"]
    assert [text for text in errors if text != "its stderr"] == ["to stderr", "INFO mine: logged 1"]
    assert errors.count("its stderr") == 1
    printed = [text for stream, _, text in found if stream == "stdout"]
    raw = ["from a subprocess", "from C"]
    assert [text for text in printed if text in raw] == raw
    assert [text for text in printed if text not in raw] == [
        "printed", "bytes: 日本", "half", " whole", "from a fork", "bad \\ud800", "no line end",
    ]  # fmt: skip
    assert lines(system, run["run_id"], stream="stderr", tail=1) == [("stderr", "t", errors[-1])]


def test_two_tasks_at_once_are_told_apart(system: System) -> None:
    (system.folder / "two.py").write_text(TWO)
    system.worker("--flow-resolver", "two.py:resolve", worker_id="two", tags="two")
    run = system.end(system.client.submit_run("both", tag="two")["run_id"])
    assert run["status"] == "COMPLETED", run["error"]
    for name in "ab":
        texts = [text for _, task, text in lines(system, run["run_id"]) if task == name]
        assert texts == [f"{name} {number}" for number in range(200)]


def test_what_goes_around_python_belongs_to_the_task_that_ran(system: System) -> None:
    flow = system.flow("import os\ndef a(): os.write(1, b'a\\n')\ndef b(): os.write(1, b'b\\n')\n", name="a")
    module = flow.split("callable: ")[1].split(":")[0]
    tasks = "".join(f"  {name}:\n    callable: {module}:{name}\n" for name in "ab")
    run = system.run(f"version: 1\nflow:\n  graph: repeat(count=50) {{ a >> b }}\ntasks:\n{tasks}")
    assert run["status"] == "COMPLETED", run["error"]
    assert lines(system, run["run_id"]) == [("stdout", name, name) for name in "ab"] * 50


def test_a_line_is_seen_within_a_second_while_the_task_runs(system: System) -> None:
    go = system.folder / "go"
    code = (
        "import os, time\ndef t():\n"
        "    while not os.path.exists(GO): print('at', time.time(), flush=True); time.sleep(0.5)\n"
    )
    run_id = system.client.submit_run_yaml(system.flow(f"GO = {str(go)!r}\n{code}"), flow_name="main", tag="cpu")[
        "run_id"
    ]
    events = system.client.follow_logs(run_id)
    # A machine that is busy may be late with some, but not with every line.
    deadline, late = time.monotonic() + DEADLINE, 1.0
    while late >= 1:
        assert time.monotonic() < deadline, f"the last line came after {late:.1f} s"
        event = next(event for event in events if event["event"] == "log" and event["data"]["lines"])
        late = time.time() - float(event["data"]["lines"][-1]["text"].split()[1])
    assert system.client.get_run(run_id)["status"] == "RUNNING"
    go.touch()
    rest = [event for event in events if event["event"] not in ("heartbeat", "log")]
    assert [event["event"] for event in rest] == ["end"] and rest[0]["data"]["status"] == "COMPLETED"


@pytest.mark.parametrize("death", ["os._exit(3)", "os.kill(os.getpid(), 9)", "ctypes.string_at(0)"])
def test_the_last_line_before_a_sudden_death_is_kept(system: System, death: str) -> None:
    code = f"import ctypes, os\ndef t():\n    for n in range(300): print(n)\n    os.write(2, b'raw')\n    {death}\n"
    run = system.run(system.flow(code))
    assert run["status"] == "FAILED"
    found = lines(system, run["run_id"])
    assert [text for stream, _, text in found if stream == "stdout"] == [str(number) for number in range(300)]
    assert ("stderr", "t", "raw") in found or any(text.startswith("rawFatal Python error") for *_, text in found)


@pytest.mark.parametrize(
    "flood",
    [
        "for n in range(20_000): print('x' * 99)",
        "import subprocess; subprocess.run('yes | head -c 2000000', shell=True)",
    ],
)
def test_a_flood_is_cut_and_says_so_and_the_next_run_is_whole(system: System, flood: str) -> None:
    run = system.run(system.flow(f"def t():\n    {flood}\n    return 7\n"))
    assert run["status"] == "COMPLETED" and run["task_records"]["t"]["output"] == 7
    found = lines(system, run["run_id"])
    notices = [text for stream, _, text in found if stream == "notice"]
    assert "limit of 200000 bytes (PYOCO_RUN_LOG_MAX_BYTES)" in notices[0]
    assert notices[-1].endswith("cut in all")
    kept = [text for stream, _, text in found if stream == "stdout"]
    assert 150_000 < sum(len(text) + 48 for text in kept) <= 200_000
    cut = int(notices[-1].split()[0])
    assert len(kept) + cut == (20_000 if "99" in flood else 1_000_000)
    assert lines(system, system.run(system.flow("def t(): print('next')\n"))["run_id"]) == [("stdout", "t", "next")]


def client(system: System, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [BIN / "pyoco-client", "--server", system.url, "logs", *arguments], capture_output=True, text=True, timeout=60
    )


def test_the_command_shows_and_follows(system: System) -> None:
    code = "import time\ndef t():\n    print('one'); time.sleep(0.5); print('\\x1b[31mtwo'); raise ValueError\n"
    run_id = system.client.submit_run_yaml(system.flow(code), flow_name="main", tag="cpu")["run_id"]
    followed = client(system, run_id, "-f")
    assert (followed.stdout, followed.returncode) == ("t | one\nt | ?[31mtwo\n", 3)
    shown = client(system, run_id, "--tail", "1", "--output", "json")
    assert (json.loads(shown.stdout)["text"], shown.returncode) == ("\x1b[31mtwo", 0)
    assert client(system, "nobody").returncode == client(system, "nobody", "-f").returncode == 5
    assert client(system, run_id, "--stream", "x").returncode == 1


@pytest.mark.faults
def test_a_gigabyte_costs_worker_and_gateway_next_to_nothing(tmp_path: Path) -> None:
    with running_system(tmp_path) as system:
        worker = system.worker()
        watched = {"worker": worker.popen.pid, "gateway": system.server.popen.pid}
        system.run(system.flow("def t(): print('warm')\n"))
        before = {name: rss(pid) for name, pid in watched.items()}
        peak = dict(before)
        over = threading.Event()

        def measure() -> None:
            while not over.wait(0.02):
                for name, pid in watched.items():
                    peak[name] = max(peak[name], rss(pid))

        measuring = threading.Thread(target=measure)
        measuring.start()
        try:
            for how in (
                "for n in range(1_000_000): print('x' * 999)",
                "import os; os.system('yes | head -c 1000000000')",
            ):
                begun = time.monotonic()
                run_id = system.client.submit_run_yaml(
                    system.flow(f"def t():\n    {how}\n"), flow_name="main", tag="cpu"
                )["run_id"]
                sizes = [
                    len(event["data"]["lines"])
                    for event in system.client.follow_logs(run_id)
                    if "lines" in event["data"]
                ]
                run = system.client.get_run(run_id)
                log = system.client.get_logs(run_id)
                assert run["status"] == "COMPLETED" and sum(sizes) == len(log["lines"])
                notices = [line["text"] for line in log["lines"] if line["stream"] == "notice"]
                print(how, f"{time.monotonic() - begun:.1f} s", len(log["lines"]), "lines kept;", notices[-1])
                assert len(notices) == 2 and notices[-1].endswith("cut in all")
        finally:
            over.set()
            measuring.join(10)
        grown = {name: (peak[name] - before[name]) / 2**20 for name in watched}
        print({name: f"{before[name] / 2**20:.1f} MiB + {grown[name]:.1f} MiB at most" for name in watched})
        assert max(grown.values()) <= 50


def rss(pid: int) -> int:
    return int(psutil.Process(pid).memory_info().rss)
