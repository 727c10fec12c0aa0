"""Whatever user code writes to its process's socket ends its own run at most; the worker runs the next one."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.acceptance.conftest import System

from .conftest import Module, output

pytestmark = pytest.mark.usercode

# The task finds the socket among its descriptors, as any code in the process can.
FIND = """
    import gc, json, os, random, socket, struct, threading

    def found():
        for number in range(3, 200):
            try:
                one = socket.socket(fileno=os.dup(number))
            except OSError:
                continue
            if one.family == socket.AF_UNIX and one.type == socket.SOCK_STREAM:
                return one
        raise LookupError("no socket")

    def named():
        from pyoco_server.worker.child.runner import Runner
        job = next(one for one in gc.get_objects() if isinstance(one, Runner))._job
        return {"run_id": job["run_id"], "attempt": job["attempt"]}

    def packet(body):
        return struct.pack(">I", len(body)) + body

    def say(**message):
        return packet(json.dumps({**named(), **message}).encode())

    def news(**fields):
        return say(type="task", name="t", fields={"state": "RUNNING", **fields})
"""
ATTACKS = {
    "deep": "packet(b'[' * 1_000_000)",
    "deep, closed": "packet(b'[' * 100_000 + b']' * 100_000)",
    "deep in a field": "packet(json.dumps({**named(), 'type': 'task', 'name': 't'}).encode()[:-1] + b', \"fields\": "
    '{"state": "RUNNING", "output": \' + b"[" * 5000 + b"]" * 5000 + b"}}")',
    "a length without end": "struct.pack('>I', 0xffffffff) + b'x' * 100_000",
    "huge": "struct.pack('>I', 60_000_000) + b'[' + b'[],' * 20_000_000",
    "no JSON": "packet(b'\\xff\\x00nonsense')",
    "no object": "packet(b'[1, 2]')",
    "an endless time limit": "say(type='planned', tasks=['t'], timeouts={'t': 1e300}) + news()",
    "a time limit of no number": "say(type='planned', tasks=['t'], timeouts={'t': float('nan')})",
    "a moment far away": "news(retry_at=1e400, started_at=1e300)",
    "a state of its own": "news(state='MINE')",
    "fields of its own": "b''.join(news(**{f'mine_{n}': 'x' * 1000}) for n in range(1000))",
    "tasks of its own": "b''.join(say(type='task', name=f't{n}', fields={'state': 'RUNNING'}) for n in range(10_000))",
    "a message of another run": "packet(json.dumps({'type': 'finished', 'run_id': 'x', 'attempt': 1, 'outcome': "
    "'completed', 'reusable': True}).encode())",
    "a failure without a reason": "say(type='finished', outcome='failed', reusable=False)",
    "an answer that nobody asked for": "say(type='tried', error=None)",
    "10,000 messages of any kind": "b''.join(packet(bytes(random.randrange(256) for _ in range(random.randrange(60)))) "
    "for _ in range(10_000))",
}
LIES = {
    "a flood of news": ("b''.join(news(output='x' * 100) for _ in range(10_000))", 10),
    "large values again and again": ("news(output='x' * 100_000)", 300),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_nonsense_ends_its_own_run(system: System, module: Callable[..., Module], isolation: str, attack: str) -> None:
    before = worker(system, isolation)
    done = module(
        f"{FIND}\n    def t():\n        found().sendall({ATTACKS[attack]})\n        threading.Event().wait(60)"
    ).run(isolation, timeout_sec=40)
    assert (done["status"], done["end_reason"]) == ("FAILED", "child_exited"), done["error"]
    assert "sent its worker what it does not understand while task 't' was running" in done["error"]
    alive_still(system, module, isolation, before)


def test_half_a_message_swallows_the_last_word_of_its_own_run(system: System, module: Callable[..., Module]) -> None:
    before = worker(system, "process")
    done = module(f"{FIND}\n    def t():\n        found().sendall(struct.pack('>I', 100_000) + b'{{')").run("process")
    assert (done["status"], done["end_reason"]) == ("FAILED", "child_exited"), done["error"]
    alive_still(system, module, "process", before)


@pytest.mark.parametrize("lie", LIES)
def test_a_flood_that_makes_sense_is_bounded_too(
    system: System, module: Callable[..., Module], isolation: str, lie: str
) -> None:
    before = worker(system, isolation)
    sent, times = LIES[lie]
    done = module(
        f"{FIND}\n    def t():\n        one, flood = found(), {sent}\n        for _ in range({times}):\n"
        "            one.sendall(flood)\n        return 'done'"
    ).run(isolation, timeout_sec=40)
    assert output(done) == "done"
    alive_still(system, module, isolation, before)


def worker(system: System, worker_id: str) -> dict[str, Any]:
    """Return the record of a worker."""
    return next(one for one in system.client.get_workers() if one["worker_id"] == worker_id)


def alive_still(system: System, module: Callable[..., Module], isolation: str, before: dict[str, Any]) -> None:
    """Check that the worker is the same process, and runs what comes next."""
    assert output(module("def t(): return 5").run(isolation)) == 5
    now = worker(system, isolation)
    assert now["started_at"] == before["started_at"]
