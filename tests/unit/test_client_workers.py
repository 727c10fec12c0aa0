"""``pyoco-client workers`` and ``workers drain``: what they ask and print, and their exit codes."""

import json
import re

import httpx2
import pytest

from pyoco_server.cli.client import main, workers
from pyoco_server.client import patience
from tests.unit.client_fakes import Clock, Server, fake_server


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    return fake_server(monkeypatch)


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in (workers, patience):
        monkeypatch.setattr(module, "time", clock)
    return clock


def test_workers_plugins_have_a_line_each(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    wheel = {"package_name": "p", "package_version": "1.0", "wheel_name": "p.whl"}
    workers = [{"worker_id": "w", "state": "IDLE", "tags": ["a", "b"], "wheel_sync": {"installed_wheels": [wheel]}}]
    server.answer = lambda _: httpx2.Response(200, json=workers)
    assert main("workers --output plugins".split()) == 0
    assert capsys.readouterr().out.splitlines()[1] == "w          IDLE   a,b   p        1.0      p.whl"


def test_workers_as_a_table(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    gpus = [
        {"index": 0, "name": "H100", "memory_used_bytes": 3 << 30, "memory_total_bytes": 80 << 30,
         "utilization_percent": 42.0},
        {"index": 1, "name": None},
    ]  # fmt: skip
    items = [
        {"worker_id": "w", "state": "RUNNING", "tags": ["a", "b"], "current_run_id": "r1", "host": "h", "slots": 4,
         "slots_in_use": 1, "draining": True, "memory_bytes": 123_456_789, "cpu_percent": 250.4, "gpus": gpus,
         "trouble": {"kind": "process", "reason": "no process can be started", "slots": 4}},
        {"worker_id": "of-an-older-version", "state": "IDLE", "tags": ["a"], "slots": 1},
    ]  # fmt: skip
    server.answer = lambda _: httpx2.Response(200, json=items)
    assert main("workers --scope all --include-hidden --limit 7 --output table".split()) == 0
    header, first, second = capsys.readouterr().out.splitlines()
    assert header.split() == "worker_id state tags current_run_id host slots draining memory cpu gpus trouble".split()
    assert re.split(" {2,}", first) == [
        "w", "RUNNING", "a,b", "r1", "h", "1/4", "yes", "118 MiB", "250%", "H100 3.0 GiB of 80 GiB 42%; 1",
        "no process can be started",
    ]  # fmt: skip
    assert second.split() == ["of-an-older-version", "IDLE", "a", "-", "-", "1", "-", "-", "-", "-", "-"]
    assert str(server.seen[0].url).endswith("/workers?scope=all&include_hidden=true&limit=7")


def test_drain(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    asked = {"worker_id": "w", "instance_id": "i", "started_at": 5.0, "state": "RUNNING", "draining": True}
    server.answer = lambda _: httpx2.Response(200, json=asked)
    assert main(["workers", "drain", "w", "--reason", "new kernel"]) == 0
    assert json.loads(capsys.readouterr().out) == asked
    assert [(one.method, one.url.path, one.content) for one in server.seen] == [
        ("POST", "/workers/w/drain", b'{"reason": "new kernel"}')
    ]


ASKED = {"worker_id": "w", "instance_id": "i", "started_at": 5.0, "state": "RUNNING", "draining": True}


@pytest.mark.parametrize(
    ("looks", "code", "shown"),
    [
        ([[ASKED], [], [{**ASKED, "state": "STOPPED_GRACEFUL"}]], 0, "STOPPED_GRACEFUL"),
        ([[{**ASKED, "instance_id": "later", "started_at": 9.0}]], 0, "STOPPED_GRACEFUL"),
        ([[{**ASKED, "instance_id": "earlier", "started_at": 1.0, "state": "STOPPED_GRACEFUL"}]], 124, "not stopped"),
        ([[{**ASKED, "state": "DISCONNECTED"}]], 1, "it was lost while it drained"),
        ([503, [ASKED], 503, [{**ASKED, "state": "STOPPED_GRACEFUL"}]], 0, "STOPPED_GRACEFUL"),
        ([401], 4, "refused"),
        ([[ASKED]], 124, "has not stopped within 60 s; it goes on draining"),
        ([503], 7, "refused"),
    ],
)
def test_waiting_for_a_drain(
    server: Server, clock: Clock, capsys: pytest.CaptureFixture[str], looks: list[object], code: int, shown: str
) -> None:
    def answer(request: httpx2.Request) -> httpx2.Response:
        if request.method == "POST":
            return httpx2.Response(200, json=ASKED)
        assert dict(request.url.params) == {"scope": "all", "include_hidden": "true", "worker_id": "w"}
        look = looks.pop(0) if len(looks) > 1 else looks[0]
        return (
            httpx2.Response(look, json={"detail": "refused"})
            if isinstance(look, int)
            else httpx2.Response(200, json=look)
        )

    server.answer = answer
    assert main("workers drain w --wait".split()) == code
    out, err = capsys.readouterr()
    assert shown in (out if code == 0 else err)
    assert sum(clock.slept) < 62


@pytest.mark.parametrize("words", ["--scope all", "--include-hidden --limit 3", "--output json"])
def test_options_of_the_list_are_not_lost_on_a_drain(
    server: Server, capsys: pytest.CaptureFixture[str], words: str
) -> None:
    assert main(["workers", *words.split(), "drain", "w"]) == 1
    first, *_ = words.split()
    said = capsys.readouterr().err
    assert first in said and "cannot be used with 'drain'" in said
    assert not server.seen
