"""What is read of records that cannot be read as a whole."""

import json
import random
from typing import Any

import pytest

from pyoco_server.gateway.index.json_fields import readable, tenant_of_unreadable
from pyoco_server.model.access import Caller, Role
from pyoco_server.model.record.salvage import salvage, trouble
from pyoco_server.model.run import RunRecord, RunStatus

WHOLE = RunRecord(
    run_id="r", flow_name="f", status=RunStatus.COMPLETED, tag="cpu", tenant_id="alpha", params={"x": 'a "text", {'},
    tasks={"t": "SUCCEEDED"}, task_records={"t": {"state": "SUCCEEDED", "output": "HERE", "inputs": {"a": 1}}},
).to_json()  # fmt: skip


def deep(levels: int) -> bytes:
    return WHOLE.replace(b'"HERE"', b"[" * levels + b"]" * levels)


@pytest.mark.parametrize("levels", [199, 200, 201, 250, 1000, 50_000])
def test_of_a_record_that_nests_too_deeply_all_else_is_read(levels: int) -> None:
    found = salvage("r", deep(levels))
    assert found is not None and "recursion" in found.why and found.has_ended
    record = found.record
    assert (record.flow_name, record.status, record.tenant_id) == ("f", RunStatus.COMPLETED, "alpha")
    assert record.params == {"x": 'a "text", {'}
    shown = readable("r", deep(levels), who=Caller(None, None, Role.ADMIN), records=True)
    assert shown is not None and shown["unreadable"] == found.why
    task = shown["task_records"]["t"]
    assert (task["state"], task["inputs"]) == ("SUCCEEDED", {"a": 1})
    assert task["output"]["truncated"] is True and task["output"]["preview"].startswith("[[[[")


@pytest.mark.parametrize("digits", [4301, 100_000])
def test_a_number_with_too_many_digits_is_shown_as_such(digits: int) -> None:
    found = salvage("r", WHOLE.replace(b'"HERE"', b"1" + b"0" * digits))
    assert found is not None
    assert found.record.task_records["t"]["output"]["preview"].startswith("1000")
    assert found.record.tenant_id == "alpha"


def test_wherever_a_record_is_cut_what_came_before_is_read() -> None:
    for end in range(len(WHOLE)):
        found = salvage("r", WHOLE[:end])
        assert found is not None and found.why
        fields = json.loads(WHOLE)
        for name in found.known:
            assert getattr(found.record, name) == getattr(RunRecord.from_json(WHOLE), name), (end, name)
        assert found.known <= {*fields, "run_id"}
        assert ("tenant_id" in found.known) == (b'"tenant_id":"alpha",' in WHOLE[:end])


@pytest.mark.parametrize("kind", ["drop", "flip", "insert", "swap"])
def test_no_damage_makes_anything_but_a_record_of_it(kind: str) -> None:
    chance = random.Random(3)
    for _ in range(400):
        raw = bytearray(chance.choice([WHOLE, deep(205)]))
        at = chance.randrange(len(raw))
        if kind == "drop":
            del raw[at : at + chance.randint(1, 5)]
        elif kind == "flip":
            raw[at] ^= 1 << chance.randrange(8)
        elif kind == "insert":
            raw[at:at] = bytes(chance.randrange(256) for _ in range(3))
        else:
            other = chance.randrange(len(raw))
            raw[at], raw[other] = raw[other], raw[at]
        shown = readable("r", bytes(raw), who=Caller(None, None, Role.ADMIN), records=True)
        assert shown is not None and shown["run_id"] == "r"
        assert (shown["unreadable"] is None) == (trouble(bytes(raw)) is None)
        if shown["unreadable"] is not None:
            assert {"status", "flow_name", "tasks", "task_records", "params", "tags"} <= shown.keys()
            assert isinstance(shown["task_records"], dict) and isinstance(shown["tags"], list)


@pytest.mark.parametrize(
    "raw",
    [b"", b"\0", b"\xff\xfe", b"null", b"[]", b'"x"', b"5", b"{", b"}{", b'{"a"', b'{"a":', b'{"a":}', b"[" * 10**5,
     b'{"a":' * 10**5, b"{}" * 3, b'{"run_id":5}', '{"status":"RUNNING"}'.encode("utf-16"), b'{"a":1,}'],
)  # fmt: skip
def test_what_is_no_record_at_all_has_the_id_of_its_key(raw: bytes) -> None:
    found = salvage("r", raw)
    assert found is not None and found.why
    assert found.record.run_id == "r"


FIELDS: dict[str, Any] = json.loads(WHOLE)


@pytest.mark.parametrize("field", [name for name in FIELDS if name != "run_id"])
def test_a_field_of_a_wrong_type_is_left_out_and_no_other(field: str) -> None:
    expected = RunRecord.from_json(WHOLE)
    for odd in (5, -1, [1], {"a": [1]}, "text", None, True, 1e300):
        raw = json.dumps({**FIELDS, field: odd}).encode()
        found = salvage("r", raw)
        for name in FIELDS:
            if found is not None and name != field:
                assert getattr(found.record, name) == getattr(expected, name), (field, odd, name)


def test_of_tasks_only_those_that_are_odd_are_left_out() -> None:
    raw = json.dumps({**FIELDS, "tasks": {"a": "RUNNING", "b": "ODD", "c": 5}, "task_records": {"a": {}, "b": 1}})
    found = salvage("r", raw.encode())
    assert found is not None
    assert (found.record.tasks, found.record.task_records) == ({"a": "RUNNING"}, {"a": {}})


def test_a_text_that_looks_like_a_field_is_none() -> None:
    # Without its quote the text that a user passed ends in the middle, and what follows looks like JSON.
    passed = json.dumps({"run_id": "r", "params": {"x": '"}, "tenant_id": "beta", "y": {"z": "'}}).encode()
    for at in range(len(passed)):
        found = salvage("r", passed[:at] + passed[at + 1 :])
        if found is not None and not found.intact:
            assert tenant_of_unreadable(found, {"tenant_id": "alpha"}) == "alpha"


def test_a_stranger_sees_no_record_that_cannot_be_read() -> None:
    member = Caller("beta", "k", Role.MEMBER)
    for raw in (deep(205), b"\xff", b"{", WHOLE[:-30]):
        for known in ({}, {"tenant_id": "alpha"}):
            assert readable("r", raw, who=member, records=True, last_known=lambda _, known=known: known) is None  # type: ignore[misc]
    owner = Caller("alpha", "k", Role.MEMBER)
    assert readable("r", deep(205), who=owner, records=True) is not None
    assert readable("r", b"\xff", who=owner, records=True) is None
    assert readable("r", b"\xff", who=owner, records=True, last_known=lambda _: {"tenant_id": "alpha"}) is not None
    assert readable("r", b"\xff", who=Caller("beta", "k", Role.OPERATOR), records=True) is not None  # nobody's
