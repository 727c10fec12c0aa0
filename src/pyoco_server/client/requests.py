"""What each call sends: pure functions that the two clients share."""

import json
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlsplit

from pyoco_server.errors import InvalidInput


@dataclass(frozen=True)
class Call:
    """One HTTP request: the arguments of ``Client.request``."""

    method: str
    path: str
    options: dict[str, Any] = field(default_factory=dict)


def check_base_url(url: str) -> str:
    """Return the server's URL in a form to build on.

    Raises:
        InvalidInput: not http or https, or with a password in it.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InvalidInput(f"the server's address {url!r} is not a URL", hint="Write it as http://127.0.0.1:8000")
    if parts.username or parts.password:
        raise InvalidInput("the server's address holds a password", hint="Pass a key with --api-key instead.")
    return url.rstrip("/")


def submit(flow_name: str, params: dict[str, Any] | None, **options: Any) -> Call:
    """``POST /runs``."""
    return Call("POST", "/runs", {"json": {"flow_name": flow_name, "params": params or {}, **_given(options)}})


def submit_yaml(workflow_yaml: str | bytes, flow_name: str, params: dict[str, Any] | None, **options: Any) -> Call:
    """``POST /runs/yaml``."""
    body = workflow_yaml.encode() if isinstance(workflow_yaml, str) else workflow_yaml
    form = {"flow_name": flow_name, **{name: str(value) for name, value in _given(options).items()}}
    if params:
        form["params"] = json.dumps(params)
    return Call("POST", "/runs/yaml", {"files": {"workflow": ("flow.yaml", body, "application/x-yaml")}, "data": form})


def run(run_id: str, suffix: str = "", **query: Any) -> Call:
    """``GET /runs/{id}…``."""
    return Call("GET", f"/runs/{quote(run_id, safe='')}{suffix}", {"params": _given(query)})


def cancel(run_id: str, reason: str | None) -> Call:
    """``POST /runs/{id}/cancel``."""
    return Call("POST", f"/runs/{quote(run_id, safe='')}/cancel", {"json": {"reason": reason}} if reason else {})


def list_runs(*, full: bool, **query: Any) -> Call:
    """``GET /runs``."""
    return Call("GET", "/runs", {"params": {**_given(query), **({"include": "full"} if full else {})}})


def workers(**query: Any) -> Call:
    """``GET /workers``."""
    return Call("GET", "/workers", {"params": _given(query)})


def patch_worker(worker_id: str, hidden: bool) -> Call:
    """``PATCH /workers/{id}``."""
    return Call("PATCH", f"/workers/{quote(worker_id, safe='')}", {"json": {"hidden": bool(hidden)}})


def upload_wheel(filename: str, data: bytes, replace: bool, tags: list[str] | None) -> Call:
    """``POST /wheels``."""
    form = {"replace": "true" if replace else "false", **({"tags": ",".join(tags)} if tags else {})}
    return Call("POST", "/wheels", {"files": {"wheel": (filename, data, "application/octet-stream")}, "data": form})


def wheel_history(**query: Any) -> Call:
    """``GET /wheels/history``."""
    return Call("GET", "/wheels/history", {"params": _given(query)})


def delete_wheel(name: str) -> Call:
    """``DELETE /wheels/{name}``."""
    return Call("DELETE", f"/wheels/{quote(name, safe='')}")


def as_page(body: Any) -> dict[str, Any]:
    """Give a list of runs as a page, whichever form the server answered in."""
    return body if isinstance(body, dict) else {"items": body, "next_cursor": None}


def _given(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None and value != ""}
