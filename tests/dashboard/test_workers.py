"""The workers on the page: who is there, what is wrong with one, and how to send it home."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.acceptance.conftest import DEADLINE, System, running_system

from .conftest import LANGUAGES, NARROW, THEMES, WIDE, Dashboard

pytestmark = pytest.mark.browser

ISOLATIONS = {"en": ("own process", "shared process"), "ja": ("専用プロセス", "共有プロセス")}
SLEEPING = "import time\n\ndef t():\n    time.sleep(600)\n"


def test_a_page_without_workers_tells_how_to_start_one(dashboard: Dashboard) -> None:
    page = dashboard.open("/workers")
    command = re.compile(r"pyoco-worker --nats-url nats://\S+ --tags cpu --worker-id cpu-1")
    expect(page.get_by_text(command)).to_be_visible()
    dashboard.check_accessibility()


def test_workers_come_work_get_lost_and_are_sent_home(dashboards: Callable[..., Dashboard], tmp_path: Path) -> None:
    with running_system(tmp_path, PYOCO_WORKER_DISCONNECT_TIMEOUT_SEC="3") as system:
        dashboard = dashboards(system.url)
        page = dashboard.open("/runs")
        page.keyboard.press("g")
        page.keyboard.press("w")
        expect(page.get_by_role("heading", name="Workers")).to_be_visible()
        quick = {"PYOCO_WORKER_HEARTBEAT_INTERVAL_SEC": "0.5", "PYOCO_CANCEL_GRACE_PERIOD_SEC": "1"}
        one = system.worker("--concurrency", "2", "--drain-timeout-sec", "1", worker_id="one", tags="cpu", **quick)
        lost = system.worker(worker_id="lost", tags="gpu", **quick)
        row = page.locator("tr[data-worker='one']")
        expect(row).to_contain_text("Idle")
        run_id = str(system.client.submit_run_yaml(system.flow(SLEEPING), flow_name="main", tag="cpu")["run_id"])
        expect(row).to_contain_text("Running")
        expect(row).to_contain_text("1 / 2")
        expect(row.get_by_role("link", name=run_id[:8])).to_have_attribute("href", f"#/runs/{run_id}")
        expect(row.locator(".memory")).to_contain_text("MiB")
        dashboard.check_accessibility()
        lost.popen.kill()
        expect(page.locator("tr[data-worker='lost']")).to_contain_text("Disconnected")
        page.get_by_role("button", name="Hide lost").click()
        expect(page.locator("tr[data-worker='lost']")).to_be_hidden()
        page.get_by_role("link", name="Show 1 hidden one").click()
        page.get_by_role("button", name="Show lost again").click()
        expect(page.get_by_role("button", name="Hide lost")).to_be_visible()
        page.get_by_role("button", name="Drain one").click()
        dialog = page.get_by_role("dialog", name="Drain one")
        dialog.get_by_label("Reason").fill("new kernel")
        dialog.get_by_role("button", name="Drain", exact=True).click()
        expect(row).to_contain_text("Stopped")
        expect(row.locator(".status")).to_have_attribute("title", "drained: new kernel")
        expect(page.get_by_role("button", name="Drain one")).to_be_hidden()
        assert one.popen.wait(DEADLINE) == 0


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A system with a worker that runs something and one that has stopped."""
    with running_system(tmp_path_factory.mktemp("busy")) as running:
        running.worker("--concurrency", "2", "--drain-timeout-sec", "1", worker_id="cpu-1", tags="cpu,default")
        running.worker("--isolation", "shared", worker_id="gpu-1", tags="gpu").stop()
        run_id = str(running.client.submit_run_yaml(running.flow(SLEEPING), flow_name="main", tag="cpu")["run_id"])
        running.until(run_id, lambda snapshot: snapshot["status"] == "RUNNING")
        yield running


@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("language", LANGUAGES)
def test_pictures(
    dashboards: Callable[..., Dashboard], busy: System, language: str, theme: str, size: tuple[int, int]
) -> None:
    dashboard = dashboards(busy.url, language=language, theme=theme, size=size)
    page = dashboard.open("/workers")
    expect(page.locator("tr[data-worker]")).to_have_count(2)
    for worker, words in zip(("cpu-1", "gpu-1"), ISOLATIONS[language], strict=True):
        expect(page.locator(f"tr[data-worker='{worker}'] .slots")).to_contain_text(words)
    dashboard.check_accessibility()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    dashboard.shoot(f"workers-{language}-{theme}-{size[0]}")
