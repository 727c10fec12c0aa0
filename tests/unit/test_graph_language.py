"""Graphs with several lines, ``&`` and ``|``: what waits for what, and what is refused, with the place."""

import textwrap

import pytest

from pyoco_server.errors import InvalidFlow
from pyoco_server.model.flow.branches import BranchedFlow, Branches
from pyoco_server.model.flow.graph.steps import ControlStep
from pyoco_server.model.flow.workflow import Workflow, build_flow, graph_task_names, parse_workflow
from tests.unit.graphs import AnyTask, compiled, level_of, told_flow, waits_of


def parse(graph: str, more: str = "", tasks: str = "abcdefgh") -> Workflow:
    entries = "".join(f"  {task}: {{callable: 'm:f'}}\n" for task in tasks)
    text = f"flow:\n  graph: |\n{textwrap.indent(graph, '    ')}\ntasks:\n{entries}{more}"
    return parse_workflow(text.encode(), max_bytes=1 << 20)


@pytest.mark.parametrize(
    ("text", "waits"),
    [
        ("a >> c\nb >> c", {"a": [], "b": [], "c": [{"a"}, {"b"}]}),
        ("a >> c; b >> c", {"a": [], "b": [], "c": [{"a"}, {"b"}]}),
        ("(a & b) >> c", {"a": [], "b": [], "c": [{"a"}, {"b"}]}),
        ("(a | b) >> c", {"a": [], "b": [], "c": [{"a", "b"}]}),
        ("a >> (b & c)", {"a": [], "b": [{"a"}], "c": [{"a"}]}),
        ("a >> (b | c)", {"a": [], "b": [{"a"}], "c": [{"a"}]}),
        ("a >> (b | c) >> d", {"a": [], "b": [{"a"}], "c": [{"a"}], "d": [{"b", "c"}]}),
        ("a & b", {"a": [], "b": []}),
        ("a | b", {"a": [], "b": []}),
        ("a\nb", {"a": [], "b": []}),
        ("a >> b\n  >> c", {"a": [], "b": [{"a"}], "c": [{"b"}]}),
        ("(\na\n&\nb\n)\n>>\nc", {"a": [], "b": [], "c": [{"a"}, {"b"}]}),
        ("(a\n b) >> c", {"a": [], "b": [], "c": [{"a"}, {"b"}]}),
        ("a >> c\n(b | d) >> c", {"a": [], "b": [], "d": [], "c": [{"a"}, {"b", "d"}]}),
        ("((a & b) | c) >> d", {"a": [], "b": [], "c": [], "d": [{"a", "c"}, {"b", "c"}]}),
        ("((a | b) & (c | d)) >> e", {"a": [], "b": [], "c": [], "d": [], "e": [{"a", "b"}, {"c", "d"}]}),
        ("(a & b) >> (c & d)", {"a": [], "b": [], "c": [{"a"}, {"b"}], "d": [{"a"}, {"b"}]}),
        ("b >> c\na >> b", {"a": [], "b": [{"a"}], "c": [{"b"}]}),
        ("a >> (b >> c) >> d", {"a": [], "b": [{"a"}], "c": [{"b"}], "d": [{"c"}]}),
        ("a >> (b >> c\n b >> d) >> e", {"a": [], "b": [{"a"}], "c": [{"b"}], "d": [{"b"}], "e": [{"c"}, {"d"}]}),
        ("(a >> b\n b >> c) >> d", {"a": [], "b": [{"a"}], "c": [{"b"}], "d": [{"c"}]}),
        ("e >> (a >> b\n b >> c)", {"e": [], "a": [{"e"}], "b": [{"a"}], "c": [{"b"}]}),
        ("(((a >> b) | c) >> d\n a) >> e", {"a": [], "b": [{"a"}], "c": [], "d": [{"b", "c"}], "e": [{"d"}, {"a"}]}),
        ("first: a >> b\nfirst >> c", {"first": [], "b": [{"first"}], "c": [{"first"}]}),
        ("first >> c\nfirst: a >> b", {"first": [], "c": [{"first"}], "b": [{"first"}]}),
        ("pipe(p) >> c\npipe(p) >> d", {"a": [], "b": [{"a"}], "c": [{"b"}], "d": [{"b"}]}),
        ("a >> switch(on=m) { 1: b } >> (c & d)", {
            "a": [], "SwitchTerm": [{"a"}], "c": [{"SwitchTerm"}], "d": [{"SwitchTerm"}]}),
        ("repeat(count=2) { a } & foreach(over=xs) { b }", {"LoopTerm": []}),
        ("((((a)))) >> b\n((a) >> (c))", {"a": [], "b": [{"a"}], "c": [{"a"}]}),
    ],
)  # fmt: skip
def test_what_waits_for_what(text: str, waits: dict[str, list[set[str]]]) -> None:
    found = waits_of(level_of(text, {"p": "a >> b"}))
    assert {name: sorted(map(sorted, wait)) for name, wait in found.items()} == {
        name: sorted(map(sorted, wait)) for name, wait in waits.items()
    }
    assert list(found) == list(waits)


@pytest.mark.parametrize(
    "text", ["a >> (b >> c)", "(a) >> pipe(p)", "a >> b\nb >> c", "(a >> b >> c)", "b >> c\na >> b"]
)
def test_what_is_a_chain_in_the_end_is_pyocos_own_flow(text: str) -> None:
    assert told_flow(compiled(text, {"p": "b >> c"})) == told_flow(compiled("a >> b >> c"))


def test_bodies_cases_and_pipes_hold_branches_too() -> None:
    level = level_of(
        """
        a >> foreach(over=xs) {
            b >> c
            b >> d
        } >> switch(on=m) {
            1: (e & f) >> g
            2: (e
                f)
            default: 'e | f'
        }
        pipe(p)""",
        {"p": "h >> (x: a & y: a)"},
    )
    loop, switch = (step for step in level.steps if isinstance(step, ControlStep))
    assert waits_of(loop.levels[0]) == {"b": [], "c": [{"b"}], "d": [{"b"}]}
    assert [waits_of(case) for case in switch.levels] == [
        {"e": [], "f": [], "g": [{"e"}, {"f"}]}, {"e": [], "f": []}, {"e": [], "f": []}]  # fmt: skip
    assert waits_of(level)["x"] == [{"h"}]


def test_the_flow_of_a_graph_with_branches() -> None:
    workflow = parse("a >> repeat(count=2) { b & again: a } >> c", "runtime: {max_parallel: 3}\n")
    tasks = AnyTask()
    vars(tasks["a"])["retry_delay_sec"] = 0.5
    flow = build_flow(workflow.file, tasks, "mine")
    assert isinstance(flow, BranchedFlow)
    assert (flow.name, flow.max_parallel, flow.has_control_flow()) == ("mine", 3, True)
    assert {task.name: vars(task).get("retry_delay_sec") for task in flow.tasks} == {
        "a": 0.5, "again": 0.5, "b": None, "c": None}  # fmt: skip
    body = flow.build_program().steps[1].body  # type: ignore[attr-defined]
    assert isinstance(body, Branches) and body.waits == [(), ()]
    assert not isinstance(flow.build_program(), Branches)
    assert (workflow.node_names, graph_task_names(workflow.file)) == (("a", "b", "again", "c"), ["a", "b", "c"])


@pytest.mark.parametrize(
    ("graph", "place", "said", "hint"),
    [
        ("a & b >> c", (3, 11), "'&' and '>>' stand side by side", "Write (a & b) >> c, or a & (b >> c)"),
        ("a >> b | c", (3, 12), "'>>' and '|' stand side by side", "Write (a >> b) | c, or a >> (b | c)"),
        ("a >>\n  (b & c | d)", (4, 14), "'&' and '|' stand side by side", "Write (b & c) | d, or b & (c | d)"),
        ("a >> b\nb >> c\nc >> a", (5, 10), "'a' leads back to itself: a >> b >> c >> a", "again: a"),
        ("(a & b) >> c >> a", (3, 21), "'a' leads back to itself: a >> c >> a", "again: a"),
        ("a >> b >> a", (3, 15), "'a' stands in the graph twice", "again: a"),
        ("a >> b\na >> (c\n b >> a)", (5, 11), "'a' leads back to itself: a >> b >> a", "again: a"),
        ("c\npipe(p)\nb >> a", (5, 10), "'a' leads back to itself: a >> b >> a", "again: a"),
        ("(a & b & a) >> c", (3, 14), "'a' stands twice beside '&'", "again: a"),
        ("a >> (b & zz)", (3, 15), "the task 'zz', which is not defined", "Defined under tasks: a"),
        ("a >> b c >> b", (3, 12), "a new line is expected before 'c'", "on a line of its own, under graph: |"),
        ("(a & b", (3, 11), "')' is missing at the end", ""),
        ("a & )", (3, 9), "a task is expected here, not ')'", ""),
        ("a >> ()", (3, 11), "Empty", ""),
        ("x: a >> b\nx: b >> c", (4, 5), "the node 'x' is the task 'a' in another place", "another name"),
        ("b: a >> c\nb >> d", (4, 5), "as a task, and as the name of a node", "another name"),
        ("b\n{ a }", (4, 5), "'{' cannot stand here", ""),
        ("repeat(count=1) { a }\nrepeat(count=1) { a }", (4, 23), "may run at the same time", "again: a"),
        ("(repeat(count=1) { a } | b) >> a", (3, 36), "may run at the same time", "again: a"),
        ("a >> \\\nb", (3, 10), "Unexpected character", "Leave it out"),
        ("a[3] >> b", (3, 6), "Unexpected character '['", "repeat(count=3)"),
        ("switch(on=m) { 1: a\n  b >> c }\n", (4, 9), "':' is expected here", "several lines of one case"),
        ("switch(on=m) { 1: a & b >> c }", (3, 29), "side by side", "(a & b) >> c"),
        ("flow >> a", (3, 5), "'flow'", "the graph begins with its first task"),
        ("(" * 101 + "a" + ")" * 101, (3, 106), "nests too deeply", "several flows"),
        ("a & repeat(count=x-) { b }", (3, 23), "Unexpected character '-'", ""),
        ("a & until(cond={{ a + }}) { b }", (3, 20), "'{{a +}}' cannot be used", "{{ params.x }}"),
    ],
)  # fmt: skip
def test_refusals_name_line_and_column_and_what_to_write(
    graph: str, place: tuple[int, int], said: str, hint: str
) -> None:
    with pytest.raises(InvalidFlow) as caught:
        parse(graph, "pipes: {p: a >> b}\n")
    assert said in caught.value.message
    assert (caught.value.line, caught.value.column) == place, caught.value.message
    assert hint in caught.value.hint


@pytest.mark.parametrize("graph", [
    "a >> repeat(count=2) { a }",
    "a >> repeat(count=2) { a >> b >> a } >> a",
    "repeat(count=2) { a } >> repeat(count=3) { a }",
    "switch(on=m) { 1: a; default: a }",
    "a >> (b & repeat(count=2) { a })",
    "repeat(count=1) { a } >> (b | c) >> repeat(count=1) { a }",
])  # fmt: skip
def test_a_task_may_stand_in_several_places_that_run_one_after_the_other(graph: str) -> None:
    assert "a" in parse(graph, "  m: {use: x}\n").node_names


def test_the_place_in_a_pipe() -> None:
    with pytest.raises(InvalidFlow) as caught:
        parse("pipe(p)", "pipes:\n  p: |\n    # what comes\n    a >> (b &\n      zz)\n")
    assert (caught.value.line, caught.value.column, caught.value.key) == (17, 7, "pipes.p")


@pytest.mark.parametrize(
    ("written", "column"), [("a >> zz", 15), ("'a >> zz'", 16), ('"a >> zz"', 16), ('"a >> \\x7az"', None)]
)
def test_the_column_in_a_graph_of_one_line(written: str, column: int | None) -> None:
    with pytest.raises(InvalidFlow) as caught:
        parse_workflow(f"flow:\n  graph: {written}\ntasks: {{a: {{use: x}}}}\n".encode(), max_bytes=1000)
    assert (caught.value.line, caught.value.column) == (2, column)


def test_what_would_grow_beyond_measure_is_refused() -> None:
    many = " & ".join(f"x{n}: a" for n in range(400))
    others = " & ".join(f"y{n}: a" for n in range(400))
    with pytest.raises(InvalidFlow, match="wait for more than 100000 others"):
        parse(f"({many}) >> ({others})")
    groups = " | ".join(f"(x{n}: a & y{n}: a)" for n in range(12))
    with pytest.raises(InvalidFlow, match="joins too many groups"):
        parse(f"({groups}) >> b")
    assert parse(f"({' | '.join(f'x{n}: a' for n in range(1000))}) >> b").node_names
