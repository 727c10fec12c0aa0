"""The two HTTP clients: what they send, and what they raise."""

import asyncio
import functools
import inspect
import json
from typing import Any

import httpx2
import pytest

from pyoco_server.client import patience
from pyoco_server.client.async_http import AsyncPyocoHttpClient
from pyoco_server.client.errors import ApiError, CannotConnect
from pyoco_server.client.http import PyocoHttpClient
from pyoco_server.errors import PyocoError

from .client_fakes import of_ours

URL = "http://server:8000"
KEY = "pyoco_0123.secret"
METHODS = (
    "submit_run submit_run_yaml get_run get_run_with_records get_tasks list_runs list_runs_vnext watch_run cancel_run "
    "get_workers patch_worker_hidden list_wheels list_wheel_history upload_wheel delete_wheel get_metrics close"
).split()


class Server:
    """Answers every request alike, and remembers the requests."""

    def __init__(self) -> None:
        self.seen: list[httpx2.Request] = []
        self.answer: Any = lambda _: httpx2.Response(200, json={})

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        if request.url.path == "/health":  # a client looks whether the server understands all of a call
            return of_ours(httpx2.Response(200, json={"status": "ok"}))
        request.read()
        self.seen.append(request)
        return of_ours(self.answer(request))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    server = Server()
    transport = httpx2.MockTransport(server)
    for name in ("Client", "AsyncClient"):
        monkeypatch.setattr(httpx2, name, functools.partial(getattr(httpx2, name), transport=transport))
    return server


def call(kind: str, method: str, *args: Any, **options: Any) -> Any:
    """Call a method of either client, with the same words."""
    if kind == "sync":
        with PyocoHttpClient(URL, api_key=KEY) as client:
            result = getattr(client, method)(*args, **options)
            return list(result) if method == "watch_run" else result

    async def run() -> Any:
        async with AsyncPyocoHttpClient(URL, api_key=KEY) as client:
            result = getattr(client, method)(*args, **options)
            return [event async for event in result] if method == "watch_run" else await result

    return asyncio.run(run())


both = pytest.mark.parametrize("kind", ["sync", "async"])


@pytest.mark.parametrize("method", METHODS)
def test_both_clients_have_every_method_with_the_same_arguments(method: str) -> None:
    one, other = getattr(PyocoHttpClient, method), getattr(AsyncPyocoHttpClient, method)
    assert inspect.signature(one).parameters == inspect.signature(other).parameters


@both
def test_submit_sends_what_was_given_and_nothing_else(kind: str, server: Server) -> None:
    call(kind, "submit_run", "main")
    call(kind, "submit_run", "main", {"x": 1}, tag="", tags=["a"], timeout_sec=2.5, max_attempts=3)
    assert [json.loads(request.content) for request in server.seen] == [
        {"flow_name": "main", "params": {}},
        {"flow_name": "main", "params": {"x": 1}, "tag": "", "tags": ["a"],
         "timeout_sec": 2.5, "max_attempts": 3},
    ]  # fmt: skip
    assert server.seen[0].headers["X-API-Key"] == KEY


@both
@pytest.mark.parametrize("method", ["submit_run", "submit_run_yaml"])
def test_only_a_submission_with_a_key_is_repeated(kind: str, method: str, server: Server, monkeypatch: Any) -> None:
    monkeypatch.setattr(patience, "_FIRST_PAUSE", 0.001)
    answers = [httpx2.Response(status, json={"detail": "away"}) for status in (503, 502, 504)]
    arguments: dict[str, Any] = {} if method == "submit_run" else {"workflow_yaml": "version: 1"}

    def answer(_: httpx2.Request) -> httpx2.Response:
        return script.pop(0)

    server.answer = answer
    script = [*answers, httpx2.Response(200, json={"run_id": "r"})]
    assert call(kind, method, flow_name="f", idempotency_key="k", **arguments) == {"run_id": "r"}
    assert len(server.seen) == 4 and all(b"k" in request.content for request in server.seen)
    script = [*answers]
    with pytest.raises(ApiError):
        call(kind, method, flow_name="f", **arguments)
    assert len(script) == 2


@both
def test_a_yaml_goes_as_a_form(kind: str, server: Server) -> None:
    call(kind, "submit_run_yaml", "version: 1 # é", flow_name="main", tag="cpu")
    body = server.seen[0].content.decode()
    assert 'name="workflow"; filename="flow.yaml"' in body and "version: 1 # é" in body


@both
def test_what_older_servers_would_leave_aside_goes_in_a_form_that_they_refuse(kind: str, server: Server) -> None:
    call(kind, "submit_run_yaml", "version: 1 # é", flow_name="main", tag="cpu", params={"x": "é"})
    body = server.seen[0].content.decode()
    assert 'name="workflow"\r\n\r\nversion: 1 # é' in body
    assert 'name="tag"\r\n\r\ncpu' in body and 'name="params"\r\n\r\n{"x": "\\u00e9"}' in body


@both
@pytest.mark.parametrize(
    ("method", "args", "options", "expected"),
    [
        ("get_run", ["a/b?c"], {}, "GET /runs/a%2Fb%3Fc"),
        ("get_run_with_records", ["r"], {}, "GET /runs/r?include=records"),
        ("get_tasks", ["r"], {}, "GET /runs/r/tasks"),
        ("list_runs", [], {"status": "", "flow": "f", "full": True}, "GET /runs?flow=f&include=full"),
        ("list_runs_vnext", [], {"tag": "t"}, "GET /runs?cursor=&tag=t"),
        ("list_runs_vnext", [], {"cursor": "c", "updated_after": 0.0}, "GET /runs?cursor=c&updated_after=0.0"),
        ("cancel_run", ["r"], {}, "POST /runs/r/cancel"),
        ("rerun_run", ["a/b"], {"idempotency_key": "é"}, "POST /runs/a%2Fb/rerun"),
        ("list_dead_letters", [], {"tag": "cpu", "limit": 5, "before": 9}, "GET /dlq?tag=cpu&limit=5&before=9&cursor="),
        ("list_audit", [], {"action": "run.cancel", "actor": "k", "limit": 5, "outcome": "done", "cursor": "9"},
         "GET /audit?limit=5&cursor=9&action=run.cancel&actor=k&outcome=done"),
        ("get_dead_letter", [7], {}, "GET /dlq/7"),
        ("replay_dead_letter", [7], {}, "POST /dlq/7/replay"),
        ("delete_dead_letter", [7], {}, "DELETE /dlq/7"),
        ("get_workers", [], {"scope": "all", "include_hidden": False}, "GET /workers?scope=all&include_hidden=false"),
        ("patch_worker_hidden", ["w"], {"hidden": True}, "PATCH /workers/w"),
        ("get_workers", [], {"scope": "all", "worker_id": "w"}, "GET /workers?scope=all&worker_id=w"),
        ("drain_worker", ["a/b"], {"reason": "new"}, "POST /workers/a%2Fb/drain"),
        ("list_wheels", [], {}, "GET /wheels"),
        ("list_wheel_history", [], {"limit": 3, "action": "upload"}, "GET /wheels/history?limit=3&action=upload"),
        ("upload_wheel", [], {"filename": "a.whl", "data": b"x", "tags": ["a", " b "]}, "POST /wheels"),
        ("delete_wheel", ["a.whl"], {}, "DELETE /wheels/a.whl"),
        ("get_metrics", [], {}, "GET /metrics"),
    ],
)  # fmt: skip
def test_each_method_asks_for_its_path(
    kind: str, server: Server, method: str, args: list[Any], options: dict[str, Any], expected: str
) -> None:
    server.answer = lambda _: httpx2.Response(200, json={"items": [], "next_cursor": None})
    call(kind, method, *args, **options)
    request = server.seen[0]
    assert f"{request.method} {request.url.raw_path.decode()}" == expected


def test_lists_have_one_shape_whatever_the_server_answers(server: Server) -> None:
    server.answer = lambda _: httpx2.Response(200, json=[{"run_id": "r"}])
    assert call("sync", "list_runs_vnext") == {"items": [{"run_id": "r"}], "next_cursor": None}
    server.answer = lambda _: httpx2.Response(200, json={"items": [{"run_id": "r"}], "next_cursor": "c"})
    assert call("sync", "list_runs") == [{"run_id": "r"}]


@both
@pytest.mark.parametrize(
    ("status", "exit_code"), [(401, 4), (403, 4), (404, 5), (409, 6), (413, 1), (422, 1), (500, 1), (503, 7)]
)
def test_a_refusal_says_why_and_carries_its_exit_code(kind: str, server: Server, status: int, exit_code: int) -> None:
    server.answer = lambda _: httpx2.Response(status, json={"detail": "why", "code": "c", "hint": "h"})
    for method in ("get_run", "watch_run"):
        with pytest.raises(ApiError) as caught:
            call(kind, method, "r")
        error = caught.value
        assert (error.status, error.detail, error.code, error.hint, error.exit_code) == (
            status, "why", "c", "h", exit_code,
        )  # fmt: skip
        assert isinstance(error, PyocoError)
        assert str(error) == error.message == "why"
        assert isinstance(error, httpx2.HTTPStatusError) and error.response.status_code == status
        assert KEY not in f"{error!s} {error!r} {error.hint}"


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        (httpx2.Response(422, json={"detail": [{"loc": ["body", "tag"], "msg": "too short"}]}), "tag: too short"),
        (httpx2.Response(502, text="<p>\n  bad</p>"), "the server answered HTTP 502 Bad Gateway: <p> bad</p>"),
        (httpx2.Response(302), "the server answered HTTP 302 Found"),
        (httpx2.Response(400, json=["odd"]), 'the server answered HTTP 400 Bad Request: ["odd"]'),
        (httpx2.Response(200, text="<html>"), "the server's answer is not JSON"),
    ],
)  # fmt: skip
def test_odd_answers_become_one_sentence(server: Server, response: httpx2.Response, expected: str) -> None:
    server.answer = lambda _: response
    with pytest.raises(ApiError) as caught:
        call("sync", "get_run", "r")
    assert caught.value.detail == expected and caught.value.exit_code == 1


@pytest.mark.parametrize("status", [401, 403])
def test_a_missing_key_has_a_hint_of_ours(server: Server, status: int) -> None:
    server.answer = lambda _: httpx2.Response(status, json={"detail": "api key required"})
    with pytest.raises(ApiError) as caught:
        call("sync", "get_run", "r")
    assert "PYOCO_API_KEY" in caught.value.hint


@both
@pytest.mark.parametrize("method", ["get_run", "watch_run"])
@pytest.mark.parametrize("fault", [httpx2.ConnectError, httpx2.ReadTimeout, httpx2.RemoteProtocolError])
def test_a_broken_connection_names_the_address(
    kind: str, server: Server, method: str, fault: type[Exception]
) -> None:  # fmt: skip
    def fail(_: httpx2.Request) -> httpx2.Response:
        raise fault("no luck")

    server.answer = fail
    with pytest.raises(CannotConnect) as caught:
        call(kind, method, "r")
    assert URL in caught.value.message and "no luck" in caught.value.message
    assert caught.value.exit_code == 7 and "pyoco-server up" in caught.value.hint
    assert KEY not in caught.value.message


@both
def test_watch_gives_events_with_parsed_data_and_id(kind: str, server: Server) -> None:
    text = (
        'id: 7\nevent: snapshot\ndata: {"run_id": "r",\ndata:  "ts": 1}\n\n: ping\n\n'
        "event: heartbeat\ndata: odd\n\nevent: cut short"
    )
    server.answer = lambda _: httpx2.Response(200, text=text, headers={"content-type": "text/event-stream"})
    events = call(kind, "watch_run", "r", include_records=True, since=1.5, timeout_sec=9, last_event_id="6")
    assert events == [
        {"event": "snapshot", "data": {"run_id": "r", "ts": 1}, "id": "7"},
        {"event": "heartbeat", "data": {"raw": "odd"}, "id": "7"},
    ]
    request = server.seen[0]
    assert request.url.raw_path.decode() == "/runs/r/watch?include=records&since=1.5&timeout_sec=9"
    assert request.headers["Last-Event-ID"] == "6"
    assert request.extensions["timeout"]["read"] == 10.0  # the server may be silent for three seconds


@both
def test_cancel_waits_by_watching(kind: str, server: Server) -> None:
    def answer(request: httpx2.Request) -> httpx2.Response:
        if request.method == "POST":
            return httpx2.Response(200, json={"status": "CANCELLING"})
        text = 'event: heartbeat\ndata: {}\n\nevent: snapshot\ndata: {"snapshot": {"status": "CANCELLED"}}\n\n'
        return httpx2.Response(200, text=text, headers={"content-type": "text/event-stream"})

    server.answer = answer
    assert call(kind, "cancel_run", "r", wait=True, reason="enough") == {"status": "CANCELLED"}
    assert [request.url.path for request in server.seen] == ["/runs/r/cancel", "/runs/r/watch"]
    assert json.loads(server.seen[0].content) == {"reason": "enough"}


@both
def test_cancel_gives_up_in_time(kind: str, server: Server) -> None:
    headers = {"content-type": "text/event-stream"}
    server.answer = lambda request: (
        httpx2.Response(200, json={"status": "CANCELLING"})
        if request.method == "POST"
        else httpx2.Response(200, text="event: heartbeat\ndata: {}\n\n", headers=headers)
    )
    with pytest.raises(TimeoutError, match="run r is still CANCELLING"):
        call(kind, "cancel_run", "r", wait=True, timeout_sec=1)
    assert len(server.seen) < 12  # a server that ends its streams at once is not asked without a pause
