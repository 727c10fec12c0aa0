"""What users can set, call or meet is documented."""

import re
from pathlib import Path

import pytest

from pyoco_server.gateway.app import create_app
from pyoco_server.gateway.why.diagnosis import WhyCode
from pyoco_server.model.audit import AuditAction, AuditEntry, AuditOutcome
from pyoco_server.model.deadletter import DeadLetter, DeadLetterReason
from pyoco_server.model.findings.finding import FindingCode
from pyoco_server.model.run import EndReason, RunRecord, RunStatus
from pyoco_server.model.worker import GpuFigures, WorkerRecord
from pyoco_server.settings.environment import Settings, variable

DOCS = Path(__file__).parents[2] / "docs"
CONFIG = (DOCS / "config.md").read_text()
SPEC = (DOCS / "spec.md").read_text()
HEALTH = (DOCS / "how-to/health-checks.md").read_text()


@pytest.mark.parametrize("name", [variable(field) for field in Settings.model_fields])
def test_every_setting(name: str) -> None:
    assert f"`{name}`" in CONFIG


@pytest.mark.parametrize("word", [*(status.value for status in RunStatus), *(reason.value for reason in EndReason)])
def test_every_status_and_end_reason(word: str) -> None:
    assert word in SPEC


@pytest.mark.parametrize("code", WhyCode)
def test_every_code_of_why(code: WhyCode) -> None:
    assert f"`{code.value}`" in SPEC.split("## Why")[1].split("##")[0]


@pytest.mark.parametrize("code", FindingCode)
def test_every_finding(code: FindingCode) -> None:
    assert f"`{code.value}`" in HEALTH


def test_every_path(settings: Settings) -> None:
    paths = create_app(settings).openapi()["paths"]
    assert len(paths) >= 9
    for path in paths:
        assert re.sub(r"\{\w+_id\}", "{id}", path) in SPEC


@pytest.mark.parametrize("word", [*(reason.value for reason in DeadLetterReason), *DeadLetter.model_fields])
def test_every_field_of_a_dead_letter(word: str) -> None:
    assert word in SPEC


@pytest.mark.parametrize(
    "word",
    [*(action.value for action in AuditAction), *(outcome.value for outcome in AuditOutcome), *AuditEntry.model_fields],
)
def test_the_audit_trail(word: str) -> None:
    assert word in SPEC.split("## Audit")[1].split("##")[0]


def test_the_snapshots_fields() -> None:
    internal = {"instance_id", "job_seq", "tenant_id", "api_key_id", "schedule_id", "submission_digest"}
    missing = [name for name in RunRecord.model_fields if name not in internal and name not in SPEC]
    assert missing == []


def test_every_field_of_a_worker() -> None:
    section = SPEC.split("\n## Workers\n")[1].split("\n## ")[0]
    fields = [*WorkerRecord.model_fields, *GpuFigures.model_fields]
    assert [name for name in fields if name not in section] == []


def test_both_languages_have_the_tutorial() -> None:
    english, japanese = (DOCS / "tutorial.md").read_text(), (DOCS / "tutorial_ja.md").read_text()

    def commands(text: str) -> list[str]:
        return [line for line in text.splitlines() if line.startswith(("uv run", "curl"))]

    assert set(commands(japanese)) <= set(commands(english))
