"""Whatever a record holds: what is stored of it can be read by everybody who reads records."""

import json
from typing import Any

import pydantic_core
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyoco_server.gateway.index.json_fields import readable
from pyoco_server.gateway.index.listing import RunFilter
from pyoco_server.gateway.index.run_index import RunIndex
from pyoco_server.model.access import ANYBODY
from pyoco_server.model.deadletter import DeadLetterReason, letter_of_run
from pyoco_server.model.record.salvage import trouble
from pyoco_server.model.record.stored_form import stored_form
from pyoco_server.model.run import EndReason, RunRecord, RunStatus, TaskStatus, claim, settle
from pyoco_server.store.nats.feed import Change

KEPT = 262_144
ENDED = RunRecord(run_id="r", flow_name="f", status=RunStatus.COMPLETED, end_reason=EndReason.COMPLETED)
DEPTHS = [*range(1, 10), *range(95, 104), *range(164, 206), 255, 256, 300, 500, 900, 999, 1000]
"""Around every limit that there is, and between them."""


def nested(depth: int, kinds: str) -> Any:
    """Return a value of so many levels, lists and dicts as ``kinds`` says, over and over."""
    value: Any = 1
    for level in range(depth):
        value = [value] if kinds[level % len(kinds)] == "l" else {"k": value}
    return value


def placed(value: Any) -> dict[str, RunRecord]:
    """Return records that hold a value in every place that has room for any."""
    task = {"state": "SUCCEEDED", "started_at": 1.0}
    fields = ("output", "inputs", "artifacts", "exception", "origin", "error", "traceback", "other")
    found = {
        field: ENDED.model_copy(update={"task_records": {"t": {**task, field: value}}, "tasks": {"t": "SUCCEEDED"}})
        for field in fields
    }
    found["params"] = ENDED.model_copy(update={"params": {"x": value}})
    found["unknown field"] = ENDED.model_copy(update={"of_a_newer_version": value})
    found["a task's record"] = ENDED.model_copy(update={"task_records": {"t": value}})
    return found


def check(record: RunRecord, index: RunIndex | None = None) -> RunRecord:
    """Store and read it as each of our readers does."""
    raw = stored_form(record, KEPT)
    assert trouble(raw) is None
    read = RunRecord.from_json(raw)
    assert (read.run_id, read.status, read.end_reason) == (record.run_id, record.status, record.end_reason)
    shown = readable(record.run_id, raw, who=ANYBODY, records=True)
    assert shown is not None and shown["unreadable"] is None
    for answer in ({"items": [shown]}, {"data": {"snapshot": shown}}):  # a client and the page read these
        sent = pydantic_core.to_json(answer)
        assert pydantic_core.from_json(sent) == json.loads(sent) == answer
    if index is not None:
        index.apply([Change(record.run_id, raw, index.revision + 1)], "id")
        [item], _ = index.listing.page(RunFilter(), cursor=None, limit=1)
        assert item["unreadable"] is None and item["status"] == record.status.value
    # What follows from it can be stored, too.
    for later in (claim(read, worker_id="w", instance_id="i", job_seq=1), _failed(read)):
        assert trouble(stored_form(later, KEPT)) is None
    letter = letter_of_run(read, DeadLetterReason.EXECUTION_ERROR, tag="t").to_json()
    assert isinstance(pydantic_core.from_json(letter), dict)
    return read


def _failed(record: RunRecord) -> RunRecord:
    running = record.evolve(status=RunStatus.RUNNING, tasks=dict.fromkeys(record.tasks, TaskStatus.RUNNING))
    return settle(running, RunStatus.FAILED, EndReason.TASK_FAILED, "e")


@pytest.mark.parametrize("kinds", ["l", "d", "ld", "ddl"])
def test_no_depth_makes_a_record_unreadable(kinds: str, tmp_path: Any) -> None:
    index = RunIndex(tmp_path, "runs")
    for depth in DEPTHS:
        for place, record in placed(nested(depth, kinds)).items():
            read = check(record, index if depth % 10 == 0 else None)
            if depth <= 150 and place in ("output", "params", "unknown field"):
                assert not read.task_records_truncated, (depth, place)
                assert read.model_dump()["params"] == record.params
            if depth >= 200 and place in ("output", "params"):
                assert read.task_records_truncated
                held = read.params["x"] if place == "params" else read.task_records["t"]["output"]
                assert held["truncated"] is True and "levels" in held["why"], (depth, place)


@pytest.mark.parametrize(
    "value",
    [10**4000, 10**5000, -(10**9999), float("nan"), float("inf"), -1e308, "\ud800", "a\0b", "\udfff" * 10, b"\xff",
     {"\ud800": 1}, {1: 2}, {None: [float("inf")]}, {(1, 2): 3}, object(), {1, 2}, [10**5000] * 3],
    ids=lambda value: str(type(value)),
)  # fmt: skip
def test_no_odd_value_makes_a_record_unreadable(value: Any) -> None:
    for record in placed(value).values():
        check(record)


@pytest.mark.parametrize(
    "changes",
    [
        {"updated_at": float("inf")}, {"submitted_at": float("nan")}, {"error": "\ud800" * 10_000},
        {"flow_name": "\ud800"}, {"tags": ["\ud800"]}, {"worker_id": "\udc00"}, {"run_ms": 10**400},
        {"tasks": {"\ud800": TaskStatus.FAILED}}, {"tasks": {7: TaskStatus.FAILED}}, {"tasks": {"a": "no state"}},
        {"task_records": {"\ud800": {"\ud800": "\ud800"}}}, {"task_records": {"a": {"output": 1}, "b": 5}},
        {"error": {"not": "a text"}}, {"params": {"\ud800": 1}}, {"start_time": "soon"}, {"attempt": "x"},
    ],
    ids=str,
)  # fmt: skip
def test_no_odd_field_makes_a_record_unreadable(changes: dict[str, Any]) -> None:
    read = RunRecord.from_json(stored_form(ENDED.model_copy(update=changes), KEPT))
    assert (read.run_id, read.status, read.end_reason) == ("r", RunStatus.COMPLETED, EndReason.COMPLETED)


@settings(max_examples=100, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None)) | st.binary(),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(codec=None)), inner, max_size=3)
        ),
        max_leaves=10,
    ),
    st.integers(0, 1000),
    st.sampled_from(["l", "d", "ld"]),
)
def test_any_value_at_any_depth(leaf: Any, depth: int, kinds: str) -> None:
    value = leaf
    for level in range(depth):
        value = [value, leaf] if kinds[level % len(kinds)] == "l" else {"k": value}
    for record in (
        ENDED.model_copy(update={"task_records": {"t": {"state": "SUCCEEDED", "output": value}}}),
        ENDED.model_copy(update={"params": {"x": value}, "zzz": leaf}),
    ):
        assert trouble(stored_form(record, KEPT)) is None


def test_what_can_be_read_is_stored_as_it_is() -> None:
    record = ENDED.model_copy(update={"params": {"x": nested(160, "ld")}, "task_records": {"t": {"output": [1, "é"]}}})
    assert stored_form(record, KEPT) == record.to_json()
