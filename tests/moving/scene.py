"""The same runs, wheels and dead letters on both systems, and what each of them answers about them."""

import asyncio
import hashlib
import json
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import nats

from tests.wheels import make_wheel

from .asks import ENDED, WHEEL, Ask
from .beside import DEADLINE, Side
from .submitted import TUTORIAL

_WHEELS = (
    ("demo", "1.0", "py3-none-any", None), ("demo", "1.1", "py3-none-any", "wheels, other,other"),
    ("native", "1.0", "cp36-cp36m-win32", "wheels"), ("demo", "1.1", "py3-none-any", None),
    ("demo", "1.0.1", "py3-none-any", None), ("bad", "2.0", "py3-none-any", "a.b"), ("gone", "2.0", "py3-none-any", ""),
)  # fmt: skip
"""Package, version, interpreter and tags of what is uploaded; some of it is refused."""
_LETTERS = {"failed", "unknown", "yaml_fails"}
_ENDED = ("COMPLETED", "FAILED", "CANCELLED")
_AWAY = 503
_INVALID = (b"not json", b'{"flow_name":"x"}')


@dataclass
class Told:
    """What one side says: its answers by name, and what it has stored."""

    answers: list[tuple[str, httpx2.Response]] = field(default_factory=list)
    stored: dict[str, Any] = field(default_factory=dict)


def make_wheels(folder: Path) -> list[tuple[Path, str | None]]:
    """Make the wheels, the same ones for both."""
    return [(make_wheel(folder, name, version, tag=tag), tags) for name, version, tag, tags in _WHEELS]


def prepare(side: Side, wheels: Iterable[tuple[Path, str | None]], told: Told) -> None:
    """Upload, submit, and wait until everything has ended that will."""
    with side.http() as http:
        for path, tags in wheels:
            sent = {"wheel": (path.name, path.read_bytes(), "application/octet-stream")}
            answer = http.post(f"{side.url}/wheels", files=sent, data={"tags": tags} if tags is not None else {})
            told.answers.append((f"upload {path.name} {tags}", answer))
        told.answers.append(("delete", http.delete(f"{side.url}/wheels/gone-2.0-py3-none-any.whl")))
        _submit_runs(side, http, told)
    side.wait_for_wheels("w2", WHEEL)
    asyncio.run(_publish_invalid(side))


def _submit_runs(side: Side, http: httpx2.Client, told: Told) -> None:
    """Submit them one by one: so both sides end them in the same order."""
    key = {"X-API-Key": side.keys["good"]}
    mine = http.post(f"{side.guarded}/runs", json={"flow_name": "main", "tag": "nobody"}, headers=key)
    side.note_run("mine", mine.json()["run_id"])
    bodies: dict[str, dict[str, Any]] = {
        "waiting": {"flow_name": "main", "tag": "nobody"},
        "stopped": {"flow_name": "naps"},
        "ok": {"flow_name": "main", "params": {"x": 4}},
        "tagged": {"flow_name": "main", "tags": ["a", "b"]},
        "failed": {"flow_name": "fails"},
        "unknown": {"flow_name": "nowhere", "params": {"x": 1}},
    }
    for name, body in bodies.items():
        side.note_run(name, http.post(f"{side.url}/runs", json=body).json()["run_id"])
        if name == "stopped":
            side.wait_for(name, "RUNNING", task="nap")
            told.answers.append(("cancel running", http.post(f"{side.url}/runs/{side.runs[name]}/cancel")))
        if name in ENDED:
            side.wait_for(name, *_ENDED, ask_to_stop=name == "stopped")
            side.wait_for_rest(name)
    texts = {
        "yaml": TUTORIAL,
        "yaml_fails": TUTORIAL.replace("x: 1", "x: a"),
        "yaml_missing": TUTORIAL.replace("_tasks:add_one", "_tasks:none"),
    }
    for name, text in texts.items():
        sent = http.post(f"{side.url}/runs/yaml", files={"workflow": ("f.yaml", text)}, data={"flow_name": name})
        side.note_run(name, sent.json()["run_id"])
        side.wait_for(name, *_ENDED)
        side.wait_for_rest(name)


async def _publish_invalid(side: Side) -> None:
    connection = await nats.connect(side.nats_url)
    try:
        stream = connection.jetstream()
        for raw in _INVALID:
            await stream.publish("pyoco.work.default", raw)
        wanted = len(_LETTERS) + len(_INVALID)
        deadline = time.monotonic() + DEADLINE
        while (await stream.stream_info("PYOCO_DLQ")).state.messages < wanted:
            assert time.monotonic() < deadline, f"{side.name}: some dead letters are missing"
            await asyncio.sleep(0.05)
    finally:
        await connection.close()


def ask(side: Side, asks: Iterable[Ask], told: Told) -> None:
    """Ask everything, one by one."""
    values = {**side.runs, "sha256": hashlib.sha256(TUTORIAL.encode()).hexdigest()}
    with side.http() as http:
        for one in asks:
            options = dict(one.options)
            if one.key:
                options["headers"] = {**options.get("headers", {}), "X-API-Key": side.keys[one.key]}
            url = side.url if one.key is None else side.guarded
            address = url + one.path.format(**values)
            answer = http.request(one.method, address, **options)
            if answer.status_code == _AWAY and one.method == "GET":  # nats-py now and then finds no keys; so do they
                answer = http.request(one.method, address, **options)
            told.answers.append((one.name, answer))
        told.answers.append(("openapi", http.get(f"{side.url}/openapi.json")))


def look(side: Side, told: Told) -> None:
    """Look at what is stored."""
    told.stored = asyncio.run(_look(side))


async def _look(side: Side) -> dict[str, Any]:
    connection = await nats.connect(side.nats_url)
    try:
        stream = connection.jetstream()
        runs, workers = [await stream.key_value(bucket) for bucket in ("pyoco_runs", "pyoco_workers")]
        found: dict[str, Any] = {"letters": {}}
        found["runs"] = {name: json.loads((await runs.get(run_id)).value or b"") for name, run_id in side.runs.items()}
        found["workers"] = {name: json.loads((await workers.get(name)).value or b"") for name in ("w1", "w2")}
        state = (await stream.stream_info("PYOCO_DLQ")).state
        for sequence in range(state.first_seq, state.last_seq + 1):
            message = await stream.get_msg("PYOCO_DLQ", sequence)
            letter = json.loads(message.data or b"")
            name = side.names.get(letter.get("run_id"), letter.get("payload"))
            found["letters"][name] = {"subject of the letter": message.subject, **letter}
        return found
    finally:
        await connection.close()
