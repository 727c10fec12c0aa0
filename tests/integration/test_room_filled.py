"""A store that one fast client fills: it is refused in time, and everything can be cancelled and deleted afterwards."""

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from nats.js import api

from pyoco_server.errors import StoreFull
from pyoco_server.model.deadletter import DeadLetterReason, letter_of_run
from pyoco_server.model.run import claim
from pyoco_server.settings.environment import Settings
from tests.wheels import make_wheel

from .test_gateway import Running, running, until
from .test_retention import eventually, record
from .test_room import Bounded

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

STORE = 150 * 1000 * 1000
CONNECTIONS = 32
FLOW = "version: 1\nflow:\n  graph: t\ntasks:\n  t:\n    callable: time:time\n"
SLEEP = 'version: 1\nflow:\n  graph: t\ntasks:\n  t:\n    callable: "time:sleep"\n    inputs: {"secs": 2}\n'
SMALL: dict[str, Any] = {"logs_max_bytes": 16_000_000, "dlq_max_bytes": 16_000_000, "audit_max_bytes": 1_000_000}


@contextlib.asynccontextmanager
async def filled_soon(settings: Settings, *, account: bool = False, gateways: int = 1) -> AsyncIterator[list[Running]]:
    """Serve over a NATS that may keep 150 MB, with as many gateways as wanted."""
    server = Bounded(settings.state_dir / "nats", client_port=-1, http_port=-1)
    server.account, server.limit = account, STORE
    async with server, contextlib.AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(
                running(
                    Settings(
                        _env_file=None,
                        nats_url=server.url,
                        nats_monitor_url=server.monitor_url,
                        state_dir=settings.state_dir / str(number),
                        **SMALL,
                    )
                )
            )
            for number in range(gateways)
        ]


@contextlib.asynccontextmanager
async def worker(here: Running, folder: Path) -> AsyncIterator[None]:
    """Run a worker as a process of its own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYOCO_")}
    process = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).parent / "pyoco-worker"), "--nats-url", here.gateway.settings.nats_url,
        "--worker-id", "w", "--tags", "cpu", cwd=folder, env=kept,
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        await until(lambda: here.gateway.worker_index.get("w"), 30)
        yield
    finally:
        process.terminate()
        await asyncio.wait_for(process.wait(), 30)


async def flood(heres: list[Running], submit: Any) -> list[str]:
    """Submit over all connections as fast as it goes, until each of them was refused three times; the runs made."""
    made: list[str] = []
    number = 0

    async def one(here: Running) -> None:
        nonlocal number
        refused = 0
        while refused < 3:
            number += 1
            answer = await submit(here.http, number)
            if answer.status_code == 200:
                made.append(answer.json().get("run_id") or answer.json()["name"])
            else:
                assert (answer.status_code, answer.json()["code"]) == (507, "store_full"), answer.text
                refused += 1

    await asyncio.gather(*(one(heres[index % len(heres)]) for index in range(CONNECTIONS)))
    return made


async def cancel_all(here: Running, run_ids: list[str]) -> set[tuple[int, str]]:
    """Cancel runs over all connections; what the answers said."""
    said = set()
    left = iter(run_ids)

    async def one() -> None:
        for run_id in left:
            answer = await here.http.post(f"/runs/{run_id}/cancel")
            said.add((answer.status_code, answer.json().get("status") or answer.text))

    await asyncio.gather(*(one() for _ in range(CONNECTIONS)))
    return said


async def used(here: Running) -> float:
    await here.gateway.room.look()
    return float(here.gateway.room.figures()["used_bytes"]) / STORE


def params(size: int) -> Any:
    async def submit(http: httpx2.AsyncClient, number: int) -> httpx2.Response:
        body = {"flow_name": "f", "params": {"x": str(number) + "x" * size}, "tag": "none"}
        return await http.post("/runs", json=body)

    return submit


def keyed(size: int) -> Any:
    async def submit(http: httpx2.AsyncClient, number: int) -> httpx2.Response:
        form = {"flow_name": "f", "tag": "none", "idempotency_key": f"k{number}"}
        text = f"{FLOW}# {number} {'x' * size}\n"
        return await http.post("/runs/yaml", data=form, files={"workflow": ("f", text.encode())})

    return submit


def flows(size: int) -> Any:
    async def submit(http: httpx2.AsyncClient, number: int) -> httpx2.Response:
        text = f"{FLOW}# {number} {'x' * size}\n"
        form = {"flow_name": "f", "tag": "none"}
        return await http.post("/runs/yaml", data=form, files={"workflow": ("f", text.encode())})

    return submit


def wheels(folder: Path) -> Any:
    async def upload(http: httpx2.AsyncClient, number: int) -> httpx2.Response:
        wheel = make_wheel(folder, f"w{number}", "1", {f"w{number}/data.bin": os.urandom(1_500_000)})
        return await http.post("/wheels", files={"wheel": (wheel.name, wheel.read_bytes())}, timeout=60)

    return upload


@pytest.mark.parametrize(
    ("what", "gateways", "account"),
    [
        ("params", 1, True), ("params", 2, False), ("params", 2, True), ("small", 1, False), ("flows", 1, True),
        ("keyed", 1, False),
    ],
)  # fmt: skip
async def test_a_store_that_is_filled_with_runs_can_be_emptied(
    settings: Settings, tmp_path: Path, what: str, gateways: int, account: bool
) -> None:
    submit = {"params": params(120_000), "small": params(1_000), "flows": flows(200_000), "keyed": keyed(200_000)}[what]
    async with filled_soon(settings, account=account, gateways=gateways) as heres:
        here = heres[0]
        if what == "small":  # most of the way with large ones: small ones alone would take minutes
            await here.gateway.connection.js.add_stream(api.StreamConfig(name="FILL", subjects=["fill"]))
            for _ in range(125):
                await here.gateway.connection.js.publish("fill", b"x" * 1_000_000)
        wheel = make_wheel(tmp_path, "w", "1")
        assert (await here.http.post("/wheels", files={"wheel": (wheel.name, wheel.read_bytes())})).status_code == 200
        async with worker(here, tmp_path):
            form = {"flow_name": "s", "tag": "cpu"}
            busy = (await here.http.post("/runs/yaml", data=form, files={"workflow": ("f", SLEEP.encode())})).json()
            made = await flood(heres, submit)
            full = await used(here)
            assert 0.7 < full < 0.97, f"{full:.1%} used"

            # Who is there is served: the worker beats and ends its run.
            async def has_ended() -> bool:
                return bool(
                    (await here.http.get(f"/runs/{busy['run_id']}")).json()["status"] in ("COMPLETED", "FAILED")
                )

            await eventually(has_ended)
            [it] = (await here.http.get("/workers?scope=all")).json()
            assert it["state"] in ("IDLE", "RUNNING"), it
            assert await cancel_all(here, made) == {(200, "CANCELLED")}
            assert (await here.http.delete(f"/wheels/{wheel.name}")).status_code == 200
            assert await used(here) < 0.97

            # What ended goes as ever, and there is room again.
            for one in heres:
                one.gateway.retention._settings = one.gateway.settings.model_copy(
                    update={"run_retention_sec": 0.1, "flow_retention_sec": 0.1, "retention_interval_sec": 0.1}
                )
                one.gateway.retention._loose_flows._flows._young_sec = 0.0

            async def there_is_room() -> bool:
                for one in heres:
                    await one.gateway.retention.round()
                return (await submit(here.http, 10**6)).status_code == 200

            if what in ("params", "small"):
                await eventually(there_is_room, timeout=60)


async def test_a_store_that_is_filled_with_wheels_can_be_emptied(settings: Settings, tmp_path: Path) -> None:
    async with filled_soon(settings) as [here]:
        names = await flood([here], wheels(tmp_path))
        assert 0.7 < await used(here) < 0.96
        for name in names:
            assert (await here.http.delete(f"/wheels/{name}")).status_code == 200
        assert await used(here) < 0.05
        assert (await wheels(tmp_path)(here.http, 10**6)).status_code == 200


@pytest.mark.parametrize("account", [False, True])
async def test_what_other_programs_filled_to_the_brim_can_be_emptied(
    settings: Settings, tmp_path: Path, account: bool
) -> None:
    async with filled_soon(settings, account=account) as [here]:
        gateway = here.gateway
        waiting = [await here.submit(params={"x": "y" * 100_000}, tag="none") for _ in range(20)]
        held = await here.submit(params={"x": "y" * 100_000}, tag="none")
        await gateway.runs.change(held, lambda it: claim(it, worker_id="gone", instance_id="i", job_seq=1))
        letter = letter_of_run(await record(here, waiting[0]), DeadLetterReason.EXECUTION_ERROR, tag="none")
        letter_id = await gateway.letters.publish(letter, "key")
        wheel = make_wheel(tmp_path, "w", "1", {"w/data.bin": os.urandom(1_000)})
        assert (await here.http.post("/wheels", files={"wheel": (wheel.name, wheel.read_bytes())})).status_code == 200
        js = gateway.connection.js
        await js.add_stream(api.StreamConfig(name="FILL", subjects=["fill"]))
        for size in (900_000, 10_000, 100):  # as the last one a message that makes it overrun by much, and then little
            with pytest.raises(StoreFull), gateway.connection.errors("filling"):
                while True:
                    await js.publish("fill", b"x" * size)
        assert (await here.http.delete(f"/dlq/{letter_id}")).status_code == 200
        assert (await here.http.delete(f"/wheels/{wheel.name}")).status_code == 200
        assert (await here.http.get("/wheels")).json() == []
        for run_id in waiting:
            answer = await here.http.post(f"/runs/{run_id}/cancel")
            assert (answer.status_code, answer.json()["status"]) == (200, "CANCELLED"), answer.text
        assert (await here.http.post(f"/runs/{held}/cancel")).json()["status"] == "CANCELLING"
        # What was freed is enough for the records of those that came later.
        kept = [run_id for run_id in waiting if (await here.http.get(f"/runs/{run_id}")).status_code == 200]
        assert len(kept) >= 8
        await js.purge_stream("FILL")
        await eventually(lambda: _takes(here))


async def test_logs_give_way_to_what_must_be_written(settings: Settings) -> None:
    async with filled_soon(settings) as [here]:
        gateway = here.gateway
        chunk = json.dumps({"v": 1, "attempt": 1, "lines": [{"text": "x" * 100_000}]}).encode()
        for _ in range(120):
            await gateway.connection.js.publish(f"{gateway.settings.logs_subject_prefix}.r", chunk)
        waiting = await here.submit(tag="none")
        js = gateway.connection.js
        await js.add_stream(api.StreamConfig(name="FILL", subjects=["fill"]))
        with pytest.raises(StoreFull), gateway.connection.errors("filling"):
            while True:
                await js.publish("fill", b"x" * 900_000)
        answer = await here.http.post(f"/runs/{waiting}/cancel")
        assert (answer.status_code, answer.json()["status"]) == (200, "CANCELLED")
        assert (await here.http.get(f"/runs/{waiting}")).json()["status"] == "CANCELLED"


async def _takes(here: Running) -> bool:
    return (await here.http.post("/runs", json={"flow_name": "f"})).status_code == 200
