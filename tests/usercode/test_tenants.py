"""Two tenants never meet in a process, whatever the isolation, though the same worker runs the same flow for both."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from pyoco_server.client.http import TERMINAL, PyocoHttpClient
from tests.acceptance.conftest import System, running_system

from .conftest import FAST, ISOLATIONS

pytestmark = pytest.mark.usercode

KEYS = {"PYOCO_HTTP_AUTH_MODE": "api_key", "PYOCO_AUTH_PEPPER": "a pepper of this test"}
CODE = """
import os, sys, threading
import pyoco.core.engine as engine
SEEN = []
def t(tenant, evil):
    found = [os.environ.get("SECRET"), list(SEEN), getattr(engine.Engine.run, "stolen", None), os.getpid()]
    os.environ["SECRET"] = tenant
    SEEN.append(tenant)
    if evil:
        def run(*args, **kwargs): raise RuntimeError("taken over")
        run.stolen = tenant
        engine.Engine.run = run
    return found
"""


@pytest.fixture(scope="module")
def tenants(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[System, dict[str, PyocoHttpClient]]]:
    with running_system(tmp_path_factory.mktemp("tenants"), **KEYS, **FAST) as system:
        for isolation in ISOLATIONS:
            system.worker("--isolation", isolation, worker_id=isolation, tags=isolation, **FAST)
        (system.folder / "of_both.py").write_text(CODE)
        clients = {tenant: PyocoHttpClient(system.url, api_key=key_of(system, tenant)) for tenant in ("alpha", "beta")}
        yield system, clients
        for client in clients.values():
            client.close()


def key_of(system: System, tenant: str) -> str:
    made = subprocess.run(
        [sys.executable, "-m", "pyoco_server.admin_cli", "api-key", "create", "--tenant", tenant],
        check=True, capture_output=True, text=True, env={**os.environ, **KEYS, "PYOCO_NATS_URL": system.nats_url},
    )  # fmt: skip
    return str(json.loads(made.stdout)["api_key"])


@pytest.mark.parametrize("isolation", ISOLATIONS)
def test_what_one_does_the_other_never_sees(tenants: tuple[System, dict[str, PyocoHttpClient]], isolation: str) -> None:
    _, clients = tenants
    flow = 'version: 1\nflow:\n  graph: t\ntasks:\n  t: {callable: "of_both:t"}\n'
    processes: dict[str, set[int]] = {"alpha": set(), "beta": set()}
    for tenant, evil in [("alpha", False), ("beta", False), ("alpha", True), ("beta", False), ("beta", False)]:
        run_id = clients[tenant].submit_run_yaml(
            flow, flow_name="main", tag=isolation, params={"tenant": tenant, "evil": evil}
        )["run_id"]
        run: dict = {}
        for event in clients[tenant].watch_run(run_id, include_records=True, timeout_sec=30):
            run = event["data"].get("snapshot", run)
        assert run["status"] in TERMINAL
        assert run["status"] == "COMPLETED", run["error"]
        secret, seen, stolen, process = run["task_records"]["t"]["output"]
        assert secret is None  # a run's environment is put back for its own tenant too
        assert set(seen) <= {tenant}
        assert stolen is None
        processes[tenant].add(process)
    assert not processes["alpha"] & processes["beta"]
