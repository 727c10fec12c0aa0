"""What a flow asks for is checked when it is submitted, or before its first task; and what is right works."""

import asyncio
import json
import time
from collections.abc import Iterator
from typing import Any

import httpx2
import nats
import pytest

from pyoco_server.model.job import Job
from pyoco_server.model.run import RunRecord
from tests.wheels import make_wheel

from .conftest import System, running_system
from .test_tutorial import client
from .wheel_uploads import until_wheels, upload

CODE = """
import os

MARK = os.environ["MARK"]

def prep():
    open(MARK, "w").close()
    return {"rows": [1, 2], "n": 2}

def train(**given):
    return given"""
FAST = {"PYOCO_WORKER_HEARTBEAT_INTERVAL_SEC": "0.5"}


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with running_system(tmp_path_factory.mktemp("system"), **FAST) as running:
        (running.folder / "steps.py").write_text(CODE)
        (running.folder / "test.py").write_text("def prep():\n    return 1\n")
        (running.folder / "処理.py").write_text("def 読む(前処理=0):\n    print('学習　完了')\n    return 前処理 + 1\n")
        running.worker("--wheel-sync", MARK=str(running.folder / "mark"), **FAST)
        yield running


def flow(inputs: dict[str, Any], defaults: dict[str, Any] | None = None, graph: str = "prep >> train") -> str:
    return (
        f"flow:\n  graph: |\n    {graph}\n  defaults: {json.dumps(defaults or {})}\ntasks:\n"
        f"  prep: {{callable: 'steps:prep'}}\n  train:\n    callable: steps:train\n    inputs: {json.dumps(inputs)}\n"
        "runtime: {expose_env: [MARK, NOT_SET_HERE]}\n"
    )


@pytest.mark.parametrize(
    ("value", "said", "hint"),
    [
        ("$node.prpe.output", "line 9, tasks.train.inputs.x: '$node.prpe.output'", "Did you mean 'prep'?"),
        ("$node.prep.outputs", "line 9, tasks.train.inputs.x", "Write $node.prep.output"),
        (["$node.train.output"], "line 9, tasks.train.inputs.x.0", "Before it can have run: prep"),
        ({"k": "{{ $node.prpe.output }}"}, "line 9, tasks.train.inputs.x.k", "Did you mean 'prep'?"),
        ("$ctx.params.train.lrr", "line 9, tasks.train.inputs.x", "Did you mean 'train.lr'?"),
        ("$flow.train", "line 9, tasks.train.inputs.x", "Write $ctx.params.train"),
    ],
)
def test_a_reference_that_leads_nowhere_is_refused_at_submission(
    system: System, value: Any, said: str, hint: str
) -> None:
    text = flow({"x": value}, {"train": {"lr": 0.1}})
    answer = httpx2.post(
        f"{system.url}/runs/yaml", files={"workflow": ("flow.yaml", text.encode())}, data={"flow_name": "main"}
    )
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_flow")
    assert said in answer.json()["detail"]
    assert hint in answer.json()["hint"]


def test_the_command_names_line_and_word(system: System) -> None:
    (system.folder / "flow.yaml").write_text(flow({"x": "$node.prpe.output"}))
    told = client(system, "submit-yaml", "--workflow-file", "flow.yaml", "--flow-name", "main", "--tag", "cpu", code=1)
    words = " ".join(told.stderr.split())
    assert "line 9, tasks.train.inputs.x: '$node.prpe.output': the graph has no node 'prpe'" in words
    assert "Did you mean 'prep'?" in words


def test_what_is_right_works(system: System) -> None:
    inputs = {
        "lr": "$ctx.params.train.lr",
        "price": "$100",
        "home": "$$HOME",
        "rows": ["$node.prep.output.rows", {"n": "$node.prep.output.n"}],
        "given": "$ctx.params.given",
    }
    text = flow(inputs, {"train": {"lr": 0.1}})
    with pytest.raises(Exception, match="the run's params have no 'given'"):
        system.run(text)
    run = system.run(text, params={"given": 5})
    assert run["status"] == "COMPLETED", run["error"]
    right = {"lr": 0.1, "price": "$100", "home": "$HOME", "rows": [[1, 2], {"n": 2}], "given": 5}
    assert run["task_records"]["train"]["output"] == right
    assert run["task_records"]["train"]["inputs"] == right
    again = system.client.rerun_run(run["run_id"])["run_id"]
    assert system.end(again)["task_records"]["train"]["output"] == right


def test_a_variable_that_this_worker_has_not_ends_the_run_before_its_first_task(system: System) -> None:
    mark = system.folder / "mark"
    mark.unlink(missing_ok=True)
    run = system.run(flow({"x": "$env.NOT_SET_HERE"}))
    assert (run["status"], run["end_reason"]) == ("FAILED", "invalid_flow")
    assert "line 9, tasks.train.inputs.x: '$env.NOT_SET_HERE'" in run["error"]
    assert not mark.exists()
    run = system.run(flow({"x": "$env.MARK"}))
    assert mark.exists()
    # Its record has the variable's name.
    assert run["task_records"]["train"]["inputs"] == run["task_records"]["train"]["output"] == {"x": "$env.MARK"}
    with pytest.raises(Exception, match="'HOME' is not exposed to this flow"):
        system.run(flow({"x": "$env.HOME"}))


def test_a_job_of_another_program_is_checked_before_its_first_task(system: System) -> None:
    mark = system.folder / "mark"
    mark.unlink(missing_ok=True)
    texts = {"typo": flow({"x": "$node.prpe.output"}), "param": flow({"x": "$ctx.params.missing"})}

    async def publish() -> None:
        connection = await nats.connect(system.nats_url)
        stream = connection.jetstream()
        for name, text in texts.items():
            record = RunRecord(run_id=f"foreign-{name}", flow_name="main", tag="cpu", submitted_at=time.time())
            await (await stream.key_value("pyoco_runs")).put(record.run_id, record.to_json())
            job = Job(run_id=record.run_id, flow_name="main", workflow_yaml=text)
            await stream.publish("pyoco.work.cpu", job.to_json())
        await connection.close()

    asyncio.run(publish())
    for name, said in (("typo", "Did you mean 'prep'?"), ("param", "have no 'missing'")):
        run = system.end(f"foreign-{name}")
        assert (run["status"], run["end_reason"]) == ("FAILED", "invalid_flow")
        assert "line 9, tasks.train.inputs.x" in run["error"]
        assert said in run["error"]
    assert not mark.exists()


def test_names_in_japanese(system: System) -> None:
    text = (
        "flow:\n  graph: |\n    前処理 >> repeat(count=2) { 学習: 読む } >>\n"
        "    switch(on={{ $ctx.results.学習 }}) { 2: pipe(評価) }\n"
        "tasks:\n  前処理: {callable: '処理:読む'}\n  読む: {callable: '処理:読む'}\n"
        "pipes:\n  評価: '報告: 読む'\n"
    )
    run = system.run(text)
    assert run["status"] == "COMPLETED", run["error"]
    assert {name: record["output"] for name, record in run["task_records"].items()} == {
        "前処理": 1,
        "学習": 2,
        "報告": 2,
    }
    graph = httpx2.get(f"{system.url}/runs/{run['run_id']}/graph").json()
    assert [node["name"] for node in graph["nodes"]] == ["前処理", "学習", "$ctx.results.学習", "報告"]
    lines = httpx2.get(f"{system.url}/runs/{run['run_id']}/logs", params={"task": "前処理"}).json()["lines"]
    assert [line["task"] for line in lines] == ["前処理"]
    told = json.loads(client(system, "tasks", run["run_id"]).stdout)
    assert set(told["tasks"]) == {"前処理", "学習", "報告"}
    assert "学習" in client(system, "logs", run["run_id"]).stdout


def test_the_users_own_test_py(system: System) -> None:
    run = system.run("flow: {graph: t}\ntasks: {t: {callable: 'test:prep'}}\n")
    assert run["end_reason"] == "invalid_flow"
    assert "module 'test' has no 'prep'" in run["error"]
    assert f"comes before your own {system.folder}/test.py. Give your file another name" in run["error"]


def test_a_wheel_for_another_platform(system: System) -> None:
    make = {"acme_tool/__init__.py": "def t(): return 1\n"}
    wheel = make_wheel(system.folder, "acme-tool", "1.0", make, tag="cp39-cp39-win_amd64")
    upload(system, wheel, "cpu")
    upload(system, make_wheel(system.folder, "acme-gpu", "1.0"), "gpu")
    run = system.run("flow: {graph: t}\ntasks: {t: {callable: 'acme_tool:t'}}\n")
    assert run["end_reason"] == "dependency_missing"
    assert "no module named 'acme_tool'" in run["error"]
    assert "acme_tool-1.0-cp39-cp39-win_amd64.whl (it is for cp39-cp39-win_amd64, which" in run["error"]
    until_wheels(system, "w", lambda found: bool(found["skipped_incompatible"]))
    run = system.run(system.flow("def t():\n    import acme_gpu\n"))
    assert run["end_reason"] == "dependency_missing"
    assert "it is for workers of the tags gpu, this one has cpu" in run["error"]
