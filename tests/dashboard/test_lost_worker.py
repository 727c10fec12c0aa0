"""A worker that is killed under its run, as the run's page shows it."""

import re
import signal
import time
from collections.abc import Iterator

import pytest
from playwright.sync_api import expect

from tests.acceptance.conftest import DEADLINE, System, running_system

from . import flows
from .conftest import Dashboard

pytestmark = pytest.mark.browser

QUICK = {
    "PYOCO_WORKER_HEARTBEAT_INTERVAL_SEC": "0.5",
    "PYOCO_WORKER_DISCONNECT_TIMEOUT_SEC": "2",
    "PYOCO_CONSUMER_ACK_WAIT_SEC": "6",
    "PYOCO_ACK_PROGRESS_INTERVAL_SEC": "1",
}


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A system that notices soon."""
    folder = tmp_path_factory.mktemp("lost")
    flows.write_code(folder)
    with running_system(folder, **QUICK) as running:
        yield running


def test_it_is_lost_and_the_run_starts_elsewhere(dashboard: Dashboard, system: System) -> None:
    first = system.worker(worker_id="first", **QUICK)
    run_id = system.client.submit_run_yaml(flows.WAITING, flow_name="waits", tag="cpu")["run_id"]
    page = dashboard.open(f"/runs/{run_id}")
    expect(page.locator(".graph [data-task='wait_for_word']")).to_have_class(re.compile("running"))
    expect(page.locator(".facts")).to_contain_text("first")
    # A worker tells of its runs with its next heartbeat; of what it never told, nobody knows when it is lost.
    deadline = time.monotonic() + DEADLINE
    while [worker["current_run_id"] for worker in system.client.get_workers()] != [run_id]:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    first.stop(signal.SIGKILL)
    expect(page.locator(".facts .note")).to_contain_text("lost")
    expect(page.locator(".verdict")).to_contain_text("first")
    dashboard.check_accessibility()
    dashboard.open("/workers")
    expect(page.locator("tr[data-worker='first'] td.runs")).to_contain_text(f"when lost: {run_id[:8]}")
    dashboard.open(f"/runs/{run_id}")
    system.worker(worker_id="second", **QUICK)
    expect(page.locator(".facts")).to_contain_text("second", timeout=30_000)
    expect(page.locator(".facts")).to_contain_text("Attempt2")
    expect(page.locator(".life")).to_contain_text("1 attempt lost")
    (system.folder / "go.txt").touch()
    expect(page.locator(".title .status")).to_have_text("Completed")
    expect(page.locator(".lines .attempt")).to_contain_text("Attempt 2")
