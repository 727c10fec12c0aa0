"""What the page about graphs shows is taken, and what it says to be refused is."""

import json
import re
from pathlib import Path

import pytest

from pyoco_server.model.flow.graph.plan import plan
from pyoco_server.model.flow.graph.problems import GraphProblem
from pyoco_server.model.flow.graph.texts import read_texts
from pyoco_server.model.flow.workflow import Workflow, parse_workflow

PAGE = (Path(__file__).parents[2] / "docs/how-to/graphs.md").read_text()
YAMLS = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
GRAPHS = re.findall(r"```graph\n(.*?)```", PAGE, re.DOTALL)
ROWS = re.findall(r"^\| (?:`([^`]*)`|<code>(.*?)</code>)", PAGE, re.MULTILINE)


def parse(graph: str) -> Workflow:
    tasks = {step.task: {"use": "any/task"} for step in plan(read_texts(graph, {}), ()).task_steps()}
    return parse_workflow(json.dumps({"flow": {"graph": graph}, "tasks": tasks}).encode(), max_bytes=1 << 20)


@pytest.mark.parametrize("text", YAMLS)
def test_flows(text: str) -> None:
    assert parse_workflow(text.encode(), max_bytes=1 << 20).node_names


@pytest.mark.parametrize("graph", GRAPHS)
def test_graphs(graph: str) -> None:
    assert parse(graph).node_names


def test_the_forms_in_the_tables() -> None:
    forms = [(plain or code).replace("&#124;", "|") for plain, code in ROWS]
    assert len(forms) == 11
    for form in forms:
        said = form.replace("on=…", "on=x").replace("over=…", "over=xs").replace("key: …", "1: a").replace("…", "a")
        assert parse(said).node_names, form


def test_mixed_signs_are_refused_with_both_ways_to_write_them() -> None:
    with pytest.raises(GraphProblem) as caught:
        parse("a & b >> c")
    assert caught.value.hint == "Write (a & b) >> c, or a & (b >> c)"
