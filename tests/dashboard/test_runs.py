"""The list of runs."""

import re
import time
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.acceptance.conftest import DEADLINE, TUTORIAL, System

from .conftest import LANGUAGES, NARROW, THEMES, WIDE, Dashboard

pytestmark = pytest.mark.browser


def row(page: Page, run_id: str) -> Any:
    return page.locator(f"tr[data-run='{run_id}']")


def waiting(system: System, count: int, tag: str, flow: str = "f") -> list[str]:
    """Submit runs that nobody takes."""
    return [str(system.client.submit_run(flow, {}, tag=tag)["run_id"]) for _ in range(count)]


def test_the_tutorials_run_appears_without_a_reload(dashboard: Dashboard, system: System) -> None:
    page = dashboard.open()
    expect(page.get_by_text("No runs yet")).to_be_visible()
    run_id = system.client.submit_run_yaml(TUTORIAL, flow_name="main", tag="cpu")["run_id"]
    expect(row(page, run_id)).to_contain_text("Waiting")
    system.worker(worker_id="cpu-1")
    expect(row(page, run_id)).to_contain_text("Completed")
    expect(row(page, run_id)).to_contain_text("cpu-1")
    expect(page.locator(".tab.completed .count")).to_have_text("1")


def test_new_runs_wait_behind_a_pill_and_rows_change_in_place(dashboard: Dashboard, system: System) -> None:
    (first,) = waiting(system, 1, "pill")
    page = dashboard.open("/runs?tag=pill")
    expect(row(page, first)).to_be_visible()
    others = waiting(system, 12, "pill")
    pill = page.get_by_role("button", name="12 new")
    expect(pill).to_be_visible()
    assert page.locator("tr[data-run]").count() == 1
    system.client.cancel_run(first)
    expect(row(page, first)).to_contain_text("Cancelled")
    pill.click()
    expect(page.locator("tr[data-run]")).to_have_count(13)
    expect(pill).to_be_hidden()
    expect(row(page, others[0])).to_be_visible()


def test_statuses_search_and_address(dashboard: Dashboard, system: System) -> None:
    runs = waiting(system, 3, "find", "alpha") + waiting(system, 2, "find", "beta")
    system.client.cancel_run(runs[0])
    page = dashboard.open("/runs?tag=find")
    shown = page.locator("tr[data-run]")
    expect(shown).to_have_count(5)
    expect(page.get_by_role("combobox")).to_have_value("tag:find")
    expect(page.locator(".tab.waiting .count")).to_have_text("4")
    page.locator(".tab.waiting").click()
    expect(shown).to_have_count(4)
    expect(page).to_have_url(re.compile(r"#/runs\?status=waiting&tag=find$"))
    search = page.get_by_role("combobox")
    search.fill("status:cancelled tag:find ")
    expect(shown).to_have_count(1)
    search.fill("tag:find flow:beta")
    search.press("Enter")
    expect(shown).to_have_count(2)
    expect(page).to_have_url(re.compile("flow=beta"))
    page.go_back()
    expect(shown).to_have_count(1)
    search.fill(runs[1][:13])
    expect(shown).to_have_count(1)
    search.fill("colour:red")
    expect(page.get_by_text("Not understood: colour:red")).to_be_visible()
    page.get_by_role("button", name="Clear the search").click()
    expect(search).to_have_value("")


def test_the_search_proposes(dashboard: Dashboard, system: System) -> None:
    waiting(system, 1, "proposed")
    page = dashboard.open("/runs")
    expect(page.locator("tr[data-run]").first).to_be_visible()
    page.keyboard.press("/")
    search = page.get_by_role("combobox")
    expect(search).to_be_focused()
    search.press_sequentially("t")
    expect(page.get_by_role("option", name="tag:")).to_be_visible()
    dashboard.check_accessibility()
    search.press("ArrowDown")
    search.press("Enter")
    search.press_sequentially("prop")
    page.get_by_role("option", name="tag:proposed").click()
    expect(search).to_have_value("tag:proposed ")
    expect(page.locator("tr[data-run]")).to_have_count(1)
    expect(page).to_have_url(re.compile("tag=proposed$"))


def test_many_are_cancelled_and_run_again(dashboard: Dashboard, system: System) -> None:
    waiting(system, 8, "many")
    page = dashboard.open("/runs?tag=many")
    boxes = page.locator("tr[data-run] input[type=checkbox]")
    expect(boxes).to_have_count(8)
    boxes.nth(1).click()
    boxes.nth(5).click(modifiers=["Shift"])
    expect(page.get_by_text("5 runs selected")).to_be_visible()
    page.get_by_role("button", name="Cancel", exact=True).click()
    dashboard.check_accessibility()
    page.get_by_role("button", name="Cancel 5 runs").click()
    expect(page.locator("tr[data-run]").filter(has_text="Cancelled")).to_have_count(5)
    expect(page.get_by_text("5 runs are asked to stop")).to_be_visible()
    boxes.nth(0).click()
    page.get_by_role("button", name="Run again").click()
    page.get_by_role("button", name="Run 1 again").click()
    expect(page.get_by_role("button", name="1 new")).to_be_visible()


def test_a_long_list_has_no_end_and_few_rows(dashboard: Dashboard, system: System) -> None:
    waiting(system, 250, "long")
    page = dashboard.open("/runs?tag=long")
    expect(page.locator("tr[data-run]").first).to_be_visible()
    assert page.locator("tr[data-run]").count() < 100
    last = page.locator("tr[aria-rowindex='251']")
    deadline = time.monotonic() + DEADLINE
    while not last.is_visible():  # what comes next is asked for at the end of what is there
        assert time.monotonic() < deadline
        page.evaluate("scrollTo(0, document.body.scrollHeight)")
        page.wait_for_timeout(150)
    expect(page.get_by_text("No more runs")).to_be_visible()
    expect(last).to_be_visible()
    assert page.locator("tr[data-run]").count() < 100
    assert page.locator("table.runs").get_attribute("aria-rowcount") == "251"


def test_the_keyboard_is_enough(dashboard: Dashboard, system: System) -> None:
    runs = waiting(system, 3, "keys")
    page = dashboard.open("/runs?tag=keys")
    expect(page.locator("tr[data-run]")).to_have_count(3)
    page.keyboard.press("j")
    page.keyboard.press("j")
    expect(row(page, runs[1])).to_have_class(re.compile("current"))
    page.keyboard.press("x")
    expect(page.get_by_text("1 run selected")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_text("1 run selected")).to_be_hidden()
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_contain_text("Next run")
    dashboard.check_accessibility()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    page.keyboard.press("g")
    page.keyboard.press("r")
    expect(page).to_have_url(re.compile(r"#/runs$"))


def test_the_list_as_a_command(dashboards: Callable[..., Dashboard], system: System) -> None:
    dashboard = dashboards(system.url, permissions=["clipboard-read", "clipboard-write"])
    page = dashboard.open("/runs?tag=keys&status=waiting")
    page.get_by_role("button", name="Copy this list").click()
    expect(page.get_by_role("status").filter(has_text="Copied")).to_be_visible()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == f"pyoco-client --server {system.url} list-vnext --status PENDING --tag keys"


@pytest.fixture(scope="module")
def shown(system: System) -> None:
    """Runs of several statuses."""
    for run_id in waiting(system, 3, "pictures", "nightly")[:1]:
        system.client.cancel_run(run_id)
    system.worker(worker_id="pictures-1", tags="pictures-done")
    system.run(TUTORIAL, tag="pictures-done")
    system.run(system.flow("def t():\n    raise ValueError('row 17 has no price')\n"), tag="pictures-done")


@pytest.mark.usefixtures("shown")
@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("language", LANGUAGES)
def test_pictures(
    dashboards: Callable[..., Dashboard], system: System, language: str, theme: str, size: tuple[int, int]
) -> None:
    dashboard = dashboards(system.url, language=language, theme=theme, size=size)
    page = dashboard.open("/runs")
    expect(page.locator("tr[data-run]").first).to_be_visible()
    expect(page.locator("html")).to_have_attribute("lang", language)
    dashboard.check_accessibility()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    dashboard.shoot(f"runs-{language}-{theme}-{size[0]}")
