"""``pyoco-server check --moving``: a store of the existing system is looked at, and nothing of it is changed."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from nats.js import api
from pydantic import SecretStr

from pyoco_server.cli.server import main
from pyoco_server.settings.environment import Settings, variable
from pyoco_server.store import topology
from pyoco_server.store.moving import look, sample
from pyoco_server.store.moving.sample import read_sample
from pyoco_server.store.nats.connection import Connection, connected
from pyoco_server.store.status.stream_state import read_stream

from .test_check import change, nats_url

__all__ = ["nats_url"]  # a fixture
Moving = Callable[..., tuple[int, dict[str, Any]]]
FLOW = "version: 1\nflow: {graph: a}\ntasks: {a: {callable: m:f}}\n"


@pytest.fixture
def moving(
    settings: Settings, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, dict[str, Any]]]:
    """The command; its exit code and what it tells, with the findings by code."""
    for field in settings.model_fields_set:
        monkeypatch.setenv(variable(field), str(getattr(settings, field)))
    monkeypatch.setenv("PYOCO_LOAD_DOTENV", "0")

    def run(*arguments: str) -> tuple[int, dict[str, Any]]:
        capsys.readouterr()
        code = main(["check", "--moving", "--output", "json", "--timeout-sec", "30", *arguments])
        out, err = capsys.readouterr()
        assert err == ""
        told = json.loads(out)
        assert told["ok"] is (code == 0)
        told["all"] = [found for found in told["findings"] if found["code"] != "disk_full"]
        told["findings"] = {found["code"]: found for found in told["all"]}
        return code, told

    return run


def as_existing(settings: Settings) -> Callable[[Connection], Awaitable[None]]:
    """Make streams as the existing system does: with nats-py's buckets, which take no direct reads."""

    async def make(connection: Connection) -> None:
        js = connection.js
        await js.add_stream(
            api.StreamConfig(
                name=settings.work_stream, subjects=[f"{settings.work_subject_prefix}.>"],
                retention=api.RetentionPolicy.WORK_QUEUE,
            )
        )  # fmt: skip
        await js.add_stream(
            api.StreamConfig(
                name=settings.dlq_stream, subjects=[f"{settings.dlq_subject_prefix}.>"], max_bytes=1024 * 1024
            )
        )
        for bucket, ttl in (
            (settings.runs_kv_bucket, None), (settings.workers_kv_bucket, 15.0), (settings.auth_kv_bucket, None),
            (settings.wheel_history_kv_bucket, 3600.0),
        ):  # fmt: skip
            await js.create_key_value(api.KeyValueConfig(bucket=bucket, history=1, ttl=ttl))
        await js.create_object_store(settings.wheel_object_store_bucket, max_bytes=1024 * 1024)

    return make


def fill(settings: Settings, runs: int) -> Callable[[Connection], Awaitable[None]]:
    """Store runs, jobs, a worker, keys and wheels."""

    async def put(connection: Connection) -> None:
        js, now = connection.js, time.time()
        kv = await js.key_value(settings.runs_kv_bucket)
        for number in range(runs):
            status = "COMPLETED" if number % 2 else "PENDING"
            record = {"run_id": f"r{number}", "flow_name": "main", "status": status, "updated_at": now}
            await kv.put(f"r{number}", json.dumps(record).encode())
        await kv.put("gone", b"{}")
        await kv.delete("gone")
        for number, (tag, text) in enumerate([("cpu", FLOW), ("cpu", None), ("größe", FLOW.replace(": 1", ": 1.0"))]):
            job = {"run_id": f"r{number}", "flow_name": "main", "tag": tag, "workflow_yaml": text}
            await js.publish(f"{settings.work_subject_prefix}.{tag}", json.dumps(job).encode())
        worker = {"worker_id": "w", "state": "IDLE", "tags": ["cpu"], "last_seen_at": now}
        await (await js.key_value(settings.workers_kv_bucket)).put("w", json.dumps(worker).encode())
        await (await js.key_value(settings.auth_kv_bucket)).put(
            "api_keys.0123", json.dumps({"key_id": "0123", "hash_b64": "x"}).encode()
        )
        wheels = await js.object_store(settings.wheel_object_store_bucket)
        await wheels.put("task_cpu-0.1.0-py3-none-any.whl", bytes(900 * 1024))
        await js.publish(f"{settings.dlq_subject_prefix}.cpu", b"{}")

    return put


def everything(settings: Settings) -> dict[str, Any]:
    """What NATS says of all streams and their consumers."""
    told: dict[str, Any] = {}

    async def ask(connection: Connection) -> None:
        listed: list[str] = []
        while page := await connection.js.streams_info(offset=len(listed)):  # other tests' are there too
            listed += [str(stream.config.name) for stream in page]
        names = [
            name for name in listed if any(str(getattr(settings, field)) in name for field in settings.model_fields_set)
        ]
        for name in names:
            answer = json.loads((await connection.request(f"$JS.API.STREAM.INFO.{name}", what="looking")).data)
            told[str(name)] = {key: answer[key] for key in ("config", "state", "created")}

    change(settings, ask)
    return told


def test_a_store_of_the_existing_system(settings: Settings, moving: Moving) -> None:
    change(settings, as_existing(settings))
    change(settings, fill(settings, 20))
    before = everything(settings)
    assert len(before) == 7
    code, told = moving()
    found = told["findings"]
    assert (code, told["store"], told["nats_server"]) == (0, "existing", "2.15.1")
    assert set(found) == {
        "store_existing", "streams_to_make", "direct_reads_off", "jobs_queued", "jobs_unfit", "jobs_by_name",
        "tags_unfit", "runs_held", "workers_of_existing_system", "existing_keys", "wheels_held", "wheel_room",
        "kept_as_it_is",
    }  # fmt: skip
    assert found["runs_held"]["details"] == {"counts": ["COMPLETED 10", "PENDING 10"]}
    assert found["jobs_queued"]["details"] == {"jobs": 3, "tags": ["cpu 2", "größe 1"]}
    assert found["jobs_unfit"]["details"]["runs"] == ["r2"]
    assert settings.flows_kv_bucket in str(found["streams_to_make"]["details"]["streams"])
    off = found["direct_reads_off"]["details"]["streams"]
    assert len(off) == 6 and f"OBJ_{settings.wheel_object_store_bucket}" not in off
    assert "88% full" in found["wheel_room"]["message"]
    assert everything(settings) == before
    assert all(stream["state"]["consumer_count"] == 0 for stream in before.values())


def test_the_text_of_it(settings: Settings, moving: Moving, capsys: pytest.CaptureFixture[str]) -> None:
    change(settings, as_existing(settings))
    moving()  # the environment is set
    assert main(["check", "--moving", "--lang", "en"]) == 0
    text = capsys.readouterr().out
    assert "This is a store of the existing system: " in text and "docs/how-to/moving.md" in text
    assert main(["check", "--moving", "--lang", "ja"]) == 0
    assert "既存システムのストアです" in capsys.readouterr().out


def test_an_empty_store(moving: Moving) -> None:
    code, told = moving()
    assert (code, told["store"], set(told["findings"])) == (0, "empty", {"store_empty"})


def test_a_store_of_ours(settings: Settings, moving: Moving) -> None:
    change(settings, topology.ensure)
    code, told = moving()
    assert (code, told["store"]) == (0, "ours")
    assert set(told["findings"]) == {"store_ours", "streams_to_make"}  # the bucket of the keys
    assert told["findings"]["streams_to_make"]["details"]["streams"] == [f"KV_{settings.auth_kv_bucket}"]


def test_half_a_store(settings: Settings, moving: Moving) -> None:
    async def make(connection: Connection) -> None:
        await as_existing(settings)(connection)
        await connection.js.delete_stream(settings.work_stream)

    change(settings, make)
    code, told = moving()
    assert (code, told["store"]) == (0, "partial")
    assert told["findings"]["store_partial"]["details"]["missing"] == [settings.work_stream]


def test_streams_that_are_something_else(settings: Settings, moving: Moving) -> None:
    async def make(connection: Connection) -> None:
        await connection.js.add_stream(
            api.StreamConfig(name=settings.work_stream, subjects=[f"{settings.work_subject_prefix}.>"])
        )

    change(settings, make)
    code, told = moving()
    assert code == 1 and told["findings"]["stream_differs"]["details"]["field"] == "retention"


def test_what_only_the_later_one_has(
    nats_url: Callable[[str], str], moving: Moving, tmp_path: Any, settings: Settings
) -> None:
    url = nats_url(f'jetstream {{store_dir: "{tmp_path}/js"}}\nmax_payload: 100000')

    async def make(connection: Connection) -> None:
        await as_existing(settings)(connection)
        kv = await connection.js.create_key_value(api.KeyValueConfig(bucket="pyoco_yaml_schedules", history=5))
        await kv.put("s", b"{}")

    change(Settings(_env_file=None, nats_url=url), make)
    code, told = moving("--nats-url", url)
    assert told["findings"]["parts_left_out"]["details"] == {"buckets": ["pyoco_yaml_schedules"], "messages": 1}
    assert code == 0 and told["findings"]["payload_small"]["details"]["largest"] == 100_000


def test_nats_is_away(moving: Moving) -> None:
    code, told = moving("--nats-url", "nats://127.0.0.1:1", "--timeout-sec", "0.5")
    assert (code, told["store"], list(told["findings"])) == (1, None, ["nats_unreachable"])


def test_no_jetstream(nats_url: Callable[[str], str], moving: Moving) -> None:
    code, told = moving("--nats-url", nats_url(""))
    assert (code, told["store"], list(told["findings"])) == (1, None, ["jetstream_off"])


def test_rights_that_are_missing(
    nats_url: Callable[[str], str], moving: Moving, tmp_path: Any, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = nats_url(
        f'jetstream {{store_dir: "{tmp_path}/js"}}\n'
        "accounts {A {jetstream: enabled, users: [{user: g, password: p}, {user: w, password: p, permissions: {"
        'publish: {allow: ["$JS.API.INFO", "$JS.API.STREAM.INFO.>"]}}}]}}'
    )
    full = settings.model_copy(update={"nats_url": url, "nats_user": "g", "nats_password": SecretStr("p")})
    change(full, as_existing(settings))
    change(full, fill(settings, 2))
    before = everything(full)
    monkeypatch.setenv("PYOCO_NATS_USER", "w")
    monkeypatch.setenv("PYOCO_NATS_PASSWORD", "p")
    code, told = moving("--nats-url", url)
    missing = {found["details"]["needed"]: found for found in told["all"] if found["code"] == "right_missing"}
    assert code == 1
    assert {needed: found["severity"] for needed, found in missing.items()} == {
        "create": "error", "update": "warning", "read": "error",
    }  # fmt: skip
    assert f"$JS.API.STREAM.UPDATE.KV_{settings.runs_kv_bucket}" in missing["update"]["details"]["rights"]
    assert f"$JS.API.STREAM.CREATE.KV_{settings.flows_kv_bucket}" in missing["create"]["details"]["rights"]
    assert len(everything(full)) == 7 and everything(full) == before


async def sampled(settings: Settings, most: int, deadline: float = 30.0) -> Any:
    async with connected(settings, "test", 10) as connection:
        stream = f"KV_{settings.runs_kv_bucket}"
        state = await read_stream(connection, stream)
        assert state is not None
        subject = f"$KV.{settings.runs_kv_bucket}.>"
        return await read_sample(connection, stream, state, subject, deadline=time.monotonic() + deadline, most=most)


def test_a_large_store_is_read_in_part(settings: Settings, moving: Moving, monkeypatch: pytest.MonkeyPatch) -> None:
    change(settings, as_existing(settings))
    change(settings, fill(settings, 300))
    whole = asyncio.run(sampled(settings, 1000))
    assert (len(whole.messages), whole.looked_at, whole.whole) == (300, 301, True)
    assert len({message.seq for message in whole.messages}) == 300
    part = asyncio.run(sampled(settings, 64))
    assert not part.whole and 64 <= part.looked_at < 100
    seqs = sorted(message.seq for message in part.messages)
    assert len(set(seqs)) == len(seqs) and seqs[0] < 10 and seqs[-1] > 290
    late = asyncio.run(sampled(settings, 1000, deadline=-1))
    assert (late.messages, late.whole) == ([], False)

    monkeypatch.setattr(look, "read_sample", smaller)
    code, told = moving()
    held = told["findings"]["runs_held"]
    assert code == 0 and held["details"]["of"] == 301 and held["details"]["looked_at"] < 100


async def smaller(*where: Any, **how: Any) -> sample.Sample:
    return await read_sample(*where, **{**how, "most": 64})
