"""``pyoco-client logs``: how lines look, and how a log is followed over broken connections."""

from collections.abc import Iterator
from typing import Any, cast

import httpx2
import pytest

from pyoco_server.cli.client import logs as command
from pyoco_server.cli.client import main
from pyoco_server.client import patience
from pyoco_server.client.errors import CannotConnect
from pyoco_server.client.http import PyocoHttpClient
from tests.unit.client_fakes import Clock, fake_server


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in (command, patience):
        monkeypatch.setattr(module, "time", clock)
    return clock


def line(text: str, task: str | None = "t", attempt: int = 1, **more: Any) -> dict[str, Any]:
    return {"time": 1.5, "attempt": attempt, "task": task, "stream": "stdout", "text": text, **more}


SHOWN = [
    ([line("a"), line("b", None)], "t | a\n- | b\n"),
    ([line("half", continued=True), line(" whole")], "t | half whole\n"),
    ([line("half", continued=True), line("other", "u"), line(" whole")], "t | half\nu | other\nt |  whole\n"),
    ([line("half", continued=True)], "t | half\n"),
    ([line("\r 1 %", continued=True), line("\r 2 %", continued=True), line("")], "t |  1 %\nt |  2 %\n"),
    ([line("\r 1 %\r 2 %\r")], "t |  2 %\n"),
    ([line("")], "t | \n"),
    ([line("\x1b[31mred\tcell\x07")], "t | ?[31mred\tcell?\n"),
    ([line("one"), line("two", attempt=2)], "t | one\n-- attempt 2 --\nt | two\n"),
    ([line("cut here", None, stream="notice")], "-- cut here --\n"),
]


@pytest.mark.parametrize(("lines", "shown"), SHOWN)
def test_lines_as_a_person_reads_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], lines: list[dict[str, Any]], shown: str
) -> None:
    server = fake_server(monkeypatch)
    server.answer = lambda _: httpx2.Response(200, json={"lines": lines})
    assert main("logs r1 --tail 5 --task t".split()) == 0
    assert capsys.readouterr().out == shown
    assert dict(server.seen[0].url.params) == {"tail": "5", "task": "t"}


class Client:
    """Gives one script of events after the other; an exception breaks the connection there."""

    def __init__(self, *scripts: list[Any]) -> None:
        self.scripts = list(scripts)
        self.asked: list[tuple[int | None, str | None]] = []

    def follow_logs(
        self, _: str, *, tail: int | None, last_event_id: str | None, **__: Any
    ) -> Iterator[dict[str, Any]]:
        self.asked.append((tail, last_event_id))
        for event in self.scripts.pop(0):
            if isinstance(event, Exception):
                raise event
            yield event


AWAY = CannotConnect("http://x", OSError("refused"))
BEAT = {"event": "heartbeat", "data": {}}
END = {"event": "end", "data": {"status": "FAILED"}, "id": "9"}


def log(position: str) -> dict[str, Any]:
    return {"event": "log", "data": {"lines": []}, "id": position}


def follow(client: Client) -> list[str]:
    return [event["event"] for event in command.follow_log(cast(PyocoHttpClient, client), "r1", tail=3)]


def test_following_goes_on_where_it_broke_off() -> None:
    client = Client([BEAT, AWAY], [log("5"), AWAY], [AWAY], [BEAT], [log("7"), END, BEAT])
    assert follow(client) == ["heartbeat", "log", "heartbeat", "log", "end"]
    assert client.asked == [(3, None), (3, None), (None, "5"), (None, "5"), (None, "5")]


def test_a_server_that_was_never_there_is_not_waited_for() -> None:
    with pytest.raises(CannotConnect):
        follow(Client([AWAY]))


def test_a_server_that_stays_away_is_given_up(clock: Clock) -> None:
    client = Client([BEAT, AWAY], *([[AWAY]] * 100))
    begun = clock.now
    with pytest.raises(CannotConnect):
        follow(client)
    assert 30 <= clock.now - begun < 45
