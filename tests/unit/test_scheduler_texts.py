"""Random graphs as texts: read, compiled and run, against the plain recursive reference."""

import random
from typing import Any

import pytest
import yaml
from hypothesis import assume, given, settings
from pyoco.core.models import RunStatus

from pyoco_server.model.flow.branches import BranchedFlow, Wait
from pyoco_server.model.flow.workflow import build_flow, parse_workflow
from tests.unit.random_programs import ITEMS, MOST, SEEDS, Level, Maker, Ours, Reference, Step


@pytest.fixture(autouse=True, scope="module")
def _elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Run where pyoco may make its directory of artifacts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("runs"))
        yield


def with_marks(level: Level) -> Level:
    """Return a level with a task before and behind each loop and switch, by whose names lines can speak of it."""
    for step in level.steps:
        step.levels = [with_marks(below) for below in step.levels]
    if level.waits is None:
        return level
    steps: list[Step] = []
    waits: list[Wait] = []
    ends: list[int] = []
    for step, groups in zip(level.steps, level.waits, strict=True):
        parts = [step] if step.kind == "task" else [Step("task", f"{step.name}b"), step, Step("task", f"{step.name}e")]
        waits.append(tuple(frozenset(ends[other] for other in group) for group in groups))
        waits += [(frozenset({len(steps) + part}),) for part in range(len(parts) - 1)]
        steps += parts
        ends.append(len(steps) - 1)
    return Level(steps, waits)


def text_of(level: Level) -> str:
    if level.waits is None:
        return " >> ".join(part_of(step) for step in level.steps)
    lines = []
    for place, (step, groups) in enumerate(zip(level.steps, level.waits, strict=True)):
        if step.kind != "task":
            lines.append(f"{step.name}b >> {part_of(step)} >> {step.name}e")
        elif place and level.steps[place - 1].kind != "task":
            continue  # the mark behind it stands in its line
        else:
            lines.append(step.name)
            for group in groups:
                names = [level.steps[other].name for other in group]
                lines.append(f"({' | '.join(names)}) >> {step.name}")
    return "\n".join(lines)


def part_of(step: Step) -> str:
    if step.kind == "task":
        return step.name
    bodies = [text_of(level) for level in step.levels]
    if step.kind == "switch":
        return f"switch(on={step.name}) {{ zero: ({bodies[0]}); default: ({bodies[1]}) }}"
    head = {
        "repeat": f"repeat(count={step.number})",
        "foreach": f"foreach(over=items, item={step.name})",
        "until": f"until(cond={{{{ $ctx.loop.iteration >= {step.number} }}}}, max_iter=3)",
    }[step.kind]
    return f"{head} {{ {bodies[0]} }}"


def params_of(level: Level) -> dict[str, Any]:
    found: dict[str, Any] = {"items": ITEMS}
    for step in level.steps:
        if step.kind == "switch":
            found[step.name] = "more" if step.number else "zero"
        for below in step.levels:
            found |= params_of(below)
    return found


@settings(max_examples=20)
@given(seed=SEEDS, most=MOST)
@pytest.mark.parametrize("breaks", [False, True])
def test_a_text_does_what_it_says(seed: int, most: int, breaks: bool) -> None:
    program = with_marks(Maker(seed).level(0))
    names = program.names()
    broken = {random.Random(seed).choice(names)} if breaks else set()
    expected = Reference(program, broken)
    ours = Ours(program, broken, "isolate")
    params = params_of(program)
    file = {
        "version": 1,
        "flow": {"graph": text_of(program), "defaults": params},
        "tasks": {name: {"callable": "m:f"} for name in names},
        "runtime": {"max_parallel": most},
    }
    raw = yaml.safe_dump(file).encode()
    workflow = parse_workflow(raw, max_bytes=len(raw))
    assert set(workflow.node_names) == set(names)
    flow = build_flow(workflow.file, {task.name: task for task in ours.tasks}, "f")
    assume(not breaks or isinstance(flow, BranchedFlow))
    ended = ours.run_flow(flow, params)
    assert ours.context.status is RunStatus.COMPLETED and ours.most <= most
    assert ours.calls == expected.calls
    assert ended.results == expected.results
