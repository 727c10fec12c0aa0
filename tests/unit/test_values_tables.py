"""Numbers, arrays and tables of libraries that the product does not depend on."""

import datetime
import subprocess
import sys
import types
from typing import Any

import pytest

from pyoco_server.model.values import clean_value
from pyoco_server.worker.child.tasks.given import GivenInputs

from . import hostile
from .test_values import MAX, assert_costs_little

np = pytest.importorskip("numpy")  # of the Pythons that are supported, 3.10 has no current one


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (np.float32(0.5), 0.5), (np.float64(0.93), 0.93), (np.float32(0.93), float(np.float32(0.93))), (np.int64(5), 5),
        (np.int8(-1), -1), (np.uint64(2**64 - 1), 2**64 - 1), (np.bool_(True), True), (np.float16("nan"), "NaN"),
        (np.float32("inf"), "Infinity"), (np.complex64(1 + 2j), "1+2j"), (np.longdouble(1.5), "1.5"),
        (np.str_("x"), "x"), (np.bytes_(b"x"), "x"),
        (np.datetime64("2024-01-31"), "2024-01-31"), (np.timedelta64(3, "s"), "PT3S"),
        ({np.int64(1): "a", np.float32(0.5): "b"}, {"1": "a", "0.5": "b"}),
        (np.array(5), {"array": "numpy.ndarray", "dtype": "int64", "shape": [], "items": 5}),
        (np.eye(2), {"array": "numpy.ndarray", "dtype": "float64", "shape": [2, 2], "items": [[1.0, 0.0], [0.0, 1.0]]}),
        (np.ma.array([1]), {"array": "numpy.ma.MaskedArray", "dtype": "int64", "shape": [1], "items": [1]}),
        (
            np.arange(1_000_000).reshape(1000, 1000),
            {"array": "numpy.ndarray", "dtype": "int64", "shape": [1000, 1000], "first": [*range(20)]},
        ),
        (
            np.arange(400)[::2],
            {"array": "numpy.ndarray", "dtype": "int64", "shape": [200], "first": [*range(0, 40, 2)]},
        ),
        (np.array(["x" * 5_000]), {"array": "numpy.ndarray", "dtype": "<U5000", "shape": [1]}),
        (np.zeros(3, [("a", "i4")]), {"array": "numpy.ndarray", "dtype": "[('a', '<i4')]", "shape": [3]}),
        (np.zeros(1, [("a", "i4")])[0], "<numpy.void object>"),
    ],
    ids=str,
)  # fmt: skip
def test_the_form_of_a_value(value: Any, shown: Any) -> None:
    assert clean_value(value, MAX) == shown
    assert clean_value([value, datetime.date(2024, 1, 31)], MAX) == [shown, "2024-01-31"]
    assert type(clean_value(value, MAX)) is type(shown)


def test_no_code_of_what_an_array_holds_or_of_its_class_is_run() -> None:
    class Traced(np.ndarray):
        def __array_finalize__(self, _: Any) -> None:
            hostile.CALLED.append("finalize")

        tolist = __repr__ = __len__ = property(hostile._hook("traced"))

    held = np.empty(1, dtype=object)
    held[0] = hostile.untouchables()[0]
    traced = np.arange(3).view(Traced)
    hostile.CALLED.clear()
    assert clean_value(held, MAX) == {"array": "numpy.ndarray", "dtype": "object", "shape": [1]}
    assert clean_value(traced, MAX)["items"] == [0, 1, 2]
    assert hostile.CALLED == []


def test_a_large_array_costs_nothing() -> None:
    assert_costs_little(np.zeros((3000, 3000)))
    assert_costs_little([np.zeros(100) for _ in range(1_000)])


def test_a_try_gets_an_array_as_it_was() -> None:
    value = {"weights": np.arange(4.0), "fixed": np.arange(2)}
    value["fixed"].flags.writeable = False
    kept = GivenInputs(value)
    value["weights"][:] = -1
    again = kept.again()
    assert again["weights"] is value["weights"]
    assert again["weights"].tolist() == [0, 1, 2, 3]
    assert kept.note(2) is None
    assert "more than" in str(GivenInputs({"x": np.zeros(9_000_000)}).note(2))


def test_it_is_not_imported_for_this() -> None:
    use = "from pyoco_server.model.values import clean_value; clean_value([{1}], 1)"
    code = f"import sys; {use}; assert 'numpy' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


class Frame:
    """As much of a pandas DataFrame as is asked."""

    def __init__(self, rows: list[list[int]]) -> None:
        self.rows = rows

    columns = ("a", "b")
    shape = property(lambda self: (len(self.rows), 2))

    def memory_usage(self, *, index: bool) -> Any:
        assert index
        return np.array([100])

    def copy(self) -> "Frame":
        return Frame([[*row] for row in self.rows])

    def __repr__(self) -> str:
        raise AssertionError


def test_a_table_is_told_by_its_size_and_copied_for_a_try(monkeypatch: pytest.MonkeyPatch) -> None:
    pandas = types.ModuleType("pandas")
    pandas.DataFrame = Frame  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pandas", pandas)
    frame = Frame([[1, 2]])
    assert clean_value([frame], MAX) == [{"table": "pandas.DataFrame", "shape": [1, 2], "columns": ["a", "b"]}]
    kept = GivenInputs({"frame": frame})
    frame.rows.clear()
    for _ in range(2):
        again = kept.again()["frame"]
        assert again.rows == [[1, 2]]
        again.rows.clear()
    assert kept.note(2) is None
