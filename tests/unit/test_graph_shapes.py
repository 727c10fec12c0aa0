"""Any graph: what is printed is read as the same, and what stands in parentheses is done when its signs say."""

import itertools
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.graphs import level_of, waits_of


@st.composite
def dags(draw: st.DrawFn, most: int = 12) -> dict[str, set[str]]:
    """Draw by each task what it waits for."""
    count = draw(st.integers(1, most))
    names = [f"t{number}" for number in range(count)]
    return {name: draw(st.sets(st.sampled_from(names[:at]), max_size=4)) if at else set()
            for at, name in enumerate(names)}  # fmt: skip


@st.composite
def printed(draw: st.DrawFn) -> tuple[dict[str, set[str]], str]:
    """Draw a graph, and a text that says it, in lines of any form."""
    dag = draw(dags())
    lines = []
    edges = [(before, after) for after, found in dag.items() for before in sorted(found)]
    while edges:
        first = draw(st.sampled_from(edges))
        form = draw(st.sampled_from(["chain", "fan-in", "fan-out"]))
        if form == "fan-in":
            taken = draw(st.permutations([edge for edge in edges if edge[1] == first[1]]))
            lines.append(f"{_group([before for before, _ in taken])} >> {first[1]}")
        elif form == "fan-out":
            taken = draw(st.permutations([edge for edge in edges if edge[0] == first[0]]))
            lines.append(f"{first[0]} >> {_group([after for _, after in taken])}")
        else:
            taken = [first]
            while further := [edge for edge in edges if edge[0] == taken[-1][1]]:
                taken.append(draw(st.sampled_from(further)))
            lines.append(" >> ".join([first[0], *(after for _, after in taken)]))
        edges = [edge for edge in edges if edge not in taken]
    said = " ".join(lines)
    lines += [name for name in dag if name not in said.replace("(", " ").replace(")", " ").split()]
    return dag, "\n".join(draw(st.permutations(lines)))


def _group(names: list[str]) -> str:
    return f"({' & '.join(names)})" if len(names) > 1 else names[0]


@given(printed())
def test_a_graph_that_is_printed_is_read_as_the_same(drawn: tuple[dict[str, set[str]], str]) -> None:
    dag, text = drawn
    found = waits_of(level_of(text))
    assert {name: {before for group in wait for before in group} for name, wait in found.items()} == dag
    assert all(len(group) == 1 for wait in found.values() for group in wait)
    seen: set[str] = set()
    for name, wait in found.items():  # in an order in which they can run
        assert {before for group in wait for before in group} <= seen
        seen.add(name)


@given(st.integers(0, 2**32), st.integers(1, 200))
@settings(max_examples=20)
def test_a_large_graph(seed: int, size: int) -> None:
    chance = random.Random(seed)
    dag = {f"t{at}": {f"t{chance.randrange(at)}" for _ in range(chance.randrange(4))} if at else set()
           for at in range(size)}  # fmt: skip
    lines = [f"{_group(sorted(found))} >> {name}" if found else name for name, found in dag.items()]
    chance.shuffle(lines)
    found = waits_of(level_of("\n".join(lines)))
    assert {name: {before for group in wait for before in group} for name, wait in found.items()} == dag


Tree = tuple[str, list["Tree"]] | str
"""``&``, ``|`` or ``>>`` over parts, or a task."""


@st.composite
def trees(draw: st.DrawFn) -> Tree:
    names = iter(f"t{number}" for number in range(100))

    def part(depth: int) -> Tree:
        if depth == 0 or draw(st.booleans()):
            return next(names)
        return draw(st.sampled_from("&|>")), [part(depth - 1) for _ in range(draw(st.integers(2, 3)))]

    return part(3)


def _text(tree: Tree) -> str:
    if isinstance(tree, str):
        return tree
    sign = {"&": " & ", "|": " | ", ">": " >> "}[tree[0]]
    return f"({sign.join(map(_text, tree[1]))})"


def _names(tree: Tree) -> list[str]:
    return [tree] if isinstance(tree, str) else [name for part in tree[1] for name in _names(part)]


def _begins(tree: Tree) -> list[str]:
    if isinstance(tree, str):
        return [tree]
    return _begins(tree[1][0]) if tree[0] == ">" else [name for part in tree[1] for name in _begins(part)]


def _is_done(tree: Tree, done: set[str]) -> bool:
    """Whether what stands in parentheses is done, by what its signs mean."""
    if isinstance(tree, str):
        return tree in done
    ends = [_is_done(part, done) for part in tree[1]]
    return {"&": all(ends), "|": any(ends), ">": ends[-1]}[tree[0]]


@given(trees(), st.data())
def test_what_comes_behind_parentheses_starts_when_their_signs_say(tree: Tree, data: st.DataObject) -> None:
    waits = waits_of(level_of(f"first >> {_text(tree)} >> last"))
    names = _names(tree)
    some = itertools.islice(itertools.chain.from_iterable(
        itertools.combinations(names, size) for size in range(len(names) + 1)), 200)  # fmt: skip
    for done in [set(found) for found in some] + [data.draw(st.sets(st.sampled_from(names)))]:
        assert all(group & done for group in waits["last"]) == _is_done(tree, done)
    assert {name for name, wait in waits.items() if {"first"} in wait} == {*_begins(tree)}
