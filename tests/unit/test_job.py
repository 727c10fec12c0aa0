"""The forms of a job: whole, and sealed against workers that would run it wrongly."""

import json
from typing import Any

import pytest

from pyoco_server.errors import InvalidInput
from pyoco_server.model.existing.flows import own_workers_only
from pyoco_server.model.existing.unrecorded import check_agrees, record_of, regained
from pyoco_server.model.flow.workflow import parse_workflow
from pyoco_server.model.job import Job, run_id_in
from pyoco_server.model.run import RunRecord

TEXT = "version: 1\nflow: {graph: a}\ntasks: {a: {callable: 'm:f'}}\n"
NAMED = {
    "run_id", "flow_name", "tag", "tags", "params", "submitted_at", "tenant_id", "api_key_id", "workflow_yaml",
    "workflow_yaml_sha256", "workflow_yaml_bytes",
}  # fmt: skip


def record(**fields: Any) -> RunRecord:
    known: dict[str, Any] = {"run_id": "r", "flow_name": "f", "params": {"x": 10}, "tags": ["t"], "submitted_at": 5.0}
    known |= {"tenant_id": "t1", "api_key_id": "k", "workflow_yaml_sha256": "0" * 64, "workflow_yaml_bytes": 3}
    return RunRecord(**{**known, **fields})


def test_a_job_names_all_that_the_contract_does() -> None:
    message = json.loads(Job.of(record(), TEXT).to_json())
    assert set(message) >= NAMED
    assert message["params"] == {"x": 10} and message["workflow_yaml"] == TEXT


@pytest.mark.parametrize(
    ("fields", "text", "most", "why"),
    [
        ({"timeout_sec": 5.0}, TEXT, None, "the run has timeout_sec"),
        ({"max_attempts": 1}, TEXT, None, "the run has max_attempts"),
        ({"own_workers_only": "the flow has pipes"}, TEXT, None, "the flow has pipes"),
        ({}, None, None, "read its flow"),
        ({"params": {"x": "y" * 500}}, TEXT, 600, "the job would have"),
    ],
)
def test_a_sealed_job_is_refused_by_others_and_read_by_us(
    fields: dict[str, Any], text: str | None, most: int | None, why: str
) -> None:
    raw = Job.of(record(**fields), text).to_json(most)
    assert "run_id" not in json.loads(raw) and len(raw) < 600  # "missing_fields" is what the others say
    assert run_id_in(raw) == "r"
    job = Job.from_json(raw)
    assert (job.run_id, job.flow_name, job.tenant_id, job.recorded) == ("r", "f", "t1", True)
    assert why in (job.only_for or "")
    assert Job.from_json(Job.of(record(), TEXT).to_json(most=10_000)).only_for is None


@pytest.mark.parametrize("raw", [b'{"only_for":1}', b'{"only_for":"x","job":{}}', b'{"only_for":"x","job":[]}', b"{"])
def test_what_is_no_job(raw: bytes) -> None:
    with pytest.raises(InvalidInput, match="not a job"):
        Job.from_json(raw)
    assert run_id_in(raw) is None


def flow(graph: str = "a >> b", more: str = "", task: str = "", inputs: str = "{}") -> str:
    tasks = f"  a:\n    callable: m:f\n    inputs: {inputs}\n{task}  b:\n    callable: m:f\n"
    return f"version: 1\nflow:\n  graph: |\n    {graph}\n{more}tasks:\n{tasks}"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (flow(), None),
        (flow(more="  defaults: {x: 1}\nruntime: {expose_env: [HOME]}\n"), None),
        (flow(inputs="{x: $ctx.params.x, y: [1, text], z: {k: 1}}"), None),
        (flow(task="    retries: 2\n"), "tasks.a.retries"),
        (flow(task="    timeout_sec: 2.0\n    fail_policy: isolate\n"), "tasks.a.fail_policy, tasks.a.timeout_sec"),
        (flow("pipe(p) >> b", more="pipes: {p: a}\n"), "pipes"),
        (flow("first: a >> b"), "a graph of more than chains"),
        (flow("a", more=""), "a task that the graph does not use (b)"),
        (flow(inputs="{x: [$ctx.params.x]}"), "tasks.a.inputs.x"),
        (flow(inputs="{x: {k: {l: $node.b.output}}}", graph="b >> a"), "tasks.a.inputs.x"),
        (flow(inputs="{x: $100}"), "tasks.a.inputs.x"),
    ],
)
def test_what_of_a_flow_only_our_workers_run_as_it_is_meant(text: str, said: str | None) -> None:
    found = own_workers_only(parse_workflow(text.encode(), max_bytes=10_000).file)
    assert (found is None) if said is None else (found is not None and said in found), found


def test_the_record_of_a_job_without_one() -> None:
    job = Job(run_id="r", flow_name="f", params={"x": 1}, tag="other", tenant_id="team", workflow_yaml=TEXT)
    made = record_of(job, "cpu", 10_000)
    assert (made.tag, made.tags, made.params, made.tenant_id) == ("cpu", ["cpu"], {"x": 1}, "team")
    assert (made.workflow_yaml_sha256, made.workflow_yaml_bytes) == (job.flow_sha256, len(TEXT))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"params": {"x": "y" * 10_000}}, "10,?[0-9]* bytes with its record; 5000 are accepted"),
        ({"flow_name": "f" * 1000}, "flow_name"),
        ({"tags": ["t"] * 100}, "tags"),
        ({"workflow_yaml": TEXT, "workflow_yaml_sha256": "0" * 64}, "workflow_yaml_sha256"),
    ],
)
def test_a_job_that_cannot_be_run_ends_its_run(fields: dict[str, Any], said: str) -> None:
    made = record_of(Job(**{"run_id": "r", "flow_name": "f", **fields}), "cpu", 5000)
    assert made.status.value == "FAILED" and made.end_reason is not None and made.end_reason.value == "invalid_job"
    assert made.error is not None and (said in made.error or "bytes" in made.error)
    assert len(made.to_json()) < 5000


def test_nobody_sees_the_run_of_what_is_no_tenant() -> None:
    with pytest.raises(InvalidInput, match="tenant"):
        record_of(Job(run_id="r", flow_name="f", tenant_id="no tenant"), "cpu", 5000)


@pytest.mark.parametrize(
    ("job", "stored"),
    [
        ({"flow_name": "g"}, {}),
        ({"params": {"x": 2}}, {"params": {"x": 1}}),
        ({"workflow_yaml": TEXT}, {"workflow_yaml_sha256": "0" * 64}),
    ],
)
def test_a_job_that_is_not_that_of_its_run(job: dict[str, Any], stored: dict[str, Any]) -> None:
    known = RunRecord(**{"run_id": "r", "flow_name": "f", **stored})
    with pytest.raises(InvalidInput, match="not the job of its run"):
        check_agrees(Job(**{"run_id": "r", "flow_name": "f", **job}), known)
    check_agrees(Job(run_id="r", flow_name="f"), RunRecord(run_id="r", flow_name="f"))


def test_what_another_system_dropped_is_regained() -> None:
    job = Job(run_id="r", flow_name="asked", params={"x": 1}, submitted_at=3.0)
    theirs = RunRecord.from_json(b'{"run_id":"r","flow_name":"called","status":"RUNNING","start_time":4}')
    again = regained(theirs, job, num_delivered=3)
    assert (again.attempt, again.flow_name, again.submitted_at, again.params) == (2, "asked", 3.0, {"x": 1})
    ours = RunRecord(run_id="r", flow_name="f", attempt=1)
    assert regained(ours, job, num_delivered=3) is ours
