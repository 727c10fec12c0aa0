"""Names in a graph with branches: what a task asks for must have ended before it begins."""

import textwrap
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyoco_server.errors import InvalidFlow
from pyoco_server.model.flow.workflow import Workflow, parse_workflow


def parse(graph: str, **inputs: Any) -> Workflow:
    entries = "".join(
        f"  {task}: {{callable: 'm:f', inputs: {{x: {inputs.get(task, 1)}}}, outputs: [params.from_{task}]}}\n"
        for task in "abcdef"
    )
    text = f"flow:\n  graph: |\n{textwrap.indent(textwrap.dedent(graph).strip(), '    ')}\ntasks:\n{entries}"
    return parse_workflow(text.encode(), max_bytes=1 << 20)


@pytest.mark.parametrize(
    ("graph", "task", "asks"),
    [
        ("(a & b) >> c", "c", "$node.a.output"),
        ("a >> c\nb >> c", "c", "$node.b.output"),
        ("a >> (b & c) >> d", "d", "$node.a.output"),
        ("b >> c\na >> b", "c", "$node.a.output"),
        ("(a | b) >> c", "c", "$node.a.output"),  # it may be missing: only the run can tell
        ("a >> (b | c) >> d", "d", "$node.c.output"),
        ("first: a >> (b & c)", "c", "$node.first.output"),
        ("a >> foreach(over=xs) { b >> (c & d) >> e }", "e", "$node.a.output"),
        ("a >> foreach(over=xs) { b >> (c & d) >> e }", "d", "$node.b.output"),
        ("switch(on=m) { 1: a & b; default: c } >> (d & e)", "d", "$node.a.output"),
        ("repeat(count=2) { switch(on=m) { 1: a; default: b & c } }", "b", "$node.a.output"),  # of the round before
        ("repeat(count=2) { (a & b) >> switch(on=m) { 1: c; 2: d } }", "d", "$node.c.output"),
        ("(a & b) >> repeat(count={{ $ctx.results.a }}) { c }", "c", "$node.b.output"),
        ("(a & b) >> c", "c", "$ctx.params.from_a"),
    ],
)
def test_what_ends_before_may_be_asked_for(graph: str, task: str, asks: str) -> None:
    parse(graph, **{task: asks}).check({"xs": [1], "m": 1})


@pytest.mark.parametrize(
    ("graph", "task", "asks", "said", "hint"),
    [
        ("a & b", "b", "$node.a.output", "'b' may run before 'a' has ended", "by a line of the graph: a >> b"),
        ("a >> (b & c)", "c", "$node.b.output", "'c' may run before 'b' has ended", "b >> c"),
        ("a >> c\nb >> d", "d", "$node.a.output", "'d' may run before 'a' has ended", "a >> d"),
        ("a & foreach(over=xs) { b }", "b", "$node.a.output", "'b' may run before 'a' has ended", "the two parts"),
        ("foreach(over=xs) { a & b }", "a", "$node.b.output", "'a' may run before 'b' has ended", "b >> a"),
        (
            "a >> b\na >> c >> d",
            "a",
            "$node.d.output",
            "'d' cannot have run before 'a'",
            "Before it can have run: none",
        ),
        ("(a & b) >> c", "a", "$node.a.output", "'a' would need its own output", ""),
        ("(a & b) >> c", "a", "$node.z.output", "the graph has no node 'z'", "Nodes of the graph: a, b, c"),
        ("switch(on=m) { 1: a >> (b & c) }", "b", "$node.c.output", "'b' may run before 'c' has ended", "c >> b"),
    ],
)
def test_what_may_still_run_is_refused(graph: str, task: str, asks: str, said: str, hint: str) -> None:
    with pytest.raises(InvalidFlow) as caught:
        parse(graph, **{task: asks})
    assert said in caught.value.message
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("graph", "said"),
    [
        ("a & switch(on={{ $ctx.results.a }}) { 1: b }", "'switch' may run before 'a' has ended"),
        ("a & foreach(over=xs, item=row) { b } & until(cond={{ $ctx.row > 1 }}) { c }", "there is no 'row' here"),
        ("(a & foreach(over={{ $ctx.scratch.x }}) { b })", "no task has run that could write scratch.x"),
    ],
)
def test_names_in_expressions(graph: str, said: str) -> None:
    with pytest.raises(InvalidFlow) as caught:
        parse(graph)
    assert said in caught.value.message


def test_a_param_that_only_a_task_beside_it_writes_is_missing() -> None:
    workflow = parse("a & b", b="$ctx.params.from_a")
    workflow.check({"from_a": 1})
    with pytest.raises(InvalidFlow, match="the run's params have no 'from_a'"):
        workflow.check({})


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=10), st.integers(0, 5), st.integers(0, 5))
def test_exactly_the_tasks_before_may_be_asked_for(pairs: list[tuple[int, int]], who: int, whom: int) -> None:
    """Compare with a walk over the lines."""
    edges = [(min(pair), max(pair)) for pair in pairs if pair[0] != pair[1]]
    before = {who}
    for _ in range(6):
        before |= {one for one, other in edges if other in before}
    names = "abcdef"
    graph = "\n".join([*(f"{names[one]} >> {names[other]}" for one, other in edges), *names])
    try:
        parse(graph, **{names[who]: f"$node.{names[whom]}.output"})
    except InvalidFlow as error:
        assert whom not in before - {who}, error.message
    else:
        assert whom in before - {who}
