"""flow.yaml: what is accepted, and what each refusal says."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyoco_server.errors import InvalidFlow, PyocoError, TooLarge
from pyoco_server.model.flow.workflow import build_flow, graph_task_names, parse_workflow

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


def parse(text: str | bytes, max_bytes: int = 262_144):
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
        ("pipe('p') >> b # comment", ("a", "b")),
        ("a >> repeat(count=2) { a }", ("a",)),
        ("foreach(over=rows) { until(cond=done) { switch(on=m) { 'x': pipe(p); default: 'b' } } }", ("a", "b")),
    ],
)
def test_the_whole_language(graph: str, names: tuple[str, ...]):
    text = f"flow:\n  graph: |\n    {graph}\n{ONE}pipes: {{p: a}}\n"
    assert parse(text).node_names == names


def test_use_and_our_own_keys():
    text = "flow: {graph: a}\ntasks: {a: {use: demo/double, retries: 2, timeout_sec: 1.5, fail_policy: isolate}}\n"
    task = parse(text).file.tasks["a"]
    assert (task.use, task.retries, task.timeout_sec, task.fail_policy) == ("demo/double", 2, 1.5, "isolate")


@pytest.mark.parametrize(("written", "found"), [("", 8), ("runtime: {max_parallel: 64}\n", 64)])
def test_how_many_tasks_run_side_by_side(written: str, found: int):
    assert parse(GOOD + written).file.runtime.max_parallel == found


def test_only_tasks_of_the_graph_are_named():
    assert graph_task_names(parse(f"flow: {{graph: a}}\n{ONE}").file) == ["a"]


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        (GOOD.replace("to_text\n  d", "to_txt\n  d"), 4, "'to_txt'"),
        (GOOD.replace("add_one >> to_text", "add_one >>> to_text"), 4, "'>'"),
        (GOOD.replace("add_one >> to_text", "__import__('os').system('x')"), 4, "Unexpected character"),
        (GOOD.replace("add_one >> to_text", "add_one >> add_one"), 4, "twice"),
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
        (f"flow: {{graph: pipe(p)}}\n{ONE}pipes: {{p: pipe(p)}}\n", 3, "Cyclic"),
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


def in_defaults(value: str) -> str:
    return GOOD.replace("x: 1", f"x: {value}")


def with_graph(graph: str, tail: str = "") -> str:
    return "flow:\n  graph: |\n" + "".join(f"    {line}\n" for line in graph.splitlines()) + ONE + tail


@pytest.mark.parametrize(
    ("text", "line", "key", "said"),
    [
        # YAML
        (in_defaults("!!bool zz"), 6, None, "type bool"),
        (in_defaults("!!int ''"), 6, None, "type int"),
        (in_defaults("0x" + "f" * 5000), 6, None, "type int"),
        (in_defaults("9" * 5000), 6, None, "type int"),
        (in_defaults("9" * 200), 6, None, "type int"),
        (in_defaults(".nan"), 6, None, ".nan"),
        (in_defaults("!!map z"), 6, None, "type 'map'"),
        (in_defaults("!!str [z]"), 6, None, "type 'str'"),
        (in_defaults("!!set {z}"), 6, None, "type 'set'"),
        (in_defaults("!!binary aGk="), 6, None, "type 'binary'"),
        (in_defaults("!mine 1"), 6, None, "type '!mine'"),
        (in_defaults("<<"), 6, None, "type 'merge'"),
        (in_defaults("{<<: 5}"), 6, None, "'<<' takes a mapping"),
        (in_defaults("&a [*a]"), 6, None, "contains itself"),
        (in_defaults("{on: 1}"), 6, None, "'on' is not text"),
        (in_defaults("{[a]: 1}"), 6, None, "is not text"),
        (in_defaults('"\\ud800"'), 6, None, "escape code"),
        (GOOD + "# \0", 12, None, "#x0000"),
        # Keys and types
        (GOOD.replace("version: 1", "version: true"), 1, "version", "integer"),
        ("flow: {graph: a}\ntasks: {a: {callable: 'm:f', timeout_sec: true}}", 2, "tasks.a.timeout_sec", "number"),
        ("flow: {graph: a}\ntasks: {a: {callable: 'm:f', retries: -1}}", 2, "tasks.a.retries", "greater"),
        ("flow: {graph: a}\ntasks: {a: {callable: '1m:f'}}", 2, "tasks.a.callable", "form"),
        ("flow: {graph: a}\ntasks: {a: {callable: 'm:f', use: x/y}}", 2, "tasks.a", "both"),
        ("flow: {graph: a}\ntasks:\n  a:\n", 3, "tasks.a", "neither"),
        ("flow: {graph: a}\ntasks:\n  a b: {callable: 'm:f'}\n", 3, "tasks.a b", "form"),
        ("flow: {graph: [a]}\n" + ONE, 1, "flow.graph", "must be text"),
        ("flow: {graph: a}\ntasks: [a]\n", 2, "tasks", "must be a mapping"),
        ("flow:\n" + ONE, 1, "flow.graph", "missing"),
        (ONE, None, "flow", "missing"),
        ("flow: {graph: a}\n", None, "tasks", "missing"),
        (GOOD + "runtime: {max_parallel: 0}\n", 12, "runtime.max_parallel", "greater than or equal to 1"),
        (GOOD + "runtime: {max_parallel: 65}\n", 12, "runtime.max_parallel", "less than or equal to 64"),
        (GOOD + "runtime: {max_parallel: true}\n", 12, "runtime.max_parallel", "integer"),
        (
            "flow: {graph: a}\ntasks:\n  a: {callable: 'm:f', x: 1}\nz: 1\n",
            3,
            "tasks.a.x",
            "unknown key 'x'; line 4, z: unknown key 'z'",
        ),
        # The graph
        (with_graph("a >>\nuntil(cond={{ foo(1) }}) { b }"), 4, "flow.graph", "'{{foo(1)}}'"),
        (with_graph("a >>\nuntil(cond={{ $ctx.a + open(1) }}) { b }"), 4, "flow.graph", "open(1)"),
        (with_graph("until(cond={{ " + "(" * 9000 + " }}) { b }"), 3, "flow.graph", "cannot be used"),
        (with_graph("x: a >>\nx: b"), 4, "flow.graph", "'x' stands in the graph twice"),
        (with_graph("b >>\nrepeat(count=1) { b: a }"), 4, "flow.graph", "'b' stands in the graph twice"),
        (with_graph("b >>\nswitch(on=m) { 1: a; 1: b }"), 4, "flow.graph", "duplicate switch case"),
        (with_graph("until(cond=c, max_iter=0) { a }"), 3, "flow.graph", "max_iter"),
        (with_graph("repeat(count=1, collect=no) { a }"), 3, "flow.graph", "collect"),
        (with_graph("a >>\npipe(q)"), 4, "flow.graph", "Unknown pipe 'q'"),
        (with_graph("pipe(p)", "pipes:\n  p: pipe(q)\n  q: pipe(p)\n"), 7, "pipes.q", "Cyclic"),
        (with_graph("pipe(p)", "pipes:\n  p: |\n    a >>\n    zz\n"), 8, "pipes.p", "'zz'"),
        (with_graph("foreach(over=zz, item=zz) { a } >>\nzz"), 4, "flow.graph", "'zz'"),
        (with_graph("a >>\n  >> b"), 4, "flow.graph", "a task is expected here, not '>>'"),
        (with_graph("a >>\nswitch(on=m) { 1: 'a >'; default: b }"), 4, "flow.graph", "Unsupported operator"),
        (with_graph("# nothing"), 3, "flow.graph", "Empty"),
        (with_graph('__import__("os").system("x")'), 3, "flow.graph", "Unexpected character '.'"),
        (with_graph("repeat(count=²) { a }"), 3, "flow.graph", "²"),
    ],
)
def test_refusals_name_line_and_key(text: str, line: int | None, key: str | None, said: str):
    with pytest.raises(InvalidFlow) as caught:
        parse(text)
    assert (caught.value.line, caught.value.key) == (line, key), caught.value.message
    assert said in caught.value.message


def test_what_is_left_empty_counts_as_empty():
    file = parse(
        "flow:\n  graph: a\n  defaults:\npipes:\nruntime:\ntasks:\n  a:\n    callable: m:f\n    inputs:\n    outputs:\n"
    ).file
    assert (file.flow.defaults, file.pipes, file.runtime.expose_env) == ({}, {}, [])
    assert (file.tasks["a"].inputs, file.tasks["a"].outputs) == ({}, [])


def test_a_merge_and_the_line_of_the_value_that_wins():
    text = "flow: {graph: a}\ntasks:\n  b: &t {callable: 'm:f', retries: 1}\n  a:\n    <<: *t\n    retries: 2\n"
    assert parse(text).file.tasks["a"].retries == 2
    with pytest.raises(InvalidFlow) as caught:
        parse(text.replace("retries: 2", "retries: -2"))
    assert caught.value.line == 6


def test_defaults_are_a_copy():
    workflow = parse(in_defaults("[1]"))
    workflow.defaults["x"].append(2)
    assert workflow.defaults == {"x": [1]}


def test_the_flow_is_built_over_real_tasks():
    from pyoco.core.models import Task

    flow = build_flow(parse(with_graph("a >> again: a")).file, {"a": Task(func=lambda: 5, name="a")}, "mine")
    assert (flow.name, {task.name for task in flow.tasks}) == ("mine", {"a", "again"})


def test_nested_through_aliases():
    chain = "".join(f"  x{n}: &x{n} [*x{n - 1}]\n" for n in range(1, 100))
    with pytest.raises(InvalidFlow, match="aliases followed"):
        parse("flow: {graph: a}\n" + ONE + "x:\n  x0: &x0 [1]\n" + chain)


@pytest.mark.parametrize("last", ["a", '"a\\n#' + "x" * 90_000 + '"'])
@pytest.mark.parametrize(("times", "said"), [(11, "stands in the graph twice"), (13, "expand to more than 4096 terms")])
def test_pipes_that_would_take_minutes_to_expand_as_text(times: int, said: str, last: str):
    doubling = "".join(f"  p{n}: pipe(p{n + 1}) >> pipe(p{n + 1})\n" for n in range(times))
    single = "".join(f"  p{n}: pipe(p{n + 1})\n" for n in range(times, 126))
    with pytest.raises(InvalidFlow, match=said):
        parse(with_graph("pipe(p0)", f"pipes:\n{doubling}{single}  p126: {last}\n"))


@pytest.mark.parametrize(
    "text",
    [
        with_graph("z" * 50_000),
        "flow: {graph: a}\n" + ONE + "y" * 900 + ": 1\n",
        "flow: {graph: a}\n" + ONE + "".join(f"k{n}: 1\n" for n in range(9000)),
        "flow: {graph: zz}\ntasks:\n" + "".join(f"  t{n}: {{use: x}}\n" for n in range(4000)),
        'flow: {graph: a}\ntasks: {"\\e[2Jx": {use: x}}\n',
    ],
)
def test_messages_stay_short_and_printable(text: str):
    with pytest.raises(InvalidFlow) as caught:
        parse(text)
    assert len(caught.value.message) < 800
    assert len(caught.value.hint) <= 500
    assert caught.value.message.isprintable()


def test_suggestions():
    with pytest.raises(InvalidFlow) as caught:
        parse(GOOD.replace("add_one >> to_text", "add_one >> to_txt"))
    assert "Did you mean 'to_text'?" in caught.value.hint


@pytest.mark.parametrize(("key", "advice"), [("flows", "under 'flow:'"), ("discovery", "tasks.<name>.callable")])
def test_keys_of_older_files_get_advice(key: str, advice: str):
    with pytest.raises(InvalidFlow) as caught:
        parse(f"{GOOD}{key}: {{}}\n")
    assert caught.value.key == key
    assert advice in caught.value.hint


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


WORDS = """a b x >> ( ) { } : ; , = switch(on=m){ repeat(count= foreach(over= until(cond= pipe(p) default: 1 ² 'b' "
{{ }} $ctx.a \\ # < !!int !!bool !!null 1.5 [ ] - & * <<: &a *a ? | tasks: flow: graph: callable:
version: retries:""".split()


@given(st.lists(st.sampled_from([*WORDS, "\n", "\n  "]), max_size=40))
def test_files_of_likely_words_are_refused_with_a_sentence(words: list[str]):
    for text in (" ".join(words), f"{ONE}flow:\n  graph: a\n  defaults: " + " ".join(words)):
        try:
            parse(text)
        except InvalidFlow as error:
            assert error.message


@given(st.one_of(st.text(max_size=60), st.lists(st.sampled_from(WORDS), max_size=20).map(" ".join)))
def test_any_graph_is_accepted_or_refused_with_a_sentence(graph: str):
    import json

    text = f"flow:\n  graph: {json.dumps(graph)}\n{ONE}pipes: {{p: a}}\n"
    try:
        parse(text.encode("utf-8", "replace"))
    except InvalidFlow as error:
        assert error.message


@pytest.mark.parametrize("name", ["前処理", "Größe", "λ", "имя", "데이터", "class", "_1", "ﬁt"])
def test_names_are_those_that_python_takes(name: str):
    normal = "fit" if name == "ﬁt" else name
    text = f"""\
flow: {{graph: '節: {normal} >> pipe({normal})', defaults: {{{normal}: 1}}}}
tasks: {{{name}: {{callable: 'パッケージ.{name}:クラス.{name}', inputs: {{{name}: 1}}}}}}
pipes: {{{name}: '次: {normal}'}}
"""
    workflow = parse(text)
    task = workflow.file.tasks[normal]
    assert workflow.node_names == ("節", "次")
    assert (task.callable, list(task.inputs)) == (f"パッケージ.{normal}:クラス.{normal}", [normal])


@pytest.mark.parametrize(
    ("text", "line", "said", "hint"),
    [
        (with_graph("ﬁt >> b"), 3, "'ﬁt' has signs in another form", "Write fit"),
        (with_graph("a >>\nか\u3099く"), 4, "Unexpected character", "composed (NFC): がく"),
        (with_graph("a >>\nforeach(over=一覧) { b }"), 4, "'一覧' cannot be used", "Write {{ params.一覧 }}"),
        (with_graph("foreach(over=rows, item=項) { b }"), 3, "must be an identifier", "ASCII letter"),
        (with_graph("कि"), 3, "Unexpected character", "U+093F DEVANAGARI VOWEL SIGN I"),
        (with_graph("a.b"), 3, "Unexpected character", "in braces"),
        (with_graph("a >>\nswitch(on=$ctx.params.x) { 1: b }"), 4, "Unexpected character", "in braces"),
        ("flow: {graph: a}\ntasks: {ﬁt: {callable: 'm:f'}, fit: {callable: 'm:f'}}\n", 2, "same to Python", "another"),
        ("flow: {graph: a}\ntasks: {a: {callable: 'm:f', inputs: {ﬁt: 1, fit: 2}}}\n", 2, "same to Python", ""),
        ("flow: {graph: a}\ntasks: {a-b: {callable: 'm:f'}}\n", 2, "form", "letters"),
        ("flow: {graph: a}\ntasks: {a: {callable: 'm'}}\n", 2, "form", "package.module:function"),
        ("flow: {graph: a}\ntasks: {a: {callable: 'm:'}}\n", 2, "form", "package.module:function"),
        ("flow: {graph: a}\ntasks: {a: {callable: 'my-module:f'}}\n", 2, "form", "package.module:function"),
    ],
)
def test_names_that_cannot_be_used(text: str, line: int, said: str, hint: str):
    with pytest.raises(InvalidFlow) as caught:
        parse(text)
    assert said in caught.value.message
    assert (caught.value.line, hint in caught.value.hint) == (line, True), caught.value.hint


def test_a_remembered_flow_does_not_keep_its_source():
    import gc

    from pyoco_server.model.flow.yaml_source import YamlSource

    gc.collect()
    before = sum(isinstance(item, YamlSource) for item in gc.get_objects())
    workflow = parse(with_graph("a >> switch(on=x) { 1: b }"))
    gc.collect()
    assert sum(isinstance(item, YamlSource) for item in gc.get_objects()) == before
    assert workflow.node_names
