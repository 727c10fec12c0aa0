"""What a task took and gave is recorded as it was then, and each try finds its inputs as they were."""

import array
import collections
import dataclasses
import threading
import types
from collections.abc import Callable, Iterator
from typing import Any

import pydantic
import pytest
from pyoco.core.models import Flow, RunStatus
from pyoco.dsl.syntax import TaskWrapper

from pyoco_server.worker.child.tasks import given
from pyoco_server.worker.child.tasks.given import GivenInputs

from . import hostile
from .test_retries import Run, flow_of, task


@dataclasses.dataclass
class Config:
    lr: float
    layers: list[int]


class Model(pydantic.BaseModel):
    lr: float


class Cursor:
    """What a driver of a database gives."""

    def __init__(self) -> None:
        self.left = [1, 2, 3]


def source(value: Any, name: str) -> Any:
    return task(lambda: value, name)


def test_the_record_has_what_was_given_and_not_what_was_left() -> None:
    def t(cfg: dict[str, Any], rows: list[int]) -> list[int]:
        cfg.pop("lr")
        rows.pop(0)
        return rows

    def later(t: list[int]) -> None:
        t.clear()

    run = Run(flow_of(source({"lr": 0.1}, "cfg"), source([1, 2], "rows"), task(t), task(later, "later")))
    assert run.raised is None
    assert run.records["t"]["inputs"] == {"cfg": {"lr": 0.1}, "rows": [1, 2]}
    assert run.records["t"]["output"] == [2]
    assert run.records["later"]["inputs"] == {"t": [2]}
    assert run.records["cfg"]["output"] == {"lr": 0.1}


def test_a_task_is_told_in_two_messages_and_its_inputs_with_the_first() -> None:
    run = Run(flow_of(source([1], "rows"), task(lambda rows: rows[0])))
    first, last = (told for told in run.told if told["name"] == "t")
    assert (first["state"], first["inputs"]) == ("RUNNING", {"rows": [1]})
    assert (last["state"], last["output"], last["artifacts"], last["error"]) == ("SUCCEEDED", 1, {}, None)
    assert last["duration_ms"] >= 0
    assert "inputs" not in last


def test_a_task_whose_inputs_the_engine_must_ask_for_is_told_before() -> None:
    asked = threading.Event()

    class Slow:
        @property
        def answer(self) -> int:
            assert asked.wait(10)
            return 5

    made = task(lambda x: x)
    made.inputs = {"x": "$node.slow.output.answer"}
    run = Run(flow_of(source(Slow(), "slow"), made), lambda told: told["name"] == "t" and asked.set() is not None)
    assert run.records["t"]["output"] == 5
    assert run.records["t"]["inputs"] == {"x": 5}


def test_a_task_that_never_ran_has_the_fields_of_one_that_did() -> None:
    made = task(lambda x: x)
    made.inputs = {"x": "$ctx.params.missing"}
    record = Run(flow_of(made)).records["t"]
    assert (record["state"], record["inputs"], record["output"], record["artifacts"]) == ("FAILED", {}, None, {})
    assert record["started_at"] <= record["ended_at"]


def test_the_last_round_of_a_loop_is_the_one_recorded() -> None:
    rounds = iter(range(400))
    seen: list[int] = []

    def t() -> list[int]:
        seen[:] = [next(rounds)] * 9
        return seen

    run = Run(Flow("m") >> TaskWrapper(task(t))[400])
    assert run.records["t"]["output"] == [399] * 9
    assert len(run.told) < 400


def changes(value: Any) -> None:
    """Change a value of any kind that is kept."""
    if isinstance(value, (dict, set, collections.deque, Config)):
        getattr(value, "layers", value).clear()
    if isinstance(value, (Config, types.SimpleNamespace, Model)):
        value.lr = 9.0
    elif isinstance(value, tuple):
        changes(value[0])
    elif isinstance(value, (list, bytearray, array.array)):
        del value[0]


@pytest.mark.parametrize(
    "make",
    [
        lambda: [1, 2, 3],
        lambda: {"a": 1, "b": 2},
        lambda: {1, 2},
        lambda: bytearray(b"abc"),
        lambda: array.array("d", [1.0, 2.0]),
        lambda: collections.deque([1, 2], 5),
        lambda: collections.OrderedDict(a=1, b=2),
        lambda: collections.defaultdict(list, a=[1]),
        lambda: collections.Counter("aab"),
        lambda: Config(0.1, [1, 2]),
        lambda: Model(lr=0.1),
        lambda: types.SimpleNamespace(lr=0.1),
        lambda: ([1, 2], "x"),
        lambda: {"deep": [{"rows": [[1]]}]},
    ],
    ids=lambda make: type(make()).__name__,
)
def test_each_try_gets_plain_data_as_it_was(make: Callable[[], Any]) -> None:
    seen: list[Any] = []

    def t(value: Any) -> str:
        seen.append(repr(value))
        changes(value)
        if isinstance(value, dict):
            value["more"] = 1
        if len(seen) < 3:
            raise ValueError
        return repr(value)

    value = make()
    run = Run(flow_of(source(value, "value"), task(t, retries=3), task(lambda value: f"{value!r}", "after")))
    assert seen == [repr(make())] * 3
    assert run.records["t"]["inputs_note"] is None
    # The object itself is passed on, as the try that succeeded left it.
    assert run.records["after"]["output"] == run.records["t"]["output"] == repr(value)


def test_what_two_inputs_share_they_share_in_every_try() -> None:
    shared: list[int] = [1]
    ring: list[Any] = [shared]
    ring.append(ring)
    tries = []

    def t(a: list[Any], b: dict[str, Any]) -> None:
        tries.append((a[0] is b["x"], a[1] is a, list(a[0])))
        a[0].append(2)
        a.pop()
        b.clear()
        if len(tries) < 2:
            raise ValueError

    Run(flow_of(source(ring, "a"), source({"x": shared}, "b"), task(t, retries=1)))
    assert tries == [(True, True, [1])] * 2


@pytest.mark.parametrize(
    ("make", "note"),
    [
        (lambda: iter([1, 2, 3]), "try 2 got 'data' as try 1 left it: a list_iterator cannot be put back"),
        (Cursor, "try 2 got 'data' as try 1 left it: a tests.unit.test_given.Cursor cannot be put back"),
        (
            lambda: {"db": Cursor(), "rows": [1]},
            "try 2 got a tests.unit.test_given.Cursor in 'data' as try 1 left it: it cannot be put back",
        ),
        (
            lambda: [0] * 1_001,
            "try 2 got 'data' as try 1 left it: more than 1,000 items or 64 MiB are not kept for another try",
        ),
        (lambda: [1], None),
        (lambda: (1, "a", None, len, int), None),
    ],
    ids=["iterator", "object", "inside", "large", "plain", "fixed"],
)
def test_what_cannot_be_put_back_is_said(
    make: Callable[[], Any], note: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(given, "MAX_ITEMS", 1_000)
    calls = iter(range(1))

    def t(data: Any) -> None:
        if isinstance(data, dict):
            data["rows"].pop()
        if next(calls, None) is not None:
            raise ValueError

    run = Run(flow_of(source(make(), "data"), task(t, retries=2)))
    record = run.records["t"]
    assert (record["state"], record["inputs_note"]) == ("SUCCEEDED", note)
    first = next(told for told in run.told if told["name"] == "t")
    assert first["inputs_note"] is None


def test_the_item_of_a_loop_is_put_back_and_the_context_is_not() -> None:
    context = types.SimpleNamespace(loop=types.SimpleNamespace(item=[1, 2]), scratch={})
    kept = GivenInputs({"ctx": context, "x": 1})
    context.loop.item.pop()
    context.scratch["mine"] = 1
    assert kept.again() == {"ctx": context, "x": 1}
    assert (context.loop.item, context.scratch) == ([1, 2], {"mine": 1})
    assert kept.note(2) is None


def test_keeping_and_putting_back_asks_no_value() -> None:
    for value in hostile.untouchables():
        kept = GivenInputs({"x": [value], "y": {"z": (value,)}})
        hostile.CALLED.clear()
        kept.again()
        assert hostile.CALLED == []


def test_a_task_without_retries_keeps_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pyoco_server.worker.child.tasks.retries.GivenInputs", None)
    assert Run(flow_of(source([1], "rows"), task(lambda rows: rows))).records["t"]["output"] == [1]


class TestGenerators:
    def test_the_next_task_reads_all_of_it(self) -> None:
        def numbers() -> Iterator[int]:
            return (number * number for number in range(5))

        run = Run(flow_of(task(numbers, "numbers"), task(lambda numbers: sum([*numbers]), "total")))
        assert run.records["total"]["output"] == 30
        assert run.unread() == []

    def test_one_that_raises_raises_in_the_task_that_reads_it(self) -> None:
        def rows() -> Iterator[int]:
            yield 1
            raise ValueError("in the middle")

        run = Run(flow_of(task(rows, "rows"), task(lambda rows: [*rows], "read")))
        assert run.reporter.task_that_raised(run.raised or ValueError()) == "read"
        assert (run.records["rows"]["state"], run.records["read"]["state"]) == ("SUCCEEDED", "FAILED")

    def test_one_that_nobody_reads_is_told_of(self) -> None:
        run = Run(flow_of(task(hostile.counting, "t")))
        assert "its body runs only as a task reads it" in run.records["t"]["output"]
        (notice,) = run.unread()
        assert notice.startswith("task 't' returned a generator that no task has read: its body never ran")
        assert (run.records["t"]["state"], run.context.status) == ("SUCCEEDED", RunStatus.COMPLETED)
        assert "no task has read it" in run.records["t"]["output"]

    def test_of_a_loop_every_round_counts(self) -> None:
        rounds = iter(range(3))

        def t() -> Any:
            return hostile.counting() if next(rounds) == 1 else 1

        run = Run(Flow("m") >> TaskWrapper(task(t))[3])
        assert len(run.unread()) == 1
