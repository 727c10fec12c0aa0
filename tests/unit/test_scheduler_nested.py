"""Random programs, branches inside of loops and switches inside of branches, against a plain recursive walk."""

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyoco.core.models import RunStatus

from tests.unit.random_programs import ITEMS, MOST, SEEDS, Level, Maker, Ours, Reference


@pytest.fixture(autouse=True, scope="module")
def _elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Run where pyoco may make its directory of artifacts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("runs"))
        yield


def params_of(level: Level) -> dict[str, Any]:
    found: dict[str, Any] = {"items": ITEMS}
    for step in level.steps:
        if step.kind == "switch":
            found[step.name] = step.number
        for below in step.levels:
            found |= params_of(below)
    return found


@settings(max_examples=100)
@given(seed=SEEDS, most=MOST, breaks=st.booleans())
def test_a_program_does_what_a_plain_walk_does(seed: int, most: int, breaks: bool) -> None:
    program = Maker(seed).level(0)
    names = program.names()
    broken = (
        set(random.Random(seed).sample(names, min(len(names), random.Random(seed).randint(1, 3)))) if breaks else ()
    )
    expected = Reference(program, set(broken))
    ours = Ours(program, set(broken), "isolate")
    ended = ours.run(params_of(program), most)
    assert ours.context.status is RunStatus.COMPLETED and ours.most <= most
    assert ours.calls == expected.calls
    assert ended.results == expected.results


@settings(max_examples=40)
@given(seed=SEEDS, most=MOST)
def test_a_failure_that_ends_the_run_starts_nothing_out_of_order(seed: int, most: int) -> None:
    program = Maker(seed).level(0)
    expected = Reference(program, set())
    broken = random.Random(seed).choice([name for name, _ in expected.calls] or [""])
    ours = Ours(program, {broken}, "stop")
    if not broken:
        return
    with pytest.raises(ValueError, match=f"^{broken}$"):
        ours.run(params_of(program), most)
    assert ours.context.status is RunStatus.FAILED and ours.at_once == 0
    assert ours.calls.items() <= expected.calls.items()


@settings(max_examples=40)
@given(seed=SEEDS, most=MOST)
def test_a_cancel_ends_any_program(seed: int, most: int) -> None:
    program = Maker(seed).level(0)
    expected = Reference(program, set())
    cancels = random.Random(seed).choice([name for name, _ in expected.calls] or [""])
    ours = Ours(program, set(), "stop", cancels)
    ours.run(params_of(program), most)
    assert ours.context.status is (RunStatus.CANCELLED if cancels else RunStatus.COMPLETED) and ours.at_once == 0
    assert ours.late < most  # what stood ready in a thread when the cancel came
    assert ours.calls.items() <= expected.calls.items()
