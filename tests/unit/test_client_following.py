"""``pyoco-client watch``, ``submit --wait`` and ``cancel --wait``: following a run to its end."""

import json
from pathlib import Path
from typing import Any

import httpx2
import pytest

from pyoco_server.cli.client import following, main
from pyoco_server.client import http, patience
from tests.unit.client_fakes import AWAY, HEARTBEAT, RUN, Clock, Server, fake_server, snapshot


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    return fake_server(monkeypatch)


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in (following, patience, http):
        monkeypatch.setattr(module, "time", clock)
    return clock


def test_a_window_ends_with_exit_0(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    server.watches = [(snapshot("RUNNING"), HEARTBEAT)]
    assert main("watch r1 --output status --timeout-sec 900 --records --since 1".split()) == 0
    assert capsys.readouterr().out == "2.5\tsnapshot\tRUNNING\tr1\n3.5\theartbeat\t-\tr1\n"
    assert dict(server.watched()[0].url.params) == {"include": "records", "since": "1.0", "timeout_sec": "600"}


def test_max_events_ends_the_watch(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    server.watches = [(snapshot("RUNNING"), HEARTBEAT, HEARTBEAT)]
    assert main("watch r1 --max-events 2".split()) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["event"] for line in lines] == ["snapshot", "heartbeat"]
    assert lines[0]["id"] == "1" and lines[0]["data"]["snapshot"]["status"] == "RUNNING"


STATUSES = [("COMPLETED", 0), ("FAILED", 3), ("CANCELLED", 8)]


@pytest.mark.parametrize(("status", "code"), STATUSES)
@pytest.mark.parametrize("more", [[], ["--max-events", "2"]])
def test_until_terminal_goes_on_over_windows_and_breaks(
    server: Server, capsys: pytest.CaptureFixture[str], status: str, code: int, more: list[str]
) -> None:
    server.watches = [(snapshot("RUNNING", 4),), (httpx2.ReadError("cut"),), AWAY, (snapshot(status, 9), HEARTBEAT)]
    assert main(["watch", "r1", "--until-terminal", "--output", "status", *more]) == code
    assert capsys.readouterr() == (f"2.5\tsnapshot\tRUNNING\tr1\n2.5\tsnapshot\t{status}\tr1\n", "")
    assert [request.headers.get("Last-Event-ID") for request in server.watched()] == [None, "4", "4", "4"]


def test_until_terminal_bears_a_busy_server(server: Server) -> None:
    busy = [httpx2.Response(status, json={"detail": "later"}) for status in (503, 502, 504)]
    server.watches = [(HEARTBEAT,), *busy, (snapshot("COMPLETED"),)]
    assert main(["watch", "r1", "--until-terminal"]) == 0


def test_a_terminal_snapshot_left_out_by_since_is_fetched(server: Server) -> None:
    server.watches = [(HEARTBEAT,), (snapshot("FAILED"),)]
    server.answer = lambda _: httpx2.Response(200, json={**RUN, "status": "FAILED"})
    assert main("watch r1 --until-terminal --since 99".split()) == 3
    assert "since" not in server.watched()[1].url.params


def test_a_run_that_vanishes_is_not_found(server: Server) -> None:
    server.watches = [(HEARTBEAT,)]
    server.answer = lambda _: httpx2.Response(404, json={"detail": "run not found", "code": "run_not_found"})
    assert main(["watch", "r1", "--until-terminal"]) == 5


def test_thirty_seconds_without_a_server_are_enough(server: Server, clock: Clock) -> None:
    server.watches = [(snapshot("RUNNING"), httpx2.ReadError("cut")), AWAY]
    begin = clock.now
    assert main(["watch", "r1", "--until-terminal"]) == 7
    assert 30 <= clock.now - begin < 45
    assert clock.slept[0] < 1 and max(clock.slept) == 3.0


@pytest.mark.parametrize("watches", [[(snapshot("RUNNING"),)], [(snapshot("RUNNING"), httpx2.ReadError("cut")), AWAY]])
def test_the_deadline_holds_whatever_the_server_does(
    server: Server, clock: Clock, capsys: pytest.CaptureFixture[str], watches: list[Any]
) -> None:
    server.watches = watches
    begin = clock.now
    assert main("watch r1 --until-terminal --timeout-sec 5".split()) == 124
    assert clock.now - begin < 8
    assert capsys.readouterr().err == "error: run r1 has not ended within 5 s\n"


def test_a_server_that_ends_streams_at_once_is_not_hammered(server: Server, clock: Clock) -> None:
    server.watches = [(HEARTBEAT,)] * 3 + [(snapshot("COMPLETED"),)]
    assert main(["watch", "r1", "--until-terminal"]) == 0
    assert len(clock.slept) == 3


@pytest.mark.parametrize(("status", "code"), STATUSES)
def test_submit_wait_prints_the_end(
    server: Server, capsys: pytest.CaptureFixture[str], tmp_path: Path, status: str, code: int
) -> None:
    flow = tmp_path / "flow.yaml"
    flow.write_text("version: 1\n")
    submitted = {"run_id": "r1", "status": "PENDING"}
    server.answer = lambda request: httpx2.Response(200, json=submitted if request.method == "POST" else RUN)
    for words in (["submit"], ["submit-yaml", "--workflow-file", str(flow), "--flow-name", "main", "--tag", "cpu"]):
        server.watches = [AWAY, (snapshot("RUNNING"),), (snapshot(status),)]
        assert main([*words, "--wait"]) == code
        assert json.loads(capsys.readouterr().out)["status"] == status


@pytest.mark.parametrize(
    ("watch", "code"), [((snapshot("RUNNING"),), 124), (AWAY, 124), (httpx2.Response(500, json={"detail": "x"}), 1)]
)
def test_a_wait_that_fails_still_tells_the_run(
    server: Server, capsys: pytest.CaptureFixture[str], watch: Any, code: int
) -> None:
    server.watches = [watch]
    assert main("submit --wait --timeout-sec 3".split()) == code
    out, err = capsys.readouterr()
    assert out == "" and "run r1 was submitted" in err


def test_cancel_waits_by_watching(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    server.answer = lambda _: httpx2.Response(200, json={**RUN, "status": "CANCELLING"})
    server.watches = [(snapshot("CANCELLING"), HEARTBEAT, snapshot("CANCELLED"))]
    assert main("cancel --run-id r1 --wait --reason enough".split()) == 8
    assert json.loads(capsys.readouterr().out)["status"] == "CANCELLED"
    assert [request.url.path for request in server.seen] == ["/runs/r1/cancel", "/runs/r1/watch"]
    assert json.loads(server.seen[0].content) == {"reason": "enough"}


def test_cancel_of_an_ended_run_does_not_wait(server: Server) -> None:
    server.answer = lambda _: httpx2.Response(200, json={**RUN, "status": "COMPLETED"})
    assert main("cancel --run-id r1 --wait".split()) == 0
    assert len(server.seen) == 1


def test_cancel_that_takes_too_long_exits_124(server: Server) -> None:
    server.watches = [(snapshot("CANCELLING"), HEARTBEAT)]
    assert main("cancel --run-id r1 --wait --timeout-sec 2".split()) == 124


def test_an_event_that_is_no_object_is_borne(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    server.watches = [("event: odd\ndata: [1]\n\n",)]
    assert main("watch r1 --output status".split()) == 0
    assert capsys.readouterr().out == "-\todd\t-\t-\n"
