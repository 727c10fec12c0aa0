"""Flows whose graphs have branches, on a real worker: result, order, failures, cancels and limits."""

import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.acceptance.conftest import System, running_system

pytestmark = pytest.mark.usercode

MODULE = '''
import time
from pathlib import Path

def join(ctx, me, parts=None, **others):
    """Return what came before, wrapped: a result that tells the way it came."""
    return f"{me}({','.join(sorted(str(v) for v in (parts or {}).values() if v is not None))})"

def meet(me, others, folder, seconds=20):
    """Wait until all others are there too: possible only for tasks that run side by side."""
    Path(folder, me).touch()
    until = time.monotonic() + seconds
    while not all(Path(folder, other).exists() for other in others):
        if time.monotonic() > until:
            raise TimeoutError(f"{me} waits in vain")
        time.sleep(0.01)
    return me

def alone(me, folder):
    """Fail if anybody else is at it at the same time."""
    mark = Path(folder, "busy")
    mark.touch(exist_ok=False)
    time.sleep(0.05)
    mark.unlink()
    return me

def note(me, folder):
    Path(folder, me).touch()
    print(f"{me} says so")
    return me

def fail(me, folder):
    Path(folder, me).touch()
    raise ValueError(f"{me} fails")

def flaky(me, folder):
    tries = len(list(Path(folder).glob(f"{me}.*")))
    Path(folder, f"{me}.{tries}").touch()
    if tries < 2:
        raise ValueError("not yet")
    return tries

def hang(me, folder):
    Path(folder, me).touch()
    time.sleep(60)
'''


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    folder = tmp_path_factory.mktemp("branches")
    (folder / "branch_tasks.py").write_text(MODULE)
    with running_system(folder, "--with-worker", "--worker-tags", "cpu", PYOCO_CANCEL_GRACE_PERIOD_SEC="1") as running:
        yield running


def flow(graph: str, folder: Path, **tasks: str | dict[str, Any]) -> dict[str, Any]:
    made = {}
    for name, spec in tasks.items():
        given = {"callable": spec} if isinstance(spec, str) else dict(spec)
        function = given.pop("callable")
        inputs = {"me": name, "folder": str(folder), **given.pop("inputs", {})}
        made[name] = {"callable": f"branch_tasks:{function}", "inputs": inputs, **given}
    return {"version": 1, "flow": {"graph": graph}, "tasks": made}


def run(system: System, content: dict[str, Any]) -> dict[str, Any]:
    return system.run(yaml.safe_dump(content, sort_keys=False))


# Results, against a reference that walks the graph by itself


def _dag(dice: random.Random) -> tuple[str, dict[str, set[str]]]:
    """Make a graph of lines; the predecessors of each task are its meaning."""
    names = [f"t{n}" for n in range(dice.randint(4, 9))]
    before: dict[str, set[str]] = {name: set() for name in names}
    lines = []
    for at, name in enumerate(names[1:], 1):
        sources = dice.sample(names[:at], dice.randint(1, min(3, at)))
        before[name] |= set(sources)
        left = sources[0] if len(sources) == 1 else f"({' & '.join(sources)})"
        lines.append(f"{left} >> {name}")
    dice.shuffle(lines)
    return "\n".join(lines), before


def _expected(before: dict[str, set[str]]) -> dict[str, str]:
    done: dict[str, str] = {}
    while len(done) < len(before):
        for name, sources in before.items():
            if name not in done and sources <= done.keys():
                done[name] = f"{name}({','.join(sorted(done[source] for source in sources))})"
    return done


def test_thirty_graphs_give_what_a_plain_walk_gives(system: System) -> None:
    dice = random.Random(13)
    wanted: dict[str, dict[str, str]] = {}
    for _ in range(30):
        graph, before = _dag(dice)
        tasks = {
            name: {"callable": "branch_tasks:join",
                   "inputs": {"me": name, "parts": {source: f"$node.{source}.output" for source in sources}}}
            for name, sources in before.items()
        }  # fmt: skip
        text = yaml.safe_dump({"version": 1, "flow": {"graph": graph}, "tasks": tasks})
        made = system.client.submit_run_yaml(text, flow_name="f", tag="cpu")
        wanted[made["run_id"]] = _expected(before)
    for run_id, expected in wanted.items():
        ended = system.end(run_id)
        assert ended["status"] == "COMPLETED", ended["error"]
        records = ended["task_records"]
        assert {name: record["output"] for name, record in records.items()} == expected


def test_branches_run_side_by_side_and_their_output_keeps_its_task(system: System, tmp_path: Path) -> None:
    names = ["a", "b", "c"]
    tasks = {name: {"callable": "meet", "inputs": {"others": names}} for name in names}
    ended = run(system, flow("first >> (a & b & c) >> last", tmp_path, first="note", last="note", **tasks))
    assert ended["status"] == "COMPLETED", ended["error"]
    times = {name: (record["started_at"], record["ended_at"]) for name, record in ended["task_records"].items()}
    assert times["first"][1] <= min(times[n][0] for n in names) and times["last"][0] >= max(times[n][1] for n in names)
    assert max(times[n][0] for n in names) <= min(times[n][1] for n in names)


def test_max_parallel_keeps_tasks_apart(system: System, tmp_path: Path) -> None:
    content = flow("a\nb\nc\nd", tmp_path, a="alone", b="alone", c="alone", d="alone")
    assert run(system, {**content, "runtime": {"max_parallel": 1}})["status"] == "COMPLETED"


def test_any_goes_on_with_the_first(system: System, tmp_path: Path) -> None:
    """``slow`` ends only after ``last`` has run, so waiting for both would never end."""
    content = flow(
        "(slow | quick) >> last", tmp_path, slow={"callable": "meet", "inputs": {"others": ["last"]}}, quick="note",
        last="note",
    )  # fmt: skip
    ended = run(system, content)
    assert ended["status"] == "COMPLETED", ended["error"]


def test_an_isolated_failure_takes_its_own_branch_alone(system: System, tmp_path: Path) -> None:
    content = flow(
        "a >> b >> c\nd >> e\n(c | e) >> f\n(c & e) >> g", tmp_path, a={"callable": "fail", "fail_policy": "isolate"},
        b="note", c="note", d="note", e="note", f="note", g="note",
    )  # fmt: skip
    ended = run(system, content)
    assert ended["status"] == "COMPLETED"
    went_well, lost = dict.fromkeys("def", "SUCCEEDED"), dict.fromkeys("bcg", "PENDING")
    assert ended["tasks"] == {"a": "FAILED", **went_well, **lost}
    assert sorted(ended["skipped_tasks"]) == sorted(lost)
    assert {path.name for path in tmp_path.iterdir()} == {"a", "d", "e", "f"}


def test_a_failure_fails_the_run_and_nothing_new_starts(system: System, tmp_path: Path) -> None:
    content = flow("(bad & good) >> last", tmp_path, bad="fail", good="note", last="note")
    ended = run(system, content)
    assert (ended["status"], ended["tasks"]["bad"]) == ("FAILED", "FAILED")
    assert "task 'bad' failed: ValueError: bad fails" in ended["error"]
    assert not (tmp_path / "last").exists()


def test_retries_and_time_limits_hold_in_branches(system: System, tmp_path: Path) -> None:
    tries = {"callable": "flaky", "retries": 3, "retry_delay_sec": 0.05}
    ended = run(system, flow("(a & b) >> c", tmp_path, a=tries, b=tries, c="note"))
    assert ended["status"] == "COMPLETED", ended["error"]
    assert {name: ended["task_records"][name]["output"] for name in "ab"} == {"a": 2, "b": 2}
    slow = {"callable": "hang", "timeout_sec": 1}
    ended = run(system, flow("(x & y) >> z", tmp_path, x="note", y=slow, z="note"))
    assert ended["status"] == "FAILED" and "'y'" in ended["error"], ended["error"]
    assert (ended["tasks"]["x"], ended["tasks"]["y"]) == ("SUCCEEDED", "FAILED")
    assert not (tmp_path / "z").exists()


def test_a_cancel_ends_all_branches(system: System, tmp_path: Path) -> None:
    content = flow("(a & b) >> c", tmp_path, a="hang", b="hang", c="note")
    made = system.client.submit_run_yaml(yaml.safe_dump(content), flow_name="f", tag="cpu")
    run_id = made["run_id"]
    deadline = time.monotonic() + 30
    while not all((tmp_path / name).exists() for name in "ab"):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    system.client.cancel_run(run_id)
    ended = system.end(run_id)
    assert ended["status"] == "CANCELLED" and not (tmp_path / "c").exists()


def test_loops_and_switches_in_branches(system: System, tmp_path: Path) -> None:
    graph = (
        "(foreach(over=items, item=x) { a } & switch(on=kind) { one: (b & c) >> d; default: e }) >> last\n"
        "repeat(count=2) { f\n f >> g } >> last"
    )
    tasks = dict.fromkeys(["a", "b", "c", "d", "e", "f", "g", "last"], "note")
    content = flow(graph, tmp_path, **tasks)
    content["flow"]["defaults"] = {"items": [1, 2], "kind": "one"}
    ended = run(system, content)
    assert ended["status"] == "COMPLETED", ended["error"]
    assert {name: state for name, state in ended["tasks"].items() if state != "SUCCEEDED"} == {"e": "PENDING"}
