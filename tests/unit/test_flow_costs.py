"""Checking a flow text costs in proportion to its size, whatever is in it: counted in steps, and never in seconds.

What C code does in one call is seen in time alone; there, the times of two sizes in the same run are compared.
"""

import gc
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

from pyoco_server.errors import InvalidFlow, InvalidInput
from pyoco_server.gateway.submitting.checking.work import CheckedFlow
from pyoco_server.model.flow.drawing import flow_graph
from pyoco_server.model.flow.workflow import parse_workflow
from pyoco_server.model.text.jsontext import check_finite, read_json
from tests.unit.hostile_flows import KINDS, filled

LARGEST = 215_000
MOST_STEPS = 3_000_000
"""Of the largest text; about a second."""


def check(text: str) -> str:
    """Do all that a gateway does with a text, and give what it says of it."""
    raw = text.encode("utf-8")
    try:
        workflow = parse_workflow(raw, max_bytes=len(raw))
        CheckedFlow.of(workflow).to_frame()
        workflow.check(workflow.defaults)
    except InvalidFlow as error:
        return error.message
    flow_graph(workflow.file).as_json()
    return ""


def steps(work: Callable[[], Any]) -> int:
    """Count the calls that some work makes."""
    count = 0

    def note(_: Any, event: str, __: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


def in_proportion(small: Callable[[], Any], large: Callable[[], Any], floor: float) -> bool:
    """Return whether what is four times as large costs much less than sixteen times as much processor time.

    A busy machine makes single measurements worse, and never better: one that is good enough tells.
    """

    def seconds(work: Callable[[], Any]) -> float:
        began = time.process_time()
        work()
        return time.process_time() - began

    brief = floor
    gc.collect()
    gc.freeze()  # as a process that checks texts does; what other tests have left would be gone through each time
    try:
        for _ in range(6):
            brief = max(brief, min(seconds(small) for _ in range(2)))
            if seconds(large) <= 10 * brief:
                return True
    finally:
        gc.unfreeze()
    return False


@pytest.mark.parametrize("kind", KINDS)
def test_four_times_the_text_costs_four_times_the_steps(kind: str) -> None:
    small, large = KINDS[kind](3_000), KINDS[kind](12_000)
    few, many = steps(lambda: check(small)), steps(lambda: check(large))
    assert many <= 5.5 * max(few, 3_000), f"{few} steps for {len(small)}, {many} for {len(large)} characters"


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_largest_texts_cost_no_more_in_proportion(kind: str) -> None:
    middle, large = KINDS[kind](LARGEST // 4), KINDS[kind](LARGEST)
    few, many = steps(lambda: check(middle)), steps(lambda: check(large))
    assert many <= 5.5 * max(few, 10_000) and many <= MOST_STEPS, (few, many)
    assert in_proportion(lambda: check(middle), lambda: check(large), 0.02)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [kind for kind in KINDS if "combining" in kind or kind in (
    "%TAG lines", "many texts under a long key", "a long key", "one task again and again")])  # fmt: skip
def test_what_is_done_in_c_is_in_proportion_too(kind: str) -> None:
    middle, large = KINDS[kind](50_000), KINDS[kind](200_000)
    assert in_proportion(lambda: check(middle), lambda: check(large), 0.02)


def _twice(count: int) -> str:
    keys = ", ".join(f'"{n}": 1' for n in range(count))
    return f'{{{keys}, "{count - 1}": 2}}'


def _not_finite_at_the_end(count: int) -> str:
    return f"[{'[],' * count}NaN]"


@pytest.mark.slow
@pytest.mark.parametrize("make", [_twice, _not_finite_at_the_end])
def test_bad_json_costs_in_proportion(make: Callable[[int], str]) -> None:
    def refuse(text: str) -> None:
        with pytest.raises(InvalidInput):
            check_finite(read_json(text), "params")

    middle, large = make(10_000), make(40_000)
    assert in_proportion(lambda: refuse(middle), lambda: refuse(large), 0.01)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (filled("flow:\n  graph: ", "a >> ", "a\ntasks:\n  a: {callable: 'm:f'}\n", 60_000), "more than 4096 terms"),
        (filled("a: [", "1,", "]", 60_000), "more than 20000 values"),
        (filled("", lambda n: f"%TAG !a{n}! b\n", "--- {}\n", 1_000), "more than 8 %TAG lines"),
        (f"a: &a {'x' * 10_000}\nb: [{'*a, ' * 200}]\n", "its aliases repeat more than 1000000 characters"),
    ],
)
def test_a_text_beyond_all_measure_is_refused_with_the_bound(text: str, said: str) -> None:
    assert said in check(text)


def test_what_only_looks_beyond_measure_is_taken() -> None:
    tags = "%TAG !a! b\n"
    comments = "# %TAG\n" * 20
    nodes = " >> ".join(f"n{n}: a" for n in range(3000))
    assert check(f"{tags}{comments}---\nflow:\n  graph: |\n    {nodes}\ntasks:\n  a: {{callable: 'm:f'}}\n") == ""
