"""What is left of runs that failed, and how a user runs them again."""

import asyncio
import json
import subprocess
import time
from typing import Any

import pytest

from pyoco_server.model.deadletter import key_of_run, letter_of_run, letter_reason
from pyoco_server.model.run import EndReason, RunRecord, RunStatus, claim, settle
from pyoco_server.settings.environment import Settings
from pyoco_server.store.deadletters import DeadLetterStore
from pyoco_server.store.nats.connection import Connection
from pyoco_server.store.runs import RunStore

from .conftest import BIN, System

REPLAYS = 1000
BOUND_SEC = 10.0
"""Stated by the project: 1,000 replays within so many seconds."""


def client(system: System, *arguments: str) -> tuple[int, list[Any], str]:
    """Run pyoco-client; give its exit code, its lines of JSON and what it complains of."""
    command = [str(BIN / "pyoco-client"), "--server", system.url, *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return ended.returncode, [json.loads(line) for line in ended.stdout.splitlines()], ended.stderr


def test_a_failed_run_is_found_and_replayed(system: System) -> None:
    system.worker(worker_id="w", tags="cpu")
    fixed = system.folder / "fixed"
    flow = system.flow(f"import os\ndef t(x):\n    assert os.path.exists({str(fixed)!r}), 'not yet'\n    return x\n")
    failed = system.run(flow, params={"x": 41})
    assert failed["status"] == "FAILED"
    system.letter()
    _, [[letter]], _ = client(system, "dlq", "list", "--tag", "cpu")
    assert (letter["reason"], letter["run_id"], letter["attempt"]) == ("execution_error", failed["run_id"], 1)
    assert "not yet" in letter["error"]
    letter_id = str(letter["id"])
    assert client(system, "dlq", "show", letter_id)[1][0]["params"] == {"x": 41}
    fixed.touch()
    code, [replayed], _ = client(system, "dlq", "replay", letter_id)
    assert (code, replayed["rerun_of"]) == (0, failed["run_id"])
    done = system.end(replayed["run_id"])
    assert (done["status"], done["rerun_of"], done["task_records"]["t"]["output"]) == (
        "COMPLETED",
        failed["run_id"],
        41,
    )
    code, lines, complaint = client(system, "dlq", "replay", letter_id)
    assert (code, lines) == (5, []) and f"no dead letter {letter_id}" in complaint
    code, [rerun], _ = client(system, "rerun", failed["run_id"], "--wait", "--timeout-sec", "20")
    assert (code, rerun["status"], rerun["rerun_of"]) == (0, "COMPLETED", failed["run_id"])
    assert client(system, "dlq", "list")[1] == [[]]


def test_an_unknown_flow_leaves_a_letter_and_a_cancelled_run_none(system: System) -> None:
    ended = system.end(system.client.submit_run("nobody-knows-it", tag="cpu")["run_id"])
    assert ended["end_reason"] == "flow_not_found"
    system.client.cancel_run(system.client.submit_run("x", tag="unserved")["run_id"])
    system.letter()
    _, [[letter]], _ = client(system, "dlq", "list")
    assert (letter["reason"], letter["run_id"]) == ("flow_not_found", ended["run_id"])
    assert client(system, "dlq", "delete", str(letter["id"]))[:2] == (0, [{"id": letter["id"], "deleted": True}])


@pytest.mark.slow
def test_1000_replays(system: System, capsys: pytest.CaptureFixture[str]) -> None:
    asyncio.run(_fail(system.nats_url, "many", REPLAYS))
    started = time.perf_counter()
    code, lines, said = client(system, "dlq", "replay", "--all", "--tag", "many")
    took = time.perf_counter() - started
    with capsys.disabled():
        print(f"\n{REPLAYS} replays: {took:.2f} s ({REPLAYS / took:.0f} a second)")
    assert (code, len(lines)) == (0, REPLAYS) and f"{REPLAYS} replayed" in said
    assert len({line["run_id"] for line in lines}) == len({line["rerun_of"] for line in lines}) == REPLAYS
    assert system.client.list_dead_letters(tag="many") == []
    assert took < BOUND_SEC


async def _fail(nats_url: str, tag: str, count: int) -> None:
    """Leave failed runs and their letters, as workers would."""
    connection = await Connection(Settings(_env_file=None, nats_url=nats_url), "test").start()
    assert await connection.wait_up(10)
    runs, letters = RunStore(connection), DeadLetterStore(connection)

    async def fail(number: int) -> None:
        waiting = RunRecord(run_id=f"r{number}", flow_name="f", tag=tag, tags=[tag], params={"x": number})
        begun = claim(waiting, worker_id="w", instance_id="i", job_seq=number + 1)
        ended = settle(begun, RunStatus.FAILED, EndReason.TASK_FAILED, "no")
        reason = letter_reason(ended, execution_errors=True)
        assert reason is not None
        await runs.create(ended)
        await letters.publish(letter_of_run(ended, reason, tag=tag), key_of_run(ended, reason))

    for first in range(0, count, 50):
        await asyncio.gather(*(fail(number) for number in range(first, first + 50)))
    await connection.close()
