"""The wheels on the page: uploaded, used by workers, pinned, deleted, and the audit trail of all of it."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.acceptance.conftest import System, running_system
from tests.wheels import make_wheel

from .conftest import LANGUAGES, NARROW, THEMES, WIDE, Dashboard

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A system without workers at first."""
    with running_system(tmp_path_factory.mktemp("system")) as running:
        yield running


def test_wheels_are_uploaded_used_pinned_and_deleted(dashboard: Dashboard, system: System, tmp_path: Path) -> None:
    page = dashboard.open("/runs")
    page.keyboard.press("g")
    page.keyboard.press("l")
    expect(page.get_by_text("wheel-upload --wheel-file")).to_be_visible()
    dashboard.check_accessibility()
    opener = page.get_by_role("button", name="Upload a wheel")
    opener.click()
    dialog = page.get_by_role("dialog", name="Upload a wheel")
    dashboard.check_accessibility()
    page.keyboard.press("Escape")
    expect(opener).to_be_focused()
    opener.click()
    dialog.get_by_label("Wheel file").set_input_files(make_wheel(tmp_path, "prices", "1.0"))
    dialog.get_by_label("For workers").fill("no good,")
    send = dialog.get_by_role("button", name="Upload a wheel")
    dashboard.expect_console("status of 422")
    send.click()
    expect(dialog.get_by_role("alert")).to_contain_text("no good")
    dialog.get_by_label("For workers").fill("cpu")
    send.click()
    expect(dialog).to_be_hidden()
    row = page.locator("tr[data-wheel^='prices-1.0']")
    expect(row).to_contain_text("cpu")
    expect(page.get_by_role("status").filter(has_text="is uploaded")).to_be_visible()
    expect(page.get_by_text("--wheel-sync")).to_be_visible()
    system.client.upload_wheel(path=make_wheel(tmp_path, "prices", "1.1"), tags=["cpu"])  # by somebody else
    newer = page.locator("tr[data-wheel^='prices-1.1']")
    expect(newer).to_be_visible()
    system.worker("--wheel-sync", "--wheel-sync-interval-sec", "1", worker_id="cpu-1")
    expect(newer.locator(".workers")).to_contain_text("cpu-1")
    expect(page.get_by_text("--wheel-sync")).to_be_hidden()
    page.get_by_role("button", name="Pin prices 1.0").click()
    expect(row.locator(".status")).to_have_text("pinned")
    expect(row.locator(".workers")).to_contain_text("cpu-1")
    expect(newer.locator(".workers")).not_to_contain_text("cpu-1")
    page.get_by_role("button", name="Unpin prices 1.0").click()
    expect(newer.locator(".workers")).to_contain_text("cpu-1")
    expect(row.locator(".status")).to_be_hidden()
    page.get_by_role("button", name="Delete prices 1.0").click()
    page.get_by_role("dialog", name="Delete prices 1.0?").get_by_role("button", name="Delete").click()
    expect(row).to_be_hidden()
    expect(page.get_by_role("status").filter(has_text="prices 1.0 is deleted")).to_be_visible()
    page.get_by_text(re.compile(r"^What happened: \d events$")).click()
    history = page.get_by_role("table", name="What happened to wheels").locator("tbody tr")
    expect(history).to_have_text(
        [re.compile(word) for word in ("deleted", "unpinned", "pinned", "uploaded", "uploaded")]
    )
    dashboard.check_accessibility()


def test_a_wheel_that_cannot_be_used_says_where_and_why(dashboard: Dashboard, system: System, tmp_path: Path) -> None:
    broken = make_wheel(tmp_path, "broken", "1.0", metadata=["Requires-Python: >=9"])
    system.client.upload_wheel(path=broken, tags=["cpu"])
    page = dashboard.open("/wheels")
    cell = page.locator("tr[data-wheel^='broken-1.0'] .workers")
    expect(cell.locator(".wrong strong")).to_have_text("cpu-1")
    expect(cell).to_contain_text("requires Python >=9")


def test_the_trail_tells_who_did_what(dashboard: Dashboard, system: System) -> None:
    run_id = str(system.client.submit_run("f", {}, tag="audited")["run_id"])
    system.client.cancel_run(run_id)
    page = dashboard.open("/audit")
    rows = page.locator("tr[data-entry]")
    expect(rows.filter(has_text="Wheel uploaded").first).to_contain_text("Done")
    dashboard.check_accessibility()
    page.get_by_label("What", exact=True).select_option("run.cancel")
    expect(rows).to_have_count(1)
    expect(rows.first).to_contain_text("127.0.0.1")
    expect(page).to_have_url(re.compile(r"#/audit\?action=run\.cancel$"))
    page.get_by_role("button", name="Clear").click()
    page.get_by_label("Of what").fill(run_id[:13])
    page.get_by_label("Of what").press("Enter")
    expect(rows).to_have_count(2)
    rows.first.get_by_role("link", name=run_id).click()
    expect(page.locator(".title .status")).to_have_text("Cancelled")
    page.go_back()
    page.get_by_label("Outcome", exact=True).select_option("refused")
    expect(page.get_by_text("No entry matches")).to_be_visible()
    dashboard.expect_console("status of 422")
    page.goto(f"{system.url}/#/audit?action=nonsense")
    expect(page.get_by_role("alert")).to_contain_text("action")


@pytest.fixture(scope="module")
def shown(system: System, tmp_path_factory: pytest.TempPathFactory) -> System:
    """A package with several versions, one of them pinned."""
    folder = tmp_path_factory.mktemp("wheels")
    for version in ("1.2", "1.3.dev4"):
        system.client.upload_wheel(path=make_wheel(folder, "prices", version), tags=["cpu", "gpu"])
    system.client.pin_wheel("prices==1.2")
    return system


@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("language", LANGUAGES)
def test_pictures(
    dashboards: Callable[..., Dashboard], shown: System, language: str, theme: str, size: tuple[int, int]
) -> None:
    dashboard = dashboards(shown.url, language=language, theme=theme, size=size)
    for view, row in {"wheels": "tr[data-wheel]", "audit": "tr[data-entry]"}.items():
        page = dashboard.open(f"/{view}")
        expect(page.locator(row).first).to_be_visible()
        dashboard.check_accessibility()
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        expect(page.locator("nav a[aria-current=page]")).to_be_in_viewport(ratio=1)
        dashboard.shoot(f"{view}-{language}-{theme}-{size[0]}")
