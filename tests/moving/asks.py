"""What both systems are asked: every route with good, odd and bad values, with and without a key."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

RUNS = ("ok", "tagged", "failed", "unknown", "stopped", "waiting", "yaml", "yaml_fails", "yaml_missing")
ENDED = tuple(run for run in RUNS if run != "waiting")
WHEEL = "demo-1.1-py3-none-any.whl"
NO_WHEEL = "none-1.0-py3-none-any.whl"


@dataclass(frozen=True)
class Ask:
    """One request.

    Attributes:
        name: What it is called in the table of differences.
        method: Of HTTP.
        path: With runs as ``{name}``.
        key: The name of the API key that it carries, at the gateway that asks for one; ``""``: no key there;
            ``None``: at the other gateway.
        options: What else the client is given.
    """

    name: str
    method: str
    path: str
    key: str | None = None
    options: dict[str, Any] = field(default_factory=dict)


def get(path: str, key: str | None = None) -> Ask:
    """Return a request to read."""
    return Ask(f"GET {path}" + (f" [{key}]" if key is not None else ""), "GET", path, key)


def readings() -> Iterator[Ask]:
    """Return what only reads, at the gateway that asks for no key."""
    for run in RUNS:
        for rest in ("", "/tasks", "?include=records", "?include=full"):
            yield get(f"/runs/{{{run}}}{rest}")
    for include in ("", "nothing", "task_records", "all", "RECORDS", "records&include=full"):
        yield get(f"/runs/{{ok}}?include={include}")
    for run_id in ("nobody", "a.b", "a%20b", "%2A", "a%2Fb", "ä", "x" * 200):
        for rest in ("", "/tasks", "/watch"):
            yield get(f"/runs/{run_id}{rest}")
    for query in _LISTS.split("\n"):
        yield get(f"/runs{query}")
    for query in _WATCHES.split():
        yield get(f"/runs/{{failed}}/watch?{query}")
    for query in _WORKERS.split("\n"):
        yield get(f"/workers{query}")
    yield get("/wheels")
    for query in _HISTORY.split("\n"):
        yield get(f"/wheels/history{query}")
    for name in (WHEEL, NO_WHEEL, "x.txt", "..%2Fx", "x.whl", "a%20b.whl"):
        yield get(f"/wheels/{name}")
    for path in ("/health", "/metrics", "/", "/static/none.js", "/nothing", "/docs", "/redoc", "/runs/", "/workers/"):
        yield get(path)
    for asked in ("POST /health", "DELETE /runs", "PUT /runs", "POST /workers", "HEAD /health", "OPTIONS /runs"):
        method, _, path = asked.partition(" ")
        yield Ask(asked, method, path)


def keyed() -> Iterator[Ask]:
    """Return what is asked of the gateway that wants a key."""
    for key in ("", "good", "same tenant", "other", "revoked", "wrong secret", "unknown", "no key at all"):
        for path in ("/health", "/", "/runs?limit=1", "/runs/{mine}", "/runs/{ok}", "/wheels", "/workers", "/metrics"):
            yield get(path, key)
    for key in ("", "good", "other"):
        for path in ("/runs/{mine}/tasks", "/runs/{mine}/watch?timeout_sec=1", "/wheels/history", "/runs/nobody"):
            yield get(path, key)
        for method, path, options in (
            ("POST", "/runs", {"json": {"flow_name": "main", "tag": "nobody"}}), ("POST", "/runs", {"json": {}}),
            ("POST", "/runs/{ok}/cancel", {}), ("POST", "/runs/yaml", {}), ("POST", "/wheels", {}),
            ("PATCH", "/workers/w1", {"json": {"hidden": False}}), ("DELETE", f"/wheels/{NO_WHEEL}", {}),
        ):  # fmt: skip
            yield Ask(f"{method} {path} {options} [{key}]", method, path, key, options)
    for key in ("other", "good", "good"):
        yield Ask(f"POST /runs/{{mine}}/cancel [{key}]", "POST", "/runs/{mine}/cancel", key)
    yield get("/runs/{mine}?include=full", "good")


def changes() -> Iterator[Ask]:
    """Return what changes workers, wheels and runs that are there."""
    for body in (
        {"json": {"hidden": True}}, {"json": {"hidden": 1}}, {"json": {"hidden": "yes"}}, {"json": {"hidden": "x"}},
        {"json": {"hidden": None}}, {"json": {}}, {"json": []}, {"content": b"x"}, {},
        {"json": {"hidden": False, "more": 1}},
    ):  # fmt: skip
        yield Ask(f"PATCH /workers/w1 {body}", "PATCH", "/workers/w1", None, dict(body))
    for worker in ("none", "a%20b"):
        yield Ask(f"PATCH /workers/{worker}", "PATCH", f"/workers/{worker}", None, {"json": {"hidden": True}})
    yield Ask("hide w2", "PATCH", "/workers/w2", None, {"json": {"hidden": True}})
    yield get("/workers?limit=100")
    yield get("/workers?include_hidden=true&limit=100")
    yield Ask("show w2", "PATCH", "/workers/w2", None, {"json": {"hidden": False}})
    for name in (NO_WHEEL, "x.txt", "x.whl"):
        yield Ask(f"DELETE /wheels/{name}", "DELETE", f"/wheels/{name}")
    for run in ("ok", "failed", "stopped", "waiting", "waiting"):
        yield Ask(f"cancel {run}", "POST", f"/runs/{{{run}}}/cancel")
    yield Ask("cancel nobody", "POST", "/runs/nobody/cancel")
    for name, options in {
        "{}": {"json": {}}, "more": {"json": {"more": 1}}, "[]": {"json": []}, "null": {"json": None},
        "text": {"content": b"x"},
    }.items():  # fmt: skip
        yield Ask(f"cancel with {name}", "POST", "/runs/{ok}/cancel", None, options)


_LISTS = """
?status=COMPLETED
?status=FAILED
?status=completed
?status=NONE
?status=
?flow=main
?flow=none
?flow=
?tag=default
?tag=none
?status=CANCELLED&limit=1
?limit=200
?limit=201
?limit=0
?limit=x
?limit=
?updated_after=0
?updated_after=99999999999
?updated_after=x
?updated_after=inf
?cursor=
?cursor=x
?cursor=e30
?workflow_yaml_sha256=
?workflow_yaml_sha256=abc
?workflow_yaml_sha256={sha256}
?include=full
?include=records
?include=nothing
?status=COMPLETED&flow=main&tag=default&limit=5
?nothing=1
?include=full&status=FAILED&updated_after=0"""
_WATCHES = """
timeout_sec=1 include=records&timeout_sec=1 timeout_sec=0 timeout_sec=601 timeout_sec=x timeout_sec=1.5 since=x since=
"""
_WORKERS = """
?scope=active
?scope=all
?scope=ALL
?scope= all
?scope=
?scope=x
?state=IDLE
?state=idle
?state= Idle
?state=
?state=RUNNING
?state=disconnected&scope=all
?state=x
?include_hidden=1
?include_hidden=x
?include_hidden=
?limit=500
?limit=501
?limit=x
?nothing=1"""
_HISTORY = f"""
?limit=1
?limit=500
?limit=501
?limit=0
?limit=x
?wheel_name=
?wheel_name={WHEEL}
?wheel_name= {WHEEL}%20
?wheel_name={NO_WHEEL}
?wheel_name=../x
?wheel_name=x.txt
?wheel_name=a%20b.whl
?wheel_name=x.whl
?action=upload
?action=UPLOAD
?action= delete
?action=
?action=x
?action=pin"""
