"""Who may do what: every line of ``gateway/access/rights.py``, asked by everybody there is.

A new route without a line there makes this fail.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import httpx2
import pytest

from pyoco_server.gateway.access import failed_keys as attempts
from pyoco_server.gateway.access.guard import doors
from pyoco_server.gateway.access.rights import PUBLIC, RIGHTS, lines_of, needed
from pyoco_server.gateway.app import create_app
from pyoco_server.model.access import Role
from pyoco_server.model.apikey import ApiKey
from pyoco_server.settings.environment import Settings

from .keyholders import asking, guarded, make_key, sent
from .test_gateway import Running

pytestmark = pytest.mark.anyio


@dataclass(frozen=True)
class Line:
    """A request, the role that it needs, and how it is answered when it is allowed."""

    request: str
    role: Role | None
    status: int = 200
    options: dict[str, Any] = field(default_factory=dict)


ANSWERS: dict[str, tuple[int, dict[str, Any]]] = {
    "POST /runs": (200, {"json": {"flow_name": "f", "tag": "nobody"}}),
    "POST /runs/yaml": (422, {}),
    "GET /runs/{run_id}/yaml": (404, {}),
    "GET /dlq/{letter_id}": (404, {}),
    "POST /dlq/{letter_id}/replay": (404, {}),
    "DELETE /dlq/{letter_id}": (404, {}),
    "PATCH /workers/{worker_id}": (404, {"json": {"hidden": True}}),
    "POST /workers/{worker_id}/drain": (404, {}),
    "POST /wheels": (422, {}),
    "GET /wheels/{name}": (404, {}),
    "DELETE /wheels/{name}": (404, {}),
    "POST /wheels/{name}/pin": (404, {}),
    "DELETE /wheels/{name}/pin": (404, {}),
}
"""How a request is answered when it is allowed, where that is not 200, and what is sent with it."""
MOUNTED = {"* /static": "GET /static/app.js"}
NEEDS = [Line(MOUNTED.get(line, line), role, *ANSWERS.get(line, (200, {}))) for line, role in RIGHTS.items()]
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
        patch.setattr(attempts, "_BURST", 10**9)
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
            "operator": sent(await make_key(store, Role.OPERATOR)),
            "operator of another tenant": sent(await make_key(store, Role.OPERATOR, "other")),
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
    # What reads comes first: the trail would tell another tenant's admin of what that one has asked for in vain.
    for line in sorted([*NEEDS, *NOT_THERE], key=lambda line: not line.request.startswith("GET ")):
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


def test_every_route_has_a_line_and_every_line_a_route(settings: Settings) -> None:
    there = {line for door in doors(create_app(settings)) for line in lines_of(door.route.path, door.route.methods)}
    assert there == set(RIGHTS)
    assert needed(["GET /a-new-one"]) is Role.OPERATOR  # what one without a line would need
    with pytest.raises(ValueError, match="different roles"):
        needed(["GET /runs", "POST /runs"])


def test_what_changes_something_is_not_for_viewers() -> None:
    readers = {line for line, role in RIGHTS.items() if role in (PUBLIC, Role.VIEWER)}
    assert {line.split()[0] for line in readers} == {"GET", "*"}
    shared = {line for line in RIGHTS if line.split()[1].startswith("/workers/")}
    assert {RIGHTS[line] for line in shared} == {Role.OPERATOR}
