"""Graphs of flows as nodes, edges and groups."""

import textwrap

import pytest

from pyoco_server.model.flow import drawing as module
from pyoco_server.model.flow.drawing import FlowGraph, flow_graph, loose_graph
from pyoco_server.model.flow.workflow import parse_workflow


def drawn(graph: str, *tasks: str, pipes: str = "") -> FlowGraph:
    lines = "\n".join(f'  {task}: {{callable: "m:f"}}' for task in tasks)
    text = f"flow:\n  graph: |\n{textwrap.indent(graph, '    ')}\ntasks:\n{lines}\n{pipes}"
    return flow_graph(parse_workflow(text.encode(), max_bytes=1 << 20).file)


def ways(graph: FlowGraph) -> list[str]:
    names = {node.id: node.name for node in graph.nodes}
    return [f"{names[edge.source]} -{edge.label or ''}-> {names[edge.target]}" + " (back)" * (edge.kind == "back")
            for edge in graph.edges]  # fmt: skip


def any_ways(graph: FlowGraph) -> list[str]:
    return ways(FlowGraph(graph.nodes, [edge for edge in graph.edges if edge.kind == "any"]))


def test_a_chain_with_named_nodes_and_pipes() -> None:
    graph = drawn("a >> pipe(p) >> again: a", "a", "b", "c", pipes="pipes:\n  p: b >> c\n")
    assert [(node.name, node.task) for node in graph.nodes] == [("a", "a"), ("b", "b"), ("c", "c"), ("again", "a")]
    assert ways(graph) == ["a --> b", "b --> c", "c --> again"]


def test_a_switch() -> None:
    graph = drawn("a >> switch(on=x) { 1: b >> c; two: d; default: e } >> f", *"abcdef")
    assert [node.kind for node in graph.nodes].count("switch") == 1
    assert sorted(ways(graph)) == sorted([
        "a --> x", "x -1-> b", "b --> c", "x -two-> d", "x -default-> e",
        "c --> f", "d --> f", "e --> f",
    ])  # fmt: skip


def test_a_switch_without_a_default_may_take_no_branch() -> None:
    assert "x -default-> c" in ways(drawn("a >> switch(on=x) { 1: b } >> c", *"abc"))


def test_a_task_that_stands_in_two_branches_is_two_nodes() -> None:
    graph = drawn("a >> switch(on=x) { 1: b; default: b }", "a", "b")
    assert [node.name for node in graph.nodes].count("b") == 2
    assert len({node.id for node in graph.nodes}) == len(graph.nodes)


@pytest.mark.parametrize(
    ("loop", "kind", "label"),
    [
        ("repeat(count=3)", "repeat", "3"),
        ("foreach(over=xs, item=x)", "foreach", "x in xs"),
        ("until(cond={{ $ctx.results.b > 2 }}, max_iter=5)", "until", "$ctx.results.b > 2 (max 5)"),
    ],
)
def test_loops(loop: str, kind: str, label: str) -> None:
    graph = drawn(f"a >> {loop} {{ b >> c }} >> d", *"abcd")
    (group,) = graph.groups
    assert (group.kind, group.label) == (kind, label)
    assert {node.name for node in graph.nodes if node.group == group.id} == {"b", "c"}
    assert sorted(ways(graph)) == ["a --> b", "b --> c", "c --> b (back)", "c --> d"]


def test_a_loop_in_a_loop_with_a_switch() -> None:
    graph = drawn("repeat(count=2) { a >> repeat(count=3) { switch(on=x) { 1: b; default: c } } } >> d", *"abcd")
    outer, inner = graph.groups
    assert (outer.parent, inner.parent) == (None, outer.id)
    assert {"b --> x (back)", "c --> x (back)", "b --> a (back)", "b --> d"} <= set(ways(graph))


def test_branches() -> None:
    graph = drawn("a >> (b & c)\n(b & c) >> d\na >> e >> d", *"abcde")
    assert [node.name for node in graph.nodes] == ["a", "b", "c", "e", "d"]
    assert sorted(ways(graph)) == ["a --> b", "a --> c", "a --> e", "b --> d", "c --> d", "e --> d"]
    assert not any_ways(graph)


def test_of_ways_to_a_join_of_which_one_is_enough_each_says_so() -> None:
    graph = drawn("a >> d\n(b | switch(on=x) { 1: c }) >> d", *"abcd")
    assert sorted(ways(graph)) == ["a --> d", "b --> d", "c --> d", "x -1-> c", "x -default-> d"]
    assert sorted(any_ways(graph)) == ["b --> d", "c --> d", "x -default-> d"]


def test_a_way_that_is_needed_and_one_of_several_is_drawn_as_both() -> None:
    graph = drawn("((a & b) | c) >> d", *"abcd")
    assert sorted(any_ways(graph)) == ["a --> d", "b --> d", "c --> d"]


def test_branches_in_a_loop() -> None:
    graph = drawn("a >> repeat(count=2) { (b >> c) & d } >> e", *"abcde")
    assert sorted(way for way in ways(graph) if "back" not in way) == [
        "a --> b", "a --> d", "b --> c", "c --> e", "d --> e"]  # fmt: skip
    assert not [way for way in ways(graph) if "back" in way]  # there would be one from c to d
    graph = drawn("repeat(count=2) { b >> (c & d) }", *"bcd")
    assert [way for way in ways(graph) if "back" in way] == ["c --> b (back)", "d --> b (back)"]


def test_a_huge_graph_with_branches_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_EDGES", 5)
    graph = drawn("(a & b & c) >> (d & e)", *"abcde")
    assert (len(graph.edges), len(graph.nodes), graph.cut) == (5, 5, True)
    monkeypatch.setattr(module, "_MOST_NODES", 3)
    graph = drawn("a & b & c & d", *"abcd")
    assert (len(graph.nodes), graph.cut) == (3, True)


def test_a_huge_graph_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_NODES", 3)
    graph = drawn("a >> b >> c >> d", *"abcd")
    assert ([node.name for node in graph.nodes], graph.cut) == (["a", "b", "c"], True)
    assert not drawn("a >> b >> c", *"abc").cut
    assert loose_graph(["a", "b", "c", "d"]).cut and not loose_graph(["a", "b", "c"]).cut
