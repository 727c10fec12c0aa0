"""Whether something of a task's record is not kept."""

from typing import Any

import pytest

from pyoco_server.model.record.snapshot import is_cut_task
from pyoco_server.model.text.clean import clean_text
from pyoco_server.model.values import clean_value


@pytest.mark.parametrize(
    ("task", "cut"),
    [
        ({"output": clean_value("x" * 5000, 1000)}, True),
        ({"output": clean_value({"a": [bytes(range(256))]}, 10_000)}, True),
        ({"inputs": {"x": clean_value(list(range(5000)), 1000), "y": 1}}, True),
        ({"artifacts": clean_value({"a": "x" * 5000}, 1000)}, True),
        ({"traceback": clean_text("x" * 50_000, 16_000)}, True),
        ({"error": clean_text("x" * 50_000)}, True),
        ({"exception": {"message": clean_text("x" * 50_000)}}, True),
        ({"output": clean_value({"truncated": True, "preview": [1]}, 10_000)}, False),
        ({"output": clean_value(["x" * 5000, b"text"], 10_000), "inputs": {}, "artifacts": {}, "error": None}, False),
        ({}, False),
    ],
)
def test_what_is_cut(task: dict[str, Any], cut: bool) -> None:
    assert is_cut_task(task) is cut
