"""What a client asks a server about itself: nothing of ours, and of others just what a call needs."""

import asyncio
from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from pyoco_server.client import patience
from pyoco_server.client.async_http import AsyncPyocoHttpClient
from pyoco_server.client.errors import ApiError, ServerTooOld
from pyoco_server.client.http import PyocoHttpClient
from pyoco_server.client.needs import OwnKey
from pyoco_server.gateway.app import create_app
from pyoco_server.model.level import HEADER, LEVEL
from pyoco_server.settings.environment import Settings

OLD = {"info": {"version": "0.5.1"}, "paths": {"/runs": {"post": {}, "get": {}}, "/workers": {"get": {}}}}
YAML = {"workflow_yaml": "version: 1", "flow_name": "main"}


class Server:
    """Answers every call alike, and what clients ask of itself as it is told.

    Args:
        level: What it says of itself with each answer.
        document: How it describes itself.
        answer: To everything else.
    """

    def __init__(self, level: int | None, document: Any, answer: Callable[[], httpx2.Response] | None = None) -> None:
        self.level, self.document = level, document
        self.answer = answer or (lambda: httpx2.Response(200, json={"items": [], "next_cursor": None}))
        self.asked: list[str] = []

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.asked.append(f"{request.method} {request.url.path}")
        if request.url.path == "/openapi.json":
            response = httpx2.Response(200 if self.document else 404, json=self.document or {"detail": "Not Found"})
        else:
            response = httpx2.Response(200) if request.url.path == "/health" else self.answer()
        if self.level is not None:
            response.headers[HEADER] = str(self.level)
        return response


def call(server: Server, kind: str, *calls: tuple[str, dict[str, Any]]) -> Any:
    """Make calls, one after the other, by one client."""
    if kind == "sync":
        with PyocoHttpClient("http://x") as client:
            client._client = httpx2.Client(base_url="http://x", transport=httpx2.MockTransport(server))
            return [getattr(client, method)(**options) for method, options in calls]

    async def run() -> Any:
        async with AsyncPyocoHttpClient("http://x") as other:
            other._client = httpx2.AsyncClient(base_url="http://x", transport=httpx2.MockTransport(server))
            return [await getattr(other, method)(**options) for method, options in calls]

    return asyncio.run(run())


@pytest.fixture(scope="module")
def ours() -> Any:
    return create_app(Settings(_env_file=None)).openapi()


both = pytest.mark.parametrize("kind", ["sync", "async"])
NEW: list[tuple[str, dict[str, Any]]] = [
    ("submit_run", {"flow_name": "main", "idempotency_key": "k", "timeout_sec": 1, "max_attempts": 2}),
    ("submit_run_yaml", {**YAML, "params": {"x": 1}, "idempotency_key": "k", "timeout_sec": 1, "max_attempts": 2}),
    ("cancel_run", {"run_id": "r", "reason": "wrong"}),
    ("why_run", {"run_id": "r"}),
    ("get_logs", {"run_id": "r"}),
    ("rerun_run", {"run_id": "r"}),
    ("get_workers", {"worker_id": "w"}),
    ("drain_worker", {"worker_id": "w"}),
    ("list_runs", {"status": "PENDING,RUNNING"}),
    ("list_dead_letters", {}),
    ("replay_dead_letter", {"letter_id": 1}),
    ("delete_dead_letter", {"letter_id": 1}),
    ("list_audit", {}),
    ("upload_wheel", {"filename": "a-1-py3-none-any.whl", "data": b"x", "tenant": "t"}),
    ("delete_wheel", {"wheel_name": "a", "tenant": "t"}),
    ("pin_wheel", {"wheel": "a==1"}),
    ("unpin_wheel", {"wheel": "a"}),
    ("get_doctor", {}),
]


@both
def test_a_server_of_ours_is_asked_nothing_once_it_has_answered(kind: str, ours: Any) -> None:
    server = Server(LEVEL, ours)
    call(server, kind, ("get_run", {"run_id": "r"}), *NEW)
    assert len(server.asked) == 1 + len(NEW)
    assert not {"GET /health", "GET /openapi.json"} & set(server.asked)


@pytest.mark.parametrize(("method", "options"), NEW, ids=[method for method, _ in NEW])
def test_only_what_could_be_left_aside_is_preceded_by_a_question(method: str, options: dict[str, Any]) -> None:
    server = Server(LEVEL, None)
    call(server, "sync", (method, options))
    asks = method in ("submit_run", "cancel_run", "upload_wheel", "delete_wheel")
    assert (server.asked[0] == "GET /health", len(server.asked)) == (asks, 1 + asks)


@both
def test_one_that_does_not_say_its_level_is_known_by_its_description(kind: str, ours: Any) -> None:
    server = Server(None, ours)
    call(server, kind, *NEW)
    assert (server.asked.count("GET /health"), server.asked.count("GET /openapi.json")) == (1, 1)
    later = Server(LEVEL - 1, OLD)
    with pytest.raises(ServerTooOld, match=r"older \(0.5.1\): it cannot keep the reason"):
        call(later, kind, ("cancel_run", {"run_id": "r", "reason": "wrong"}))


@both
def test_a_list_that_left_a_filter_aside_is_no_answer(kind: str) -> None:
    with pytest.raises(ServerTooOld, match="it cannot list one worker alone") as caught:
        call(Server(None, OLD), kind, ("get_workers", {"worker_id": "w"}))
    assert caught.value.hint == "Upgrade the server, or do without."


def test_what_was_carried_out_all_the_same_is_said() -> None:
    """Behind a balancer the one that was asked need not be the one that gets the call."""
    server = Server(LEVEL, OLD)

    def answer() -> httpx2.Response:
        server.level = None
        return httpx2.Response(200, json={"run_id": "r"})

    server.answer = answer
    with pytest.raises(ServerTooOld) as caught:
        call(server, "sync", ("cancel_run", {"run_id": "r", "reason": "wrong"}))
    assert caught.value.hint.startswith("It was carried out without that.")


@pytest.mark.parametrize("document", [None, {"paths": {"/items": {}}}, {"paths": []}, ["x"]])
def test_what_is_no_server_of_runs_is_not_called_an_older_one(document: Any) -> None:
    server = Server(None, document, lambda: httpx2.Response(404, json={"detail": "Not Found"}))
    with pytest.raises(ApiError, match="Not Found") as caught:
        call(server, "sync", ("why_run", {"run_id": "r"}))
    assert not isinstance(caught.value, ServerTooOld) and caught.value.exit_code == 5


def test_a_key_that_is_refused_is_not_called_an_older_server() -> None:
    def refused() -> httpx2.Response:
        return httpx2.Response(403, json={"detail": "invalid api key"})

    class Guarded(Server):
        def __call__(self, request: httpx2.Request) -> httpx2.Response:
            if request.url.path == "/openapi.json":
                return refused()
            return super().__call__(request)

    with pytest.raises(ApiError, match="invalid api key") as caught:
        call(Guarded(None, None, refused), "sync", ("cancel_run", {"run_id": "r", "reason": "wrong"}))
    assert caught.value.exit_code == 4


@both
@pytest.mark.parametrize("level", [LEVEL, None])
def test_a_key_of_ones_own_is_repeated_only_where_it_is_known(
    kind: str, level: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "_FIRST_PAUSE", 0.001)
    answers = iter([httpx2.Response(503, json={"detail": "away"}), httpx2.Response(200, json={"run_id": "r"})])
    server = Server(level, OLD, lambda: next(answers))
    wanted = ("submit_run", {"flow_name": "main", "idempotency_key": OwnKey("k")})
    if level is None:
        with pytest.raises(ApiError, match="away"):
            call(server, kind, wanted)
        assert server.asked.count("POST /runs") == 1
    else:
        assert call(server, kind, wanted) == [{"run_id": "r"}]
        assert server.asked == ["POST /runs", "POST /runs"]
