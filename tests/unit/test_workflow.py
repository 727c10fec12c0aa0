"""flow.yaml: what is accepted, and what each refusal says."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyoco_server.errors import InvalidFlow, PyocoError, TooLarge
from pyoco_server.model.workflow import graph_task_names, parse_workflow

GOOD = """\
version: 1
flow:
  graph: |
    add_one >> to_text
  defaults:
    x: 1
tasks:
  add_one:
    callable: pyoco_server._workflow_test_tasks:add_one
  to_text:
    callable: pyoco_server._workflow_test_tasks:to_text
"""
ONE = "tasks: {a: {callable: 'm:f'}, b: {callable: 'm:g'}}\n"


def parse(text: str | bytes, max_bytes: int = 100_000):
    return parse_workflow(text.encode() if isinstance(text, str) else text, max_bytes=max_bytes)


def test_the_tutorials_flow():
    workflow = parse(GOOD)
    assert workflow.node_names == ("add_one", "to_text")
    assert workflow.defaults == {"x": 1}
    assert workflow.size_bytes == len(GOOD)


@pytest.mark.parametrize(
    ("graph", "names"),
    [
        ("a >> b", ("a", "b")),
        ("first: a >> second: a", ("first", "second")),
        ("a >> switch(on=mode) { x: b; default: again: a }", ("a", "b", "again")),
        ("repeat(count=3) { a }", ("a",)),
        ("foreach(over=items, item=i, index=n, collect=list) { a >> b }", ("a", "b")),
        ("until(cond={{ $ctx.results.a > 3 }}, max_iter=5) { a }", ("a",)),
        ("pipe(p) >> b", ("a", "b")),
    ],
)
def test_the_whole_language(graph: str, names: tuple[str, ...]):
    text = f"flow:\n  graph: |\n    {graph}\n{ONE}pipes: {{p: a}}\n"
    assert parse(text).node_names == names


def test_use_and_our_own_keys():
    text = "flow: {graph: a}\ntasks: {a: {use: demo/double, retries: 2, timeout_sec: 1.5, fail_policy: isolate}}\n"
    task = parse(text).file.tasks["a"]
    assert (task.use, task.retries, task.timeout_sec, task.fail_policy) == ("demo/double", 2, 1.5, "isolate")


def test_only_tasks_of_the_graph_are_named():
    assert graph_task_names(parse(f"flow: {{graph: a}}\n{ONE}").file) == ["a"]


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        (GOOD.replace("to_text\n  d", "to_txt\n  d"), 4, "'to_txt'"),
        (GOOD.replace("add_one >> to_text", "add_one >>> to_text"), 4, "'>'"),
        (GOOD.replace("add_one >> to_text", "__import__('os').system('x')"), 4, "Unexpected character"),
        (GOOD.replace("add_one >> to_text", "add_one >> add_one"), 3, "twice"),
        (GOOD.replace("callable: pyoco_server._workflow_test_tasks:add_one", "callabel: m:f"), 9, "'callabel'"),
        (GOOD + "flows: {}\n", 12, "flows"),
        (GOOD + "discovery: {}\n", 12, "discovery"),
        (GOOD + "flow: {}\n", 12, "twice"),
        (GOOD + "extra: 1\n", 12, "'extra'"),
        (GOOD + "---\na: 1\n", 12, "second document"),
        (GOOD.replace("version: 1", "version: 2"), 1, "version"),
        (GOOD.replace("x: 1", "x: 2024-01-01"), 6, "timestamp"),
        (GOOD.replace("x: 1", "x: .inf"), 6, ".inf"),
        (GOOD.replace("x: 1", "x: !!python/name:os.system"), 6, "cannot be used"),
        (GOOD.replace("  defaults", "\tdefaults"), 5, "not valid YAML"),
        ("[" * 5000, 1, "nested deeper"),
        ("- a\n", 1, "mapping"),
        ("", 1, "mapping"),
        (f"flow: {{graph: pipe(p)}}\n{ONE}pipes: {{p: pipe(p)}}\n", 1, "Cyclic"),
        (f"flow: {{graph: pipe(q)}}\n{ONE}", 1, "Unknown pipe"),
        ("flow: {graph: a}\ntasks: {a: {}}\n", 2, "neither"),
        ("flow: {graph: a}\ntasks: {a: {callable: nope}}\n", 2, "callable"),
        ("flow: {graph: a}\ntasks: {1: {callable: 'm:f'}}\n", 2, "'1' is not text"),
        (
            "flow: {graph: 'repeat(count=1){" + "repeat(count=1){" * 3000 + "'}\ntasks: {a: {callable: 'm:f'}}",
            1,
            "deeply",
        ),
    ],
)
def test_refusals_name_the_line(text: str, line: int, said: str):
    with pytest.raises(InvalidFlow) as caught:
        parse(text)
    assert caught.value.line == line, caught.value.message
    assert said in caught.value.message


def test_suggestions():
    with pytest.raises(InvalidFlow) as caught:
        parse(GOOD.replace("add_one >> to_text", "add_one >> to_txt"))
    assert "Did you mean 'to_text'?" in caught.value.hint


def test_an_alias_bomb():
    levels = [b"a: &a [x,x,x,x,x,x,x,x,x]"]
    for number in range(9):
        inner = b",".join([b"*%c" % (97 + number)] * 9)
        levels.append(b"%c: &%c [%s]" % (98 + number, 98 + number, inner))
    with pytest.raises(InvalidFlow, match="more than 20000 values"):
        parse(b"\n".join(levels))


def test_size_and_encoding():
    with pytest.raises(TooLarge):
        parse(GOOD, max_bytes=10)
    with pytest.raises(InvalidFlow, match="not UTF-8: byte 3"):
        parse(b"abc\xff")


@given(st.one_of(st.text(max_size=300), st.binary(max_size=300)))
def test_rubbish_is_refused_and_nothing_else_happens(rubbish: str | bytes):
    raw = rubbish.encode("utf-8", "replace") if isinstance(rubbish, str) else rubbish
    with pytest.raises(PyocoError):
        parse(raw)


@given(st.text(max_size=60))
def test_any_graph_is_accepted_or_refused_with_a_sentence(graph: str):
    import json

    text = f"flow:\n  graph: {json.dumps(graph)}\n{ONE}"
    try:
        parse(text.encode("utf-8", "replace"))
    except InvalidFlow as error:
        assert error.message
