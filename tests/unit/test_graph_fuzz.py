"""Any text is refused with a sentence, or drawn and compiled into steps that stand behind all that they wait for."""

import json
from typing import Any

from hypothesis import event, given
from hypothesis import strategies as st
from pyoco.dsl.nodes import DSLNode

from pyoco_server.errors import InvalidFlow
from pyoco_server.model.flow.branches import BranchedFlow, Branches
from pyoco_server.model.flow.drawing import flow_graph
from pyoco_server.model.flow.workflow import build_flow, graph_task_names, parse_workflow
from tests.unit.graphs import AnyTask

PIPES = {"p": "a >> (b | c)", "q": "(pipe(p) & d)\ne"}
WORDS = [
    *"""a b c d e f >> >> >> & | ( ) ( ) ; pipe(p) pipe(q) n: m: repeat(count=2){ foreach(over=xs){ until(cond=ok){
    switch(on=m){ } } 1: default: 'a&b' {{ # , = :""".split(),
    *"\n\n\n",
]  # fmt: skip


def check(graph: str) -> None:
    tasks: dict[str, Any] = {name: {"use": "any/task"} for name in "abcdef"}
    raw = json.dumps({"flow": {"graph": graph}, "tasks": tasks, "pipes": PIPES}).encode()
    try:
        workflow = parse_workflow(raw, max_bytes=1 << 20)
    except InvalidFlow as error:
        assert error.message and error.hint
        event("refused")
        return
    drawn = flow_graph(workflow.file)
    assert tuple(dict.fromkeys(node.name for node in drawn.nodes if node.kind == "task")) == workflow.node_names
    tasks_used = {name: AnyTask()[name] for name in graph_task_names(workflow.file)}
    flow = build_flow(workflow.file, tasks_used, "main")
    assert {task.name for task in flow.tasks} == set(workflow.node_names)
    event("taken, with branches" if isinstance(flow, BranchedFlow) else "taken, a chain")
    _check_levels(flow.build_program())  # type: ignore[no-untyped-call]


def _check_levels(node: DSLNode) -> None:
    if isinstance(node, Branches):
        assert len(node.waits) == len(node.steps) > 1
        for place, wait in enumerate(node.waits):
            assert all(group and max(group) < place for group in wait)
    for part in (*getattr(node, "steps", ()), *getattr(node, "cases", ())):
        _check_levels(part)
    for part in (getattr(node, "body", None), getattr(node, "target", None)):
        if part is not None:
            _check_levels(part)


@given(st.lists(st.sampled_from(WORDS), max_size=14).map(" ".join))
def test_any_words(graph: str) -> None:
    check(graph)


LEAVES = st.one_of(
    st.sampled_from(["a", "b", "c", "d", "e", "f", "pipe(p)", "pipe(q)"]),
    st.integers(0, 9).map(lambda number: f"n{number}: a"),
)


def _larger(parts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    several = st.lists(parts, min_size=1, max_size=3)
    return st.one_of(
        st.tuples(st.sampled_from([" >> ", " & ", " | ", "\n", "; "]), several).map(
            lambda two: f"({two[0].join(two[1])})"
        ),
        parts.map(lambda body: f"repeat(count=2) {{ {body} }}"),
        several.map(
            lambda cases: (
                f"switch(on={{{{ $ctx.scratch }}}}) {{ {'; '.join(f'{n}: {c}' for n, c in enumerate(cases))} }}"
            )
        ),
    )


@given(st.lists(st.recursive(LEAVES, _larger, max_leaves=8), min_size=1, max_size=4).map("\n".join))
def test_any_graph(graph: str) -> None:
    check(graph)
