"""What real tasks print, through worker, NATS and gateway, to the one who asks."""

import contextlib
import json
import os
import pty
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
    os.wait()
    if os.fork() == 0:
        print("unfinished in a fork", end=""); sys.exit(0)
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
    assert {task for _, task, _ in found} == {"t"}, [line for line in found if line[1] is None]
    # What goes around Python comes on a way of its own: at another place among the lines of Python.
    errors = [text for stream, _, text in found if stream == "stderr"]
    assert [text for text in errors if text != "its stderr"] == ["to stderr", "INFO mine: logged 1"]
    assert errors.count("its stderr") == 1
    printed = [text for stream, _, text in found if stream == "stdout"]
    raw = ["from a subprocess", "from C"]
    assert [text for text in printed if text in raw] == raw
    assert [text for text in printed if text not in raw] == [
        "printed", "bytes: 日本", "half whole", "from a fork", "bad \\ud800", "no line end", "unfinished in a fork",
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


@pytest.mark.parametrize("death", ["", "os.kill(os.getpid(), 9)", "ctypes.string_at(0)"])
@pytest.mark.parametrize(
    ("flood", "last"),
    [
        ("for n in range(20_000): print('x' * 99)", "print('FINAL')"),
        ("subprocess.run('yes | head -c 2000000', shell=True)", "os.write(1, b'FINAL')"),
    ],
)
def test_of_a_flood_the_beginning_and_the_end_are_kept_and_the_next_run_is_whole(
    system: System, flood: str, last: str, death: str
) -> None:
    body = f"    print('FIRST')\n    {flood}\n    {last}\n    {death}\n    return 7\n"
    code = f"import ctypes, os, subprocess\ndef t():\n{body}"
    run = system.run(system.flow(code))
    if death:
        assert run["status"] == "FAILED"
    else:
        assert run["status"] == "COMPLETED" and run["task_records"]["t"]["output"] == 7
    found = lines(system, run["run_id"])
    [notice] = [text for stream, _, text in found if stream == "notice"]
    assert "this log has reached its limit of 200000 bytes (PYOCO_RUN_LOG_MAX_BYTES)" in notice
    kept = [text for stream, _, text in found if stream == "stdout"]
    assert kept[0] == "FIRST" and kept[-1] == "FINAL" and set(kept[1:-1]) <= {"x" * 99, "y"}
    assert 150_000 < sum(len(text) + 48 for text in kept) <= 200_000
    errors = len([text for stream, _, text in found if stream == "stderr"])
    assert len(kept) + int(notice.split()[0]) + errors >= (20_002 if "99" in flood else 1_000_002)
    place = next(number for number, (stream, *_) in enumerate(found) if stream == "notice")
    assert 80_000 < sum(len(text) + 48 for *_, text in found[:place]) < 120_000
    assert lines(system, system.run(system.flow("def t(): print('next')\n"))["run_id"]) == [("stdout", "t", "next")]


BARS = {
    "before": "write(f'\\rstep {n}'); flush()",
    "after": "write(f'step {n}\\r')",
    "apart": "write('\\r'); flush(); write('step '); write(str(n)); flush()",
    "erased": "write(f'\\x1b[2K\\rstep {n}'); flush()",
    "padded": "write('\\r' + f'step {n}'.ljust(20)); flush()",
    "nested": "write(f'\\rstep {n}'); write('\\n'); write(f'\\rinner {n}'); write('\\x1b[A'); flush()",
}


@pytest.mark.parametrize("where", ["here", "in a subprocess"])
@pytest.mark.parametrize("bar", BARS)
def test_a_progress_bar_leaves_its_last_state(system: System, bar: str, where: str) -> None:
    body = f"import sys\nwrite, flush = sys.stderr.write, sys.stderr.flush\nfor n in range(5000): {BARS[bar]}\n"
    if where == "here":
        code = f"BODY = {body!r}\ndef t():\n    exec(BODY, {{}})\n    print('FINAL accuracy=0.93')\n"
    else:
        code = (
            f"import subprocess, sys\nBODY = {body!r}\ndef t():\n"
            "    subprocess.run([sys.executable, '-c', BODY])\n    print('FINAL accuracy=0.93')\n"
        )
    run = system.run(system.flow(code))
    assert run["status"] == "COMPLETED", run["error"]
    found = lines(system, run["run_id"])
    assert ("stdout", "t", "FINAL accuracy=0.93") in found
    states = [text.rstrip() for stream, _, text in found if stream == "stderr"]
    assert states == (["step 0", "step 4999", "inner 4999"] if bar == "nested" else ["step 4999"])


@pytest.mark.parametrize("how", ["sys.stderr.write('\\rstep 41')", "os.write(2, b'\\rstep 41')",
                                 "print('step 41', end='\\r')"])  # fmt: skip
def test_the_last_state_before_a_sudden_death_is_kept(system: System, how: str) -> None:
    body = f"    print('before')\n    {how.replace('41', '40')}\n    {how}\n    os.kill(os.getpid(), 9)\n"
    code = f"import os, sys\ndef t():\n{body}"
    run = system.run(system.flow(code))
    assert run["status"] == "FAILED"
    assert {(task, text) for _, task, text in lines(system, run["run_id"])} == {("t", "before"), ("t", "step 41")}


def test_a_progress_bar_is_seen_while_it_moves_and_stored_once(system: System) -> None:
    go = system.folder / "bar"
    code = (
        f"import os, sys, time\ndef t():\n    n = 0\n    while not os.path.exists({str(go)!r}):\n"
        "        n += 1; sys.stderr.write(f'\\rstep {n} {time.time()}'); time.sleep(0.02)\n"
        "    sys.stderr.write('\\n')\n"
    )
    run_id = system.client.submit_run_yaml(system.flow(code), flow_name="main", tag="cpu")["run_id"]
    seen: list[str] = []
    stored: list[str] = []
    deadline, late = time.monotonic() + DEADLINE, 2.0
    for event in system.client.follow_logs(run_id):
        data = event["data"]
        stored += [line["text"] for line in data.get("lines", ())]
        for line in data.get("live", ()):
            seen.append(line["text"])
            late = min(late, time.time() - float(line["text"].split()[2]))
        # A machine that is busy may be late with some, but not with every state.
        if len(seen) >= 3 and late < 1.5:
            go.touch()
        assert time.monotonic() < deadline, f"of {len(seen)} states none came within {late:.1f} s"
    assert len(set(seen)) == len(seen) >= 3
    [last] = stored
    assert last not in seen or last == seen[-1]
    assert int(last.split()[1]) >= int(seen[-1].split()[1])
    assert [text for *_, text in lines(system, run_id)] == stored


def client(system: System, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [BIN / "pyoco-client", "--server", system.url, "logs", *arguments], capture_output=True, text=True, timeout=60
    )


TEXTS = ["学習　完了", "12\u00a0345", "👨\u200d👩\u200d👧 ❤\ufe0f", "e\u0301", "שלום \u200eabc", "\ue0b0", "tab\tbed"]


def test_text_is_text_everywhere(system: System) -> None:
    run_id = system.run(system.flow(f"def t():\n    for text in {TEXTS!a}: print(text)\n"))["run_id"]
    assert [text for *_, text in lines(system, run_id)] == TEXTS
    assert client(system, run_id).stdout == "".join(f"t | {text}\n" for text in TEXTS)
    run_id = system.run(system.flow("def t(): print('a\\x07b\\u202ec\\u2028d\\x9be')\n"))["run_id"]
    assert client(system, run_id).stdout == "t | a?b?c?d?e\n"


def test_on_a_terminal_the_command_draws_what_is_not_finished(system: System) -> None:
    go = system.folder / "drawn"
    code = (
        f"import os, sys, time\ndef t():\n    n = 0\n    while not os.path.exists({str(go)!r}):\n"
        "        n += 1; sys.stderr.write(f'\\rstep {n} ' + '日' * 100); time.sleep(0.02)\n"
        "    sys.stderr.write('\\n'); print('FINAL')\n"
    )
    run_id = system.client.submit_run_yaml(system.flow(code), flow_name="main", tag="cpu")["run_id"]
    ours, its = pty.openpty()
    command = [BIN / "pyoco-client", "--server", system.url, "logs", run_id, "-f"]
    environment = {**os.environ, "COLUMNS": "60", "LINES": "24"}
    with subprocess.Popen(command, stdout=its, stdin=subprocess.DEVNULL, env=environment) as process:
        os.close(its)
        shown = b""
        with contextlib.suppress(OSError):  # the terminal's other end is closed
            while data := os.read(ours, 65536):
                shown += data
                if shown.count(b"step") >= 3:
                    go.touch()
        assert process.wait(DEADLINE) == 0
    os.close(ours)
    *drawn, final = shown.decode().replace("\r\n", "\n").split("\x1b[1A\x1b[J")
    assert len(drawn) >= 3
    assert all(len(text.strip()) < 45 and text.startswith("t | step") for text in drawn)
    assert final.endswith("t | FINAL\n") and "日" * 100 in final


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
                assert len(notices) == 1 and "cut here" in notices[0]
        finally:
            over.set()
            measuring.join(10)
        grown = {name: (peak[name] - before[name]) / 2**20 for name in watched}
        print({name: f"{before[name] / 2**20:.1f} MiB + {grown[name]:.1f} MiB at most" for name in watched})
        assert max(grown.values()) <= 50


def rss(pid: int) -> int:
    return int(psutil.Process(pid).memory_info().rss)
