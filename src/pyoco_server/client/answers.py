"""What comes back: answers, refusals and broken connections."""

import json
from typing import Any

import httpx2

from pyoco_server.errors import PyocoError

_EXIT_CODES = {401: 4, 403: 4, 404: 5, 409: 6, 503: 7}


class ApiError(PyocoError):
    """The server refused.

    Args:
        status: HTTP status.
        detail: The server's reason.
        code: Its stable id, such as ``run_not_found``.
        hint: What to do.
    """

    def __init__(self, status: int, detail: str, code: str, hint: str) -> None:
        super().__init__(detail, hint=hint)
        self.status = status
        self.detail = detail
        self.code = code
        self.exit_code = _EXIT_CODES.get(status, 1)


class CannotConnect(PyocoError):
    """The server cannot be reached, or the connection broke."""

    code = "cannot_connect"
    exit_code = 7

    def __init__(self, url: str, reason: object) -> None:
        super().__init__(
            f"cannot reach the server at {url}: {reason}", hint="Is it running? Start it with: pyoco-server up"
        )


def check(response: httpx2.Response) -> httpx2.Response:
    """Return a good answer.

    Raises:
        ApiError: the answer is no good one.
    """
    if response.is_success:
        return response
    try:
        body = response.json()
    except ValueError:
        body = {}
    body = body if isinstance(body, dict) else {}
    detail = body.get("detail") or response.text[:500] or response.reason_phrase
    if isinstance(detail, list):
        detail = "; ".join(_describe(item) for item in detail)
    raise ApiError(response.status_code, str(detail), str(body.get("code", "")), str(body.get("hint", "")))


def event(received: httpx2.ServerSentEvent) -> dict[str, Any]:
    """Give a server-sent event as existing programs expect it."""
    try:
        data = json.loads(received.data)
    except ValueError:
        data = {"raw": received.data}
    return {"event": received.event or "message", "data": data, **({"id": received.id} if received.id else {})}


def _describe(item: Any) -> str:
    if not isinstance(item, dict):
        return str(item)
    where = ".".join(str(part) for part in item.get("loc", ()) if part != "body")
    return f"{where}: {item.get('msg', '')}"
