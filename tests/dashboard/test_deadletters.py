"""Dead letters on the page: found, read, replayed and deleted, whatever lies in them."""

import asyncio
import json
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import nats
import pytest
from playwright.sync_api import Page, expect

from tests.acceptance.conftest import DEADLINE, System, running_system

from . import flows
from .conftest import LANGUAGES, NARROW, THEMES, WIDE, Dashboard

pytestmark = pytest.mark.browser

HOSTILE = '<img src=x onerror="window.ran=1"><b id=injected>bold</b>'


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A system with a worker whose runs fail."""
    folder = tmp_path_factory.mktemp("system")
    flows.write_code(folder)
    with running_system(folder) as running:
        running.worker("--concurrency", "2", worker_id="cpu-1")
        yield running


def fail(system: System, name: str = "nightly") -> str:
    """Let a run fail, and give its id."""
    run_id = str(system.client.submit_run_yaml(flows.FAILING, flow_name=name, tag="cpu", params={"n": 4})["run_id"])
    assert system.end(run_id)["status"] == "FAILED"
    return run_id


def publish(system: System, *letters: Any, tag: str) -> list[int]:
    """Write letters as another program would; their ids are the answer."""

    async def write() -> list[int]:
        client = await nats.connect(system.nats_url)
        bodies = [letter if isinstance(letter, bytes) else json.dumps(letter).encode() for letter in letters]
        acks = [await client.jetstream().publish(f"pyoco.dlq.{tag}", body) for body in bodies]
        await client.close()
        return [ack.seq for ack in acks]

    with ThreadPoolExecutor(1) as thread:  # Playwright has a loop in this one
        return thread.submit(asyncio.run, write()).result()


def broken(number: int) -> dict[str, Any]:
    return {"timestamp": 1.7e9 + number, "reason": "invalid_job", "error": f"no job {number}", "payload": "{not json"}


def row(page: Page, letter_id: int) -> Any:
    return page.locator(f"tr[data-letter='{letter_id}']")


def test_without_letters_the_next_command_is_told(dashboard: Dashboard) -> None:
    page = dashboard.open("/deadletters?tag=never")
    expect(page.get_by_text("No dead letter matches")).to_be_visible()
    page.keyboard.press("g")
    page.keyboard.press("d")
    expect(page.get_by_text("dlq list --output table")).to_be_visible()
    dashboard.check_accessibility()


def test_from_a_failed_run_to_its_letter_and_the_replay(dashboard: Dashboard, system: System) -> None:
    page = dashboard.open("/deadletters?tag=cpu")
    run_id = fail(system)
    expect(page.locator("tr[data-letter]")).to_have_count(1)  # without a reload
    page.goto(f"{system.url}/#/runs/{run_id}")
    page.locator(".facts").get_by_role("link", name=re.compile(r"^#\d+$")).click()
    panel = page.get_by_role("complementary")
    expect(panel.locator(".status")).to_have_text("The run failed")
    expect(panel).to_contain_text("division by zero")
    expect(panel.locator(".value pre")).to_have_text(json.dumps({"n": 4}, indent=2))
    expect(panel.get_by_role("link", name=run_id[:13])).to_have_attribute("href", f"#/runs/{run_id}")
    dashboard.check_accessibility()
    replay = panel.get_by_role("button", name="Replay", exact=True)
    replay.click()
    dialog = page.get_by_role("dialog", name="Replay 1 dead letter?")
    expect(dialog).to_be_visible()
    dashboard.check_accessibility()
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(replay).to_be_focused()
    replay.click()
    dialog.get_by_role("button", name="Back").click()
    expect(replay).to_be_focused()
    replay.click()
    dialog.get_by_role("button", name="Replay 1").click()
    expect(page.locator(".facts")).to_contain_text("Rerun of")
    expect(page.get_by_role("status").filter(has_text="1 dead letter was replayed as a new run")).to_be_visible()
    expect(page).to_have_url(re.compile(rf"^{re.escape(system.url)}/#/runs/(?!{run_id})"))
    page.locator(".facts").get_by_role("link", name=run_id[:13]).click()
    expect(page.locator(".facts")).to_contain_text("Rerun as")
    expect(page.locator(".facts")).not_to_contain_text("Dead letter")


def test_many_are_selected_deleted_and_replayed_in_vain(dashboard: Dashboard, system: System) -> None:
    ids = publish(system, *(broken(number) for number in range(6)), tag="many")[::-1]
    page = dashboard.open("/deadletters?tag=many")
    boxes = page.locator("tr[data-letter] input[type=checkbox]")
    expect(boxes).to_have_count(6)
    boxes.nth(1).click()
    boxes.nth(3).click(modifiers=["Shift"])
    expect(page.get_by_text("3 dead letters selected")).to_be_visible()
    page.locator(".selection").get_by_role("button", name="Replay").click()
    dashboard.expect_console("status of 409")
    page.get_by_role("button", name="Replay 3").click()
    refused = page.get_by_role("status").filter(has_text="3 could not be done")
    expect(refused).to_contain_text(f"dead letter {ids[1]} cannot be replayed")
    expect(page.get_by_text("3 dead letters selected")).to_be_visible()  # what could not be done
    dashboard.check_accessibility()
    page.locator(".selection").get_by_role("button", name="Delete").click()
    page.get_by_role("button", name="Delete 3").click()
    expect(boxes).to_have_count(3)
    expect(page.get_by_role("status").filter(has_text="3 dead letters were deleted")).to_be_visible()
    assert [item["id"] for item in system.client.list_dead_letters(tag="many")] == [ids[0], ids[4], ids[5]]


def test_what_others_do_shows_and_nothing_jumps(dashboard: Dashboard, system: System) -> None:
    ids = publish(system, *(broken(number) for number in range(3)), tag="live")
    page = dashboard.open("/deadletters?tag=live")
    expect(page.locator("tr[data-letter]")).to_have_count(3)
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    expect(page.get_by_role("complementary", name=f"Dead letter {ids[1]}")).to_contain_text("{not json")
    system.client.delete_dead_letter(ids[1])
    expect(row(page, ids[1])).to_have_class(re.compile("removed"))
    expect(page.get_by_role("complementary")).to_contain_text("has been taken out")
    expect(page.get_by_role("complementary").get_by_role("button", name="Replay")).to_be_hidden()
    (fresh,) = publish(system, {**broken(9), "reason": "flow_not_found"}, tag="live")
    expect(row(page, fresh)).to_be_hidden()
    page.get_by_role("button", name="1 new").click()
    expect(row(page, fresh)).to_contain_text("Flow not found")
    expect(page.locator("tr[data-letter]")).to_have_count(3)
    page.keyboard.press("Escape")
    expect(page.get_by_role("complementary")).to_be_hidden()
    page.get_by_role("navigation", name="Reasons").get_by_role("link", name="Flow not found").click()
    expect(page.locator("tr[data-letter]")).to_have_count(1)
    page.get_by_role("link", name="Tag live: show all tags").click()
    expect(page).to_have_url(re.compile(r"#/deadletters\?reason=flow_not_found$"))


def test_whatever_lies_in_a_letter_is_text(dashboard: Dashboard, system: System) -> None:
    odd = {
        "error": {"a": [1]},
        "run_id": 7,
        "flow_name": None,
        "timestamp": "soon",
        "attempt": "x",
        "reason": ["?"],
        "tags": 3,
        "omitted": 1,
    }
    texts = dict.fromkeys(("error", "flow_name", "run_id", "worker_id", "payload", "reason", "workflow_yaml"), HOSTILE)
    long = {**broken(1), "flow_name": "name" * 200, "error": "e" * 30_000, "params": {"k" * 500: HOSTILE}}
    ids = publish(
        system,
        b"\xff\x00 no json",
        b"[]",
        odd,
        {**texts, "tags": [HOSTILE], "params": {HOSTILE: HOSTILE}},
        long,
        tag="odd",
    )
    page = dashboard.open("/deadletters?tag=odd")
    expect(page.locator("tr[data-letter]")).to_have_count(5)
    for letter_id in ids:
        page.goto(f"{system.url}/#/deadletters?tag=odd&letter={letter_id}")
        expect(page.get_by_role("complementary", name=f"Dead letter {letter_id}").locator(".facts")).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    dashboard.check_accessibility()
    page.goto(f"{system.url}/#/deadletters?tag=odd&letter={ids[3]}")
    expect(page.get_by_role("complementary").locator(".what-happened")).to_have_text(HOSTILE)
    assert page.locator("#injected, img").count() == 0 and page.evaluate("window.ran") is None
    dashboard.expect_console("status of 404")
    for letter_id in ("999999", "no-number"):
        page.goto(f"{system.url}/#/deadletters?tag=odd&letter={letter_id}")
        expect(page.get_by_role("complementary")).to_contain_text("has been taken out")


def test_more_letters_than_a_page(dashboards: Callable[..., Dashboard], system: System) -> None:
    publish(system, *(broken(number) for number in range(130)), tag="long")
    dashboard = dashboards(system.url, permissions=["clipboard-read", "clipboard-write"])
    page = dashboard.open("/deadletters?tag=long&reason=invalid_job")
    expect(page.locator("tr[data-letter]").first).to_be_visible()
    page.evaluate("scrollTo(0, document.body.scrollHeight)")
    expect(page.locator("tr[data-letter]")).to_have_count(130)
    expect(page.get_by_text("No more dead letters")).to_be_visible()
    page.get_by_role("button", name="Copy this list").click()
    expect(page.get_by_role("status").filter(has_text="Copied")).to_be_visible()
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == f"pyoco-client --server {system.url} dlq list --reason invalid_job --tag long"


@pytest.fixture(scope="module")
def shown(system: System) -> System:
    """Letters of several kinds, and no others."""
    for letter in system.client.list_dead_letters(limit=500):
        system.client.delete_dead_letter(letter["id"])
    fail(system, "nightly")
    lost = {"timestamp": time.time() - 4000, "flow_name": "reports", "run_id": "0b9f5bb1-5d52-4dd7-b5b4-5a4a1a2f1c11"}
    gone = {**lost, "reason": "attempts_exhausted", "error": "the worker was lost in each of 3 attempts"}
    unknown = {**lost, "reason": "flow_not_found", "error": "no resolver gives the flow 'reports'"}
    publish(system, {**gone, "attempt": 3, "max_attempts": 3}, {**unknown, "attempt": 1}, tag="gpu")
    payload = '{"flow_name": "", "params": [], "submitted_by": "cron@old-host"'
    unread = {"timestamp": time.time() - 300, "error": "the job is no JSON: EOF while parsing", "payload": payload}
    publish(system, {**unread, "reason": "invalid_job"}, tag="cpu")
    fail(system, "import-prices")
    deadline = time.monotonic() + DEADLINE
    while len(system.client.list_dead_letters()) < 5:  # a letter comes a moment after its run's end
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return system


@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("language", LANGUAGES)
def test_pictures(
    dashboards: Callable[..., Dashboard], shown: System, language: str, theme: str, size: tuple[int, int]
) -> None:
    dashboard = dashboards(shown.url, language=language, theme=theme, size=size)
    page = dashboard.open("/deadletters")
    expect(page.locator("tr[data-letter]")).to_have_count(5)
    for name, link in {"": None, "-one": page.locator("td.letter a").first}.items():
        if link is not None:
            link.click()
            expect(page.get_by_role("complementary").locator(".facts")).to_be_visible()
        dashboard.check_accessibility()
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        dashboard.shoot(f"deadletters{name}-{language}-{theme}-{size[0]}")
