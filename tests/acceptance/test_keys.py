"""The tutorial's chapter on keys, typed as printed, and what else their user meets."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from .conftest import BIN, TUTORIAL, System, running_system

DOCS = Path(__file__).parents[2] / "docs"
PEPPER = "pepper of the gateway"


def exports() -> dict[str, str]:
    """Give what the tutorial's chapter 4 sets, the same in both languages."""
    found = [
        dict(re.findall(r'^export (PYOCO_(?:HTTP|AUTH)_\w+)="(.+)"$', (DOCS / name).read_text(), re.MULTILINE))
        for name in ("tutorial.md", "tutorial_ja.md")
    ]
    assert found[0] == found[1] and found[0]["PYOCO_HTTP_AUTH_MODE"] == "api_key"
    return found[0]


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with running_system(
        tmp_path_factory.mktemp("keys"), PYOCO_AUTH_PEPPER=PEPPER, PYOCO_LOG_LEVEL="DEBUG", **exports()
    ) as it:
        (it.folder / "flow.yaml").write_text(TUTORIAL)
        yield it


def admin(system: System, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "pyoco_server.admin_cli", *arguments],
        cwd=system.folder, capture_output=True, text=True, timeout=60,
        env={**os.environ, **exports(), "PYOCO_NATS_URL": system.nats_url, "PYOCO_AUTH_PEPPER": PEPPER},
    )  # fmt: skip
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    return done


def client(system: System, *arguments: str, code: int = 0, key: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **({"PYOCO_API_KEY": key} if key else {})}
    done = subprocess.run(
        [BIN / "pyoco-client", "--server", system.url, *arguments],
        cwd=system.folder, capture_output=True, text=True, timeout=60, env=environment,
    )  # fmt: skip
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    return done


def test_the_chapter(system: System) -> None:
    created = admin(system, *"api-key create --tenant demo".split())
    made = json.loads(created.stdout)
    assert created.stderr == ""
    assert list(made)[:4] == ["key_id", "tenant_id", "api_key", "created_at"]
    key = made["api_key"]
    assert re.fullmatch(rf"pyoco_{made['key_id']}\.[A-Za-z0-9_-]{{43}}", key)
    submit = "submit-yaml --workflow-file flow.yaml --flow-name main --tag cpu".split()
    run_id = json.loads(client(system, "--api-key", key, *submit).stdout)["run_id"]
    # The worker asks for no key, and its runs' tasks see no secret of the gateway.
    system.worker(worker_id="cpu-1", tags="cpu")
    client(system, "watch", run_id, "--until-terminal", key=key)
    run = json.loads(client(system, "get", run_id, "--records", key=key).stdout)
    assert (run["status"], run["tenant_id"], run["api_key_id"]) == ("COMPLETED", "demo", made["key_id"])
    assert run["task_records"]["to_text"]["output"] == "v=2"

    listed = json.loads(admin(system, "api-key", "list").stdout)
    assert listed == [{**{name: made[name] for name in ("key_id", "tenant_id", "created_at", "role", "expires_at")},
                       "revoked_at": None}]  # fmt: skip
    second = json.loads(admin(system, *"api-key create --tenant demo".split()).stdout)["api_key"]
    revoked = json.loads(admin(system, "api-key", "revoke", "--key-id", made["key_id"]).stdout)
    assert set(revoked) == {"key_id", "revoked_at"}
    refused = client(system, "list", code=4, key=key)
    assert "invalid api key" in refused.stderr and "hint:" in refused.stderr
    wrong = httpx2.get(f"{system.url}/runs?limit=x", headers={"X-API-Key": second})
    assert wrong.status_code == 422 and second not in wrong.text
    shown = json.dumps([system.server.lines, *(process.lines for process in system.processes)]) + refused.stderr
    for secret in (key.partition(".")[2], second.partition(".")[2], PEPPER):
        assert secret not in shown
    assert made["key_id"] in shown


def test_what_the_client_says(system: System) -> None:
    missing = client(system, "list", code=4)
    assert "api key required" in missing.stderr and "PYOCO_API_KEY" in missing.stderr
    viewer = json.loads(admin(system, *"api-key create --tenant demo --role viewer --expires 1h".split()).stdout)
    assert viewer["expires_at"] - viewer["created_at"] == pytest.approx(3600)
    too_low = client(system, "submit", "--flow-name", "main", code=4, key=viewer["api_key"])
    assert "the role member" in too_low.stderr and viewer["api_key"] not in too_low.stderr


def test_an_operators_key_runs_the_system(system: System) -> None:
    keys = {
        role: json.loads(admin(system, *f"api-key create --tenant demo --role {role}".split()).stdout)
        for role in ("admin", "operator")
    }
    assert keys["operator"]["role"] == "operator" and keys["operator"]["tenant_id"] == "demo"
    refused = client(system, "workers", "drain", "nobody", code=4, key=keys["admin"]["api_key"])
    assert "operator" in refused.stderr
    assert "not found" in client(system, "workers", "drain", "nobody", code=5,
                                 key=keys["operator"]["api_key"]).stderr  # fmt: skip
    for role, there in (("admin", False), ("operator", True)):
        text = client(system, "metrics", key=keys[role]["api_key"]).stdout
        assert ("pyoco_http_requests_total" in text) is there and "pyoco_runs_total" in text
    without = admin(system, *"api-key create --role operator".split(), code=1)
    assert "--tenant" in without.stderr  # also who runs the system has runs of its own


@pytest.mark.slow
def test_what_the_admin_says(system: System) -> None:
    assert "tenant" in admin(system, "api-key", "create", "--tenant", "a.b", code=1).stderr
    assert "--expires" in admin(system, *"api-key create --tenant t --expires soon".split(), code=1).stderr
    assert "no api key" in admin(system, *"api-key revoke --key-id 000000000000000000000000".split(), code=2).stderr
    key = json.loads(admin(system, *"api-key create --tenant t".split()).stdout)["api_key"]
    mistaken = admin(system, "api-key", "revoke", "--key-id", key, code=2).stderr
    assert key.partition(".")[2] not in mistaken and key[6:30] in mistaken
    away = admin(system, "--nats-url", "nats://127.0.0.1:9", "api-key", "list", code=7)
    assert away.stdout == "" and "127.0.0.1:9" in away.stderr


@pytest.mark.slow
def test_the_audit_trail_tells_of_keys_and_of_what_is_done_with_them(system: System) -> None:
    make = "api-key create --tenant acme --role".split()
    boss, member = (json.loads(admin(system, *make, role).stdout) for role in ("admin", "member"))
    for _ in range(2):  # once more changes nothing
        admin(system, "api-key", "revoke", "--key-id", member["key_id"])
    run_id = json.loads(client(system, "submit", "--flow-name", "f", key=boss["api_key"]).stdout)["run_id"]
    client(system, "cancel", "--run-id", run_id, key=boss["api_key"])
    wanted = [
        ("key.create", boss["key_id"]), ("key.create", member["key_id"]), ("key.revoke", member["key_id"]),
        ("run.submit", run_id), ("run.cancel", run_id),
    ]  # fmt: skip
    deadline = time.monotonic() + 10
    while True:
        told = client(system, "audit", key=boss["api_key"]).stdout
        items = json.loads(told)["items"][::-1]
        if len(items) >= len(wanted) or time.monotonic() > deadline:
            break
    assert [(item["action"], item["target"]["id"]) for item in items] == wanted
    assert items[0]["target"]["tenant_id"] == "acme" and items[0]["details"]["role"] == "admin"
    assert items[0]["source"]["host"] and items[-1]["actor"]["api_key_id"] == boss["key_id"]
    assert boss["api_key"].partition(".")[2] not in told
    table = client(system, "audit", "--output", "table", "--action", "run.cancel", key=boss["api_key"]).stdout
    assert f"run {run_id}" in table
    logged = [
        line for line in system.server.lines if line.get("event") == "audit" and line["target"].get("id") == run_id
    ]
    assert [line["event_id"] for line in logged] == [item["event_id"] for item in items[-2:]]


def test_tasks_do_not_see_the_gateways_secrets(tmp_path: Path) -> None:
    (tmp_path / "peek.py").write_text("import os\ndef look():\n    return ' '.join(sorted(os.environ))\n")
    arguments = ["--with-worker", "--worker-tags", "cpu"]
    secrets = {"PYOCO_AUTH_PEPPER": "x", "PYOCO_API_KEY": "y"}
    with running_system(tmp_path, *arguments, **secrets) as system:
        seen = system.run("version: 1\nflow: {graph: t}\ntasks: {t: {callable: 'peek:look'}}\n")
        names = seen["task_records"]["t"]["output"].split()
        assert "PATH" in names and not set(secrets) & set(names)
