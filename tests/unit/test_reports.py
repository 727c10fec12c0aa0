"""What a child may tell its worker: every message of ours is taken, and nothing else."""

import asyncio
import json
import random
from typing import Any

import pytest

from pyoco_server.worker.child.protocol import encode
from pyoco_server.worker.child.reports import Nonsense, read_packet, read_report

pytestmark = pytest.mark.anyio

RUN = {"run_id": "r", "attempt": 1}
FAILURE = {
    "error": "ValueError: no",
    "exception": {"class": "ValueError", "message": "no", "file": "m.py", "line": 3, "function": "t"},
    "traceback": "…",
    "origin": {"file": "m.py", "line": 3, "func": "t"},
}
OURS: list[dict[str, Any]] = [
    {"type": "begun", **RUN},
    {"type": "planned", **RUN, "tasks": ["a", "b"], "timeouts": {"a": 3, "b": float("inf")}},
    {"type": "task", **RUN, "name": "a", "fields": {"state": "RUNNING", "started_at": 1.5, "ended_at": None}},
    {"type": "task", **RUN, "name": "a", "fields": {"state": "RUNNING", "try": 1, "tries": 3, "retry_at": 2.5,
                                                    "last_error": "no", "inputs_note": None, **FAILURE}},
    {"type": "task", **RUN, "name": "a", "fields": {"state": "SUCCEEDED", "inputs": {"x": [1, {"y": None}]},
                                                    "output": 10**30, "artifacts": {}, "duration_ms": 3}},
    {"type": "finished", **RUN, "outcome": "completed", "reusable": True},
    {"type": "finished", **RUN, "outcome": "failed", "reason": "task_failed", "error": "no", "task": None,
     "raised_in": "a", "details": FAILURE, "reusable": False},
    {"type": "fresh", "run_id": None, "attempt": None, "changed": False},
    {"type": "tried", "run_id": None, "attempt": None, "error": None, "trace": ""},
]  # fmt: skip
VALUES: list[Any] = [None, True, -1, 1e308, 10**400, "", "\x00", "x" * 100_000, [], {}, [[]], {"a": {}}, [None] * 1000,
                     "PENDING", "NaN"]  # fmt: skip


@pytest.mark.parametrize("message", OURS, ids=lambda one: one["type"])
def test_what_a_child_says_is_taken_as_it_is(message: dict[str, Any]) -> None:
    body = encode(message)[4:]
    assert read_report(body) == (message, len(body), False)


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"null", b"[]", b'"x"', b"\xff\xfe", b"{}", b'{"type": "run"}', b'{"type": ["task"]}',
        b'{"type":"task","run_id":"r","attempt":1,"name":"a","fields":{"state":"RUNNING","output":' + b"[" * 100_000,
        b'{"type":"task","run_id":"r","attempt":1,"name":"a","fields":{"state":"RUNNING","output":'
        + b"[" * 300 + b"]" * 300 + b"}}",
        b'{"type":"task","run_id":"r","attempt":1,"name":"a","fields":{"state":"RUNNING","output":'
        + b'{"a":' * 300 + b"1" + b"}" * 300 + b"}}",
        b'{"type":"task","run_id":"r","attempt":1,"name":"a","fields":{"state":"RUNNING","output":'
        + b"9" * 5000 + b"}}",
        b'{"type":"task","run_id":"r","attempt":1,"name":"a","fields":{"state":"RUNNING","started_at":NaN}}',
        b'{"type":"task","run_id":"r","attempt":1,"name":"a","fields":{"state":"RUNNING","retry_at":1e999}}',
        b'{"type":"task","run_id":"r","attempt":1,"name":"a","fields":{"state":"RUNNING","mine":1}}',
        b'{"type":"task","run_id":"r","attempt":1,"name":"\\ud800","fields":{"state":"RUNNING"}}',
        b'{"type":"planned","run_id":"r","attempt":1,"tasks":["a"],"timeouts":{"a":-1}}',
        b'{"type":"planned","run_id":"r","attempt":1,"tasks":["a"],"timeouts":{"a":NaN}}',
        b'{"type":"finished","run_id":"r","attempt":1,"outcome":"failed","reason":"mine","error":"","reusable":true}',
    ],
)  # fmt: skip
def test_what_no_child_says_is_refused(body: bytes) -> None:
    with pytest.raises(Nonsense) as refused:
        read_report(body)
    assert 0 < len(str(refused.value)) < 500


def test_any_damage_is_taken_or_refused_and_nothing_else_happens() -> None:
    chance = random.Random(12)
    refused = 0
    for _ in range(10_000):
        body = bytearray(json.dumps(damaged(chance, chance.choice(OURS))).encode())
        for _ in range(chance.choice((0, 0, 1, 5))):
            body[chance.randrange(len(body))] = chance.randrange(256)
        del body[chance.choice((len(body), len(body), chance.randrange(len(body)))) :]
        try:
            report = read_report(bytes(body))
        except Nonsense:
            refused += 1
        else:
            assert report.message["type"] in {one["type"] for one in OURS}
    assert 5_000 < refused < 10_000


def damaged(chance: random.Random, message: Any) -> Any:
    """Return a copy with something replaced, removed or added, at any depth."""
    if isinstance(message, dict) and message:
        name = chance.choice(list(message))
        deed = chance.random()
        if deed < 0.1:
            return {key: value for key, value in message.items() if key != name}
        if deed < 0.2:
            return {**message, chance.choice(("run", "__class__", "state")): chance.choice(VALUES)}
        return {**message, name: damaged(chance, message[name])}
    return chance.choice(VALUES)


@pytest.mark.parametrize(
    ("sent", "got"),
    [(b"\x00\x00\x00\x02{}rest", b"{}"), (b"", None), (b"\x00\x00", None), (b"\x00\x00\x00\x09{}", None)],
)
async def test_a_packet_is_read_whole_or_not_at_all(sent: bytes, got: bytes | None) -> None:
    reader = asyncio.StreamReader()
    reader.feed_data(sent)
    reader.feed_eof()
    assert await read_packet(reader, 100) == got


async def test_a_packet_that_is_too_long_is_not_read() -> None:
    reader = asyncio.StreamReader()
    reader.feed_data(b"\xff\xff\xff\xff")
    with pytest.raises(Nonsense, match="a message of 4294967295 bytes; 100 are taken"):
        await read_packet(reader, 100)


async def test_a_packet_that_does_not_end_is_given_up() -> None:
    reader = asyncio.StreamReader()
    reader.feed_data(b"\x00\x00\x00\x09{}")
    with pytest.raises(Nonsense, match="did not end within"):
        await read_packet(reader, 100, 0.01)
