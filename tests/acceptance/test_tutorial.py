"""The tutorial's commands, typed as printed."""

import json
import subprocess
from collections.abc import Iterator

import pytest

from .conftest import BIN, TUTORIAL, System
from .test_processes import within


@pytest.fixture(scope="module", autouse=True)
def workers(system: System) -> Iterator[None]:
    (system.folder / "hello_flow.py").write_text(
        "from pyoco import Flow, task\n"
        "@task\ndef hello(name='x'):\n    print('greeting', name)\n    return f'hello {name}'\n"
        "def resolve_flow(name):\n    if name != 'main':\n        raise KeyError(name)\n"
        "    return Flow(name=name) >> hello\n"
    )
    (system.folder / "flow.yaml").write_text(TUTORIAL)
    system.worker("--wheel-sync", "--flow-resolver", "hello_flow.py:resolve_flow", worker_id="cpu-1", tags="cpu")
    system.worker("--wheel-sync", worker_id="gpu-1", tags="gpu")
    yield


def client(system: System, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [BIN / "pyoco-client", "--server", system.url, *arguments],
        cwd=system.folder, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    return done


def submit(system: System, tag: str) -> str:
    arguments = ["submit-yaml", "--workflow-file", "flow.yaml", "--flow-name", "main", "--tag", tag]
    answer = json.loads(client(system, *arguments).stdout)
    assert answer["status"] == "PENDING"
    return str(answer["run_id"])


@pytest.mark.parametrize("tag", ["cpu", "gpu"])
def test_the_worker_of_the_tag_runs_it(system: System, tag: str) -> None:
    run_id = submit(system, tag)
    watched = client(system, "watch", run_id, "--until-terminal", "--output", "status").stdout.splitlines()
    assert watched[-1].split("\t")[1:] == ["snapshot", "COMPLETED", run_id]
    run = json.loads(client(system, "get", run_id, "--records").stdout)
    assert run["worker_id"] == f"{tag}-1"
    assert run["attempt"] == 1
    assert run["task_records"]["to_text"]["output"] == "v=2"
    assert run["tasks"] == {"add_one": "SUCCEEDED", "to_text": "SUCCEEDED"}


def test_lists(system: System) -> None:
    run_id = submit(system, "cpu")
    table = client(system, "list", "--tag", "cpu", "--limit", "20", "--output", "table").stdout.splitlines()
    assert table[0].split() == ["run_id", "status", "flow_name", "tag", "updated_at"]
    assert run_id in table[1]
    assert client(system, "list", "--tag", "nobody", "--output", "table").stdout == "(no items)\n"
    page = json.loads(client(system, "list-vnext", "--limit", "1").stdout)
    assert set(page) == {"items", "next_cursor"}
    system.end(run_id)


def test_metrics_go_up(system: System) -> None:
    def completed() -> float:
        head = client(system, "metrics").stdout.splitlines()[:10]  # the tutorial pipes it into head
        assert "pyoco_workers_alive_total 2.0" in head
        return float(next(line for line in head if line.startswith('pyoco_runs_total{status="COMPLETED"} ')).split()[1])

    # What is counted comes from the index, which sees workers and ends of runs a moment later.
    within(lambda: len(system.client.get_workers()) == 2)
    within(lambda: not system.client.list_runs(status="PENDING") and not system.client.list_runs(status="RUNNING"))
    before = completed()
    client(system, "submit", "--flow-name", "main", "--tag", "cpu", "--wait")
    within(lambda: completed() > before)
    assert completed() == before + 1


def test_submit_by_name_merges_the_params(system: System) -> None:
    (system.folder / "params.json").write_text('{"name": "file", "a": 1}')
    arguments = ["--params-file", "params.json", "--params", '{"a": 2}', "--param", "a=3", "--param", "b=text"]
    done = client(system, "submit", "--flow-name", "main", "--tag", "cpu", "--wait", *arguments)
    run = json.loads(done.stdout)
    assert run["params"] == {"name": "file", "a": 3, "b": "text"}
    tasks = json.loads(client(system, "tasks", run["run_id"]).stdout)
    assert tasks["task_records"]["hello"]["output"] == "hello file"


def test_an_unknown_flow_fails_with_its_reason(system: System) -> None:
    run = json.loads(client(system, "submit", "--flow-name", "nope", "--tag", "cpu", "--wait", code=3).stdout)
    assert (run["status"], run["end_reason"]) == ("FAILED", "flow_not_found")


def test_errors_say_what_to_do(system: System) -> None:
    assert "run not found" in client(system, "get", "nobody", code=5).stderr
    assert "run not found" in client(system, "watch", "nobody", "--until-terminal", code=5).stderr
    assert "--limit" in client(system, "list", "--limit", "9999", code=1).stderr
    (system.folder / "bad.yaml").write_text(TUTORIAL.replace("add_one >> to_text", "add_one >> to_txt"))
    arguments = ["--workflow-file", "bad.yaml", "--flow-name", "m", "--tag", "cpu"]
    refused = client(system, "submit-yaml", *arguments, code=1).stderr
    assert "line 4" in refused
    assert "to_txt" in refused
    assert "Did you mean 'to_text'" in refused


def test_no_server(system: System) -> None:
    done = subprocess.run(
        [BIN / "pyoco-client", "--server", "http://127.0.0.1:9", "list"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 7
    assert "pyoco-server up" in done.stderr


def test_demo() -> None:
    done = subprocess.run([BIN / "pyoco-server", "demo", "--exit"], capture_output=True, text=True, timeout=90)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("v=2") == 2
