"""How any value becomes plain JSON data for a record: its form, its bounds, and that its own code never runs."""

import argparse
import array
import collections
import dataclasses
import datetime
import decimal
import enum
import fractions
import functools
import json
import math
import pathlib
import re
import sys
import threading
import time
import tracemalloc
import types
import uuid
import zoneinfo
from collections.abc import Callable
from typing import Any, NamedTuple

import pydantic
import pydantic_core
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyoco_server.model.record.snapshot import fit
from pyoco_server.model.run import RunRecord
from pyoco_server.model.text.clean import clean_json, clean_text
from pyoco_server.model.values import clean_value, clean_values
from pyoco_server.model.values.walk import MAX_DEPTH

from . import hostile

MAX = 131_072
"""Bytes kept of a value by default."""
MEMORY = 16 * 1024 * 1024


def nested(levels: int, inside: Any = 1, wrap: Callable[[Any], Any] = lambda inner: [inner]) -> Any:
    return functools.reduce(lambda inner, _: wrap(inner), range(levels), inside)


def read_back(value: Any) -> Any:
    """Store a value as the input of a task, the deepest place that there is, and read it as a gateway does."""
    record = RunRecord(run_id="r", flow_name="f", task_records={"t": {"inputs": {"x": value}}})
    pydantic_core.from_json(record.to_json())
    return RunRecord.from_json(record.to_json()).task_records["t"]["inputs"]["x"]


@dataclasses.dataclass
class Point:
    x: int
    y: Any = None
    CLASS = 5


@dataclasses.dataclass(frozen=True)
class Slotted:
    __slots__ = ("x",)
    x: int


class Pair(NamedTuple):
    a: int
    b: int


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    LOW = 1


class Model(pydantic.BaseModel):
    name: str
    secret: str = pydantic.Field(default="hidden", exclude=True)

    @property
    def asked(self) -> str:
        raise AssertionError

    @pydantic.model_serializer
    def told(self) -> dict[str, Any]:
        raise AssertionError


class Place(pathlib.PurePosixPath):
    """Adds nothing."""


class Remote(pathlib.PurePosixPath):
    def __str__(self) -> str:
        raise AssertionError


moved = collections.OrderedDict(a=1, b=2)
moved.move_to_end("a")
TOKYO = datetime.timezone(datetime.timedelta(hours=9))


class Zone(datetime.tzinfo):
    def utcoffset(self, _: Any) -> Any:
        raise AssertionError


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, None), (True, True), (0, 0), (-(2**63), -(2**63)), (2**63 - 1, 2**63 - 1), (10**30, 10**30),
        (10**3999, 10**3999), (0.1, 0.1), (-0.0, -0.0), (1e300, 1e300), ("", ""), ("日本\u3000語", "日本\u3000語"),
        (float("nan"), "NaN"), (float("inf"), "Infinity"), (float("-inf"), "-Infinity"), (1 + 2j, "1+2j"),
        ("a\ud800b", "a?b"), (b"abc", "abc"), ("é".encode(), "é"), (bytearray(b"x"), "x"),
        ([1, [2.5, "x"]], [1, [2.5, "x"]]), ((1, 2), [1, 2]), (Pair(1, 2), [1, 2]), ({3}, [3]), (frozenset({3}), [3]),
        (collections.deque([1], 5), [1]), (range(3), "range(0, 3)"), (range(0, 9, 2), "range(0, 9, 2)"),
        ({"a": {"b": None}}, {"a": {"b": None}}), (moved, {"b": 2, "a": 1}), (collections.Counter("aa"), {"a": 2}),
        (collections.defaultdict(list, a=[1]), {"a": [1]}), (types.MappingProxyType({"a": 1}), {"a": 1}),
        ({"a": 1}.keys(), ["a"]), ({"a": 1}.items(), [["a", 1]]), (types.SimpleNamespace(a=1), {"a": 1}),
        (argparse.Namespace(lr=0.1), {"lr": 0.1}), (Point(1, {"z": (2,)}), {"x": 1, "y": {"z": [2]}}),
        (Slotted(5), {"x": 5}), (Model(name="n"), {"name": "n"}), (Colour.RED, "red"), (Level.LOW, 1),
        (datetime.datetime(2024, 1, 31, 1, 2, 3, 4), "2024-01-31T01:02:03.000004"),  # noqa: DTZ001
        (datetime.datetime(2024, 1, 31, tzinfo=datetime.timezone.utc), "2024-01-31T00:00:00Z"),
        (datetime.datetime(2024, 1, 31, tzinfo=TOKYO), "2024-01-31T00:00:00+09:00"),
        (datetime.datetime(2024, 1, 31, tzinfo=zoneinfo.ZoneInfo("UTC")), "2024-01-31T00:00:00Z"),
        (datetime.datetime(2024, 1, 31, tzinfo=Zone()), "2024-01-31T00:00:00[tests.unit.test_values.Zone]"),
        (datetime.date(2024, 1, 31), "2024-01-31"), (datetime.time(1, 2), "01:02:00"),
        (datetime.timedelta(days=1, seconds=3), "P1DT3S"), (-datetime.timedelta(seconds=0.5), "-PT0.5S"),
        (decimal.Decimal("1.10"), "1.10"), (decimal.Decimal("NaN"), "NaN"), (fractions.Fraction(1, 3), "1/3"),
        (fractions.Fraction(4), "4"), (uuid.UUID(int=3), "00000000-0000-0000-0000-000000000003"),
        (pathlib.Path("a/b"), "a/b"), (pathlib.PureWindowsPath("c:/x"), "c:\\x"), (Place("a/b"), "a/b"),
        (Remote("a/b"), "<tests.unit.test_values.Remote object>"), (re.compile("a+"), "a+"), (..., "Ellipsis"),
        (ValueError("no", 3), "ValueError('no', 3)"), (int, "<class 'int'>"),
        (Point, "<class 'tests.unit.test_values.Point'>"), (pydantic.RootModel[list[int]]([1]), [1]),
        (len, "<built-in function len>"), (nested, "<function nested>"), (json, "<module 'json'>"),
        (functools.partial(nested, 1), "<functools.partial of <function nested>>"), (object(), "<object object>"),
        (threading.Lock(), "<_thread.lock object>"), (memoryview(b"x"), "<memoryview object>"),
        (array.array("i", [1]), [1]), (b"\xff", "b'\\xff'"), ({b"\xff": 1}, {"b'\\xff'": 1}),
        (
            {False: "a", None: "b", 1: "c", 1.5: "d", (1, "x"): "e", Colour.RED: "f", datetime.date(2024, 1, 31): "g"},
            {"false": "a", "None": "b", "1": "c", "1.5": "d", "1,x": "e", "red": "f", "2024-01-31": "g"},
        ),
        ({1: "a", "1": "b"}, {"1": "a", "1 #2": "b"}), ({"1": "a", 1: "b"}, {"1": "a", "1 <int>": "b"}),
        ({object: 1, "k\ud800": 2}, {"<class 'object'>": 1, "k?": 2}),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_the_form_of_a_value(value: Any, shown: Any) -> None:
    for given_, expected in ((value, shown), ([value], [shown]), ({"a": {"b": value}}, {"a": {"b": shown}})):
        found = clean_value(given_, MAX)
        assert found == expected
        assert math.copysign(1, found) == math.copysign(1, expected) if type(found) is float else True
        assert read_back(found) == found
        assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_one_value_that_has_no_form_leaves_its_neighbours_theirs() -> None:
    beside = {
        "at": datetime.date(2024, 1, 31),
        "cost": decimal.Decimal("1.10"),
        "file": pathlib.Path("a"),
        "p": Point(1),
    }
    shown = {"at": "2024-01-31", "cost": "1.10", "file": "a", "p": {"x": 1, "y": None}}
    for odd in (b"\xff" * 1_000, b"\xff" * 1_000_000, "x" * 1_000_000, object(), iter([]), 10**5000, hostile.Lazy()):
        found = clean_value({"odd": odd, **beside}, MAX)
        del found["odd"]
        assert found == shown


def test_keys_never_become_one() -> None:
    keys = [object() for _ in range(500)]
    for value in ({"<object object>": 0, **dict.fromkeys(keys, 1)}, {float("nan"): 1, "NaN": 2, math.nan: 3}):
        assert len(clean_value(value, MAX)) == len(value)
    cut = clean_value({"x" * 5_000 + "a": 1, "x" * 5_000 + "b": 2}, MAX)
    assert [len(key) < 1_100 for key in cut] == [True, True]


@pytest.mark.parametrize("digits", [4_001, 5_000, 100_000])
def test_an_int_of_very_many_digits_is_named(digits: int) -> None:
    told = clean_value(10 ** (digits - 1), MAX)
    assert abs(int(told.split()[3].replace(",", "")) - digits) <= 1


def test_an_int_is_kept_when_a_task_has_lowered_pythons_limit() -> None:
    before = sys.get_int_max_str_digits()
    try:
        sys.set_int_max_str_digits(640)
        assert clean_value(10**600, MAX) == 10**600
        assert "digits" in clean_value(10**700, MAX)
    finally:
        sys.set_int_max_str_digits(before)


@pytest.mark.parametrize("levels", [1, 50, MAX_DEPTH, MAX_DEPTH + 1, 190, 197, 202, 250, 100_000])
@pytest.mark.parametrize("wrap", [lambda inner: [inner], lambda inner: {"k": inner}, lambda inner: (inner,), Point])
def test_whatever_its_depth_a_value_can_be_read_back(levels: int, wrap: Callable[[Any], Any]) -> None:
    value = nested(levels, wrap=wrap)
    found = clean_value(value, MAX)
    assert read_back(found) == found
    assert (type(found) is dict and found.get("truncated") is True) == (levels > MAX_DEPTH)
    while isinstance(value, (list, tuple, dict, Point)):  # or Python itself would fall over its depth
        value = value.x if isinstance(value, Point) else value["k"] if isinstance(value, dict) else value[0]


def test_a_value_that_contains_itself() -> None:
    items: list[Any] = [1]
    items.append({"self": items})
    assert clean_value(items, MAX) == [1, {"self": "<list that contains itself>"}]
    point = Point(1)
    point.y = [point]
    assert clean_value(point, MAX) == {"x": 1, "y": ["<tests.unit.test_values.Point that contains itself>"]}
    shared = [0]
    assert clean_value([shared, shared], MAX) == [[0], [0]]


def laughs() -> Any:
    return nested(60, ["ha"], lambda inner: [inner] * 10)


@pytest.mark.parametrize(
    ("make", "size"),
    [
        (lambda: b"\xff" * 200_000_000, 200_000_000),
        (lambda: bytearray(50_000_000), 50_000_000),
        (lambda: "x" * 100_000_000, 100_000_000),
        (lambda: "é" * 10_000_000, None),
        (lambda: list(range(10_000_000)), None),
        (lambda: dict.fromkeys(range(1_000_000)), None),
        (lambda: {"deep": [{"rows": [["text"] * 50] * 5_000}]}, None),
        (lambda: set(range(500_000)), None),
        (laughs, None),
        (lambda: ["\x00" * 30_000], None),
    ],
    ids=["bytes", "bytearray", "text", "accents", "ints", "dict", "rows", "set", "laughs", "escapes"],
)
def test_a_large_value_costs_no_more_than_what_is_kept(make: Callable[[], Any], size: int | None) -> None:
    value = make()
    assert_costs_little(value)
    found = clean_value(value, MAX)
    assert (found["truncated"], found["size_bytes"]) == (True, size)
    assert 50 < len(found["preview"]) <= 300
    assert len(json.dumps(found)) < 1_500


@pytest.mark.parametrize(
    "make",
    [
        lambda: [1] * 65_000,
        lambda: [index / 7 for index in range(6_500)],
        lambda: [[] for _ in range(43_000)],
        lambda: [{"a": None} for _ in range(10_000)],
        lambda: {f"key {index}": "text" for index in range(6_000)},
        lambda: [object() for _ in range(7_000)],
        lambda: [Point(index) for index in range(6_000)],
        lambda: [10**1_000 + index for index in range(120)],
        lambda: [decimal.Decimal(index) / 7 for index in range(4_000)],
        lambda: {(index, "a"): datetime.datetime(2024, 1, 31) for index in range(3_000)},  # noqa: DTZ001
        lambda: '\\"' * 30_000,
        lambda: "語" * 40_000,
    ],
)
def test_the_dearest_values_that_are_kept_whole(make: Callable[[], Any]) -> None:
    value = make()
    assert_costs_little(value)
    found = clean_value(value, MAX)
    assert type(found) is type(value) or type(found) in (list, dict)
    assert "truncated" not in found
    assert len(json.dumps(found, ensure_ascii=False, separators=(",", ":")).encode()) <= MAX


def test_reading_ends_where_a_class_makes_each_item_dear() -> None:
    dear: Any = Point
    for index in range(300):
        dear = type(f"C{index}", (dear,), {})
    value = [dear(index) for index in range(10_000)]
    assert_costs_little(value)
    assert clean_value(value, MAX)["why"] == "reading it takes too long"
    assert clean_value(value[:10], MAX)[9] == {"x": 9, "y": None}


@pytest.mark.parametrize("make", [dict.fromkeys, set])
def test_reading_ends_where_containers_were_large_once(make: Callable[[Any], Any]) -> None:
    emptied = make(range(1_000_000))
    for key in range(999_999):
        emptied.pop(key) if isinstance(emptied, dict) else emptied.discard(key)
    value = [emptied] * 5_000
    assert_costs_little(value)
    assert clean_value(value, MAX)["why"] == "reading it takes too long"
    assert clean_value([emptied], MAX) == [{"999999": None}] if isinstance(emptied, dict) else [[999999]]


def assert_costs_little(value: Any) -> None:
    """A demand on the product: 50 ms of this thread and 1 ms for each KiB kept, and 16 MiB."""
    kept = len(json.dumps(clean_value(value, MAX)))
    assert cpu_time(value, MAX) <= 0.05 + kept / 1024 / 1000
    tracemalloc.start()
    try:
        clean_value(value, MAX)
        assert tracemalloc.get_traced_memory()[1] <= MEMORY
    finally:
        tracemalloc.stop()


def cpu_time(value: Any, limit: int) -> float:
    """Return the least of three: the interpreter collects other garbage too, and the machine has others to serve."""
    taken = []
    for _ in range(3):
        begun = time.thread_time()
        clean_value(value, limit)
        taken.append(time.thread_time() - begun)
    return min(taken)


KINDS = len(hostile.untouchables())


@pytest.mark.parametrize("kind", range(KINDS))
@pytest.mark.parametrize("around", [lambda one: one, lambda one: [one], lambda one: {"a": ({"b": one},)}, Point])
def test_no_code_of_a_value_is_run(kind: int, around: Callable[[Any], Any]) -> None:
    value = around(hostile.untouchables()[kind])
    found = clean_value(value, MAX)
    assert hostile.CALLED == []
    assert read_back(found) == found
    assert "could not be recorded" not in json.dumps(found)


def test_an_iterator_is_left_as_it_was(tmp_path: pathlib.Path) -> None:
    (tmp_path / "rows.csv").write_text("a,b\n1,2\n")
    with (tmp_path / "rows.csv").open() as file:
        made = [
            (index * index for index in range(5)),
            map(str, [1, 2]),
            file,
            iter({"a": 1}),
            zip([1], [2], strict=True),
            reversed([1]),
        ]
        found = clean_value({"rows": made}, MAX)["rows"]
        assert all("not recorded, since reading it would use it up" in text for text in found)
        assert found[0].startswith("<generator object ")
        assert [list(one) for one in made] == [
            [0, 1, 4, 9, 16], ["1", "2"], ["a,b\n", "1,2\n"], ["a"], [(1, 2)], [1],
        ]  # fmt: skip


PLAIN = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.decimals() | st.dates()
    | st.complex_numbers() | st.timedeltas() | st.uuids() | st.fractions()
)  # fmt: skip
KEYS = st.text() | st.integers() | st.none() | st.floats() | st.tuples(st.integers(), st.text()) | st.binary()
WRAPS: dict[str, Callable[[Any], Any]] = {
    "list": lambda one: [one],
    "tuple": lambda one: (one, 1),
    "often": lambda one: [one] * 30,
    "point": Point,
    "deque": lambda one: collections.deque([one]),
    "space": lambda one: types.SimpleNamespace(one=one),
}


class Untouchable(NamedTuple):
    """Stands for a hostile value in what is drawn: the tool itself would ask it."""

    kind: int


DRAWN = st.recursive(
    PLAIN | st.integers(0, KINDS - 1).map(Untouchable),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(KEYS, inner, max_size=4)
        | st.tuples(st.sampled_from(sorted(WRAPS)), inner)
    ),
    max_leaves=20,
)


def made(drawn: Any) -> Any:
    if type(drawn) is Untouchable:
        return hostile.untouchables()[drawn.kind]
    if type(drawn) is tuple:
        return WRAPS[drawn[0]](made(drawn[1]))
    if type(drawn) is list:
        return [made(one) for one in drawn]
    return {key: made(one) for key, one in drawn.items()} if type(drawn) is dict else drawn


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(DRAWN, st.sampled_from([200, 5_000, MAX]))
def test_any_value_in_any_nesting(drawn: Any, limit: int) -> None:
    value = made(drawn)
    before = identities(value)
    hostile.CALLED.clear()
    found = clean_value(value, limit)
    taken = cpu_time(value, limit)
    assert hostile.CALLED == []
    assert identities(value) == before
    text = json.dumps(found, allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode()
    assert taken <= 0.05 + len(text) / 1024 / 1000
    assert read_back(found) == found
    assert len(text) <= limit or found.get("truncated") is True


def identities(value: Any) -> Any:
    """Return what a value is made of, by identity, as deep as builtins go."""
    kind = type(value)
    if any(kind is one for one in (list, tuple, collections.deque)):
        return kind, id(value), [identities(one) for one in value]
    if kind is dict:
        return kind, id(value), [(id(key), identities(one)) for key, one in value.items()]
    return id(value)


def test_a_dict_that_another_thread_changes_is_no_error() -> None:
    value = {index: index for index in range(20_000)}
    done = threading.Event()

    def change() -> None:
        while not done.is_set():
            value[len(value)] = 1
            value.popitem()

    thread = threading.Thread(target=change)
    thread.start()
    try:
        for _ in range(20):
            found = clean_value(value, 1_000_000)
            assert "truncated" in found or len(found) >= 20_000
    finally:
        done.set()
        thread.join()


def test_what_is_recorded_shares_nothing_with_the_value() -> None:
    value = {"rows": [[1], [2]], "cfg": {"lr": 0.1}}
    found = clean_value(value, MAX)
    value["rows"][0].append(9)  # type: ignore[index]
    value["cfg"].clear()  # type: ignore[attr-defined]
    assert found == {"rows": [[1], [2]], "cfg": {"lr": 0.1}}


def test_a_preview_that_is_cut_again_stays_one() -> None:
    once = clean_value(list(range(100_000)), 5_000)
    again = clean_value(once, 256)
    assert (again["truncated"], again["size_bytes"]) == (True, None)
    assert again["preview"].startswith("[0,1,2")
    assert len(json.dumps(again)) <= 256
    mine = clean_value({"truncated": True, "preview": object(), "rows": list(range(100_000))}, MAX)
    assert mine["preview"].startswith('{"truncated":true')


def test_inputs_are_bounded_together() -> None:
    values = {f"x{index}": "y" * 100_000 for index in range(50)}
    shown = clean_values(values, MAX)
    assert shown["x0"] == values["x0"]
    assert len(json.dumps(shown)) < 2 * MAX
    assert clean_values({"a": 1, "b": [2]}, MAX) == {"a": 1, "b": [2]}
    large = {"big": "y" * 200_000, "small": {"lr": 0.1}}
    assert clean_values(large, MAX)["small"] == {"lr": 0.1}


def test_a_record_of_large_values_still_fits() -> None:
    task = {
        "state": "SUCCEEDED",
        "inputs": {"x": clean_value("é" * 100_000, MAX)},
        "output": clean_value([1] * 60_000, MAX),
    }
    record = RunRecord(run_id="r", flow_name="f", task_records={f"t{index}": task for index in range(20)})
    cut = fit(record, 32_768)
    assert len(cut.to_json()) <= 32_768
    assert cut.task_records["t7"]["output"]["truncated"] is True


class TestTexts:
    def test_a_text_of_any_size_is_cut_without_a_copy(self) -> None:
        text = "x" * 100_000_000
        tracemalloc.start()
        try:
            assert len(clean_text(text)) < 9_000
            assert tracemalloc.get_traced_memory()[1] < 1_000_000
        finally:
            tracemalloc.stop()

    def test_nothing_of_a_subclass_is_called(self) -> None:
        hostile.CALLED.clear()
        made = str.__new__(hostile.hostile(str), "said \ud800")
        assert (clean_text(made), type(clean_text(made))) == ("said ?", str)
        assert hostile.CALLED == []

    def test_json_of_other_programs_is_cleaned_at_any_size(self) -> None:
        assert clean_json({"a": ["\ud800", 10**30, list(range(200_000))]})["a"][0] == "?"
        assert clean_json(json.loads('{"a": NaN}')) == {"a": "NaN"}
        day = datetime.date(2024, 1, 31)
        assert clean_json({"a\ud800": "\ud800", "day": [day]}) == {"a?": "?", "day": ["2024-01-31"]}
        with pytest.raises(ValueError, match=r"deep|recursion|Circular"):
            clean_json(nested(100_000))
