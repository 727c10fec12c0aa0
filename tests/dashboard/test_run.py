"""One run: its life, why it stands where it stands, its graph, its tasks and its log."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.acceptance.conftest import System, running_system

from . import flows
from .conftest import LANGUAGES, NARROW, THEMES, WIDE, Dashboard

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A system with a worker that knows the flows."""
    folder = tmp_path_factory.mktemp("system")
    flows.write_code(folder)
    with running_system(folder) as running:
        running.worker("--concurrency", "2", worker_id="cpu-1", PYOCO_CANCEL_GRACE_PERIOD_SEC="1")
        yield running


@pytest.fixture(scope="module")
def ended(system: System) -> dict[str, str]:
    """One run of each kind that has ended."""
    texts = {"failing": flows.FAILING, "retried": flows.RETRIED, "many": flows.MANY, "looping": flows.LOOPING,
             "branching": flows.BRANCHING}  # fmt: skip
    runs = {
        name: str(system.client.submit_run_yaml(text, flow_name=name, tag="cpu", params={"n": 4})["run_id"])
        for name, text in texts.items()
    }
    for run_id in runs.values():
        system.end(run_id)
    return runs


def node(page: Page, task: str) -> Any:
    return page.locator(f".graph [data-task='{task}']")


def test_a_failed_run_says_where_in_the_code(dashboard: Dashboard, system: System, ended: dict[str, str]) -> None:
    page = dashboard.open("/runs?status=failed")
    page.locator(f"tr[data-run='{ended['failing']}'] a").first.click()
    verdict = page.locator(".verdict")
    expect(verdict.locator(".place code")).to_have_text(f"{system.folder}/page_tasks.py:{flows.PLACE_OF_DIVIDE}")
    expect(verdict.get_by_role("heading")).to_have_text("ZeroDivisionError: division by zero")
    expect(verdict.locator("pre")).to_be_hidden()
    verdict.locator("summary").click()
    expect(verdict.locator("pre")).to_contain_text("return a / b")
    expect(page.locator(".facts")).to_contain_text("a task failed")
    expect(page.locator(".facts")).to_contain_text("cpu-1")
    expect(page.locator(".facts")).to_contain_text("own process")
    expect(node(page, "explode")).to_have_class(re.compile("failed selected"))
    expect(node(page, "load")).to_have_class(re.compile("completed"))
    expect(page.locator(".gantt [data-task='never']")).to_contain_text("Not run")
    panel = page.get_by_role("complementary")
    expect(panel).to_contain_text('"rows"')
    page.locator(".gantt [data-task='load']").click()
    expect(panel.get_by_role("heading", name="load")).to_be_visible()
    expect(node(page, "load")).to_have_attribute("aria-pressed", "true")
    expect(page).to_have_url(re.compile(r"\?task=load$"))
    dashboard.check_accessibility()


def test_the_log_of_one_task_is_searched_and_downloaded(dashboard: Dashboard, ended: dict[str, str]) -> None:
    page = dashboard.open(f"/runs/{ended['failing']}")
    lines = page.locator(".lines .line")
    expect(lines).to_have_count(2)
    expect(page.locator(".line.stderr")).to_contain_text("about to divide")
    page.get_by_label("Search the log").fill("ROWS")
    expect(lines).to_have_count(1)
    expect(page.locator("mark")).to_have_text("rows")
    page.get_by_label("Search the log").fill("")
    page.get_by_role("button", name="Its log").click()
    expect(lines).to_have_count(1)
    expect(lines).to_contain_text("about to divide")
    with page.expect_download() as download:
        page.get_by_role("button", name="Download").click()
    text = download.value.path().read_text()
    assert "loading 4 rows" in text and download.value.suggested_filename == f"{ended['failing']}.log"


def test_a_retried_task(dashboard: Dashboard, ended: dict[str, str]) -> None:
    page = dashboard.open(f"/runs/{ended['retried']}?task=flaky")
    expect(page.locator(".title .status")).to_have_text("Completed")
    panel = page.get_by_role("complementary")
    expect(panel).to_contain_text("Try 2 of 3")
    expect(panel).to_contain_text("The try before: ConnectionError: the service is busy")
    expect(node(page, "flaky")).to_have_attribute("aria-label", re.compile("Succeeded.*Try 2 of 3"))


def test_two_hundred_tasks(dashboard: Dashboard, ended: dict[str, str]) -> None:
    page = dashboard.open(f"/runs/{ended['many']}?task=step_150")
    expect(page.locator(".graph .node.completed")).to_have_count(200)
    expect(page.locator(".gantt .bar.completed")).to_have_count(200)
    expect(node(page, "step_150")).to_be_in_viewport()
    expect(page.locator(".gantt [data-task='step_150']")).to_be_in_viewport()
    expect(page.locator(".edge")).to_have_count(199)
    expect(page.locator(".lines .line")).to_have_count(200)


def test_loops_and_switches_are_drawn(dashboard: Dashboard, ended: dict[str, str]) -> None:
    page = dashboard.open(f"/runs/{ended['looping']}")
    expect(page.locator(".loop")).to_have_text("↻ repeat 3 times")
    expect(page.locator(".edge.back")).to_have_count(1)
    expect(page.locator(".node.switch")).to_contain_text("kind")
    expect(page.locator(".edge text")).to_have_text(["a", "b", "default"])
    expect(node(page, "left")).to_have_class(re.compile("skipped"))
    expect(node(page, "right")).to_have_class(re.compile("completed"))
    expect(page.locator(".gantt [data-task='left']")).to_contain_text("Skipped")
    expect(page.locator(".lines .line", has_text="one step")).to_have_count(8)  # three times two, right and last
    node(page, "two").focus()
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(r"\?task=two$"))


def test_branches_are_drawn(dashboard: Dashboard, ended: dict[str, str]) -> None:
    page = dashboard.open(f"/runs/{ended['branching']}")
    expect(page.locator(".graph .node.completed")).to_have_count(8)
    expect(page.locator(".edge.next")).to_have_count(7)
    expect(page.locator(".edge.any")).to_have_count(2)
    expect(page.locator(".edge text")).to_have_text(["any", "any"])
    expect(page.locator(".edge.back")).to_have_count(0)
    expect(page.locator(".loop")).to_have_text("↻ repeat 2 times")
    expect(page.locator(".gantt .bar.completed")).to_have_count(8)
    places = {name: node(page, name).bounding_box() for name in ("load", "left", "right", "both", "first")}
    middles = {name: box["x"] + box["width"] / 2 for name, box in places.items() if box}
    assert middles["load"] < middles["left"] == middles["right"] < middles["both"] < middles["first"]


def test_a_run_is_seen_live_cancelled_and_run_again(dashboard: Dashboard, system: System) -> None:
    run_id = system.client.submit_run_yaml(flows.WAITING, flow_name="waits", tag="cpu")["run_id"]
    page = dashboard.open(f"/runs/{run_id}")
    expect(node(page, "wait_for_word")).to_have_class(re.compile("running selected"))
    expect(page.locator(".gantt [data-task='wait_for_word'] .bar.running")).to_be_visible()
    expect(page.locator(".line", has_text="line 5").first).to_be_visible()
    bar = page.locator(".gantt [data-task='wait_for_word'] .told")
    before = bar.inner_text()
    expect(bar).not_to_have_text(before)  # time goes on
    page.get_by_role("button", name="Cancel", exact=True).click()
    page.get_by_label("Reason").fill("wrong data")
    page.get_by_role("button", name="Cancel 1 run").click()
    expect(page.locator(".title .status")).to_have_text("Cancelled")
    expect(page.locator(".verdict")).to_contain_text("wrong data")
    expect(node(page, "last")).to_have_class(re.compile("cancelled"))
    page.get_by_role("button", name="Run again").click()
    expect(page.locator(".facts")).to_contain_text("Rerun of")
    expect(node(page, "wait_for_word")).to_have_class(re.compile("running selected"))
    (system.folder / "go.txt").touch()
    expect(page.locator(".title .status")).to_have_text("Completed")
    expect(page.get_by_role("complementary")).to_contain_text("went on")
    page.go_back()
    expect(page.locator(".facts")).to_contain_text("Rerun as")


def test_a_run_that_waits_says_why(dashboard: Dashboard, system: System) -> None:
    run_id = system.client.submit_run("train", {"a": 1}, tag="gpu")["run_id"]
    page = dashboard.open(f"/runs/{run_id}")
    expect(page.locator(".verdict")).to_contain_text("gpu")
    expect(page.locator(".verdict").get_by_role("button", name="Copy as pyoco-client command")).to_be_visible()
    page.locator("summary", has_text="Params").click()
    expect(page.locator(".source pre").first).to_contain_text('"a": 1')
    page.get_by_role("button", name="日本語").click()
    expect(page.locator(".verdict")).to_contain_text("ワーカー")
    dashboard.check_accessibility()


def test_a_run_whose_process_was_killed(dashboard: Dashboard, system: System) -> None:
    text = system.flow("import os\ndef t():\n    os.kill(os.getpid(), 9)\n")
    run_id = system.run(text)["run_id"]
    page = dashboard.open(f"/runs/{run_id}")
    expect(page.locator(".facts")).to_contain_text("its process was killed")
    expect(page.locator(".verdict")).to_contain_text("SIGKILL")
    expect(node(page, "t")).to_have_class(re.compile("failed"))


def test_a_run_that_is_not_there(dashboards: Callable[..., Dashboard], system: System) -> None:
    dashboard = dashboards(system.url)
    dashboard.expect_console("404")
    page = dashboard.open("/runs/nobody")
    expect(page.get_by_text("There is no such run")).to_be_visible()


@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("language", LANGUAGES)
def test_pictures(
    dashboards: Callable[..., Dashboard], system: System, ended: dict[str, str], language: str, theme: str,
    size: tuple[int, int],
) -> None:  # fmt: skip
    dashboard = dashboards(system.url, language=language, theme=theme, size=size)
    for name in ("failing", "looping"):
        page = dashboard.open(f"/runs/{ended[name]}")
        expect(page.locator(".graph .node").first).to_be_visible()
        expect(page.locator(".line").first).to_be_visible()
        dashboard.check_accessibility()
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        dashboard.shoot(f"run-{name}-{language}-{theme}-{size[0]}")
