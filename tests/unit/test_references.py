"""References: what is accepted works in the engine, and what is refused fails in pyoco's, hours later."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyoco.core.engine import Engine
from pyoco.core.models import RunContext, Task
from pyoco.trace.backend import TraceBackend

from pyoco_server.errors import InvalidFlow
from pyoco_server.model.flow.workflow import build_flow, parse_workflow
from pyoco_server.worker.child.flow.exposure import expose
from pyoco_server.worker.child.flow.wiring import NothingThere, WiredContext, wire
from pyoco_server.worker.child.tasks.engine import RunEngine

DEFAULTS = {"lr": 0.1, "train": {"lr": 0.2, "opt": {"name": "adam"}}, "a.b": 5, "mode": "x", "items": [1, 2], "n": 2,
            "none": [], "zero": 0, "名前": "太郎"}  # fmt: skip
OUTPUT = {"n": 7, "rows": [1, 2], "o": {"p": "q"}, "": 0}
ENVIRON = {"HOME_OF_TEST": "here"}
EXPOSED = [*ENVIRON, "NOT_SET_HERE"]
TASKS = "abcde"


class Silent(TraceBackend):
    def on_flow_start(self, flow_name: str, run_id: str | None = None) -> None: ...
    def on_flow_end(self, flow_name: str) -> None: ...
    def on_node_start(self, node_name: str) -> None: ...
    def on_node_end(self, node_name: str, duration_ms: float) -> None: ...
    def on_node_error(self, node_name: str, error: BaseException) -> None: ...


def text_of(graph: str, inputs: dict[str, Any], outputs: dict[str, list[str]] | None = None) -> str:
    """A file with the graph in line 3 and the tasks from line 6 on, one in a line."""
    lines = ["flow:", "  graph: |", f"    {graph}", f"  defaults: {json.dumps(DEFAULTS)}", "tasks:"]
    for name in TASKS:
        entry = {"callable": "m:f", "inputs": inputs.get(name, {}), "outputs": (outputs or {}).get(name, [])}
        lines.append(f"  {name}: {json.dumps(entry, ensure_ascii=False)}")
    lines.append(f"runtime: {json.dumps({'expose_env': EXPOSED})}")
    return "\n".join(lines) + "\n"


def checked(text: str) -> Any:
    workflow = parse_workflow(text.encode(), max_bytes=1 << 20)
    workflow.check(workflow.defaults, ENVIRON)
    return workflow


def execute(graph: str, inputs: dict[str, Any], outputs: dict[str, list[str]] | None, *, ours: bool) -> dict[str, Any]:
    """Run a graph; what each node was given the last time is the answer."""
    file = parse_workflow(text_of("a", {}, outputs).encode(), max_bytes=1 << 20).file
    file = file.model_copy(update={"flow": file.flow.model_copy(update={"graph": graph})})
    received: dict[str, Any] = {}

    def make(name: str) -> Task:
        def function(**_given: Any) -> dict[str, Any]:
            received[name] = _given
            return OUTPUT

        given = inputs.get(name, {})
        return Task(function, name, inputs=wire(given) if ours else given, outputs=(outputs or {}).get(name, []))

    flow = build_flow(file, {name: make(name) for name in TASKS}, "main")
    expose(flow, EXPOSED)
    engine = RunEngine(Silent()) if ours else Engine(Silent())
    engine.run(flow, params=json.loads(json.dumps(DEFAULTS)), run_context=RunContext())
    return received


@pytest.fixture(autouse=True)
def variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in ENVIRON.items():
        monkeypatch.setenv(name, value)


LINE = "a >> b >> c"
TWICE = "repeat(count=2) {{ switch(on={{{{ $ctx.loop.index }}}}) {{ 0: {first}; default: {second} }} >> {then} }}"

GOOD: list[tuple[str, str, Any, Any, bool]] = [
    # graph, task, its input x, what the task gets, whether pyoco gives it the same
    (LINE, "b", "$node.a.output", OUTPUT, True),
    (LINE, "b", "$node.a.output.n", 7, True),
    (LINE, "b", "$node.a.output.o.p", "q", True),
    (LINE, "c", "$node.a.output.rows", [1, 2], True),
    ("first: a >> b", "b", "$node.first.output.n", 7, True),
    ("a >> first: c >> b", "b", "$node.first.output.n", 7, True),
    ("a >> repeat(count=2) { b }", "b", "$node.a.output.n", 7, True),
    ("repeat(count=2) { a } >> b", "b", "$node.a.output.n", 7, True),
    ("repeat(count=2) { a >> b }", "b", "$node.a.output.n", 7, True),
    ("repeat(count=n) { a } >> b", "b", "$node.a.output.n", 7, True),
    ("foreach(over=items, item=i) { a >> b }", "b", "$node.a.output.n", 7, True),
    ("foreach(over=items) { a } >> b", "b", "$node.a.output.n", 7, True),
    ("until(cond={{ $ctx.results.a.n > 1 }}) { a >> b }", "b", "$node.a.output.n", 7, True),
    ("until(cond={{ $ctx.results.a.n > 1 }}) { a } >> b", "b", "$node.a.output.n", 7, True),
    ("switch(on=mode) { x: a; default: c } >> b", "b", "$node.a.output.n", 7, True),
    ("switch(on=mode) { x: a >> b; default: c }", "b", "$node.a.output.n", 7, True),
    ("a >> switch(on=mode) { x: b; default: c }", "b", "$node.a.output.n", 7, True),
    # what only an earlier round of a loop can have done
    (TWICE.format(first="c", second="b", then="a"), "b", "$node.a.output.n", 7, True),
    (TWICE.format(first="a", second="b", then="c"), "b", "$node.a.output.n", 7, True),
    (TWICE.format(first="c", second="repeat(count=1) { b }", then="a"), "b", "$node.a.output.n", 7, True),
    ("foreach(over=items) { repeat(count={{ $ctx.loop.index }}) { b } >> a }", "b", "$node.a.output.n", 7, True),
    ("foreach(over=items) { foreach(over=none) { b } >> a }", "b", "$node.a.output.n", None, True),
    ("a >> repeat(count=2) { b >> a }", "b", "$node.a.output.n", 7, True),
    # params
    (LINE, "a", "$ctx.params.lr", 0.1, True),
    (LINE, "a", "$ctx.params.a.b", 5, True),
    (LINE, "a", "$ctx.params.名前", "太郎", True),
    (LINE, "a", "$ctx.params.train", {"lr": 0.2, "opt": {"name": "adam"}}, True),
    (LINE, "a", "$ctx.params.train.lr", 0.2, False),
    (LINE, "a", "$ctx.params.train.opt.name", "adam", False),
    # the environment
    (LINE, "a", "$env.HOME_OF_TEST", "here", True),
    # inside lists and mappings
    (LINE, "b", ["$node.a.output.n", "$ctx.params.lr", 3], [7, 0.1, 3], False),
    (LINE, "b", {"k": {"l": ["$node.a.output.n"]}, "$x": 1}, {"k": {"l": [7]}, "$x": 1}, False),
    (LINE, "b", [{"home": "$env.HOME_OF_TEST"}, ["$ctx.params.train.lr"]], [{"home": "here"}, [0.2]], False),
    # texts
    (LINE, "a", "$100", "$100", False),
    (LINE, "a", "$", "$", False),
    (LINE, "a", "$ 5", "$ 5", False),
    (LINE, "a", "$-3.50", "$-3.50", False),
    (LINE, "a", "$(date)", "$(date)", False),
    (LINE, "a", "$.data[0]", "$.data[0]", False),
    (LINE, "a", "$$100", "$100", False),
    (LINE, "a", "$$HOME/bin", "$HOME/bin", False),
    (LINE, "a", "$$node.typo.output", "$node.typo.output", False),
    (LINE, "a", "$$$", "$$", False),
    (LINE, "a", ["$100", "$$HOME"], ["$100", "$HOME"], False),
    (LINE, "a", " $node.typo.output", " $node.typo.output", True),
    (LINE, "a", "costs $node.typo.output", "costs $node.typo.output", True),
    (LINE, "a", "Dear {{ name }}", "Dear {{ name }}", True),
    (LINE, "a", "{{ params.lr }}", "{{ params.lr }}", True),
    (LINE, "a", "", "", True),
    (LINE, "a", 100, 100, True),
    (LINE, "a", None, None, True),
    (LINE, "a", [1, {"k": "v"}], [1, {"k": "v"}], True),
    # a task that never runs may ask for what this run does not have
    ("switch(on=mode) { y: b; default: a }", "b", "$ctx.params.only_for_y", None, True),
    ("foreach(over=none) { b } >> a", "b", "$ctx.params.missing", None, True),
    ("repeat(count=zero) { b } >> a", "b", "$env.NOT_SET_HERE", None, True),
    # a task that the graph does not name is not looked at
    (LINE, "e", "$node.typo.output", None, True),
]  # fmt: skip


@pytest.mark.parametrize(("graph", "task", "value", "expected", "pyoco_too"), GOOD)
def test_what_is_accepted_works(graph: str, task: str, value: Any, expected: Any, pyoco_too: bool) -> None:
    checked(text_of(graph, {task: {"x": value}}))
    received = execute(graph, {task: {"x": value}}, None, ours=True)
    assert received.get(task, {"x": None})["x"] == expected
    if pyoco_too:
        assert execute(graph, {task: {"x": value}}, None, ours=False).get(task, {"x": None})["x"] == expected
    else:
        with pytest.raises(Exception, match=r".") as caught:
            assert execute(graph, {task: {"x": value}}, None, ours=False)[task]["x"] == expected
        assert isinstance(caught.value, (ValueError, KeyError, AssertionError))


FAILS, PASSES_TEXT, NEVER_RUNS = "fails", "passes the text", "is never run"

BAD: list[tuple[str, str, Any, str, str, str]] = [
    # graph, task, its input x, the message, the hint, what pyoco does
    (LINE, "b", "$node.typo.output", "no node 'typo'", "Nodes of the graph: a, b, c", FAILS),
    ("prep: a >> b", "b", "$node.prpe.output", "no node 'prpe'", "Did you mean 'prep'?", FAILS),
    ("prep: a >> b", "b", "$node.a.output", "no node 'a'", "stands in the graph as prep", FAILS),
    (LINE, "b", "$node.e.output", "no node 'e'", "Nodes", FAILS),
    (LINE, "b", "$node.a.outputs", "comes .output", "Write $node.a.output", FAILS),
    (LINE, "b", "$node.a", "comes .output", "Write $node.a.output", FAILS),
    (LINE, "b", "$node.a.", "comes .output", "Write $node.a.output", FAILS),
    (LINE, "b", "$node.a.n", "comes .output", "Write $node.a.output.n", FAILS),
    (LINE, "b", "$node.a.result.n", "comes .output", "Write $node.a.output.n", FAILS),
    (LINE, "b", "$node.a.output ", "comes .output", "Write $node.a.output", FAILS),
    (LINE, "b", "$node.a output", "comes .output", "Write", FAILS),
    (LINE, "b", "$node..output", "node is missing", "Write", FAILS),
    (LINE, "b", "$node.", "node is missing", "Write", FAILS),
    (LINE, "b", "$node", "node is missing", "Write", FAILS),
    (LINE, "b", "$node.a.output..n", "field's name", "Write", FAILS),
    # the order
    (LINE, "b", "$node.c.output", "'c' cannot have run before 'b'", "Before it can have run: a", FAILS),
    (LINE, "a", "$node.b.output", "'b' cannot have run before 'a'", "none", FAILS),
    (LINE, "b", "$node.b.output", "its own output", "Before", FAILS),
    ("a >> first: b >> second: b", "b", "$node.first.output", "'first' would need its own output", "a", FAILS),
    ("repeat(count=3) { a >> b }", "a", "$node.b.output", "'b' cannot have run before 'a'", "", FAILS),
    ("until(cond={{ results.b }}) { a >> b }", "a", "$node.b.output", "'b' cannot have run before 'a'", "", FAILS),
    ("foreach(over=items) { a >> b }", "a", "$node.b.output", "'b' cannot have run before 'a'", "", FAILS),
    ("switch(on=mode) { x: b; default: a }", "b", "$node.a.output", "'a' cannot have run before 'b'", "", FAILS),
    ("switch(on=mode) { y: b; default: a }", "b", "$node.a.output", "'a' cannot have run", "", NEVER_RUNS),
    ("repeat(count=1) { switch(on=mode) { x: b; y: a } }", "b", "$node.a.output", "'a' cannot have run", "", FAILS),
    ("repeat(count=0) { a } >> b", "b", "$node.a.output", "'a' cannot have run before 'b'", "none", FAILS),
    ("repeat(count=2) { switch(on=mode) { x: b } >> a }", "b", "$node.a.output", "'a' cannot have run", "", FAILS),
    (TWICE.format(first="c >> b", second="b", then="c"), "b", "$node.a.output", "no node 'a'", "", FAILS),
    ("repeat(count=2) { b } >> repeat(count=2) { a }", "b", "$node.a.output", "'a' cannot have run", "", FAILS),
    # params
    (LINE, "a", "$ctx.params.lrr", "have no 'lrr'", "Did you mean 'lr'?", FAILS),
    (LINE, "c", "$ctx.params.missing", "have no 'missing'", "flow: defaults", FAILS),
    (LINE, "a", "$ctx.params.train.lrr", "there is no 'lrr' in 'train'", "Did you mean 'train.lr'?", FAILS),
    (LINE, "a", "$ctx.params.lr.x", "there is no 'x' in 'lr'", "", FAILS),
    (LINE, "a", "$ctx.params.items.0", "there is no '0' in 'items'", "", FAILS),
    ("foreach(over=items) { a }", "a", "$ctx.params.missing", "have no 'missing'", "", FAILS),
    ("repeat(count=n) { a }", "a", "$ctx.params.missing", "have no 'missing'", "", FAILS),
    ("repeat(count=2) { a }", "a", "$ctx.params.missing", "have no 'missing'", "", FAILS),
    ("switch(on=mode) { x: a; default: b }", "a", "$ctx.params.missing", "have no 'missing'", "", FAILS),
    ("switch(on=mode) { y: b; default: a }", "a", "$ctx.params.missing", "have no 'missing'", "", FAILS),
    ("until(cond={{ params.mode }}) { a }", "a", "$ctx.params.missing", "have no 'missing'", "", FAILS),
    (LINE, "a", "$ctx.params.", "param is missing", "Write $ctx.params.<key>", FAILS),
    (LINE, "a", "$ctx.params", "param is missing", "Write $ctx.params.<key>", FAILS),
    (LINE, "a", "$ctx.parms.lr", "only $ctx.params", "Write $ctx.params.lr", FAILS),
    (LINE, "a", "$ctx.lr", "only $ctx.params", "Write $ctx.params.lr", FAILS),
    (LINE, "b", "$ctx.results.a", "in another way", "Write $node.a.output", FAILS),
    (LINE, "b", "$ctx.results.a.n", "in another way", "Write $node.a.output.n", FAILS),
    (LINE, "b", "$ctx.loop.item", "only $ctx.params", "ctx.loop.item", FAILS),
    (LINE, "b", "$ctx.scratch.x", "only $ctx.params", "ctx.scratch.x", FAILS),
    (LINE, "b", "$ctx", "only $ctx.params", "Write $ctx.params.<key>", FAILS),
    # the environment
    (LINE, "c", "$env.NOT_SET_HERE", "'NOT_SET_HERE' is not set", "worker", FAILS),
    (LINE, "a", "$env.", "variable is missing", "Write $env.<NAME>", FAILS),
    (LINE, "a", "$env", "variable is missing", "Write $env.<NAME>", FAILS),
    # what is no reference
    (LINE, "a", "$flow.defaults.lr", "there is no $flow", "Write $ctx.params.lr", FAILS),
    (LINE, "a", "$params.lr", "there is no $params", "Write $ctx.params.lr", FAILS),
    (LINE, "b", "$nodes.a.output", "there is no $nodes", "Write $node.a.output", FAILS),
    (LINE, "b", "$results.a.n", "there is no $results", "Write $node.a.output.n", FAILS),
    (LINE, "b", "$nod.a.output", "there is no $nod", "Did you mean $node?", FAILS),
    (LINE, "a", "$ENV.HOME", "there is no $ENV", "References are", FAILS),
    (LINE, "a", "$HOME", "there is no $HOME", "$$HOME", FAILS),
    (LINE, "a", "$lr", "there is no $lr", "$$lr", FAILS),
    (LINE, "a", "${HOME}", "no braces", "$${HOME}", FAILS),
    (LINE, "a", "${ctx.params.lr}", "no braces", "Write $ctx.params.lr", FAILS),
    (LINE, "a", "$名前", "there is no $名前", "$$名前", FAILS),
    # inside lists and mappings
    (LINE, "b", ["$node.typo.output"], "no node 'typo'", "Nodes", PASSES_TEXT),
    (LINE, "b", {"k": {"l": [0, "$node.c.output"]}}, "'c' cannot have run before 'b'", "", PASSES_TEXT),
    (LINE, "b", [["$ctx.params.missing"]], "have no 'missing'", "", PASSES_TEXT),
    (LINE, "b", ["$env.NOT_SET_HERE"], "is not set", "", PASSES_TEXT),
    (LINE, "b", ["$node.a.outputs"], "comes .output", "", PASSES_TEXT),
    (LINE, "b", ["$HOME"], "there is no $HOME", "$$HOME", PASSES_TEXT),
    # templates
    (LINE, "b", "{{ $node.a.output }}", "no templates", "Write $node.a.output without", PASSES_TEXT),
    (LINE, "b", "{{ $node.typo.output }}", "no node 'typo'", "Nodes", PASSES_TEXT),
    (LINE, "b", "{{$ctx.params.lr}}", "no templates", "Write $ctx.params.lr without", PASSES_TEXT),
    (LINE, "b", "{{ $ctx.params.lr * 2 }}", "no templates", "", PASSES_TEXT),
    (LINE, "b", "{{ $ctx.results.a }}", "in another way", "Write $node.a.output", PASSES_TEXT),
    (LINE, "b", "s3://x/{{ $ctx.params.mode }}/y", "no templates", "Compute it", PASSES_TEXT),
    (LINE, "b", ["{{ $env.HOME_OF_TEST }}"], "no templates", "", PASSES_TEXT),
]  # fmt: skip


@pytest.mark.parametrize(("graph", "task", "value", "said", "hint", "in_pyoco"), BAD)
def test_what_is_refused_fails_in_pyoco(graph: str, task: str, value: Any, said: str, hint: str, in_pyoco: str) -> None:
    with pytest.raises(InvalidFlow) as caught:
        checked(text_of(graph, {task: {"x": value}}))
    assert said in caught.value.message
    assert hint in caught.value.hint
    assert (caught.value.line, str(caught.value.key).startswith(f"tasks.{task}.inputs.x")) == (
        6 + TASKS.index(task),
        True,
    )
    if in_pyoco == FAILS:
        with pytest.raises((ValueError, KeyError, AttributeError)):
            execute(graph, {task: {"x": value}}, None, ours=False)
    else:
        received = execute(graph, {task: {"x": value}}, None, ours=False)
        assert received.get(task, {}).get("x") == (value if in_pyoco == PASSES_TEXT else None)


GOOD_GRAPHS = [
    "switch(on=mode) { x: a; default: b }",
    "switch(on={{ params.train.opt.name }}) { adam: a; default: b }",
    "a >> switch(on={{ results.a.n }}) { 7: b; default: c }",
    "a >> switch(on={{ $ctx.results.a.n > $ctx.params.n }}) { true: b; false: c }",
    "first: a >> switch(on={{ results.first.o.p }}) { q: b }",
    "a >> repeat(count={{ results.a.n }}) { b }",
    "a >> foreach(over={{ results.a.rows }}, item=row, index=i) { switch(on={{ $ctx.row }}) { 1: b; default: c } }",
    "foreach(over=items, item=r, index=i) { foreach(over=items, item=c) { "
    "switch(on={{ $ctx.r + $ctx.c + $ctx.i }}) { 2: b; default: c } } }",
    "foreach(over=items) { switch(on={{ loop.item }}) { 1: b; default: c } }",
    "repeat(count=2) { switch(on={{ loop.index }}) { 0: a; default: b } }",
    "repeat(count=2) { switch(on={{ $ctx.loop.index > 0 and $ctx.results.b.n > 0 }}) { true: a; false: c } >> b }",
    "until(cond={{ $ctx.loop.iteration >= 2 }}) { a }",
    "until(cond={{ $ctx.results.b.n > 1 or $ctx.params.missing }}) { a >> b }",
    "until(cond={{ loop.iteration }}) { a }",
    "switch(on={{ env.HOME_OF_TEST }}) { here: a; default: b }",
    "switch(on={{ $env.HOME_OF_TEST == 'here' }}) { true: a; false: b }",
    "switch(on=mode) { y: repeat(count=missing) { a }; default: b }",
    "foreach(over=none) { switch(on=missing) { x: a } } >> b",
    "switch(on={{ params.名前 }}) { 太郎: a; default: b }",
]


@pytest.mark.parametrize("graph", GOOD_GRAPHS)
def test_expressions_that_work(graph: str) -> None:
    checked(text_of(graph, {}))
    execute(graph, {}, None, ours=True)


BAD_GRAPHS = [
    ("switch(on=mod) { x: a }", "have no 'mod'", "Did you mean 'mode'?"),
    ("a >> switch(on={{ params.train.op }}) { x: b }", "there is no 'op' in 'train'", "'train.opt'"),
    ("a >> switch(on={{ results.aa }}) { x: b }", "no node 'aa'", "Did you mean 'a'?"),
    ("switch(on={{ results.b }}) { x: b; default: c }", "'b' cannot have run before 'switch'", ""),
    ("a >> repeat(count=itens) { b }", "have no 'itens'", "Did you mean 'items'?"),
    ("repeat(count={{ results.a.n }}) { a }", "'a' cannot have run before 'repeat'", ""),
    ("foreach(over=itms) { a }", "have no 'itms'", "Did you mean 'items'?"),
    ("foreach(over={{ results.c }}) { c }", "'c' cannot have run before 'foreach'", ""),
    ("until(cond={{ results.c }}) { a } >> c", "'c' cannot have run before 'until'", ""),
    ("until(cond={{ $ctx.result.a > 1 }}) { a }", "no 'result'", "Did you mean 'results'?"),
    ("until(cond={{ $ctx.parms.n > 1 }}) { a }", "no 'parms'", "Did you mean 'params'?"),
    ("until(cond=a) { a }", "no 'a' here", "Write {{ results.a }}"),
    ("until(cond=mode) { a }", "no 'mode' here", "Write {{ params.mode }}"),
    ("foreach(over=items, item=row) { a } >> switch(on={{ $ctx.row }}) { 1: b }", "no 'row' here", "inside"),
    ("foreach(over=items, item=row) { switch(on={{ $ctx.rwo }}) { 1: b } }", "no 'rwo' here", "'row'"),
    ("switch(on={{ $ctx.anything }}) { 1: a }", "no 'anything' here", "Known here"),
    ("switch(on={{ scratch.x }}) { 1: a }", "could write scratch.x", ""),
    ("switch(on={{ loop.index }}) { 1: a }", "no loop around", ""),
    ("repeat(count={{ loop.index }}) { a }", "no loop around", ""),
    ("foreach(over=items) { switch(on={{ loop.itm }}) { 1: a } }", "a loop has no 'itm'", "Did you mean 'item'?"),
    ("foreach(over=items) { switch(on={{ $ctx.loops.item }}) { 1: a } }", "loops is a list", ""),
    ("a >> switch(on={{ env.NOT_SET_HERE }}) { x: b; default: c }", "'NOT_SET_HERE' is not set", ""),
    ("a >> switch(on={{ $ctx.params.missing == 1 and $ctx.params.n }}) { true: b }", "have no 'missing'", ""),
    ("foreach(over=items, item=row) { switch(on=row) { 1: a } }", "have no 'row'", "Write {{ $ctx.row }}"),
    ("a >> foreach(over={{ results.a.rows }}) { switch(on=missing) { 1: b } }", "have no 'missing'", ""),
    ("a >> switch(on=a) { 1: b }", "have no 'a'", "Write {{ results.a }}"),
    ("a >> foreach(over=mode) { b }", "foreach goes over a list, this param is of the type str", ""),
    ("a >> repeat(count=mode) { b }", "repeat takes a whole number from 0 on, this param is of the type str", ""),
    ("a >> repeat(count=items) { b }", "of the type list", ""),
    ("pipe(p)", "no node 'aa'", ""),
]  # fmt: skip


@pytest.mark.parametrize(("graph", "said", "hint"), BAD_GRAPHS)
def test_expressions_that_cannot_work(graph: str, said: str, hint: str) -> None:
    text = text_of(graph, {})
    line = 3
    if graph == "pipe(p)":
        text += "pipes:\n  p: |\n    a >>\n    switch(on={{ results.aa }}) { x: b }\n"
        graph, line = "a >> switch(on={{ results.aa }}) { x: b }", 15
    with pytest.raises(InvalidFlow) as caught:
        checked(text)
    assert said in caught.value.message
    assert hint in caught.value.hint
    assert caught.value.line == line
    with pytest.raises(Exception, match=r"not found|[Rr]epeat|environment|must evaluate"):
        execute(graph, {}, None, ours=False)


def test_names_that_outputs_write() -> None:
    outputs = {"a": ["results.sum", "params.extra", "scratch.s"]}
    inputs = {"b": {"x": "$node.sum.output.n", "y": "$ctx.params.extra.n"}}
    checked(text_of(LINE, inputs, outputs))
    assert execute(LINE, inputs, outputs, ours=True)["b"] == {"x": 7, "y": 7}
    for wrong, said in (("c >> b >> a", "'sum' cannot have run before 'b'"), ("b >> c", "no node 'sum'")):
        with pytest.raises(InvalidFlow, match=said):
            checked(text_of(wrong, inputs, outputs))
    late = {"b": {"y": "$ctx.params.extra.n"}}
    with pytest.raises(InvalidFlow, match="have no 'extra"):
        checked(text_of("b >> a", late, outputs))


def test_params_that_the_run_brings() -> None:
    workflow = parse_workflow(text_of(LINE, {"b": {"x": "$ctx.params.rate"}}).encode(), max_bytes=1 << 20)
    workflow.check({**workflow.defaults, "rate": 3})
    workflow.check({**workflow.defaults, "rate": None})
    with pytest.raises(InvalidFlow, match="have no 'rate'"):
        workflow.check(workflow.defaults)


def test_a_reference_that_may_lead_nowhere_says_so_at_its_turn() -> None:
    graph, inputs = "switch(on=mode) { y: a; default: c } >> b", {"b": {"x": "$node.a.output"}}
    checked(text_of(graph, inputs))
    with pytest.raises(NothingThere, match=r"'\$node.a.output' in inputs: 'a' has not run"):
        execute(graph, inputs, None, ours=True)


def test_each_start_of_a_task_gets_lists_of_its_own() -> None:
    written = {"x": [1, {"k": [2]}]}
    wired = wire(written)
    context = WiredContext()
    first, second = context.resolve(wired["x"]), context.resolve(wired["x"])
    first[1]["k"].append(3)
    assert second == [1, {"k": [2]}] == written["x"]


FRAGMENTS = ["$", "$$", "$node", "$ctx", "$env", ".", "params", "output", "a", "b", "typo", "lr", "{{", "}}", "{", "}",
             " ", "HOME_OF_TEST", "名前", "0", "results", "loop", "\n"]  # fmt: skip
TEXTS = st.one_of(st.text(max_size=40), st.lists(st.sampled_from(FRAGMENTS), max_size=9).map("".join))
VALUES = st.recursive(TEXTS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3))
TERMS = st.recursive(
    st.sampled_from([*TASKS, "n1: a", "n2: b", "n3: a"]),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(" >> ".join),
        inner.map(lambda body: f"repeat(count=2) {{ {body} }}"),
        inner.map(lambda body: f"repeat(count={{{{ $ctx.params.zero }}}}) {{ {body} }}"),
        inner.map(lambda body: f"foreach(over=items, item=i) {{ {body} }}"),
        inner.map(lambda body: f"until(cond={{{{ loop.iteration }}}}, max_iter=3) {{ {body} }}"),
        st.tuples(inner, inner).map(lambda two: f"switch(on=mode) {{ x: {two[0]}; default: {two[1]} }}"),
        st.tuples(inner, inner).map(lambda two: f"switch(on={{{{ loop.index }}}}) {{1: {two[0]}; default: {two[1]}}}"),
    ),
    max_leaves=6,
)  # fmt: skip


@given(TERMS, VALUES, st.sampled_from(TASKS))
def test_checking_refuses_with_a_sentence_or_the_text_can_be_read(graph: str, value: Any, task: str) -> None:
    try:
        checked(text_of(graph, {task: {"x": value}}))
    except InvalidFlow as error:
        assert error.message and len(error.message) < 800 and len(error.hint) <= 500
        return
    try:
        execute(graph, {task: {"x": value}}, None, ours=True)
    except NothingThere as error:
        assert "has not run" in str(error) or "there is no" in str(error)


@given(TERMS, st.sampled_from(TASKS), st.sampled_from(TASKS))
def test_no_reference_that_works_is_refused(graph: str, task: str, other: str) -> None:
    """Whatever the graph: a run in pyoco that ends well was not refused for a node that cannot have run."""
    inputs = {task: {"x": f"$node.{other}.output"}}
    try:
        parse_workflow(text_of(graph, {}).encode(), max_bytes=1 << 20)
        received = execute(graph, inputs, None, ours=False)
    except Exception:  # noqa: BLE001 - anything but a run that ends well
        return
    if task in received:
        checked(text_of(graph, inputs))


@pytest.mark.parametrize(
    "text",
    [
        "flow:\n  graph: |\n    " + " >> ".join(f"n{n}: a" for n in range(4000)) + "\ntasks:\n"
        "  a: {callable: 'm:f', outputs: [" + ",".join(f"results.x{n}" for n in range(15_000)) + "]}\n",
        "flow: {graph: a}\ntasks: {a: {callable: 'm:f', inputs: {x: [" + "'$ctx.params.p', " * 15_000 + "]}}}\n",
        "flow:\n  graph: |\n    repeat(count=2) { "
        + " >> ".join(f"switch(on=m) {{ 1: n{n}: a; default: o{n}: b }}" for n in range(1200))
        + " >> last: c }\n  defaults: {m: 1}\ntasks:\n  a: {callable: 'm:f', inputs: {x: $node.last.output}}\n"
        "  b: {callable: 'm:f'}\n  c: {callable: 'm:f'}\n",
        "flow: {graph: a}\ntasks: {a: {callable: 'm:f', inputs: {x: '" + "{{" * 100_000 + "'}}}\n",
        "flow: {graph: a}\ntasks: {a: {callable: 'm:f', inputs: {x: '{{" + "$ctx" * 50_000 + "'}}}\n",
        "flow: {graph: a}\ntasks: {a: {callable: 'm:f', inputs: {x: $node." + "a." * 100_000 + "output}}}\n",
        "flow:\n  graph: |\n"
        + "".join(f"    pipe(p{n}) >>\n" for n in range(1500))
        + "    a\npipes:\n"
        + "".join(f"  p{n}: 'repeat(count={{{{ $ctx.params.m + {n} }}}}) {{ a }}'\n" for n in range(1500))
        + "tasks: {a: {callable: 'm:f'}}\n",
    ],
    ids=["many outputs", "15000 references", "each depends on an earlier round", "braces", "no end", "dots", "pipes"],
)
def test_large_files_are_checked_in_seconds(text: str) -> None:
    import time

    began = time.process_time()
    try:
        workflow = parse_workflow(text.encode(), max_bytes=1 << 20)
        workflow.check({**workflow.defaults, "p": 1}, {})
    except InvalidFlow:
        pass
    assert time.process_time() - began < 10


@pytest.mark.parametrize(
    ("graph", "value"),
    [
        (LINE, "$env.HOME"),
        (LINE, ["deep", {"in": "$env.HOME"}]),
        (LINE, "{{ $env.HOME }}"),
        ("a >> switch(on={{ $env.HOME == 'x' }}) { true: b; default: c }", None),
        ("repeat(count={{ env.HOME }}) { a }", None),
        ("until(cond={{ $ctx.params.n > 1 or $env.HOME == 'x' }}) { a }", None),
    ],
)
def test_a_variable_that_is_not_exposed_is_refused_with_what_to_write(graph: str, value: Any) -> None:
    with pytest.raises(InvalidFlow) as caught:
        checked(text_of(graph, {"a": {"x": value}}))
    assert "'HOME' is not exposed to this flow" in caught.value.message
    assert (
        caught.value.hint
        == "Write at the top level of the file: runtime: {expose_env: [HOME_OF_TEST, NOT_SET_HERE, HOME]}"
    )


def test_what_no_check_has_seen_reaches_no_other_variable_either() -> None:
    ctx = WiredContext(["HOME_OF_TEST", "NOT_SET_HERE"])
    assert ctx.env_data() == {"HOME_OF_TEST": "here"}
    assert ctx.resolve("$env.HOME_OF_TEST") == "here"
    with pytest.raises(NothingThere, match="'HOME' is not exposed"):
        ctx.resolve("$env.HOME")
    with pytest.raises(NothingThere, match="'NOT_SET_HERE' is not set"):
        ctx.resolve("$env.NOT_SET_HERE")
