"""What comes back: answers, refusals, events and broken connections."""

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import httpx2

from pyoco_server.client.errors import ApiError, CannotConnect, ForeignAnswer, NotJson
from pyoco_server.client.proxies import Proxy

TERMINAL = frozenset({"COMPLETED", "FAILED", "CANCELLED"})


_PROXY_KEY = 407


def check(response: httpx2.Response, proxy: Proxy | None = None) -> httpx2.Response:
    """Return a good answer.

    Args:
        response: The answer.
        proxy: Through which it came, if through any.

    Raises:
        ApiError: the answer is no good one.
    """
    if response.is_success:
        return response
    try:
        body = response.json()
    except ValueError:
        body = None
    if not isinstance(body, dict) or not body.get("detail") or (proxy and response.status_code == _PROXY_KEY):
        text = " ".join(response.text.split())[:200]
        raise ForeignAnswer(response, _named(response) + (f": {text}" if text else ""), proxy)
    detail = body["detail"]
    if isinstance(detail, list):
        detail = "; ".join(_describe(item) for item in detail)
    raise ApiError(response, str(detail), code=str(body.get("code") or ""), hint=str(body.get("hint") or ""))


def body_of(response: httpx2.Response, proxy: Proxy | None = None) -> Any:
    """Return a good answer's JSON.

    Args:
        response: The answer.
        proxy: Through which it came, if through any.

    Raises:
        ApiError: it is not JSON.
    """
    try:
        return response.json()
    except ValueError:
        raise NotJson(response, f"{_named(response)}, which is not JSON", proxy) from None


def event(received: httpx2.ServerSentEvent) -> dict[str, Any]:
    """Give a server-sent event as existing programs expect it, with its ``id`` where there is one."""
    try:
        data = json.loads(received.data)
    except ValueError:
        data = {"raw": received.data}
    return {"event": received.event or "message", "data": data, **({"id": received.id} if received.id else {})}


def snapshot_of(event: dict[str, Any]) -> dict[str, Any]:
    """Give an event's snapshot; empty when it carries none."""
    data = event["data"]
    snapshot = data.get("snapshot") if isinstance(data, dict) else None
    return snapshot if isinstance(snapshot, dict) else {}


@contextlib.contextmanager
def connection_errors(url: str, proxy: Proxy | None = None) -> Iterator[None]:
    """Turn what a broken connection raises into ``CannotConnect``.

    Args:
        url: The server's address, for the message.
        proxy: Through which it is reached, if through any.
    """
    try:
        yield
    except httpx2.RequestError as error:
        raise CannotConnect(url, error, proxy) from error


def _named(response: httpx2.Response) -> str:
    return f"HTTP {response.status_code} {response.reason_phrase}".rstrip()


def _describe(item: Any) -> str:
    if not isinstance(item, dict):
        return str(item)
    where = ".".join(str(part) for part in item.get("loc", ()) if part != "body")
    return f"{where}: {item.get('msg', '')}"
