"""Wheels of tenants, with the real commands: whose code runs in whose runs, on one worker with one slot."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from pyoco_server.client.http import PyocoHttpClient
from tests.wheels import make_wheel

from .conftest import BIN, DEADLINE, Process, System, running_system
from .wheel_uploads import flow_of, outputs

pytestmark = pytest.mark.slow

FAST = {"PYOCO_WORKER_HEARTBEAT_INTERVAL_SEC": "0.5", "PYOCO_WHEEL_SYNC_INTERVAL_SEC": "60"}
KEYS = {"PYOCO_HTTP_AUTH_MODE": "api_key"}


@dataclass
class Site:
    """A system that asks for keys, with a worker of one slot, and a key of each kind."""

    system: System
    worker: Process
    keys: dict[str, str] = field(default_factory=dict)

    def key(self, who: str) -> str:
        """Return the key of ``tenant`` or ``tenant:role``."""
        if who not in self.keys:
            tenant, _, role = who.partition(":")
            done = subprocess.run(
                [sys.executable, "-m", "pyoco_server.admin_cli", "api-key", "create", "--tenant", tenant,
                 "--role", role or "member"],
                cwd=self.system.folder, capture_output=True, text=True, timeout=60, check=True,
                env={**os.environ, **KEYS, "PYOCO_NATS_URL": self.system.nats_url},
            )  # fmt: skip
            self.keys[who] = json.loads(done.stdout)["api_key"]
        return self.keys[who]

    def command(self, who: str, *arguments: str, code: int = 0) -> Any:
        """Run ``pyoco-client`` with somebody's key; the answer is what it printed."""
        done = subprocess.run(
            [BIN / "pyoco-client", "--server", self.system.url, *arguments],
            cwd=self.system.folder, capture_output=True, text=True, timeout=60,
            env={**os.environ, "PYOCO_API_KEY": self.key(who)},
        )  # fmt: skip
        assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
        return json.loads(done.stdout) if code == 0 else done.stderr

    def run(self, who: str, *callables: str) -> dict[str, Any]:
        """Run a flow with somebody's key, to its end."""
        with PyocoHttpClient(self.system.url, api_key=self.key(who)) as client:
            other = System(self.system.folder, self.system.url, self.system.nats_url, self.system.server, client)
            return other.run(flow_of(*callables))

    def sync(self, who: str) -> dict[str, Any]:
        """Return the worker's ``wheel_sync`` as somebody sees it."""
        return self.until(who, lambda _: True)

    def until(self, who: str, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Wait until the worker's ``wheel_sync``, as somebody sees it, satisfies a condition."""
        deadline = time.monotonic() + DEADLINE
        with PyocoHttpClient(self.system.url, api_key=self.key(who)) as client:
            while True:
                [found] = client.get_workers()
                if holds(found["wheel_sync"]):
                    return dict(found["wheel_sync"])
                assert time.monotonic() < deadline, found


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running_system(tmp_path_factory.mktemp("tenants"), **FAST, **KEYS) as system:
        yield Site(system, system.worker("--wheel-sync", worker_id="cpu-1", **FAST))


def build(folder: Path, name: str, package: str, version: str, code: str, **options: Any) -> str:
    """Build a wheel in a folder of its own; the answer is its path."""
    place = folder / name
    place.mkdir(exist_ok=True)
    return str(make_wheel(place, package, version, {f"{package.replace('-', '_')}.py": code}, **options))


def test_each_tenants_runs_have_its_own_wheels_and_the_shared_ones(site: Site, tmp_path: Path) -> None:
    code = "def t():\n    return {!r}\n"
    for who in ("alpha", "beta"):
        uploaded = site.command(
            who, "wheel-upload", "--wheel-file", build(tmp_path, who, "tool", "1", code.format(who))
        )
        assert uploaded["tenant_id"] == who
    site.command(
        "ops:operator", "wheel-upload", "--wheel-file", build(tmp_path, "ops", "common", "1", code.format("all"))
    )
    seen, digests = [], {}
    for who in ("alpha", "beta", "alpha", "alpha", "beta", "alpha", "beta"):
        run = site.run(who, "tool:t", "common:t")
        seen.append((who, *outputs(run)))
        assert digests.setdefault(who, run["environment"]) == run["environment"]
    assert all(tuple(row) == (row[0], row[0], "all") for row in seen), seen
    stranger = site.run("gamma", "common:t", "tool:t")
    assert stranger["end_reason"] == "dependency_missing"
    assert "no module named 'tool'" in stranger["error"]
    assert len({*digests.values(), stranger["environment"]}) == 3
    assert outputs(site.run("gamma", "common:t")) == ["all"]
    # Nothing of it is told to others.
    site.until("ops:operator", lambda sync: sorted(sync["tenants"]) == ["alpha", "beta"])
    for who in ("alpha", "alpha:viewer", "alpha:admin"):
        assert list(site.sync(who)["tenants"]) == ["alpha"]
    assert [wheel["package_name"] for wheel in site.sync("gamma")["installed_wheels"]] == ["common"]
    assert [(wheel["name"], wheel["tenant_id"]) for wheel in site.command("beta", "wheels")] == [
        ("common-1-py3-none-any.whl", None), ("tool-1-py3-none-any.whl", "beta"),
    ]  # fmt: skip
    rows = subprocess.run(
        [BIN / "pyoco-client", "--server", site.system.url, "workers", "--output", "plugins"],
        capture_output=True, text=True, check=True, timeout=30, env={**os.environ, "PYOCO_API_KEY": site.key("alpha")},
    ).stdout  # fmt: skip
    assert [line.split()[-1] for line in rows.splitlines() if "tool-1" in line] == ["alpha"]


@pytest.mark.slow
def test_a_tenants_version_goes_before_the_shared_one(site: Site, tmp_path: Path) -> None:
    code = "def t():\n    return {!r}\n"
    site.command(
        "ops:operator", "wheel-upload", "--wheel-file", build(tmp_path, "s", "both", "2", code.format("shared"))
    )
    assert outputs(site.run("alpha", "both:t")) == ["shared"]
    site.command("alpha", "wheel-upload", "--wheel-file", build(tmp_path, "a", "both", "1", code.format("own")))
    assert outputs(site.run("alpha", "both:t")) == ["own"]
    assert outputs(site.run("beta", "both:t")) == ["shared"]
    told = site.command("beta", "wheel-delete", "--name", "both-1-py3-none-any.whl", code=5)
    assert "alpha" not in told
    site.command("alpha", "wheel-delete", "--name", "both-2-py3-none-any.whl", code=4)
    site.command("alpha", "wheel-upload", "--wheel-file", str(tmp_path / "a" / "both-1-py3-none-any.whl"),
                 "--tenant", "beta", code=4)  # fmt: skip
    site.command("ops:operator", "wheel-delete", "--name", "both-1-py3-none-any.whl", "--tenant", "alpha")
    assert outputs(site.run("alpha", "both:t")) == ["shared"]


@pytest.mark.slow
def test_a_broken_wheel_of_a_tenant_is_its_own_trouble(site: Site, tmp_path: Path) -> None:
    hook = "def t():\n    return 1\ndef hook(registry):\n    registry.register_callable(t, name='x/y')\n"
    site.command("beta", "wheel-upload", "--wheel-file", build(tmp_path, "b", "fine", "1", hook))
    bad = build(tmp_path, "a", "fine", "1", "1 / 0\n", entry_points={"p": "fine:hook"})
    site.command("alpha", "wheel-upload", "--preflight", "off", "--wheel-file", bad)
    assert outputs(site.run("beta", "fine:t")) == [1]
    assert site.run("alpha", "fine:t")["end_reason"] == "dependency_missing"
    mine = site.until("alpha", lambda sync: sync["tenants"]["alpha"]["outcome"] == "partial")
    assert mine["last_result"] == "ok"
    assert "ZeroDivisionError" in mine["tenants"]["alpha"]["last_error"]
    assert site.sync("ops:operator")["tenants"]["beta"]["last_result"] == "ok"
    assert "ZeroDivisionError" not in json.dumps(site.sync("beta"))
    doctor = site.command("alpha", "doctor", "--output", "json")
    assert "fine-1" in json.dumps(doctor), doctor
    assert "fine-1" not in json.dumps(site.command("beta", "doctor", "--output", "json"))
