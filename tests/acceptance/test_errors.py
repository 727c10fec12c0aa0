"""What fails in a run stands in its worker's log: one ERROR line, with the place in the user's own code."""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .conftest import Process, System, running_system
from .test_processes import within

FAST = {"PYOCO_CANCEL_GRACE_PERIOD_SEC": "2"}
KINDS = """\
import json, os, signal, sys, time

def load(text):
    return json.loads(text)

def direct():
    raise ValueError("boom")

def in_a_helper():
    direct()

def in_a_library():
    load("{")

def chained():
    try:
        direct()
    except ValueError as error:
        raise RuntimeError("outer") from error

class Odd(Exception):
    def __str__(self):
        raise OSError

def odd():
    raise Odd

class Blocks(Exception):
    def __str__(self):
        time.sleep(3600)

def blocks():
    raise Blocks

def leaves():
    sys.exit(4)

def dies():
    os._exit(3)

def sleeps():
    time.sleep(60)

def needs(what):
    return what

def stops_badly():
    def handler(*_):
        raise ValueError("told to stop")
    signal.signal(signal.SIGTERM, handler)
    while True:
        time.sleep(0.05)
"""

IN_MAIN_THREAD = "repeat(count=1) { t }"
"""A graph whose task gets the signals."""


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with running_system(tmp_path_factory.mktemp("system"), **FAST) as running:
        (running.folder / "kinds.py").write_text(KINDS)
        (running.folder / "broken_text.py").write_text("def t():\n    return = 1\n")
        (running.folder / "broken_import.py").write_text("import kinds\nkinds.direct()\n")
        yield running


@pytest.fixture(scope="module")
def worker(system: System) -> Process:
    return system.worker(**FAST)


def flow(callable_: str, more: str = "", graph: str = "t") -> str:
    return f'version: 1\nflow: {{graph: "{graph}"}}\ntasks: {{t: {{callable: "{callable_}"{more}}}}}\n'


def lines_of(worker: Process, run: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the lines about a run that has ended, the INFO ones too."""

    def about() -> list[dict[str, Any]]:
        return [line for line in list(worker.lines) if line.get("run_id") == run["run_id"]]

    within(lambda: any(line["message"] == "run ended" for line in about()))
    return about()


def failures(worker: Process, run: dict[str, Any]) -> list[dict[str, Any]]:
    return [line for line in lines_of(worker, run) if line["level"] not in ("DEBUG", "INFO")]


def line_of(text: str) -> int:
    return KINDS.splitlines().index(text) + 1


def test_a_failed_task_is_one_error_with_every_field(system: System, worker: Process) -> None:
    run = system.run(flow("kinds:in_a_helper"))
    [line] = failures(worker, run)
    place = {"file": str(system.folder / "kinds.py"), "line": line_of('    raise ValueError("boom")'), "func": "direct"}
    assert {name: line[name] for name in ("level", "message", "service")} == {
        "level": "ERROR", "message": "task failed", "service": "pyoco-server:worker",
    }  # fmt: skip
    assert {name: line[name] for name in ("run_id", "flow_name", "task", "tag", "worker_id", "attempt")} == {
        "run_id": run["run_id"], "flow_name": "main", "task": "t", "tag": "cpu", "worker_id": "w", "attempt": 1,
    }  # fmt: skip
    assert (line["exc_type"], line["exc_message"], line["exc_origin"]) == ("ValueError", "boom", place)
    assert line["exc_user_origin"] == place
    assert line["exc_traceback"].startswith("Traceback (most recent call last):\n")
    assert line["exc_traceback"].endswith("\nValueError: boom\n")
    assert "in in_a_helper" in line["exc_traceback"]
    assert "pyoco" not in line["exc_traceback"]
    record = run["task_records"]["t"]
    assert record["origin"] == place
    assert (record["error"], record["traceback"]) == ("ValueError: boom", line["exc_traceback"])


@pytest.mark.parametrize(
    ("name", "kind", "message", "origin", "own"),
    [
        ("in_a_library", "JSONDecodeError", "Expecting property name", ("decoder.py", "raw_decode"), "load"),
        ("chained", "RuntimeError", "outer", ("kinds.py", "chained"), "chained"),
        ("odd", "Odd", "(its message cannot be shown)", ("kinds.py", "odd"), "odd"),
        (
            "blocks",
            "Blocks",
            "(its message cannot be shown: str() of it took longer than",
            ("kinds.py", "blocks"),
            "blocks",
        ),
        ("leaves", "SystemExit", "4", ("kinds.py", "leaves"), "leaves"),
        ("needs", "TypeError", "needs() missing 1 required", ("kinds.py", "needs"), "needs"),
    ],
)
def test_kinds_of_exceptions(
    system: System, worker: Process, name: str, kind: str, message: str, origin: tuple[str, str], own: str
) -> None:
    run = system.run(flow(f"kinds:{name}"))
    assert run["status"] == "FAILED"
    assert run["error"].startswith(f"task 't' failed: {kind}: {message}")
    [line] = failures(worker, run)
    assert (line["level"], line["message"], line["exc_type"]) == ("ERROR", "task failed", kind)
    assert line["exc_message"].startswith(message)
    assert (Path(line["exc_origin"]["file"]).name, line["exc_origin"]["func"]) == origin
    assert (Path(line["exc_user_origin"]["file"]).name, line["exc_user_origin"]["func"]) == ("kinds.py", own)
    assert kind in line["exc_traceback"]
    assert ("ValueError: boom" in line["exc_traceback"]) == (name == "chained")


@pytest.mark.parametrize(
    ("workflow", "reason", "said", "kind", "place"),
    [
        (flow("kinds:dies"), "child_exited", "exit code 3", None, None),
        (flow("kinds:sleeps", ", timeout_sec: 0.3"), "task_timeout", "took longer", None, None),
        (flow("kinds:stops_badly", ", timeout_sec: 0.3", IN_MAIN_THREAD), "task_timeout", "took longer", None, None),
        (flow("no_such_module:t"), "dependency_missing", "no_such_module", "ModuleNotFoundError", None),
        (flow("broken_text:t"), "invalid_flow", "SyntaxError", "SyntaxError", ("broken_text.py", 2)),
        (flow("broken_import:t"), "invalid_flow", "ValueError: boom", "ValueError",
         ("kinds.py", line_of('    raise ValueError("boom")'))),
        (flow("kinds:nothing"), "invalid_flow", "has no 'nothing'", None, None),
    ],
)  # fmt: skip
def test_a_run_that_fails_by_itself_is_one_error(
    system: System, worker: Process, workflow: str, reason: str, said: str, kind: str | None, place: Any
) -> None:
    run = system.run(workflow)
    assert run["end_reason"] == reason
    [line] = failures(worker, run)
    assert (line["level"], line["message"], line["end_reason"]) == ("ERROR", "run failed", reason)
    assert said in line["reason"]
    assert (line["task"], line["flow_name"], line["tag"], line["worker_id"], line["attempt"]) == (
        "t", "main", "cpu", "w", 1,
    )  # fmt: skip
    assert line.get("exc_type") == kind
    origin = line.get("exc_origin")
    assert (origin and (Path(origin["file"]).name, origin["line"])) == place


def test_a_try_that_is_followed_by_another_is_a_warning(system: System, worker: Process) -> None:
    run = system.run(flow("kinds:direct", ", retries: 2, retry_delay_sec: 0"))
    lines = failures(worker, run)
    assert [(line["level"], line["try"], line["tries"]) for line in lines] == [
        ("WARNING", 1, 3), ("WARNING", 2, 3), ("ERROR", 3, 3),
    ]  # fmt: skip
    assert len({json.dumps([line["exc_origin"], line["exc_type"], line["exc_message"]]) for line in lines}) == 1


def test_an_isolated_failure_is_an_error_of_a_run_that_completes(system: System, worker: Process) -> None:
    run = system.run(flow("kinds:direct", ", fail_policy: isolate"))
    assert run["status"] == "COMPLETED"
    [line] = failures(worker, run)
    assert (line["level"], line["message"], line["exc_type"]) == ("ERROR", "task failed", "ValueError")


@pytest.mark.parametrize("name", ["sleeps", "stops_badly"])
def test_a_cancel_is_no_error(system: System, worker: Process, name: str) -> None:
    workflow = flow(f"kinds:{name}", graph=IN_MAIN_THREAD)
    run_id = system.client.submit_run_yaml(workflow, flow_name="main", tag="cpu")["run_id"]
    system.until(run_id, lambda run: run["tasks"].get("t") == "RUNNING")
    system.client.cancel_run(run_id)
    run = system.end(run_id)
    assert run["status"] == "CANCELLED"
    assert failures(worker, run) == []


def test_without_tracebacks_everything_else_is_told(system: System) -> None:
    worker = system.worker(worker_id="brief", tags="brief", PYOCO_LOG_INCLUDE_TRACEBACK="false")
    for workflow in (flow("kinds:direct"), flow("broken_text:t")):
        [line] = failures(worker, system.run(workflow, tag="brief"))
        assert line["level"] == "ERROR"
        assert line["exc_type"]
        assert line["exc_message"]
        assert line["exc_origin"]["line"] > 0
    assert not any("exc_traceback" in line for line in worker.lines)
    assert not any("Traceback" in json.dumps(line) for line in worker.lines)


@pytest.mark.parametrize("traceback", ["true", "false"])
def test_on_a_terminal(system: System, traceback: str) -> None:
    worker = system_text_worker(system, traceback)
    run = system.run(flow("kinds:chained"), tag=f"text-{traceback}")
    within(lambda: any("run ended" in line["message"] for line in list(worker.lines)))
    texts = [line["message"] for line in worker.lines]
    [said] = [index for index, text in enumerate(texts) if "[error" in text]
    line = line_of('        raise RuntimeError("outer") from error')
    place = f"{system.folder / 'kinds.py'}:{line}"
    for part in (f"run_id={run['run_id']}", "task=t", "exc_type=RuntimeError", f"exc_origin='{place} in chained'"):
        assert part in texts[said]
    trace = list(itertools.takewhile(lambda text: "[info" not in text, texts[said + 1 :]))
    if traceback == "false":
        assert trace == []
    else:
        assert trace[0] == "Traceback (most recent call last):"
        assert "ValueError: boom" in trace
        assert trace[-1] == "RuntimeError: outer"


def system_text_worker(system: System, traceback: str) -> Process:
    worker = Process(
        ["pyoco-worker", "--nats-url", system.nats_url, "--worker-id", traceback, "--tags", f"text-{traceback}"],
        system.folder,
        PYOCO_LOG_FORMAT="text",
        PYOCO_LOG_INCLUDE_TRACEBACK=traceback,
    )
    system.processes.append(worker)
    within(lambda: any("worker ready" in line["message"] for line in list(worker.lines)))
    return worker
