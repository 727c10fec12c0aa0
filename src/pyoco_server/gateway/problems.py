"""Errors as JSON, in one place: ``detail``, a stable ``code``, a ``hint``, and a ``trace_id`` for what is our fault."""

import uuid
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from pyoco_server.errors import PyocoError
from pyoco_server.gateway.http.complaints import complaints
from pyoco_server.model.values import clean_value

log = structlog.get_logger(__name__)

_SERVER_FAULT = 500
_UNAVAILABLE = 503
_SOON = "1"
"""After so many seconds what is unavailable may be tried again."""
_UNREADABLE = 400
_NOT_FOUND = 404
_NOT_ALLOWED = 405
_SHOWN_ITEMS = 20
_SHOWN_CHARACTERS = 200
_SHOWN_DEPTH = 8
_SHOWN_BYTES = 1 << 20


def install(app: FastAPI) -> None:
    """Register the handlers."""
    app.add_exception_handler(PyocoError, _known)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _unknown)


def problem(
    status: int, detail: Any, code: str, hint: str = "", *, headers: Any = None, cause: Exception | None = None
) -> JSONResponse:
    """Make an error's answer; one that is our fault is logged under the ``trace_id`` that the caller sees.

    Args:
        status: HTTP status.
        detail: A sentence, or FastAPI's list.
        code: Stable name of the error.
        hint: What to do.
        headers: Further headers.
        cause: An exception that nobody expected; its traceback is logged.
    """
    body: dict[str, Any] = {"detail": detail, "code": code, "hint": hint}
    if status >= _SERVER_FAULT:
        body["trace_id"] = uuid.uuid4().hex
        tell = log.warning if cause is None else log.error
        tell("request failed", status=status, code=code, reason=detail, err_id=body["trace_id"], exc_info=cause)
    # A client that repeats it had better do so on a new connection: a balancer may know a gateway that is better off.
    away = {"Connection": "close", "Retry-After": _SOON} if status == _UNAVAILABLE else {}
    return JSONResponse(body, status, headers={**(headers or {}), **away})


async def _known(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, PyocoError)  # noqa: S101 - registered for this class
    # A message may quote what the caller sent.
    return problem(error.http_status, _clean(error.message), error.code, _clean(error.hint))


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for this class
    items, hint = complaints(request, list(error.errors()))
    return problem(422, clean_value(_shorten(items), _SHOWN_BYTES), "invalid_input", _clean(hint))


async def _http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for this class
    if isinstance(error.__cause__, PyocoError):
        return await _known(request, error.__cause__)
    if error.status_code == _UNREADABLE:  # FastAPI's word for a body that is no UTF-8, or no form
        return problem(422, "the request's body cannot be read", "invalid_input", "Send JSON in UTF-8, or a form.")
    code, hint = f"http_{error.status_code}", ""
    if error.status_code == _NOT_FOUND:
        code, hint = "not_found", "GET /openapi.json lists every path."
    elif error.status_code == _NOT_ALLOWED:
        code, hint = "method_not_allowed", "GET /openapi.json lists every path and its methods."
    return problem(error.status_code, error.detail, code, hint, headers=error.headers)


async def _unknown(_: Request, error: Exception) -> JSONResponse:
    hint = "The server's log has more under this trace_id."
    return problem(500, "internal error", "internal_error", hint, cause=error)


def _clean(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8")


def _shorten(value: Any, depth: int = _SHOWN_DEPTH) -> Any:
    """Cut what a caller sent back to a size fit for an error."""
    if isinstance(value, str):
        return _clean(value[:_SHOWN_CHARACTERS])
    if isinstance(value, (list, tuple, dict)) and not depth:
        return "…"
    if isinstance(value, (list, tuple)):
        return [_shorten(item, depth - 1) for item in value[:_SHOWN_ITEMS]]
    if isinstance(value, dict):
        return {
            _clean(str(key)[:_SHOWN_CHARACTERS]): _shorten(item, depth - 1)
            for key, item in list(value.items())[:_SHOWN_ITEMS]
        }
    return value
