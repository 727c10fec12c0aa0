"""What tasks take and give, on real runs: recording it neither uses it up, nor hangs, nor costs more than is kept."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from .conftest import System, running_system

CODE = """\
import asyncio, csv, datetime, decimal, functools, io, os, pathlib, sys, time
from dataclasses import dataclass

def numbers(): return (i * i for i in range(5))
def total(numbers): return sum(numbers)
def lines():
    pathlib.Path("rows.csv").write_text("a,b\\n1,2\\n3,4\\n")
    return open("rows.csv")
def count_lines(lines): return len(list(lines))
def rows(): return csv.DictReader(io.StringIO("a,b\\n1,2\\n3,4\\n"))
def sum_rows(rows): return sum(int(row["a"]) for row in rows)
def mapped(): return map(str, [1, 2, 3])
def join(mapped): return "".join(mapped)
def nested(): return {"batches": [iter([1, 2]), {"more": zip("ab", [3, 4])}]}
def read(nested): return [list(nested["batches"][0]), list(nested["batches"][1]["more"])]

class Consumer:
    def __iter__(self): return self
    def __next__(self): time.sleep(3600)

class Endless:
    def __iter__(self): return self
    def __next__(self): return "x" * 1_000_000

class Rude:
    def __repr__(self): time.sleep(3600)
    __str__ = __len__ = __eq__ = __hash__ = __getattr__ = __repr__
    __class__ = __dict__ = property(__repr__)

def consumer(): return Consumer()
def endless(): return Endless()
def rude(): return Rude()
def broken():
    yield 1
    raise ValueError("in the middle")
def take(broken): return list(broken)

async def fails(): raise RuntimeError("x")
async def gives():
    await asyncio.sleep(0)
    return 1
partly = functools.partial(gives)
async def streams(): yield 1
async def forks():
    await asyncio.sleep(0)
    pid = os.fork()
    if pid == 0:
        return "the fork's"
    os.waitpid(pid, 0)
    return "the task's"

@dataclass
class Point:
    x: int

def large(): return b"\\xff" * 200_000_000
def many(): return list(range(10_000_000))
def mixed():
    return {
        "raw": b"\\xff\\x00", "at": datetime.datetime(2024, 1, 31), "cost": decimal.Decimal("1.10"),
        "file": pathlib.Path("a/b"), "point": Point(1), "big": [2**63 - 1, 10**30],
    }
def deep():
    value = 1
    for _ in range(DEPTH): value = [value]
    return value
def digits(): return 10**5000

def config(): return {"lr": 0.1, "layers": [1, 2]}
def pops(config):
    config.pop("lr")
    config["layers"].clear()
    return config
def tries(config, mark="tries"):
    place = pathlib.Path(mark)
    place.write_text(place.read_text() + "x" if place.exists() else "x")
    config["layers"].pop(0); config["layers"].pop(0)
    if len(place.read_text()) < 3: raise ValueError("not yet")
    return "done"
def reads(numbers):
    if next(numbers) == 0: raise ValueError("not yet")
    return list(numbers)
"""


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with running_system(tmp_path_factory.mktemp("system")) as running:
        running.worker(PYOCO_CANCEL_GRACE_PERIOD_SEC="2")
        yield running


def run(system: System, graph: str, code: str = CODE, **options: dict[str, Any]) -> dict[str, Any]:
    """Run a graph of tasks that are named as their functions."""
    module = f"values_{abs(hash(code)) % 10**9}"
    (system.folder / f"{module}.py").write_text(code)
    names = graph.replace(">>", " ").split()
    tasks = {name: {"callable": f"{module}:{name}", **options.get(name, {})} for name in names}
    return system.run(json.dumps({"version": 1, "flow": {"graph": graph}, "tasks": tasks}), timeout_sec=60)


@pytest.mark.parametrize(
    ("graph", "output"),
    [
        ("numbers >> total", 30),
        ("lines >> count_lines", 3),
        ("rows >> sum_rows", 4),
        ("mapped >> join", "123"),
        ("nested >> read", [[1, 2], [["a", 3], ["b", 4]]]),
    ],
)
def test_the_next_task_gets_an_iterator_whole(system: System, graph: str, output: Any) -> None:
    ended = run(system, graph)
    first, last = graph.split(" >> ")
    assert (ended["status"], ended["task_records"][last]["output"]) == ("COMPLETED", output)
    assert "not recorded, since reading it would use it up" in json.dumps(ended["task_records"][first]["output"])
    assert "not recorded, since reading it would use it up" in json.dumps(ended["task_records"][last]["inputs"])


@pytest.mark.parametrize("graph", ["consumer", "endless", "rude"])
def test_a_value_that_would_never_end_is_not_asked(system: System, graph: str) -> None:
    ended = run(system, graph)
    assert ended["status"] == "COMPLETED"
    assert ended["task_records"][graph]["output"].startswith("<values_")


def test_a_generator_fails_in_the_task_that_reads_it_and_is_told_of_when_none_does(system: System) -> None:
    ended = run(system, "broken >> take")
    assert ended["error"] == "task 'take' failed: ValueError: in the middle"
    ended = run(system, "broken")
    assert ended["status"] == "COMPLETED"
    assert "its body never ran" in ended["task_records"]["broken"]["output"]
    text = "".join(line["text"] for line in system.client.get_logs(ended["run_id"])["lines"])
    assert "task 'broken' returned a generator that no task has read: its body never ran" in text


def test_coroutines_are_run(system: System) -> None:
    assert run(system, "fails")["error"] == "task 'fails' failed: RuntimeError: x"
    assert run(system, "gives >> partly")["task_records"]["partly"]["output"] == 1
    assert "returned an async generator" in run(system, "streams")["error"]
    ended = run(system, "forks >> gives")
    assert ended["task_records"]["forks"]["output"] == "the task's"
    assert ended["status"] == "COMPLETED"


@pytest.mark.parametrize(("graph", "size"), [("large", 200_000_000), ("many", None)])
def test_a_large_value_is_as_quick_as_the_task_that_makes_it(system: System, graph: str, size: int | None) -> None:
    ended = run(system, graph)
    output = ended["task_records"][graph]["output"]
    assert (ended["status"], output["truncated"], output["size_bytes"]) == ("COMPLETED", True, size)
    # Encoding it took a minute and 3.9 GB.
    assert ended["run_ms"] < 20_000


def test_every_type_keeps_its_form_beside_bytes(system: System) -> None:
    assert run(system, "mixed")["task_records"]["mixed"]["output"] == {
        "raw": "b'\\xff\\x00'", "at": "2024-01-31T00:00:00", "cost": "1.10", "file": "a/b", "point": {"x": 1},
        "big": [2**63 - 1, 10**30],
    }  # fmt: skip


@pytest.mark.parametrize("depth", [100, 195, 199, 201, 250, 3000])
def test_whatever_its_depth_the_run_can_be_read_and_run_again(system: System, depth: int) -> None:
    ended = run(system, "deep", f"DEPTH = {depth}\n{CODE}")
    assert ended["status"] == "COMPLETED"
    assert system.client.get_run(ended["run_id"])["status"] == "COMPLETED"
    assert (type(ended["task_records"]["deep"]["output"]) is dict) == (depth > 100)
    assert system.end(system.client.rerun_run(ended["run_id"])["run_id"])["status"] == "COMPLETED"


def test_an_int_of_many_digits_is_no_end_of_the_process(system: System) -> None:
    ended = run(system, "digits")
    assert (ended["status"], ended["task_records"]["digits"]["output"][:19]) == ("COMPLETED", "<int of about 5,001")


def test_what_is_recorded_is_what_was_given(system: System) -> None:
    records = run(system, "config >> pops")["task_records"]
    assert records["config"]["output"] == {"lr": 0.1, "layers": [1, 2]}
    assert records["pops"]["inputs"] == {"config": {"lr": 0.1, "layers": [1, 2]}}
    assert records["pops"]["output"] == {"layers": []}


def test_a_retry_gets_what_the_first_try_got_or_the_record_says_so(system: System) -> None:
    again = {"retries": 3, "retry_delay_sec": 0}
    ended = run(system, "config >> tries", tries=again)
    assert (ended["status"], ended["task_records"]["tries"]["output"]) == ("COMPLETED", "done")
    assert ended["task_records"]["tries"]["inputs"] == {
        "config": {"lr": 0.1, "layers": [1, 2]},
    }
    record = run(system, "numbers >> reads", reads=again)["task_records"]["reads"]
    assert record["output"] == [4, 9, 16]
    assert record["inputs_note"] == "try 2 got 'numbers' as try 1 left it: a generator cannot be put back"
