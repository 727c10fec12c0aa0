"""What each call sends: pure functions that the two clients share."""

import contextlib
import json
import os
import re
import ssl
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote, urlsplit

import httpx2

from pyoco_server.client.needs import Need, OwnKey
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


_SUBMITTED = ("/runs", "/runs/yaml")
_NEWER = {
    "params": "take params for a flow.yaml",
    "timeout_sec": "limit a run's time",
    "max_attempts": "limit how often a run is started",
    "idempotency_key": "tell a repeated submission from a new one",
}
"""Options of a submission that the existing system's servers do not know, and leave aside."""

_OF_RUNS = {"/why": "say why a run waits or how it ended", "/logs": "show what a run's tasks print"}
_LETTERS = "list or replay dead letters"

_LONGEST_TEXT = 512 * 1024


@dataclass(frozen=True)
class Call:
    """One HTTP request: the arguments of ``Client.request``.

    Args:
        needs: What it asks beyond what all servers can do.
        older_refuse: Whether a server that cannot do that is known to refuse it by itself.
    """

    method: str
    path: str
    options: dict[str, Any] = field(default_factory=dict)
    needs: tuple[Need, ...] = ()
    older_refuse: bool = False

    @property
    def reads(self) -> bool:
        """Whether it changes nothing."""
        return self.method == "GET"

    def as_repeat(self) -> "Call":
        """Return it as a repeat of a submission, which only a server that knows keys may get."""
        key = Need(_NEWER["idempotency_key"], "post", self.path, "idempotency_key")
        needs = self.needs if self.path not in _SUBMITTED or key in self.needs else (*self.needs, key)
        return replace(self, needs=needs)


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
    body = {"flow_name": flow_name, "params": params or {}, **_given(options)}
    return Call("POST", "/runs", _json(body), _newer("/runs", options))


def submit_yaml(workflow_yaml: str | bytes, flow_name: str, params: dict[str, Any] | None, **options: Any) -> Call:
    """``POST /runs/yaml``."""
    body = workflow_yaml.encode() if isinstance(workflow_yaml, str) else workflow_yaml
    form = {"flow_name": flow_name, **{name: str(value) for name, value in _given(options).items()}}
    if params:
        form["params"] = encode(params, "params")
    needs = _newer("/runs/yaml", {**options, "params": params or None})
    # Our servers take the text as a plain field, too. Older ones want a file and refuse the rest, so that what they
    # would leave aside needs no question before.
    plain = bool(needs) and len(body) <= _LONGEST_TEXT and _is_text(body)
    part = (None, body) if plain else ("flow.yaml", body, "application/x-yaml")
    return Call("POST", "/runs/yaml", {"files": {"workflow": part}, "data": form}, needs, older_refuse=plain)


def run(run_id: str, suffix: str = "", **query: Any) -> Call:
    """``GET /runs/{id}…``."""
    what = _OF_RUNS.get(suffix)
    needs = (Need(what, "get", f"/runs/{{}}{suffix}"),) if what else ()
    return Call("GET", f"/runs/{_part(run_id)}{suffix}", {"params": _given(query)}, needs)


def watch(run_id: str, *, include_records: bool, last_event_id: str | None, **query: Any) -> Call:
    """``GET /runs/{id}/watch``, with time-outs fit for a stream."""
    call = run(run_id, "/watch", include="records" if include_records else None, **query)
    needs = (Need("go on after an event that was seen", "get", "/runs/{}/watch", "last-event-id"),)
    return _stream(replace(call, needs=needs if last_event_id else ()), last_event_id)


def follow_logs(run_id: str, *, last_event_id: str | None, **query: Any) -> Call:
    """``GET /runs/{id}/logs?follow=true``, with time-outs fit for a stream."""
    return _stream(run(run_id, "/logs", follow="true", **query), last_event_id)


def cancel(run_id: str, reason: str | None) -> Call:
    """``POST /runs/{id}/cancel``."""
    path = f"/runs/{_part(run_id)}/cancel"
    if not reason:
        return Call("POST", path)
    needs = (Need("keep the reason of a cancel", "post", "/runs/{}/cancel", "reason"),)
    return Call("POST", path, _json({"reason": reason}), needs)


def list_runs(*, full: bool, **query: Any) -> Call:
    """``GET /runs``; an empty filter is none."""
    # Nothing describes that a status may be several; servers that take a worker beside it know.
    several = "," in str(query.get("status") or "")
    needs = (Need("list runs of several statuses at once", "get", "/runs", "worker"),) if several else ()
    return Call("GET", "/runs", {"params": {**_filled(query), **({"include": "full"} if full else {})}}, needs)


def list_page(*, full: bool, **query: Any) -> Call:
    """``GET /runs`` as a page: an empty cursor asks for that form."""
    call = list_runs(full=full, **query)
    return replace(call, options={"params": {"cursor": "", **call.options["params"]}})


def workers(**query: Any) -> Call:
    """``GET /workers``."""
    needs = (Need("list one worker alone", "get", "/workers", "worker_id"),) if query.get("worker_id") else ()
    return Call("GET", "/workers", {"params": _filled(query)}, needs)


def patch_worker(worker_id: str, hidden: bool) -> Call:
    """``PATCH /workers/{id}``."""
    return Call("PATCH", f"/workers/{_part(worker_id)}", _json({"hidden": bool(hidden)}))


def drain_worker(worker_id: str, reason: str | None) -> Call:
    """``POST /workers/{id}/drain``."""
    options = _json({"reason": reason}) if reason else {}
    return _newer_path(
        "ask a worker to drain", "POST", f"/workers/{_part(worker_id)}/drain", "/workers/{}/drain", options
    )


def rerun(run_id: str, idempotency_key: str | None) -> Call:
    """``POST /runs/{id}/rerun``."""
    # A header's bytes beyond ASCII are UTF-8 here; the server reads them so.
    headers = {} if idempotency_key is None else {"headers": {"Idempotency-Key": check_key(idempotency_key).encode()}}
    return _newer_path("run a run again", "POST", f"/runs/{_part(run_id)}/rerun", "/runs/{}/rerun", headers)


def dead_letters(*, cursor: str, **query: Any) -> Call:
    """``GET /dlq`` as a page: an empty cursor asks for that form."""
    return _newer_path(_LETTERS, "GET", "/dlq", "/dlq", {"params": {**_filled(query), "cursor": cursor}})


def dead_letter(letter_id: int, method: str = "GET", suffix: str = "") -> Call:
    """``GET`` or ``DELETE /dlq/{id}``, ``POST /dlq/{id}/replay``."""
    return _newer_path(_LETTERS, method, f"/dlq/{int(letter_id)}{suffix}", f"/dlq/{{}}{suffix}")


def audit(**query: Any) -> Call:
    """``GET /audit``."""
    return _newer_path("say who did what", "GET", "/audit", "/audit", {"params": _filled(query)})


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
    options = {"files": files, "data": form, "timeout": UPLOAD_TIMEOUT}
    return Call("POST", "/wheels", options, _tenants_wheel(tenant, "post", "/wheels"))


def pin(wheel: str, method: str, tenant: str | None = None) -> Call:
    """``POST`` or ``DELETE /wheels/{name}/pin``."""
    query = {"params": _given({"tenant": tenant})}
    return _newer_path("go back to a stored wheel", method, f"/wheels/{_part(wheel)}/pin", "/wheels/{}/pin", query)


def wheel_history(**query: Any) -> Call:
    """``GET /wheels/history``."""
    return Call("GET", "/wheels/history", {"params": _filled(query)})


def delete_wheel(name: str, tenant: str | None = None) -> Call:
    """``DELETE /wheels/{name}``."""
    needs = _tenants_wheel(tenant, "delete", "/wheels/{}")
    return Call("DELETE", f"/wheels/{_part(name)}", {"params": _given({"tenant": tenant})}, needs)


def metrics() -> Call:
    """``GET /metrics``."""
    return Call("GET", "/metrics")


def doctor(lang: str | None) -> Call:
    """``GET /doctor``."""
    return _newer_path("say what is wrong with it", "GET", "/doctor", "/doctor", {"params": _filled({"lang": lang})})


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
    return replace(call, options={**call.options, "headers": headers, "timeout": httpx2.Timeout(READ_TIMEOUT)})


def _newer(path: str, options: dict[str, Any]) -> tuple[Need, ...]:
    """Return what a submission asks beyond what all servers can do."""
    given = [name for name, value in _given(options).items() if not isinstance(value, OwnKey)]
    return tuple(Need(what, "post", path, name) for name, what in _NEWER.items() if name in given)


def _newer_path(what: str, method: str, path: str, template: str, options: dict[str, Any] | None = None) -> Call:
    """Return a call to a path that the existing system's servers do not have."""
    return Call(method, path, options or {}, (Need(what, method.lower(), template),), older_refuse=True)


def _tenants_wheel(tenant: str | None, method: str, path: str) -> tuple[Need, ...]:
    return (Need("keep a tenant's wheels apart", method, path, "tenant"),) if tenant else ()


def _is_text(body: bytes) -> bool:
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True


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
