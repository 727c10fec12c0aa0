"""What each call sends: pure functions that the two clients share."""

import contextlib
import json
import os
import re
import ssl
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote, urlsplit

import httpx2

from pyoco_server.client.proxies import Proxy, proxy_for
from pyoco_server.errors import InvalidInput
from pyoco_server.model.idempotency import check_key

READ_TIMEOUT = 10.0
"""Seconds without a byte after which a watch counts as broken; the server sends one at least every three."""

UPLOAD_TIMEOUT = httpx2.Timeout(60.0, connect=10.0, read=600.0)
"""The server answers when a wheel has arrived, was looked into and is stored."""

DEFAULT_LETTERS = 50
"""So many dead letters are listed when nobody says how many."""

_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_HEADER_VALUE = re.compile(r"[!-~]+([ \t]+[!-~]+)*")
_DEEPEST = 20


@dataclass(frozen=True)
class Call:
    """One HTTP request: the arguments of ``Client.request``."""

    method: str
    path: str
    options: dict[str, Any] = field(default_factory=dict)


def client_options(
    base_url: str, api_key: str | None, api_key_header: str, timeout: float
) -> tuple[dict[str, Any], Proxy | None]:
    """Return the arguments of ``httpx2.Client``, and the proxy among them; no message about them ever shows the key.

    Raises:
        InvalidInput: an address that is none or holds a password, a key that no header can carry, or something in the
            environment (proxies, certificates) that cannot be used.
    """
    headers = {}
    if api_key:
        if not _HEADER_NAME.fullmatch(api_key_header):
            raise InvalidInput(f"{api_key_header!r} is not the name of an HTTP header")
        if not _HEADER_VALUE.fullmatch(api_key):
            raise InvalidInput(
                "the API key has characters that an HTTP header cannot carry",
                hint="Copy the key alone, without line ends around it.",
            )
        headers[api_key_header] = api_key
    url = check_base_url(base_url)
    proxy = proxy_for(url)
    # What the library would read from the environment is read here, where it can be said what is wrong with it.
    environment = {"trust_env": False, "verify": certificates(), "proxy": proxy.url if proxy else None}
    return {"base_url": url, "headers": headers, "timeout": timeout, **environment}, proxy


def certificates() -> ssl.SSLContext:
    """Return what servers' certificates are checked with: the system's, or what ``SSL_CERT_FILE`` names.

    Raises:
        InvalidInput: that cannot be read.
    """
    try:
        return httpx2.create_ssl_context()
    except (OSError, ssl.SSLError) as error:
        named = [name for name in ("SSL_CERT_FILE", "SSL_CERT_DIR") if os.environ.get(name)]
        if not named:
            raise
        raise InvalidInput(
            f"the certificates in {os.environ[named[0]]!r} (from {named[0]}) cannot be read: {error}",
            hint=f"Correct {named[0]}, or unset it to use the system's certificates.",
        ) from None


def check_base_url(url: str) -> str:
    """Return the server's URL in a form to build on.

    Raises:
        InvalidInput: not http or https, or with a user or password in it.
    """
    if "@" in url:  # before anything else, so that no message repeats a password
        raise InvalidInput("the server's address holds a user name or password", hint="Pass a key instead: --api-key")
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and not (parts.query or parts.fragment)
        usable = usable and parts.port != 0 and bool(httpx2.URL(url).host)
    except (ValueError, httpx2.InvalidURL):
        usable = False
    if not usable:
        raise InvalidInput(f"the server's address {url!r} is not a URL", hint="Write it as http://127.0.0.1:8000")
    return url.rstrip("/")


def submit(flow_name: str, params: dict[str, Any] | None, **options: Any) -> Call:
    """``POST /runs``."""
    return Call("POST", "/runs", _json({"flow_name": flow_name, "params": params or {}, **_given(options)}))


def submit_yaml(workflow_yaml: str | bytes, flow_name: str, params: dict[str, Any] | None, **options: Any) -> Call:
    """``POST /runs/yaml``."""
    body = workflow_yaml.encode() if isinstance(workflow_yaml, str) else workflow_yaml
    form = {"flow_name": flow_name, **{name: str(value) for name, value in _given(options).items()}}
    if params:
        form["params"] = encode(params, "params")
    return Call("POST", "/runs/yaml", {"files": {"workflow": ("flow.yaml", body, "application/x-yaml")}, "data": form})


def run(run_id: str, suffix: str = "", **query: Any) -> Call:
    """``GET /runs/{id}…``."""
    return Call("GET", f"/runs/{_part(run_id)}{suffix}", {"params": _given(query)})


def watch(run_id: str, *, include_records: bool, last_event_id: str | None, **query: Any) -> Call:
    """``GET /runs/{id}/watch``, with time-outs fit for a stream."""
    return _stream(run(run_id, "/watch", include="records" if include_records else None, **query), last_event_id)


def follow_logs(run_id: str, *, last_event_id: str | None, **query: Any) -> Call:
    """``GET /runs/{id}/logs?follow=true``, with time-outs fit for a stream."""
    return _stream(run(run_id, "/logs", follow="true", **query), last_event_id)


def cancel(run_id: str, reason: str | None) -> Call:
    """``POST /runs/{id}/cancel``."""
    return Call("POST", f"/runs/{_part(run_id)}/cancel", _json({"reason": reason}) if reason else {})


def list_runs(*, full: bool, **query: Any) -> Call:
    """``GET /runs``; an empty filter is none."""
    return Call("GET", "/runs", {"params": {**_filled(query), **({"include": "full"} if full else {})}})


def list_page(*, full: bool, **query: Any) -> Call:
    """``GET /runs`` as a page: an empty cursor asks for that form."""
    call = list_runs(full=full, **query)
    return Call(call.method, call.path, {"params": {"cursor": "", **call.options["params"]}})


def workers(**query: Any) -> Call:
    """``GET /workers``."""
    return Call("GET", "/workers", {"params": _filled(query)})


def patch_worker(worker_id: str, hidden: bool) -> Call:
    """``PATCH /workers/{id}``."""
    return Call("PATCH", f"/workers/{_part(worker_id)}", _json({"hidden": bool(hidden)}))


def drain_worker(worker_id: str, reason: str | None) -> Call:
    """``POST /workers/{id}/drain``."""
    return Call("POST", f"/workers/{_part(worker_id)}/drain", _json({"reason": reason}) if reason else {})


def rerun(run_id: str, idempotency_key: str | None) -> Call:
    """``POST /runs/{id}/rerun``."""
    path = f"/runs/{_part(run_id)}/rerun"
    if idempotency_key is None:
        return Call("POST", path)
    # A header's bytes beyond ASCII are UTF-8 here; the server reads them so.
    return Call("POST", path, {"headers": {"Idempotency-Key": check_key(idempotency_key).encode()}})


def dead_letters(*, cursor: str, **query: Any) -> Call:
    """``GET /dlq`` as a page: an empty cursor asks for that form."""
    return Call("GET", "/dlq", {"params": {**_filled(query), "cursor": cursor}})


def dead_letter(letter_id: int, method: str = "GET", suffix: str = "") -> Call:
    """``GET`` or ``DELETE /dlq/{id}``, ``POST /dlq/{id}/replay``."""
    return Call(method, f"/dlq/{int(letter_id)}{suffix}")


def audit(**query: Any) -> Call:
    """``GET /audit``."""
    return Call("GET", "/audit", {"params": _filled(query)})


def wheels() -> Call:
    """``GET /wheels``."""
    return Call("GET", "/wheels")


@contextlib.contextmanager
def wheel_file(
    filename: str | None, data: bytes | BinaryIO | None, path: str | Path | None
) -> Iterator[tuple[str, bytes | BinaryIO]]:
    """Give the name and the bytes of a wheel, from whichever of the two sources is given.

    Raises:
        InvalidInput: neither or both are given, or the file cannot be opened.
    """
    if (data is None) is (path is None) or (data is not None and not filename):
        raise InvalidInput("no wheel to upload", hint="Pass either path, or data and filename.")
    if path is None:
        assert data is not None and filename is not None  # noqa: S101 - said above
        yield filename, data
        return
    try:
        file = Path(path).open("rb")  # noqa: SIM115 - closed below; only opening it may fail here
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}") from None
    with file:
        yield filename or Path(path).name, file


def upload_wheel(
    filename: str, data: bytes | BinaryIO, replace: bool, tags: list[str] | None, tenant: str | None = None
) -> Call:
    """``POST /wheels``; a file is read a piece at a time."""
    labels = ",".join(tag.strip() for tag in tags or () if tag.strip())
    form = {"replace": "true" if replace else "false", **_filled({"tags": labels, "tenant": tenant})}
    files = {"wheel": (filename, data, "application/octet-stream")}
    return Call("POST", "/wheels", {"files": files, "data": form, "timeout": UPLOAD_TIMEOUT})


def pin(wheel: str, method: str, tenant: str | None = None) -> Call:
    """``POST`` or ``DELETE /wheels/{name}/pin``."""
    return Call(method, f"/wheels/{_part(wheel)}/pin", {"params": _given({"tenant": tenant})})


def wheel_history(**query: Any) -> Call:
    """``GET /wheels/history``."""
    return Call("GET", "/wheels/history", {"params": _filled(query)})


def delete_wheel(name: str, tenant: str | None = None) -> Call:
    """``DELETE /wheels/{name}``."""
    return Call("DELETE", f"/wheels/{_part(name)}", {"params": _given({"tenant": tenant})})


def metrics() -> Call:
    """``GET /metrics``."""
    return Call("GET", "/metrics")


def doctor(lang: str | None) -> Call:
    """``GET /doctor``."""
    return Call("GET", "/doctor", {"params": _filled({"lang": lang})})


def as_page(body: Any) -> dict[str, Any]:
    """Give a list as a page, whichever form the server answered in."""
    return body if isinstance(body, dict) else {"items": body, "next_cursor": None}


def encode(value: Any, name: str) -> str:
    """Write a value as JSON.

    Args:
        value: The value.
        name: What to call it in an error.

    Raises:
        InvalidInput: JSON cannot carry it; the message names the piece.
    """
    try:
        return json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        where, piece = _bad_piece(value, name)
        reason = f"it is {piece}" if isinstance(piece, float) else error
        raise InvalidInput(
            f"{where} cannot be sent as JSON: {reason}",
            hint="JSON knows text, finite numbers, true, false, null, lists and objects; in YAML, quote dates.",
        ) from None


def _bad_piece(value: Any, path: str) -> tuple[str, Any]:
    """Return the path of the first piece that JSON cannot carry, and the piece."""
    pieces = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    for key, piece in pieces:
        try:
            json.dumps(piece, allow_nan=False)
        except (TypeError, ValueError, RecursionError):
            deeper = f"{path}.{key}".removeprefix(".")
            # A list that holds itself has no end.
            return _bad_piece(piece, deeper) if deeper.count(".") < _DEEPEST else (deeper, piece)
    return path or "the request", value


def _stream(call: Call, last_event_id: str | None) -> Call:
    headers = {"Last-Event-ID": last_event_id} if last_event_id else {}
    return Call(call.method, call.path, {**call.options, "headers": headers, "timeout": httpx2.Timeout(READ_TIMEOUT)})


def _json(body: dict[str, Any]) -> dict[str, Any]:
    return {"content": encode(body, ""), "headers": {"Content-Type": "application/json"}}


def _part(name: str) -> str:
    if name in ("", ".", ".."):  # would make another path of it
        raise InvalidInput(f"{name!r} is not a name or id")
    return quote(name, safe="")


def _given(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _filled(query: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in query.items() if value is not None and value != ""}
