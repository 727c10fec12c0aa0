"""``pyoco-client dlq``: which letters it takes, what it prints, how it ends."""

import json
from collections.abc import Callable

import httpx2
import pytest

from pyoco_server.cli.client import main
from tests.unit.client_fakes import Server, fake_server

Letters = dict[int, httpx2.Response | Exception]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    return fake_server(monkeypatch)


def problem(status: int, detail: str) -> httpx2.Response:
    return httpx2.Response(status, json={"detail": detail, "code": "c", "hint": "do this"})


def holding(letters: Letters) -> Callable[[httpx2.Request], httpx2.Response]:
    """Answer as a server that holds these letters; each value answers a replay or deletion."""

    def answer(request: httpx2.Request) -> httpx2.Response:
        if request.method == "GET":
            before = int(request.url.params.get("before", 10**9))
            limit = int(request.url.params["limit"])
            ids = sorted((number for number in letters if number < before), reverse=True)
            return httpx2.Response(200, json=[{"id": number} for number in ids[:limit]])
        given = letters[int(request.url.path.split("/")[2])]
        if isinstance(given, Exception):
            raise given
        return given

    return answer


def good(number: int) -> httpx2.Response:
    return httpx2.Response(200, json={"run_id": f"new{number}", "status": "PENDING", "rerun_of": f"old{number}"})


def test_a_table_shows_the_errors_first_line(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    letter = {"id": 3, "reason": "execution_error", "tag": "cpu", "run_id": "r", "flow_name": "f"}
    items = [{**letter, "error": "boom\nmore"}, {**letter, "id": 2, "error": "x" * 200}, {"id": 1}]
    server.answer = lambda _: httpx2.Response(200, json=items)
    assert main("dlq list --tag cpu --limit 3 --before 9 --reason invalid_job --run-id r --output table".split()) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["id", "reason", "tag", "run_id", "flow_name", "error"]
    assert lines[1].endswith("boom") and lines[2].endswith("x…") and len(lines[2]) < 140
    asked = {"tag": "cpu", "limit": "3", "before": "9", "reason": "invalid_job", "run_id": "r", "cursor": ""}
    assert dict(server.seen[0].url.params) == asked


def test_short_pages_are_filled_up(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    pages = {"": ([9], "7"), "7": ([], "5"), "5": ([4, 3], "3")}

    def answer(request: httpx2.Request) -> httpx2.Response:
        ids, following = pages[request.url.params["cursor"]]
        return httpx2.Response(200, json={"items": [{"id": number} for number in ids], "next_cursor": following})

    server.answer = answer
    assert main("dlq list --limit 3".split()) == 0
    assert [item["id"] for item in json.loads(capsys.readouterr().out)] == [9, 4, 3]
    assert [request.url.params["limit"] for request in server.seen] == ["3", "2", "2"]


def test_several_replays_print_a_line_each_and_end_with_the_first_refusals_code(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    server.answer = holding({7: good(7), 8: problem(409, "no params"), 9: problem(404, "no dead letter 9")})
    assert main("dlq replay 7 8 9 7".split()) == 6
    out, err = capsys.readouterr()
    assert [json.loads(line) for line in out.splitlines()] == [
        {"id": 7, "run_id": "new7", "status": "PENDING", "rerun_of": "old7"}
    ]
    assert err == "error: no params\nhint: do this\nerror: no dead letter 9\nhint: do this\n"
    assert len(server.seen) == 3


def test_all_of_a_tag_goes_page_by_page_and_minds_no_letter_that_is_gone(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    letters: Letters = {number: good(number) for number in range(1, 451)}
    letters[44] = problem(404, "gone")
    server.answer = holding(letters)
    assert main("dlq delete --all --tag cpu".split()) == 0
    out, err = capsys.readouterr()
    ids = [json.loads(line)["id"] for line in out.splitlines()]
    assert ids == [number for number in range(450, 0, -1) if number != 44]
    assert err == "449 deleted\n"
    assert {request.url.params["tag"] for request in server.seen if request.method == "GET"} == {"cpu"}
    assert {request.method for request in server.seen} == {"GET", "DELETE"}


@pytest.mark.parametrize(
    ("trouble", "code"), [(problem(503, "NATS away"), 7), (httpx2.ConnectError("refused"), 7)]
)  # fmt: skip
def test_a_server_that_is_away_ends_it(
    server: Server, capsys: pytest.CaptureFixture[str], trouble: httpx2.Response | Exception, code: int
) -> None:
    server.answer = holding(dict.fromkeys(range(1, 300), trouble))
    assert main("dlq replay --all --tag cpu".split()) == code
    assert capsys.readouterr().err.count("error: ") == 1
    tried = {request.url.path for request in server.seen if request.method == "POST"}
    assert 1 <= len(tried) <= 8  # those under way side by side, and none after the first that failed


@pytest.mark.parametrize(
    "words", ["", "7 --all --tag a", "--all", "7 --tag a", "--tag a", "x", "0"]
)  # fmt: skip
def test_what_is_no_selection(server: Server, capsys: pytest.CaptureFixture[str], words: str) -> None:
    assert main(["dlq", "replay", *words.split()]) == 1
    assert "error: " in capsys.readouterr().err and not server.seen
