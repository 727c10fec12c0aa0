"""Tasks that never started have a record for whoever reads a run."""

from typing import Any

import pytest

from pyoco_server.model.record.snapshot import public

DONE = {"state": "SUCCEEDED", "output": 1}


def read(**fields: Any) -> dict[str, Any]:
    snapshot = {"tasks": {"a": "SUCCEEDED", "b": "CANCELLED", "c": "PENDING"}, "task_records": {"a": DONE}}
    return public({**snapshot, "end_time": 7.0, **fields}, records=True)


def test_they_have_one_as_the_existing_system_writes_it() -> None:
    records = read()["task_records"]
    nothing = {"started_at": None, "duration_ms": None, "error": None, "traceback": None, "output": None}
    assert records["a"] == DONE
    assert records["b"] == {"state": "CANCELLED", "ended_at": 7.0, "inputs": {}, "artifacts": {}, **nothing}
    assert records["c"] == {**records["b"], "state": "PENDING", "ended_at": None}


def test_where_records_were_cut_nobody_can_tell() -> None:
    assert read(task_records={}, task_records_truncated=True)["task_records"] == {}


@pytest.mark.parametrize("odd", [{"tasks": None}, {"tasks": [1]}, {"task_records": "x"}, {"tasks": {"b": ["x"]}}])
def test_records_of_other_programs_stay_as_they_are(odd: dict[str, Any]) -> None:
    assert {name: read(**odd)[name] for name in odd} == odd


def test_a_very_large_graph_does_not_make_every_answer_many_times_as_large() -> None:
    tasks = {f"t{number}": "PENDING" for number in range(1001)}
    assert read(tasks=tasks, task_records={})["task_records"] == {}
    del tasks["t0"]
    assert len(read(tasks=tasks, task_records={})["task_records"]) == 1000
