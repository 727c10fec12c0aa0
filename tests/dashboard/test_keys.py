"""The page where keys are in use: it asks for one, keeps it in its tab, and offers what it allows."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from pyoco_server.client.http import PyocoHttpClient
from tests.acceptance.conftest import System, running_system

from .conftest import Dashboard

pytestmark = pytest.mark.browser

PEPPER = "pepper of the gateway"


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A system that asks for keys."""
    folder = tmp_path_factory.mktemp("keys")
    with running_system(folder, PYOCO_AUTH_PEPPER=PEPPER, PYOCO_HTTP_AUTH_MODE="api_key") as running:
        yield running


def admin(system: System, *arguments: str) -> dict[str, Any]:
    environment = {**os.environ, "PYOCO_NATS_URL": system.nats_url, "PYOCO_AUTH_PEPPER": PEPPER}
    done = subprocess.run(
        [sys.executable, "-m", "pyoco_server.admin_cli", "api-key", *arguments],
        cwd=system.folder, capture_output=True, text=True, timeout=60, env=environment, check=True,
    )  # fmt: skip
    return dict(json.loads(done.stdout))


def submit(system: System, key: str, tag: str) -> str:
    with PyocoHttpClient(system.url, api_key=key) as client:
        return str(client.submit_run("f", {}, tag=tag)["run_id"])


def give(page: Page, key: str) -> None:
    page.get_by_label("Key", exact=True).fill(key)
    page.get_by_role("button", name="Use", exact=True).click()


def test_the_page_asks_for_a_key_and_shows_what_it_may_see(
    dashboards: Callable[..., Dashboard], system: System
) -> None:
    member = admin(system, "create", "--tenant", "ours", "--role", "member")
    other = admin(system, "create", "--tenant", "theirs", "--role", "member")
    mine, theirs = submit(system, member["api_key"], "t"), submit(system, other["api_key"], "t")
    dashboard = dashboards(system.url)
    dashboard.expect_console("status of 401", "status of 403")
    page = dashboard.page
    page.goto(f"{system.url}/#/runs?tag=t")
    expect(page.get_by_role("dialog", name="API key")).to_be_visible()
    dashboard.check_accessibility()
    give(page, "pyoco_000000000000000000000000.nonsense")
    expect(page.get_by_role("alert").filter(has_text="invalid api key")).to_be_visible()
    give(page, member["api_key"])
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(page.locator(f"tr[data-run='{mine}']")).to_be_visible()
    expect(page.locator(f"tr[data-run='{theirs}']")).to_be_hidden()
    expect(page.locator(".tab.all .count")).to_have_text("1")
    expect(page.locator(".pulse.live")).to_be_visible()
    submit(system, other["api_key"], "t")
    submit(system, member["api_key"], "t")
    expect(page.get_by_role("button", name="1 new")).to_be_visible()
    assert member["api_key"] not in page.url
    assert page.evaluate("Object.values(localStorage).join()").find(member["api_key"]) < 0
    page.reload()
    expect(page.locator(f"tr[data-run='{mine}']")).to_be_visible()  # this tab keeps it
    page.locator(f"tr[data-run='{mine}'] a").first.click()
    expect(page.locator(".facts")).to_contain_text("ours")
    page.get_by_role("link", name="Overview").click()
    expect(page.locator("[data-tile=waiting] b")).to_have_text("2")
    expect(page.locator(".alert")).to_contain_text("2 runs wait for the tag t, and no worker serves it")
    dashboard.expect_console("status of 404")
    page.goto(f"{system.url}/#/runs/{theirs}")
    expect(page.get_by_text("There is no such run")).to_be_visible()


def test_only_what_a_key_allows_is_offered(dashboards: Callable[..., Dashboard], system: System) -> None:
    viewer = admin(system, "create", "--tenant", "seen", "--role", "viewer")
    member = admin(system, "create", "--tenant", "seen", "--role", "member")
    run_id = submit(system, member["api_key"], "t")
    dashboard = dashboards(system.url)
    dashboard.expect_console("status of 401", "status of 403")
    page = dashboard.page
    page.goto(f"{system.url}/#/runs/{run_id}")
    give(page, viewer["api_key"])
    expect(page.locator(".title .status")).to_have_text("Waiting")
    expect(page.get_by_role("button", name="Copy as pyoco-client command").first).to_be_visible()
    expect(page.get_by_role("button", name="Cancel", exact=True)).to_be_hidden()
    expect(page.get_by_role("button", name="Run again")).to_be_hidden()
    page.get_by_role("link", name="Runs").first.click()
    expect(page.locator("tr[data-run]")).to_have_count(1)
    expect(page.locator("tr[data-run] input")).to_have_count(0)
    expect(page.get_by_role("link", name="Audit")).to_be_hidden()
    page.goto(f"{system.url}/#/audit")
    expect(page.get_by_text("an admin's does")).to_be_visible()
    page.goto(f"{system.url}/#/wheels")
    expect(page.get_by_text("No wheels yet")).to_be_visible()
    expect(page.get_by_role("button", name="Upload a wheel")).to_be_hidden()
    page.get_by_role("button", name="viewer").click()
    give(page, member["api_key"])
    expect(page.get_by_role("button", name="Upload a wheel")).to_be_visible()
    expect(page.get_by_role("link", name="Audit")).to_be_hidden()
    page.get_by_role("link", name="Runs").first.click()
    expect(page.locator("tr[data-run] input")).to_have_count(1)
    head = admin(system, "create", "--tenant", "seen", "--role", "admin")
    page.get_by_role("button", name="member").click()
    give(page, head["api_key"])
    page.get_by_role("link", name="Audit").click()
    expect(page.locator("tr[data-entry]").filter(has_text="Key made").first).to_contain_text("Done")


def test_a_key_that_is_revoked_under_the_page(dashboards: Callable[..., Dashboard], system: System) -> None:
    member = admin(system, "create", "--tenant", "gone", "--role", "member")
    run_id = submit(system, member["api_key"], "t")
    dashboard = dashboards(system.url)
    dashboard.expect_console("status of 401", "status of 403")
    page = dashboard.page
    page.goto(f"{system.url}/#/runs")
    give(page, member["api_key"])
    expect(page.locator(f"tr[data-run='{run_id}']")).to_be_visible()
    admin(system, "revoke", "--key-id", member["key_id"])
    expect(page.get_by_role("dialog", name="API key")).to_be_visible()
    expect(page.get_by_text("The server refuses this key")).to_be_visible()
    expect(page.locator(".pulse")).to_have_text("stopped")
