"""Requests as hands and other languages send them: taken, or refused with what was wrong and what to write instead."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import httpx2
import pytest

from .conftest import TUTORIAL, System
from .test_tutorial import client

JSON = "application/json"
STATUSES = "PENDING, RUNNING, CANCELLING, COMPLETED, FAILED, CANCELLED"
H2C = ["--http2", "-s", "-w", " %{http_version} %{http_code}"]
needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl here")


def refusal(answer: httpx2.Response) -> str:
    """Return all that a refusal says; its form is that of the contract."""
    assert answer.status_code == 422, (answer.status_code, answer.text)
    body = answer.json()
    assert body["code"] == "invalid_input" and body["hint"], body
    detail = body["detail"]
    if isinstance(detail, list):
        assert all({"loc", "msg", "type"} <= set(item) for item in detail)
        detail = "; ".join(item["msg"] for item in detail)
    said = f"{detail} | {body['hint']}"
    assert not any(word in said for word in ("Input should", "Field required", "Value error", "UploadFile")), said
    return said


WORDS = [
    ("/runs", "status", ["failed", "FAILED", "Failed,cancelled", " running ", "", "pending_approval", "failed,"],
     ["done", "FAILED,what", "failed cancelled"], STATUSES),
    ("/runs/counts", "status", ["failed"], ["done"], STATUSES),
    ("/runs", "include", ["full", "ALL", "records,full", "task_records", ""], ["everything", "full,x"], "records"),
    ("/workers", "state", ["idle", "Stopped_Graceful", "stopped-graceful", "DISCONNECTED", ""],
     ["busy", "idle,running"], "RUNNING, IDLE, STOPPED_GRACEFUL, DISCONNECTED"),
    ("/workers", "scope", ["ALL", "Active", ""], ["some"], "active, all"),
    ("/workers", "include_hidden", ["TRUE", "no", "1"], ["maybe", "2"], "neither true nor false"),
    ("/dlq", "reason", ["FLOW_NOT_FOUND", "flow-not-found", ""], ["lost"], "flow_not_found, execution_error"),
    ("/audit", "action", ["RUN.SUBMIT", ""], ["submit"], "run.submit, run.cancel"),
    ("/audit", "outcome", ["Done", ""], ["ok"], "done, refused, unknown"),
    ("/wheels/history", "action", ["UPLOAD", ""], ["uploaded"], "upload, delete"),
    ("/doctor", "lang", ["JA", "en", ""], ["fr", "ja-JP"], "en, ja"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("path", "name", "good", "bad", "named"), WORDS, ids=[f"{word[0]}?{word[1]}" for word in WORDS]
)
def test_words(http: httpx2.Client, path: str, name: str, good: list[str], bad: list[str], named: str) -> None:
    for word in good:
        assert http.get(path, params={name: word}).status_code == 200, word
    for word in bad:
        assert named in refusal(http.get(path, params={name: word}))


def test_words_of_one_run_and_of_the_client(system: System, http: httpx2.Client) -> None:
    run_id = system.client.submit_run("main", tag="nobody")["run_id"]
    assert [run["run_id"] for run in http.get("/runs?status=pending&tag=nobody").json()] == [run_id]
    assert "task_records" in http.get(f"/runs/{run_id}?include=RECORDS").json()
    assert "records" in refusal(http.get(f"/runs/{run_id}?include=x"))
    assert "stdout, stderr, notice" in refusal(http.get(f"/runs/{run_id}/logs?stream=out"))
    assert http.get(f"/runs/{run_id}/logs?stream=STDOUT").status_code == 200
    assert http.get(f"/runs/{run_id}/why?lang=JA").status_code == 200
    assert json.loads(client(system, "list", "--status", "pending", "--tag", "nobody").stdout)[0]["run_id"] == run_id
    assert STATUSES in client(system, "list", "--status", "done", code=1).stderr


HEADS = ["/", "/health", "/ready", "/metrics", "/runs", "/runs/counts", "/workers", "/wheels", "/wheels/history",
         "/dlq", "/audit", "/overview", "/doctor", "/openapi.json", "/whoami", "/static/app.js"]  # fmt: skip


@pytest.mark.parametrize("path", HEADS)
def test_head(http: httpx2.Client, path: str) -> None:
    answer, whole = http.head(path), http.get(path)
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-type"] == whole.headers["content-type"] and int(answer.headers["content-length"]) > 0


def test_head_of_runs_and_streams(system: System, http: httpx2.Client) -> None:
    run_id = system.client.submit_run_yaml(TUTORIAL, flow_name="main", tag="head")["run_id"]
    for path in ("", "/tasks", "/logs", "/why", "/yaml", "/graph", "/watch?timeout_sec=600", "/logs?follow=true"):
        answer = http.head(f"/runs/{run_id}{path}")  # a stream would last ten minutes
        assert (answer.status_code, answer.content) == (200, b""), path
    assert http.head("/events").status_code == 200
    assert [http.head(path).status_code for path in ("/nothing", "/runs/unknown", "/runs?limit=0")] == [404, 404, 422]
    assert http.head("/health").status_code == 200  # the connection is as good as before
    series = [line for line in http.get("/metrics").text.splitlines() if line.startswith("pyoco_open_streams")]
    assert all(line.endswith(" 0.0") for line in series), series


BODIES: list[tuple[str, str | None, str]] = [
    ('{"flow_name": "m"}', "application/x-www-form-urlencoded", "-H 'Content-Type: application/json'"),
    ('{"flow_name": "m"}', "text/plain", "was sent as text/plain, not as JSON"),
    ('{"flow_name": "m"}', None, "without saying that it is JSON"),
    ("", None, "the request's body is missing"),
    ("", JSON, "the request's body is missing"),
    ("[]", JSON, "the request's body is a list, not an object"),
    ('"m"', JSON, "the request's body is a text, not an object"),
    ("{'flow_name': 'm'}", JSON, "is not JSON"),
    ('{"flow_name": "m",}', JSON, "is not JSON"),
    ('{"flow_name": "m", "flow_name": "n"}', JSON, "the key 'flow_name' is there twice"),
    ("{}", JSON, 'flow_name is missing. Write it such as: "flow_name": "main"'),
    ('{"flow_name": ""}', JSON, "flow_name is blank"),
    ('{"flow_name": 5}', JSON, "flow_name is a number, not a text"),
    (
        '{"flow_name": "m", "params": "{}"}',
        JSON,
        'params is a text, not an object. Write it such as: "params": {"x": 2}',
    ),
    ('{"flow_name": "m", "params": null}', JSON, "params is null, not an object"),
    ('{"flow_name": "m", "params": [1]}', JSON, "params is a list, not an object"),
    ('{"flow_name": "m", "tags": "cpu"}', JSON, 'tags is a text, not a list. Write it such as: "tags": ["cpu"]'),
    ('{"flow_name": "m", "timeout_sec": "soon"}', JSON, "timeout_sec is not a number"),
    ('{"flow_name": "m", "timeout_sec": 0}', JSON, "timeout_sec is not greater than 0"),
    ('{"flow_name": "m", "max_attempts": 1.5}', JSON, "max_attempts is not a whole number"),
    ('{"flow_name": "m", "max_attempts": 0}', JSON, "max_attempts is less than 1"),
]


@pytest.mark.parametrize(("body", "kind", "said"), BODIES, ids=[f"{body} {kind}" for body, kind, _ in BODIES])
def test_bodies(http: httpx2.Client, body: str, kind: str | None, said: str) -> None:
    assert said in refusal(http.post("/runs", content=body.encode(), headers={"Content-Type": kind} if kind else {}))


NUMBERS = [
    ('{"x": NaN}', "params.x is NaN"), ('{"x": -Infinity}', "params.x is -Infinity"),
    ('{"x": 1e999}', "params.x is Infinity"),
    ('{"a": {"b": [1, Infinity]}}', "params.a.b[1] is Infinity"), ('{"x": 1, "x": 2}', "the key 'x' is there twice"),
    ('{"x": ' + "9" * 5000 + "}", "too many digits"), ('{"x": ' + "[" * 50_000 + "}", "is not JSON|nests too deeply"),
]  # fmt: skip


@pytest.mark.parametrize(("params", "said"), NUMBERS, ids=[said for _, said in NUMBERS])
def test_numbers(http: httpx2.Client, params: str, said: str) -> None:
    raw = f'{{"flow_name": "m", "params": {params}}}'
    told = [
        refusal(http.post("/runs", content=raw.encode(), headers={"Content-Type": JSON})),
        refusal(
            http.post("/runs/yaml", data={"flow_name": "m", "params": params}, files={"workflow": TUTORIAL.encode()})
        ),
    ]
    assert all(any(part in one for part in said.split("|")) for one in told), told


def test_numbers_that_json_has(http: httpx2.Client) -> None:
    given = {"big": 10**400, "odd": 2**63 + 1, "small": 5e-324, "large": 1.7976931348623157e308, "text": "NaN"}
    run_id = http.post("/runs", json={"flow_name": "m", "params": given, "tag": "n"}).json()["run_id"]
    assert http.get(f"/runs/{run_id}").json()["params"] == given


FORMS: list[tuple[dict[str, Any], str]] = [
    ({"workflow": "flow.yaml"}, "workflow is 'flow.yaml': the name of a file, and not what is in it | "
     "Send the file: -F workflow=@flow.yaml"),
    ({"workflow": "@dir/my flow.yml"}, "the name of a file"),
    ({"workflow": ""}, "workflow is missing. Write it such as: -F workflow=@flow.yaml"),
    ({}, "workflow is missing"),
    ({"workflow": TUTORIAL, "flow_name": ""}, "flow_name is missing. Write it such as: -F flow_name=main"),
    ({"workflow": TUTORIAL, "flow_name": " "}, "flow_name is blank"),
    ({"workflow": TUTORIAL, "params": "x=1"}, "params is not JSON"),
    ({"workflow": TUTORIAL, "params": "params.json"}, "Send the file: -F params=@params.json"),
    ({"workflow": TUTORIAL, "params": "[1]"}, "params is a list, not an object"),
    ({"workflow": TUTORIAL, "timeout_sec": "soon"}, "timeout_sec is not a number. Write it such as: -F timeout_sec=60"),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "said"), FORMS, ids=[said[:40] for _, said in FORMS])
def test_forms(http: httpx2.Client, fields: dict[str, Any], said: str) -> None:
    fields = {"flow_name": "m", **fields}
    form = {name: (None, value.encode()) for name, value in fields.items()}
    assert said in refusal(http.post("/runs/yaml", files=form))
    assert said in refusal(http.post("/runs/yaml", data=fields))


def test_forms_that_are_none(http: httpx2.Client) -> None:
    hint = "Send a form: curl -F workflow=@flow.yaml -F flow_name=main"
    assert hint in refusal(http.post("/runs/yaml", json={"flow_name": "m"}))
    assert hint in refusal(http.post("/runs/yaml"))
    refusal(http.post("/runs/yaml", content=b"x", headers={"Content-Type": "multipart/form-data"}))
    files = {"workflow": TUTORIAL.encode(), "flow_name": ("f.txt", b"m")}
    assert "flow_name is a file, not a text" in refusal(http.post("/runs/yaml", files=files))
    assert "curl -F wheel=@FILE.whl" in refusal(http.post("/wheels", data={"wheel": "a-1-py3-none-any.whl"}))


def test_forms_that_are_taken(http: httpx2.Client) -> None:
    forms: list[dict[str, Any]] = [
        {"files": {"workflow": (None, TUTORIAL.encode()), "flow_name": (None, b"m")}},  # curl -F 'workflow=<flow.yaml'
        {"data": {"workflow": TUTORIAL, "flow_name": "m"}},  # curl --data-urlencode workflow@flow.yaml
        {
            "files": {"workflow": ("f.yaml", TUTORIAL.encode()), "params": ("p", b'{"x": 7}')},
            "data": {"flow_name": "m"},
        },
    ]
    for form in forms:
        answer = http.post("/runs/yaml", **form)
        assert answer.status_code == 200, answer.text
        run = http.get(f"/runs/{answer.json()['run_id']}").json()
        assert run["workflow_yaml_bytes"] == len(TUTORIAL)
    assert run["params"] == {"x": 7}


def curl(system: System, *arguments: str) -> str:
    done = subprocess.run(["curl", *arguments], cwd=system.folder, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done
    return done.stdout


@needs_curl
@pytest.mark.skipif("HTTP2" not in subprocess.run(["curl", "-V"], capture_output=True, text=True).stdout if
                    shutil.which("curl") else True, reason="this curl knows no HTTP/2")  # fmt: skip
def test_clients_that_offer_http_2(system: System) -> None:
    (system.folder / "flow.yaml").write_text(TUTORIAL)
    (system.folder / "large.yaml").write_text(TUTORIAL + "# large\n" * 20_000)
    body = '{"flow_name": "main", "params": {"x": 2}, "tag": "h2c"}'
    asked = [
        [*H2C, "-H", f"Content-Type: {JSON}", "-d", body, f"{system.url}/runs"],
        [*H2C, "-H", f"Content-Type: {JSON}", "-H", "Transfer-Encoding: chunked", "-d", body, f"{system.url}/runs"],
        [*H2C, "-H", f"Content-Type: {JSON}", "-H", "Expect: 100-continue", "-d", body, f"{system.url}/runs"],
        [*H2C, "-F", "workflow=@flow.yaml", "-F", "flow_name=main", "-F", "tag=h2c", f"{system.url}/runs/yaml"],
        [*H2C, "-F", "workflow=@large.yaml", "-F", "flow_name=main", "-F", "tag=h2c", f"{system.url}/runs/yaml"],
        ["-s", "-w", " %{http_version} %{http_code}", "-H", "Connection: Upgrade", "-H", "Upgrade: websocket",
         "-H", f"Content-Type: {JSON}", "-d", body, f"{system.url}/runs"],
    ]  # fmt: skip
    for arguments in asked:
        assert curl(system, *arguments).endswith("} 1.1 200")
    assert len(system.client.list_runs(tag="h2c")) == len(asked)
    assert curl(system, *H2C, f"{system.url}/health", f"{system.url}/health").count('{"status":"ok"} 1.1 200') == 2


@needs_curl
def test_curl_as_people_type_it(system: System, tmp_path: Path) -> None:
    (system.folder / "flow.yaml").write_text(TUTORIAL)
    url = system.url
    assert "200 OK" in curl(system, "-sI", f"{url}/health").splitlines()[0]
    assert json.loads(curl(system, "-s", "-F", "workflow=<flow.yaml", "-F", "flow_name=m", f"{url}/runs/yaml"))[
        "run_id"
    ]
    told = curl(
        system, "-s", "-F", "workflow=@flow.yaml", "-F", "flow_name=m", "-F", 'params={"x": NaN}', f"{url}/runs/yaml"
    )
    assert "params.x is NaN" in told
    assert "Content-Type: application/json" in curl(system, "-s", "-d", '{"flow_name": "m"}', f"{url}/runs")
    refused = client(system, "submit", "--param", "sha=7e013608", code=1)
    assert """--param 'sha="7e013608"'""" in refused.stderr and refused.stdout == ""
