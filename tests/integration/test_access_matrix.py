"""Who may do what: every path and method of the OpenAPI document, asked by everybody there is.

A new route without a line in ``NEEDS`` makes this fail.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import httpx2
import pytest

from pyoco_server.gateway import attempts
from pyoco_server.gateway.app import create_app
from pyoco_server.gateway.auth import needed
from pyoco_server.gateway.guard import doors
from pyoco_server.model.access import Role
from pyoco_server.model.apikey import ApiKey
from pyoco_server.settings import Settings

from .keyholders import asking, guarded, make_key, sent
from .test_gateway import Running

pytestmark = pytest.mark.anyio

PUBLIC = None


@dataclass(frozen=True)
class Line:
    """A request, the role that it needs, and how it is answered when it is allowed."""

    request: str
    role: Role | None
    status: int = 200
    options: dict[str, Any] = field(default_factory=dict)


NEEDS = [
    Line("GET /health", PUBLIC),
    Line("GET /ready", PUBLIC),
    Line("GET /", PUBLIC),
    Line("GET /static/app.js", PUBLIC),
    Line("GET /openapi.json", Role.VIEWER),
    Line("GET /metrics", Role.VIEWER),
    Line("GET /whoami", Role.VIEWER),
    Line("GET /audit", Role.ADMIN),
    Line("GET /doctor", Role.VIEWER),
    Line("GET /overview", Role.VIEWER),
    Line("GET /events", Role.VIEWER),
    Line("GET /runs", Role.VIEWER),
    Line("GET /runs/counts", Role.VIEWER),
    Line("POST /runs", Role.MEMBER, options={"json": {"flow_name": "f", "tag": "nobody"}}),
    Line("POST /runs/yaml", Role.MEMBER, 422),
    Line("GET /runs/{run_id}", Role.VIEWER),
    Line("GET /runs/{run_id}/tasks", Role.VIEWER),
    Line("GET /runs/{run_id}/yaml", Role.VIEWER, 404),
    Line("GET /runs/{run_id}/graph", Role.VIEWER),
    Line("GET /runs/{run_id}/watch", Role.VIEWER),
    Line("GET /runs/{run_id}/logs", Role.VIEWER),
    Line("GET /runs/{run_id}/why", Role.VIEWER),
    Line("POST /runs/{run_id}/cancel", Role.MEMBER),
    Line("POST /runs/{run_id}/rerun", Role.MEMBER),
    Line("GET /dlq", Role.VIEWER),
    Line("GET /dlq/{letter_id}", Role.VIEWER, 404),
    Line("POST /dlq/{letter_id}/replay", Role.MEMBER, 404),
    Line("DELETE /dlq/{letter_id}", Role.MEMBER, 404),
    Line("GET /workers", Role.VIEWER),
    Line("PATCH /workers/{worker_id}", Role.MEMBER, 404, {"json": {"hidden": True}}),
    Line("POST /workers/{worker_id}/drain", Role.MEMBER, 404),
    Line("GET /wheels", Role.VIEWER),
    Line("POST /wheels", Role.MEMBER, 422),
    Line("GET /wheels/history", Role.VIEWER),
    Line("GET /wheels/{name}", Role.VIEWER, 404),
    Line("DELETE /wheels/{name}", Role.MEMBER, 404),
    Line("POST /wheels/{name}/pin", Role.MEMBER, 404),
    Line("DELETE /wheels/{name}/pin", Role.MEMBER, 404),
]
NOT_IN_THE_DOCUMENT = {"GET /", "GET /static/app.js", "GET /openapi.json"}
NOT_THERE = [Line("GET /nowhere", Role.VIEWER, 404), Line("DELETE /runs", Role.VIEWER, 405)]

NO_KEY = (401, "api_key_required")
BAD_KEY = (403, "invalid_api_key")
TOO_LOW = (403, "role_too_low")
NOT_YOURS = (404, "run_not_found")
OTHER = "another tenant"
NOBODY = {
    "no key": NO_KEY, "empty": NO_KEY, "garbage": BAD_KEY, "malformed": BAD_KEY, "unknown id": BAD_KEY,
    "wrong secret": BAD_KEY, "revoked": BAD_KEY, "expired": BAD_KEY,
}  # fmt: skip


@dataclass(frozen=True)
class Everybody:
    """A gateway, and a key of each kind."""

    here: Running
    keys: dict[str, dict[str, str]]
    run_id: str


@pytest.fixture(scope="module")
def unlimited() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attempts, "_BURST_SEC", 1e9)
        yield


@pytest.fixture
async def everybody(settings: Settings, unlimited: None) -> AsyncIterator[Everybody]:
    async with asking(settings) as here:
        store = here.gateway.keys.store
        member = await make_key(store)
        revoked, expired = await make_key(store), await make_key(store, expires_at=time.time() - 1)
        await store.revoke(revoked.key_id, time.time())
        keys = {
            "no key": {},
            "empty": sent(""),
            "garbage": sent("' OR 1=1 --"),
            "malformed": sent(member.reveal()[:-1]),
            "unknown id": sent(ApiKey(ApiKey.new().key_id, member.secret)),
            "wrong secret": sent(ApiKey(member.key_id, ApiKey.new().secret)),
            "revoked": sent(revoked),
            "expired": sent(expired),
            "viewer": sent(await make_key(store, Role.VIEWER)),
            "member": sent(member),
            "admin": sent(await make_key(store, Role.ADMIN)),
            "member of another tenant": sent(await make_key(store, Role.MEMBER, "other")),
            "admin of another tenant": sent(await make_key(store, Role.ADMIN, "other")),
        }
        made = await here.http.post("/runs", json={"flow_name": "f", "tag": "nobody"}, headers=keys["member"])
        run_id = str(made.json()["run_id"])
        await here.http.post(f"/runs/{run_id}/cancel", headers=keys["member"])
        yield Everybody(here, keys, run_id)


async def ask(http: httpx2.AsyncClient, line: Line, path: str, headers: dict[str, str]) -> httpx2.Response:
    """Send a request; of an event stream the head alone is read."""
    async with http.stream(line.request.split()[0], path, headers=headers, **line.options) as answer:
        if not is_stream(answer):
            await answer.aread()
    return answer


def is_stream(answer: httpx2.Response) -> bool:
    """Tell whether an answer goes on."""
    return answer.headers.get("content-type", "").startswith("text/event-stream")


def expected(line: Line, who: str) -> tuple[int, str | None]:
    """Give the status, and the code where the guard answers."""
    if line.role is PUBLIC:
        return line.status, None
    if who in NOBODY:
        return NOBODY[who]
    if not Role(who.partition(" ")[0]).allows(line.role):
        return TOO_LOW
    return NOT_YOURS if who.endswith(OTHER) and "{run_id}" in line.request else (line.status, None)


async def test_the_matrix(everybody: Everybody, capsys: pytest.CaptureFixture[str]) -> None:
    values = {"run_id": everybody.run_id, "letter_id": "1", "worker_id": "w", "name": "x-1-py3-none-any.whl"}
    wrong, cells = [], 0
    for line in [*NEEDS, *NOT_THERE]:
        path = line.request.split()[1].format(**values)
        answers = await asyncio.gather(
            *(ask(everybody.here.http, line, path, headers) for headers in everybody.keys.values())
        )
        for who, answer in zip(everybody.keys, answers, strict=True):
            status, code = expected(line, who)
            cells += 1
            if answer.status_code != status or (code and answer.json()["code"] != code):
                wrong.append((line.request, who, answer.status_code, answer.text[:80]))
            if (who in NOBODY or who.endswith(OTHER)) and not is_stream(answer):
                assert everybody.run_id not in answer.text, (line.request, who)
            if (status, code) == NO_KEY:
                assert answer.json()["detail"] == "api key required"
            elif (status, code) == BAD_KEY:
                assert answer.json() == {**answer.json(), "detail": "invalid api key"}
    assert wrong == []
    with capsys.disabled():
        print(f" {cells} requests: {cells // len(everybody.keys)} routes by {len(everybody.keys)} callers", end=" ")


async def test_bad_keys_cannot_be_told_apart(everybody: Everybody) -> None:
    bad = [who for who, answer in NOBODY.items() if answer == BAD_KEY]
    answers = [await everybody.here.http.get("/runs", headers=everybody.keys[who]) for who in bad]
    assert len({answer.content for answer in answers}) == 1
    unstable = ("date",)
    assert len({str([item for item in answer.headers.items() if item[0] not in unstable]) for answer in answers}) == 1


def test_every_route_is_in_the_matrix(settings: Settings) -> None:
    document = create_app(settings).openapi()["paths"]
    there = {f"{method.upper()} {path}" for path, methods in document.items() for method in methods}
    listed = {line.request for line in NEEDS}
    assert len(listed) == len(NEEDS)
    assert there == listed - NOT_IN_THE_DOCUMENT


def test_the_document_tells_which_key_each_path_needs(settings: Settings) -> None:
    document = create_app(guarded(settings, http_api_key_header="X-Our-Key")).openapi()
    [(name, scheme)] = document["components"]["securitySchemes"].items()
    assert (scheme["type"], scheme["in"], scheme["name"]) == ("apiKey", "header", "X-Our-Key")
    roles = {line.request: line.role for line in NEEDS}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            role = roles[f"{method.upper()} {path}"]
            assert operation.get("security") == (None if role is PUBLIC else [{name: [role.value]}]), (method, path)
    assert "ApiKey" not in str(create_app(settings).openapi())  # where there are no keys nobody needs one


def test_every_route_says_what_it_needs(settings: Settings) -> None:
    app = create_app(settings)
    silent = []
    for door in doors(app):
        declared = door.route.endpoint or getattr(door.route.original_route, "app", None)
        if not hasattr(declared, "_pyoco_needed_role"):
            silent.append(door.route.path)
    assert silent == []
    assert needed(lambda: None) is Role.ADMIN  # what a silent one would need
