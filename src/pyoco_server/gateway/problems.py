"""Errors as JSON, in one place: ``detail``, a stable ``code``, a ``hint``, and a ``trace_id`` for what is our fault."""

import uuid
from typing import Any

import pydantic_core
import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from pyoco_server.errors import PyocoError

log = structlog.get_logger(__name__)

_SERVER_FAULT = 500
_UNREADABLE = 400


def install(app: FastAPI) -> None:
    """Register the handlers."""
    app.add_exception_handler(PyocoError, _known)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _unknown)


def problem(status: int, detail: Any, code: str, hint: str = "", headers: Any = None) -> JSONResponse:
    """Make an error's answer."""
    body: dict[str, Any] = {"detail": detail, "code": code, "hint": hint}
    if status >= _SERVER_FAULT:
        body["trace_id"] = uuid.uuid4().hex
        log.warning("request failed", status=status, code=code, reason=detail, err_id=body["trace_id"])
    return JSONResponse(body, status, headers=headers)


async def _known(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, PyocoError)  # noqa: S101 - registered for this class
    return problem(error.http_status, error.message, error.code, error.hint)


async def _invalid(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for this class
    items = [{key: item[key] for key in ("type", "loc", "msg", "input") if key in item} for item in error.errors()]
    plain = pydantic_core.to_jsonable_python(items, fallback=repr, inf_nan_mode="strings")
    first = items[0]
    where = ".".join(str(part) for part in first["loc"])
    return problem(422, _shorten(plain), "invalid_input", f"{where}: {first['msg']}")


async def _http(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for this class
    if error.status_code == _UNREADABLE:  # FastAPI's word for a body that is no UTF-8, or no form
        return problem(422, "the request's body cannot be read", "invalid_input", "Send JSON in UTF-8, or a form.")
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, f"http_{error.status_code}")
    return problem(error.status_code, error.detail, code, headers=error.headers)


async def _unknown(_: Request, error: Exception) -> JSONResponse:
    log.error("a request raised what nobody expected", exc_info=error)
    return problem(500, "internal error", "internal_error", "The server's log has more under this trace_id.")


def _shorten(value: Any) -> Any:
    """Cut what a caller sent back to a size fit for an error, and to characters that JSON can carry."""
    if isinstance(value, str):
        return value[:200].encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, list):
        return [_shorten(item) for item in value[:20]]
    if isinstance(value, dict):
        return {str(key)[:100]: _shorten(item) for key, item in list(value.items())[:20]}
    return value
