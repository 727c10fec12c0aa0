"""What ``check --moving`` tells of what the existing system has stored."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
from packaging.tags import sys_tags

from pyoco_server.model.findings.finding import Finding, FindingCode, Severity
from pyoco_server.model.findings.texts import described
from pyoco_server.model.moving import jobs as queue
from pyoco_server.model.moving.jobs import judge_jobs, judge_tags
from pyoco_server.model.moving.records import count_runs, existing_keys, existing_workers
from pyoco_server.model.moving.texts import MOVING_TEXTS
from pyoco_server.model.moving.wheels import judge_wheels
from pyoco_server.model.text.sentences import NAME
from pyoco_server.settings.existing import read_otherwise

FLOW = "version: 1\nflow: {graph: a}\ntasks: {a: {callable: m:f}}\n"
ASKS = "version: 1\nflow: {graph: a}\ntasks: {a: {callable: m:f, inputs: {x: $ctx.params.x}}}\n"


def job(run_id: str = "r", **fields: Any) -> bytes:
    return json.dumps({"run_id": run_id, "flow_name": "main", "params": {}, **fields}).encode()


def codes(findings: list[Finding]) -> list[str]:
    return [finding.code.value for finding in findings]


def test_jobs_that_run() -> None:
    told = judge_jobs([job(workflow_yaml=FLOW), job(workflow_yaml_sha256="0" * 64)], max_bytes=1000)
    assert (told.findings(), told.looked_at, told.flows) == ([], 2, 1)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"{", "not a job: the message: Invalid JSON"),
        (b'{"run_id": "r"}', "not a job: flow_name"),
        (b'{"run_id": 1, "flow_name": "main"}', "not a job: run_id"),
        (job(workflow_yaml=FLOW + "flows: {}\n"), "the flow.yaml is refused: line 4, flows: this key is not supported"),
        (job(workflow_yaml=FLOW.replace("version: 1", "version: 1.0")), "the flow.yaml is refused: line 1, version"),
        (job(workflow_yaml=FLOW + "#" * 1000), "the flow.yaml is refused: the workflow has "),
        (job(workflow_yaml=FLOW, workflow_yaml_sha256="0" * 64), "not a job: workflow_yaml_sha256: "),
        (job(workflow_yaml=FLOW + "\ud800"), "not a job: the message: Invalid JSON"),
        (job(workflow_yaml=ASKS), "the flow.yaml is refused: line 3, tasks.a.inputs.x: "),
        (job(workflow_bundle="workflows: {}"), "it is a workflow bundle"),
    ],
)
def test_a_job_that_cannot_be_run(raw: bytes, reason: str) -> None:
    [found] = judge_jobs([raw], max_bytes=1000).findings()
    assert (found.code, found.values["jobs"]) == (FindingCode.JOBS_UNFIT, 1)
    assert found.values["reason"].startswith(reason), found.values["reason"]
    assert found.values["runs"] == (["r"] if b'"run_id": "r"' in raw else ["1"] if b"run_id" in raw else ["?"])


def test_params_of_the_job_count() -> None:
    assert judge_jobs([job(workflow_yaml=ASKS, params={"x": 1})], max_bytes=1000).findings() == []


def test_jobs_alike_are_told_once() -> None:
    bad = FLOW.replace("version: 1", "version: 1.0")
    [found] = judge_jobs((job(f"r{number}", workflow_yaml=bad) for number in range(50)), max_bytes=1000).findings()
    assert found.values["jobs"] == 50 and len(found.values["runs"]) == 10


def test_many_reasons_are_summed_up() -> None:
    jobs = (job(f"r{number}", workflow_yaml=FLOW + f"key{number}: 1\n") for number in range(30))
    found = judge_jobs(jobs, max_bytes=1000).findings()
    assert len(found) == 11 and sum(each.values["jobs"] for each in found) == 30


def test_flows_are_parsed_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "MOST_FLOWS", 3)
    told = judge_jobs((job(workflow_yaml=FLOW + f"# {number}\n") for number in range(5)), max_bytes=1000)
    assert [finding.values for finding in told.findings()] == [{"jobs": 2, "parsed": 3}]


def test_jobs_that_name_a_flow() -> None:
    [found] = judge_jobs([job(), job(), job(flow_name="report")], max_bytes=1000).findings()
    assert (found.code, found.values) == (FindingCode.JOBS_BY_NAME, {"jobs": 3, "flows": ["main", "report"]})


def test_tags() -> None:
    assert judge_tags({"cpu": 3}) == []
    [found] = judge_tags({"cpu": 3, "größe": 2, "x" * 65: 1})
    assert found.values == {"jobs": 3, "tags": sorted(["größe", "x" * 65])}


def record(**fields: Any) -> bytes:
    return json.dumps({"run_id": "r", "flow_name": "main", **fields}).encode()


def test_runs() -> None:
    runs = count_runs(
        [*(record(status=status) for status in ("COMPLETED", "RUNNING", "PENDING_APPROVAL")), b"nonsense"]
    )
    found = runs.findings(None, None)
    assert codes(found) == ["runs_held", "runs_under_way", "records_unreadable", "approvals_wait"]
    assert found[0].values["counts"] == ["COMPLETED 1", "PENDING_APPROVAL 1", "RUNNING 1", "unreadable 1"]
    assert count_runs([]).findings(None, None) == []


def test_workers() -> None:
    now = time.time()
    theirs = {"worker_id": "old", "state": "IDLE", "tags": ["cpu"], "last_seen_at": now}
    others: list[Any] = [
        {**theirs, "worker_id": "ours", "version": "0.1.0"}, {**theirs, "worker_id": "gone", "last_seen_at": now - 60},
        {**theirs, "worker_id": "bye", "state": "STOPPED_GRACEFUL"}, {}, [],
    ]  # fmt: skip
    raw = [json.dumps(each).encode() for each in (theirs, *others)]
    [found] = existing_workers(raw, now=now, disconnect_timeout_sec=20)
    assert found.values == {"who": ["old"], "tags": ["cpu"]}
    assert existing_workers(raw[1:], now=now, disconnect_timeout_sec=20) == []


def test_keys() -> None:
    good = json.dumps({"key_id": "k1", "hash_b64": "x"}).encode()
    revoked = json.dumps({"key_id": "k2", "hash_b64": "x", "revoked_at": 1.0}).encode()
    stored = [("api_keys.k1", good), ("api_keys.k2", revoked), ("api_keys.k3", b"{}"), ("0" * 24, b"{}")]
    [found] = existing_keys(stored, pepper=False, asked_for=True, apart=False)
    assert found.code is FindingCode.EXISTING_KEYS and found.severity.value == "info"
    assert {name: found.values[name] for name in ("usable", "revoked", "unreadable")} == dict.fromkeys(
        ("usable", "revoked", "unreadable"), 1
    )
    [found] = existing_keys(stored, pepper=True, asked_for=False, apart=False)
    assert (found.severity.value, found.values["mode"], found.values["pepper"]) == ("warning", "none", "set")
    assert codes(existing_keys(stored, pepper=True, asked_for=True, apart=True)) == ["keys_elsewhere"]
    assert existing_keys([("0" * 24, b"{}")], pepper=False, asked_for=True, apart=False) == []


def test_wheels() -> None:
    def meta(name: str, tags: Any = "", **fields: Any) -> bytes:
        told = {"name": name, "digest": "SHA-256=x", "headers": {"x-pyoco-wheel-tags": tags}, **fields}
        return json.dumps(told).encode()

    metas = [
        meta("a-1-py3-none-any.whl", "cpu"), meta("b-1-py3-none-any.whl", ["größe"]), meta("odd name.whl"),
        meta("c-1-py3-none-any.whl", digest="MD5=x"), meta("d-1-cp27-cp27m-win32.whl"),
        meta("e-1-py3-none-any.whl", deleted=True), meta("f-1-py3-none-any.whl@demo", ".tenant"), b"{",
    ]  # fmt: skip
    found = judge_wheels(metas, supported=list(sys_tags()), python="3.11.4")
    assert codes(found) == ["wheels_held", *["wheels_unfit"] * 3, "wheels_elsewhere"]
    assert found[0].values["wheels"] == 6
    assert [each.values["wheels"] for each in found[1:]] == [
        ["b-1-py3-none-any.whl"], ["odd name.whl"], ["c-1-py3-none-any.whl"], ["d-1-cp27-cp27m-win32.whl"],
    ]  # fmt: skip
    assert judge_wheels([], supported=[], python="3") == []


def test_settings_that_are_read_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / ".env"
    file.write_text(
        "PYOCO_NATS_URL=nats://h:1\nPYOCO_AUTH_PEPPER=se$cret${HOME}\nexport PYOCO_DEFAULT_TAG='cpu' # ours\n"
        'PYOCO_HTTP_API_KEY_HEADER="X-Key"\nOTHER=${HOME}\nPYOCO_WORKERS_KV_TTL_SEC=15\n'
    )
    monkeypatch.setenv("PYOCO_ENV_FILE", str(file))
    told = dict(read_otherwise())
    assert set(told) == {"PYOCO_AUTH_PEPPER", "PYOCO_DEFAULT_TAG", "PYOCO_WORKERS_KV_TTL_SEC"}
    assert "cret" not in str(told)
    monkeypatch.setenv("PYOCO_AUTH_PEPPER", "x")
    monkeypatch.setenv("PYOCO_CONSUMER_MAX_DELIVER", "5")
    assert set(dict(read_otherwise())) == {
        "PYOCO_DEFAULT_TAG",
        "PYOCO_WORKERS_KV_TTL_SEC",
        "PYOCO_CONSUMER_MAX_DELIVER",
    }
    monkeypatch.setenv("PYOCO_LOAD_DOTENV", "0")
    assert set(dict(read_otherwise())) == {"PYOCO_CONSUMER_MAX_DELIVER"}


@pytest.mark.parametrize("code", MOVING_TEXTS)
def test_both_languages_name_the_same_values(code: FindingCode) -> None:
    text = MOVING_TEXTS[code]
    assert set(NAME.findall(text.en + text.en_hint)) == set(NAME.findall(text.ja + text.ja_hint))
    values = dict.fromkeys(NAME.findall(text.en + text.en_hint), "v")
    for language in ("en", "ja"):
        told = described(Finding(code, Severity.INFO, values), language, 0.0)  # type: ignore[arg-type]
        assert "?" not in told["message"] + told["hint"] and "{" not in told["message"] + told["hint"]
