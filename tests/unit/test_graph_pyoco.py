"""The graph's language is pyoco's and more: what pyoco's parser takes is taken, and means the same."""

import pytest
from hypothesis import event, given
from hypothesis import strategies as st
from pyoco.dsl import graph as pyoco_graph

from pyoco_server.model.flow.graph.problems import GraphProblem
from pyoco_server.model.flow.graph.tokens import tokens_of
from tests.unit.graphs import AnyTask, compiled, told_flow

PIPES = {"p": "a >> b", "q": "pipe(p) >> c", "r": "switch(on=m) { 1: pipe(p) }"}
WORDS = [
    *"""a b c n: x >> >> >> ( ) { } : ; , = switch(on=m){ repeat(count=2){ foreach(over=xs,item=i){ until(cond=ok){
    pipe(p) pipe('q') pipe(r) default: 1: 'k': 'a >> b' "switch(on=m){1:'a'}" {{ params.x }} {{y}} \\ # ²""".split(),
    *"½\n\r\t",
]  # fmt: skip


def assert_same(text: str) -> bool:
    """Compare what pyoco makes of a text with what is made of it here; return whether pyoco takes it."""
    try:
        theirs = pyoco_graph.build_flow_from_graph(graph=text, tasks=AnyTask(), pipes=PIPES)
    except Exception:  # noqa: BLE001 - it raises whatever comes
        return False
    assert told_flow(compiled(text, PIPES)) == told_flow(theirs)
    return True


@pytest.mark.parametrize(
    "text",
    [
        "a",
        "a >> b",
        "a >> n: b >> b",
        "a\n>> b >>\n\n# and\nc",
        "a >> a",
        "pipe(q) >> d >> pipe('p')",
        "a >> repeat(count=3) { a >> b } >> a",
        "repeat(count=n, collect=last) { repeat(count={{ params.n }}) { n1: a } }",
        "foreach(over=xs, item=row, index=at, collect=flatten, more=1) { pipe(r) } >> b",
        "until(cond={{ $ctx.results.a > 3 }}, max_iter=5) { a } >> until(cond=done) { b }",
        "switch(on=m) { 1: a; 2: b }",
        "switch(on={{ $ctx.results.b == 'x' }}) { true: a; false: 'b >> c'; 'two words': a;; default: d; default: e }",
        "switch(on=m) { default: a }",
        "switch(on=m) { 1: \"switch(on=k) { 'x': 'a >> b' }\"; {{ t }}: c\n}",
        "switch \n (\n on\n=\nm) \n { 1\n:\na >>\nb\n;}",
        "n\n:\na >> pipe: b >> default: c",
        "repeat(count=2,count=3) { a }",
        "until(cond='ok') { a }",
        "前処理 >> Größe >> class",
    ],
)
def test_what_pyoco_takes_is_taken_and_means_the_same(text: str) -> None:
    assert assert_same(text)


@given(st.one_of(st.lists(st.sampled_from(WORDS), max_size=16).map(" ".join), st.text(max_size=20)))
def test_any_words(text: str) -> None:
    event("taken" if assert_same(text) else "refused")


def _chain(units: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.lists(units, min_size=1, max_size=4).map(" >> ".join)


def _control(units: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    body = _chain(units)
    heads = ["repeat(count=2)", "repeat(count=n)", "foreach(over=xs, item=i)", "until(cond={{ $ctx.a }}, max_iter=2)"]
    keys = st.sampled_from(["1", "k", "true", "'a b'", '"c"', "{{ t }}", "default"])
    cases = st.lists(st.tuples(keys, body).map(": ".join), min_size=1, max_size=3).map("; ".join)
    return st.one_of(
        st.tuples(st.sampled_from(heads), body).map(lambda parts: f"{parts[0]} {{ {parts[1]} }}"),
        cases.map(lambda inside: f"switch(on=m) {{ {inside} }}"),
    )


LEAVES = st.one_of(
    st.sampled_from(["a", "b", "c", "pipe(p)", "pipe('q')", "pipe(r)"]),
    st.integers(0, 99).map(lambda number: f"n{number}: a"),
)
SPACES = st.lists(st.sampled_from([" ", "\n", "\t", "\r\n", " # said >> { \n", "  "]), min_size=40, max_size=40)


@given(_chain(st.recursive(LEAVES, _control, max_leaves=12)), SPACES)
def test_any_graph_of_pyocos(text: str, spaces: list[str]) -> None:
    tokens = [text[token.at : token.end] for token in tokens_of(text)]
    spaced = "".join(token + spaces[number % len(spaces)] for number, token in enumerate(tokens))
    event("taken" if assert_same(text) else "refused")
    event("taken with spaces" if assert_same(spaced) else "refused with spaces")


@given(st.text(alphabet=st.one_of(st.sampled_from("ab1²½_ \n\t\r#>{}()'\"\\:;,=é"), st.characters()), max_size=30))
def test_tokens_are_pyocos(text: str) -> None:
    try:
        theirs = [(token.kind, token.value, token.pos) for token in pyoco_graph.tokenize_graph(text)][:-1]
    except pyoco_graph.GraphSyntaxError:
        return
    try:
        ours = [(token.kind, token.value, token.at) for token in tokens_of(text)][:-1]
    except GraphProblem:
        assert ">>>" in text  # no text of the language has it
        return
    assert ours == theirs
