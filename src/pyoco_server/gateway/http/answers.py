"""What routes answer beside success, as the OpenAPI document tells it: ``responses=refusals(RunNotFound, …)``."""

from collections import defaultdict
from typing import Any

from fastapi import Response
from pydantic import BaseModel, ConfigDict, Field

from pyoco_server.errors import CheckUnavailable, PyocoError, StoreFull, StoreUnavailable, TooManyChecks

JSON = "application/json"
PROBLEM = {"$ref": "#/components/schemas/Problem"}
_AFTER = {"Retry-After": {"description": "Seconds.", "required": True, "schema": {"type": "string"}}}
_HEADERS: dict[int, dict[str, Any]] = {
    401: {"WWW-Authenticate": {"required": True, "schema": {"type": "string"}}},
    429: _AFTER,
    503: _AFTER,
}
_MEANING = {
    400: "No request that could be read", 401: "No key",
    403: "Not for this caller", 404: "Not there", 409: "Not as things stand", 413: "Too large",
    422: "Not understood", 429: "Too much at a time", 500: "A fault of the server", 503: "Not now",
    507: "The store is full",
}  # fmt: skip
CHECKS = (TooManyChecks, CheckUnavailable)
"""What may stand in the way of reading a text."""
WRITES = (StoreUnavailable, StoreFull, *CHECKS)
"""What may stand in the way of a change."""
_EVENT = {
    "type": "object",
    "properties": {
        "event": {"type": "string"},
        "id": {"type": "string", "description": "Send it as Last-Event-ID to go on from there."},
        "data": {"type": "string", "contentMediaType": "application/json"},
    },
    "required": ["event", "data"],
}
EVENTS: dict[int | str, dict[str, Any]] = {
    200: {"description": "Server-sent events", "content": {"text/event-stream": {"schema": _EVENT}}}
}
"""For the ``responses`` of a route that streams events, or does so where it is asked to."""


class Complaint(BaseModel):
    """What is wrong with one value of a request."""

    type: str
    loc: list[str | int]
    """Where it is: ``body``, ``query``, ``path`` or ``header``, and the way inside."""
    msg: str
    """Follows the value's name: ``is not a whole number``."""
    input: Any = None


class Problem(BaseModel):
    """The body of every answer that is an error."""

    model_config = ConfigDict(json_schema_extra={"required": ["detail", "code", "hint"]})

    detail: str | list[Complaint]
    """A sentence; for values of the wrong kind one complaint for each."""
    code: str
    """A stable name of the error."""
    hint: str
    """What to do; empty where nobody knows."""
    trace_id: str = Field(default="")
    """Of 5xx: the server's log has more under it (``err_id``)."""


class Events(Response):
    """Names the content type of server-sent events to the document: ``response_class=Events``."""

    media_type = "text/event-stream"


class Bytes(Response):
    """Names the content type of a file to the document."""

    media_type = "application/octet-stream"


def refusals(*errors: type[PyocoError]) -> dict[int | str, dict[str, Any]]:
    """Describe the errors that a route may answer with, for its ``responses``.

    What every route may answer (a bad key, a body that is too large, …) is added by ``gateway/http/description.py``.
    """
    found: defaultdict[int, list[type[PyocoError]]] = defaultdict(list)
    for error in errors:
        found[error.http_status].append(error)
    return {status: described(status, *classes) for status, classes in sorted(found.items())}


def described(status: int, *errors: type[PyocoError]) -> dict[str, Any]:
    """Describe the answers of one status.

    Args:
        status: HTTP status.
        errors: Those that have it, which the description names.
    """
    codes = ", ".join(f"`{error.code}`" for error in errors)
    answer: dict[str, Any] = {
        "description": _MEANING[status] + (f": {codes}" if codes else ""),
        "content": {JSON: {"schema": PROBLEM}},
    }
    return answer | ({"headers": _HEADERS[status]} if status in _HEADERS else {})
