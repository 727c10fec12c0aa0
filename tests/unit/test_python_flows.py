"""References in flows that are made in Python: checked before the first task, and understood when a task starts."""

from typing import Any

import pytest
from pyoco.core.models import Flow, RunContext, Task
from pyoco.dsl.syntax import TaskWrapper, switch
from pyoco.trace.console import ConsoleTraceBackend

from pyoco_server.errors import InvalidFlow
from pyoco_server.worker.child.flow.exposure import expose
from pyoco_server.worker.child.flow.python_flows import check_flow
from pyoco_server.worker.child.tasks.engine import RunEngine

PARAMS: dict[str, Any] = {"lr": 0.1, "train": {"lr": 0.2}}
ENVIRON = {"HOME_OF_TEST": "here"}


def flow_of(value: Any, *, outputs: list[str] | None = None, branches: bool = False) -> tuple[Flow, dict[str, Any]]:
    received: dict[str, Any] = {}

    def prep() -> dict[str, int]:
        return {"n": 7}

    def train(x: Any) -> None:
        received["x"] = x

    first, second = TaskWrapper(Task(prep, "prep", outputs=outputs or [])), TaskWrapper(Task(train, "train"))
    second.task.inputs = {"x": value}
    flow = Flow() >> first >> (switch("1 == 1")[True >> second] if branches else second)
    expose(flow, ["HOME_OF_TEST", "NOT_SET_HERE"])
    return flow, received


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("$node.prep.output.n", 7),
        ("$ctx.params.lr", 0.1),
        ("$ctx.params.train.lr", 0.2),
        ("$env.HOME_OF_TEST", "here"),
        ("$100", "$100"),
        ("$$HOME", "$HOME"),
        (["$node.typo.output"], ["$node.typo.output"]),
        ("{{ $node.typo.output }}", "{{ $node.typo.output }}"),
    ],
)
def test_what_works(value: Any, expected: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME_OF_TEST", "here")
    for branches in (False, True):
        flow, received = flow_of(value, branches=branches)
        check_flow(flow, PARAMS, ENVIRON)
        RunEngine(ConsoleTraceBackend()).run(flow, params=PARAMS, run_context=RunContext())
        assert received["x"] == expected


@pytest.mark.parametrize(
    ("value", "said", "also_behind_a_branch"),
    [
        ("$node.prpe.output", "no task 'prpe'", True),
        ("$node.prep.outputs", "comes .output", True),
        ("$ctx.params.missing", "no 'missing'", False),
        ("$ctx.params.train.lrr", "no 'lrr' in 'train'", False),
        ("$env.NOT_SET_HERE", "'NOT_SET_HERE' is not set", False),
        ("$env.HOME", "'HOME' is not exposed", True),
        ("$HOME", "there is no $HOME", True),
    ],
)
def test_what_cannot(value: Any, said: str, also_behind_a_branch: bool) -> None:
    flow, _ = flow_of(value)
    with pytest.raises(InvalidFlow) as caught:
        check_flow(flow, PARAMS, ENVIRON)
    assert "task 'train', input 'x'" in caught.value.message
    assert said in caught.value.message
    flow, _ = flow_of(value, branches=True)
    if also_behind_a_branch:
        with pytest.raises(InvalidFlow):
            check_flow(flow, PARAMS, ENVIRON)
    else:
        check_flow(flow, PARAMS, ENVIRON)


def test_what_outputs_write() -> None:
    flow, _ = flow_of("$ctx.params.extra.n", outputs=["params.extra"])
    check_flow(flow, PARAMS, ENVIRON)
    flow, _ = flow_of("$node.sum.output", outputs=["results.sum"])
    check_flow(flow, PARAMS, ENVIRON)
