"""``pyoco-client doctor``: what only the client can see, and every way in which a server may refuse."""

import json
import time
from typing import Any

import httpx2
import pytest

from pyoco_server import __version__
from pyoco_server.cli.client import main

from .client_fakes import AWAY, Server, fake_server

NOTED = {"severity": "warning", "code": "dead_letters", "message": "There are 3.", "hint": "Look.", "details": {}}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    server = fake_server(monkeypatch)
    answering(server)
    return server


def answering(server: Server, **doctor: Any) -> None:
    """Let the server answer."""
    told = {
        "version": __version__, "now": None, "authentication": "none", "nats_server": "2.15.1",
        "workers": {"IDLE": 1, "RUNNING": 0}, "findings": [], **doctor,
    }  # fmt: skip
    server.answer = lambda _: httpx2.Response(200, json={**told, "now": told["now"] or time.time()})


def refusing(server: Server, status: int, body: Any) -> None:
    server.answer = lambda _: httpx2.Response(status, **({"json": body} if isinstance(body, dict) else {"text": body}))


def doctor(capsys: pytest.CaptureFixture[str], *before: str, output: str = "json") -> tuple[int, dict[str, Any]]:
    code = main([*before, "doctor", "--output", output, "--lang", "en"])
    told = json.loads(capsys.readouterr().out)
    assert told["ok"] is (code == 0)
    told["codes"] = [(one["severity"], one["code"]) for one in told["findings"]]
    return code, told


def test_nothing_is_wrong(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    code, told = doctor(capsys)
    assert (code, told["codes"]) == (0, [])
    assert (told["client"], told["version"], told["nats_server"]) == (__version__, __version__, "2.15.1")
    answering(server, findings=[{**NOTED, "severity": "info", "code": "x"}])
    assert main(["doctor", "--lang", "en"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"pyoco-server {__version__} http://127.0.0.1:8000 · NATS 2.15.1 · workers: 1 IDLE",
        "info: There are 3. (x)",
        "  → Look.",
        "no problems found",
    ]
    assert {(request.url.path, request.url.query) for request in server.seen} == {("/doctor", b"lang=en")}


def test_what_the_server_found(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    answering(server, findings=[NOTED, {**NOTED, "severity": "error", "code": "nats_unreachable"}])
    code, told = doctor(capsys)
    assert (code, told["codes"]) == (1, [("error", "nats_unreachable"), ("warning", "dead_letters")])
    answering(server, findings=[NOTED])
    code, told = doctor(capsys)
    assert (code, told["codes"]) == (0, [("warning", "dead_letters")])  # worth a look, and no failure


@pytest.mark.parametrize(
    ("before", "status", "body", "code"),
    [
        ((), 401, {"detail": "api key required"}, "key_missing"),
        (("--api-key", "k"), 401, {"detail": "api key required"}, "key_invalid"),
        (("--api-key", "k"), 403, {"detail": "invalid api key"}, "key_invalid"),
        (("--api-key", "k"), 429, {"detail": "too many invalid api keys from this address"}, "key_invalid"),
        ((), 500, {"detail": "internal error", "trace_id": "abc"}, "server_fails"),
        ((), 502, "<html>Bad Gateway", "server_fails"),
        ((), 200, "<html>", "server_odd"),
        ((), 418, {"detail": "a teapot"}, "server_odd"),
        ((), 404, {"detail": "Not Found"}, "server_odd"),
        ((), 404, {"detail": "Not Found", "code": "not_found"}, "server_old"),
        ((), 503, {"detail": "NATS is not reachable", "code": "nats_unavailable"}, "server_fails"),
        ((), 200, {"status": "up"}, "server_odd"),
    ],
)
def test_a_server_that_refuses(
    server: Server, capsys: pytest.CaptureFixture[str], before: tuple[str, ...], status: int, body: Any, code: str
) -> None:
    refusing(server, status, body)
    exit_code, told = doctor(capsys, *before)
    (finding,) = told["findings"]
    assert (exit_code, finding["severity"], finding["code"]) == (1, "error", code)
    if code == "key_missing":
        assert "--api-key or PYOCO_API_KEY" in finding["hint"]
    if status == 500:
        assert "trace abc" in finding["message"]


def test_nobody_answers(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    def answer(_: httpx2.Request) -> httpx2.Response:
        raise AWAY

    server.answer = answer
    code, told = doctor(capsys, "--server", "http://10.0.0.9:8000")
    assert (code, told["codes"]) == (1, [("error", "server_unreachable")])
    assert told["findings"][0]["details"] == {"url": "http://10.0.0.9:8000", "reason": "refused"}


@pytest.mark.parametrize(
    ("behind", "codes"),
    [(0.5, []), (4, [("warning", "clock_apart")]), (-60, [("error", "clock_apart")])],
)
def test_clocks(server: Server, capsys: pytest.CaptureFixture[str], behind: float, codes: list[Any]) -> None:
    answering(server, now=time.time() - behind)
    assert doctor(capsys)[1]["codes"] == codes


def test_versions(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    answering(server, version="9.9")
    code, told = doctor(capsys)
    assert (code, told["codes"][0]) == (0, ("warning", "version_differs"))
    assert told["findings"][0]["details"] == {"ours": "9.9", "version": __version__, "who": ["pyoco-client"]}


@pytest.mark.parametrize(
    ("url", "authentication", "open_"),
    [
        ("http://10.0.0.9:8000", "none", True), ("http://example.org", "none", True), ("https://[::2]", "none", True),
        ("http://10.0.0.9:8000", "api_key", False), ("http://localhost:8000", "none", False),
        ("http://127.8.8.8:8000", "none", False), ("http://[::1]:8000", "none", False),
    ],
)  # fmt: skip
def test_open_to_everybody(
    server: Server, capsys: pytest.CaptureFixture[str], url: str, authentication: str, open_: bool
) -> None:
    answering(server, authentication=authentication)
    assert (("warning", "no_authentication") in doctor(capsys, "--server", url)[1]["codes"]) is open_
