"""Odd values in every place of every request: an answer is never a fault of the server, and errors have one shape."""

import asyncio
import random
from typing import Any
from urllib.parse import quote

import httpx2
import pytest

from pyoco_server.model.access import Role
from pyoco_server.settings.environment import Settings

from .keyholders import asking, make_key, sent
from .test_gateway import Running, here

__all__ = ["here"]  # a fixture
pytestmark = pytest.mark.anyio

ODD = [
    "", " ", "\0", "a\0b", "%00",
    "\ud800", "\udcff\ud800", "\u2028", "\u0085", "\x1c", "é", "日本", "\U0010ffff", "١٢", "²",
    "\uff11", "-1", "-0", "0", "1e309", "-1e309", "1e-400", "nan", "inf", "Infinity", "0x10", "1_000", " 1 ", "1.0",
    "1,5",
    "9" * 19, "9" * 400, "9" * 5000, "18446744073709551616", "-9223372036854775809", "null", "true", "[]", "[1]", "{}",
    '{"u": 1e999, "r": "x"}', "eyJ1IjoxLCJyIjoiXHVkODAwIn0", "eyJ1IjpbXX0", "====", "A" * 8000, "../..", "%2e%2e%2f",
    "a,b,,c", ",", "FAILED,FAILED", "'", '"', "\\", "; DROP TABLE runs", "*", ">", "pyoco.work.>", "$JS.API", "a.b",
    "x" * 70, "x" * 300, "\r\nX-Odd: 1", "\t", "\x7f",
]  # fmt: skip
"""What may stand in a query, a path or a form."""
ODD_HEADERS = [
    value for value in ODD
    if value.isprintable() and value.strip() == value and all(ord(character) < 256 for character in value)
]  # fmt: skip
HEADERS = ("Idempotency-Key", "Last-Event-ID", "Accept-Language", "Content-Type", "X-API-Key", "Range", "If-None-Match",
           "X-Forwarded-For", "X-Forwarded-Prefix", "Accept", "Content-Encoding")  # fmt: skip
BODIES = [
    b"", b"null", b"[]", b"1", b'"x"', b"{", b"\xff\xfe", b"[" * 10_000, b'{"a":' * 300 + b"1" + b"}" * 300, b"NaN",
    b'{"flow_name":"\\ud800","params":{"\\udfff":1}}', b'{"flow_name":"f","params":{"x":1e309}}', b'{"hidden":1}',
    b'{"flow_name":"f","tag":"\\u0000"}', b'{"flow_name":"f","timeout_sec":1e308,"max_attempts":1e9}', b"\0" * 64,
    b'{"flow_name":"f","params":{"x":' + b"9" * 5000 + b"}}", b'{"flow_name":"f","flow_name":"g"}', b'{"reason":[]}',
    b'{"flow_name":["f"],"tags":[[]],"params":[]}', b"--x\r\nContent-Disposition: form-data\r\n\r\n\r\n--x--",
    b'--x\r\nContent-Disposition: form-data; name="wheel"; filename="\xff.whl"\r\n\r\nPK\r\n--x--',
    b'--x\r\nContent-Disposition: form-data; name="workflow"\r\n\r\n{{{\r\n--x\r\nContent-Disposition: form-data; '
    b'name="flow_name"\r\n\r\n\0\r\n--x--',
]  # fmt: skip
TYPES = (
    "application/json",
    "multipart/form-data; boundary=x",
    "text/plain",
    "multipart/form-data",
    "application/json; charset=x",
)


def faults(what: Any, answer: httpx2.Response) -> list[str]:
    """Say what is wrong with an answer."""
    if answer.status_code >= 500:
        return [f"{what!r}: {answer.status_code} {answer.text[:200]}"]
    if answer.status_code < 400:
        return []
    try:
        body = answer.json()
    except ValueError:
        return [f"{what!r}: {answer.status_code} is no JSON: {answer.text[:200]}"]
    good = set(body) == {"detail", "code", "hint"} and isinstance(body["detail"], str | list)
    good = good and bool(body["detail"]) and isinstance(body["code"], str) and isinstance(body["hint"], str)
    return [] if good else [f"{what!r}: {answer.status_code} has another shape: {answer.text[:200]}"]


def odd_requests(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    """Return every operation with every odd value in each of its places, and with every odd body and header."""
    made: list[tuple[str, str, dict[str, Any]]] = []
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            plain = path.replace("{letter_id}", "1").replace("{run_id}", "r").replace("{name}", "n")
            plain = plain.replace("{worker_id}", "w")
            for parameter in operation.get("parameters", []):
                name, place = parameter["name"], parameter["in"]
                for value in ODD if place != "header" else []:
                    written = quote(value, safe="", errors="surrogatepass")
                    if place == "path":
                        made.append((method, path.replace(f"{{{name}}}", written or "%20"), {}))
                    else:
                        made += [
                            (method, f"{plain}?{name}={written}", {}),
                            (method, f"{plain}?{name}={written}&{name}=1", {}),
                        ]
            made += [
                (method, f"{plain}?{name}", {})
                for name in ("%00", "%ff=%fe", "limit[]=1", "a=1;b=2", "&&==&", "x" * 5000)
            ]
            for header in HEADERS:
                made += [
                    (method, plain, {"headers": [(header.encode(), value.encode("latin-1"))]}) for value in ODD_HEADERS
                ]
            if method != "get":
                made += [
                    (method, plain, {"content": body, "headers": {"Content-Type": kind}})
                    for body in BODIES
                    for kind in TYPES
                ]
    return made


async def ask(http: httpx2.AsyncClient, requests: list[tuple[str, str, dict[str, Any]]], most: int) -> list[str]:
    """Send requests, some at a time, and say what is wrong with their answers, of so many at most."""
    wrong: list[str] = []
    left = iter(requests)

    async def some() -> None:
        for method, path, options in left:
            async with http.stream(method.upper(), path, **options) as answer:
                if not answer.headers.get("content-type", "").startswith("text/event-stream"):
                    await answer.aread()
                    wrong.extend(faults((method, path[:200], str(options)[:200]), answer))
            if len(wrong) >= most:
                return

    await asyncio.gather(*(some() for _ in range(8)))
    return wrong


async def test_some_odd_requests(here: Running) -> None:
    requests = odd_requests(here.listener._app.openapi())
    assert len(requests) > 10_000
    assert await ask(here.http, random.Random(1).sample(requests, 1200), most=20) == []


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_all_odd_requests(here: Running) -> None:
    assert await ask(here.http, odd_requests(here.listener._app.openapi()), most=20) == []


async def test_odd_requests_with_keys(settings: Settings) -> None:
    async with asking(settings) as here:
        requests = odd_requests(here.listener._app.openapi())
        key = sent(await make_key(here.gateway.keys.store, Role.OPERATOR))
        own = [one for one in requests if not isinstance(one[2].get("headers"), list)]  # those would replace the key
        for _, _, options in (mine := random.Random(2).sample(own, 300)):
            options["headers"] = {**options.get("headers", {}), **key}
        assert await ask(here.http, [*mine, *random.Random(3).sample(requests, 300)], most=20) == []


async def test_a_method_that_is_not_taken_is_told_all_that_are(here: Running) -> None:
    wanted = {
        "/runs": "GET, HEAD, POST", "/runs/r": "GET, HEAD", "/runs/counts": "GET, HEAD",
        "/runs/yaml": "GET, HEAD, POST", "/runs/r/cancel": "POST", "/dlq/1": "DELETE, GET, HEAD", "/workers/w": "PATCH",
        "/wheels/n": "DELETE, GET, HEAD", "/wheels/n/pin": "DELETE, POST", "/static/app.js": "GET, HEAD",
        "/": "GET, HEAD",
    }  # fmt: skip
    for path, allowed in wanted.items():
        for method in ("PUT", "OPTIONS", "PURGE"):
            answer = await here.http.request(method, path)
            assert (answer.status_code, answer.headers["allow"]) == (405, allowed), (method, path)
            assert faults(path, answer) == [] and answer.json()["code"] == "method_not_allowed"
        for method in allowed.split(", "):  # each of them is really taken
            assert (await here.http.request(method, path)).status_code != 405, (method, path)
    assert (await here.http.request("PUT", "/nowhere")).status_code == 404


def test_what_is_odd_is_found() -> None:
    good = {"detail": "x", "code": "c", "hint": ""}
    assert faults("", httpx2.Response(200)) == faults("", httpx2.Response(404, json=good)) == []
    for status, body in ((500, good), (404, {"detail": "Not Found"}), (422, {**good, "detail": []}), (400, None)):
        assert faults("", httpx2.Response(status, json=body) if body else httpx2.Response(status, text="Bad"))
