"""The overview and the queues: is anything wrong, where, and what to do; live, and drawn."""

import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from pyoco_server.model.worker import WorkerRecord
from tests.acceptance.conftest import System, running_system

from . import history
from .conftest import LANGUAGES, NARROW, THEMES, WIDE, Dashboard

pytestmark = pytest.mark.browser

FAILING = "def t():\n    raise ValueError('no price')\n"
SLEEPING = "import time\n\ndef t():\n    time.sleep(600)\n"
ENDED = 700


def test_what_is_wrong_shows_as_it_happens(dashboards: Callable[..., Dashboard], tmp_path: Path) -> None:
    with running_system(tmp_path, PYOCO_WORKER_DISCONNECT_TIMEOUT_SEC="3") as system:
        dashboard = dashboards(system.url, permissions=["clipboard-read", "clipboard-write"])
        page = dashboard.open("/")
        expect(page.get_by_role("heading", name="No runs yet")).to_be_visible()
        expect(
            page.get_by_text(f"pyoco-worker --nats-url {system.nats_url} --tags cpu --worker-id cpu-1")
        ).to_be_visible()
        expect(page.locator(".stand")).to_have_text("All is well")
        dashboard.check_accessibility()
        # A run that nobody takes: the page says what to do, and the command can be copied.
        run_id = system.client.submit_run_yaml(system.flow(FAILING), flow_name="main", tag="gpu")["run_id"]
        alert = page.locator(".alert")
        expect(alert).to_contain_text("1 run waits for the tag gpu, and no worker serves it")
        expect(page.locator("[data-tile=waiting] b")).to_have_text("1")
        expect(alert.get_by_role("link", name="oldest")).to_have_attribute("href", f"#/runs/{run_id}")
        alert.get_by_role("button", name="Copy").click()
        expect(page.get_by_role("status").filter(has_text="Copied")).to_be_visible()
        command = f"pyoco-worker --nats-url {system.nats_url} --tags gpu --worker-id gpu-1"
        assert page.evaluate("navigator.clipboard.readText()") == command
        dashboard.check_accessibility()
        page.keyboard.press("g")
        page.keyboard.press("q")
        row = page.locator("tr[data-queue=gpu]")
        expect(row).to_contain_text("No worker")
        expect(page.locator("tr.help")).to_contain_text(command)
        expect(row.locator(".oldest a")).to_have_attribute("href", f"#/runs/{run_id}")
        dashboard.check_accessibility()
        # Somebody does what it says; the run fails.
        worker = system.worker(worker_id="gpu-1", tags="gpu", PYOCO_WORKER_HEARTBEAT_INTERVAL_SEC="0.5")
        expect(row).to_contain_text("Ready")
        expect(row.locator(".waiting")).to_have_text("0")
        expect(row.locator(".workers")).to_contain_text("gpu-1")
        expect(page.locator("tr.help")).to_be_hidden()
        page.keyboard.press("g")
        page.keyboard.press("o")
        expect(page.locator("[data-tile=failed] b")).to_have_text("1")
        expect(page.locator(".stand")).to_have_text("1 run failed in the last hour")
        expect(page.get_by_role("img", name=re.compile("Runs ended per minute: Failed 1,"))).to_be_visible()
        # A failed run leaves a dead letter.
        expect(page.locator("[data-tile=letters] b")).to_have_text("1")
        expect(page.locator("[data-tile=letters] .figure")).to_have_attribute("href", "#/deadletters")
        # Its worker dies.
        worker.popen.send_signal(signal.SIGKILL)
        expect(alert).to_contain_text("Worker gpu-1 is lost")
        expect(alert).to_contain_text(command)
        expect(page.locator("[data-tile=workers]")).to_contain_text("1 lost")
        page.locator("[data-tile=failed] .figure").click()
        expect(page).to_have_url(re.compile(r"#/runs\?status=failed&since=1h$"))
        expect(page.locator(f"tr[data-run='{run_id}']")).to_be_visible()


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A system with an hour behind it, and in which something of each kind is wrong."""
    with running_system(tmp_path_factory.mktemp("busy"), "--nats-sync", "interval") as running:
        running.worker("--concurrency", "2", "--drain-timeout-sec", "1", worker_id="cpu-1", tags="cpu,default")
        running.client.submit_run_yaml(running.flow(SLEEPING), flow_name="main", tag="cpu")
        for tag, runs in (("gpu", 3), ("io", 2)):
            for _ in range(runs):
                running.client.submit_run("main", {}, tag=tag)
        now = time.time()
        full = WorkerRecord(worker_id="io-1", tags=["io"], slots=1, slots_in_use=1, current_run_ids=["x"])
        # One is there for as long as the tests take, the other was lost a while ago.
        history.write(
            running,
            full.evolve(last_seen_at=now + 3000, last_heartbeat_at=now + 3000),
            WorkerRecord(worker_id="etl-1", tags=["etl"], last_seen_at=now - 200, last_heartbeat_at=now - 200),
            runs=ENDED,
            others=[history.waiting("io", 900)],
        )
        yield running


def test_long_queues_and_no_room(dashboards: Callable[..., Dashboard], busy: System, tmp_path: Path) -> None:
    page = dashboards(busy.url).open("/")
    long = page.locator(".alert").filter(has_text="3 runs have waited long for the tag io: all slots are busy (1)")
    expect(long).to_contain_text("--tags io --worker-id io-2")  # io-1 is there
    expect(long.get_by_role("link", name="oldest")).to_contain_text("15 min")
    with running_system(tmp_path, PYOCO_DISK_FREE_MIN_BYTES=str(10**17)) as full:
        page = dashboards(full.url).open("/")
        expect(page.locator(".alert")).to_contain_text("There is no room left")
        expect(page.locator(".alert small")).to_contain_text("PYOCO_DISK_FREE_MIN_BYTES")
        expect(page.locator(".stand")).to_have_text("1 thing needs you")


def test_the_last_hour_is_drawn(dashboards: Callable[..., Dashboard], busy: System) -> None:
    page = dashboards(busy.url).open("/")
    canvases = page.locator(".chart canvas")
    expect(canvases).to_have_count(3)
    ended = page.locator(".charts figure").first
    expect(ended.locator("figcaption")).to_contain_text(f"{ENDED} in the last hour")
    expect(page.get_by_role("img", name=re.compile(r"Run time: p50 \d.* s, p95 \d.* s"))).to_be_visible()
    drawn = "document.querySelector('.chart canvas').toDataURL()"
    light = page.evaluate(drawn)
    ended.locator(".u-over").hover()
    expect(ended.locator(".when")).to_have_text(re.compile(r"^\d\d:\d\d$"))
    page.mouse.move(0, 0)
    page.get_by_role("button", name="Theme").click()  # from the system's to light …
    page.get_by_role("button", name="Theme").click()  # … to dark: it is drawn anew
    page.wait_for_function(
        f"light => document.querySelectorAll('.chart canvas').length === 3 && {drawn} !== light", arg=light
    )


@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("language", LANGUAGES)
def test_pictures(
    dashboards: Callable[..., Dashboard], busy: System, language: str, theme: str, size: tuple[int, int]
) -> None:
    dashboard = dashboards(busy.url, language=language, theme=theme, size=size)
    page = dashboard.open("/")
    expect(page.locator(".chart canvas")).to_have_count(3)
    expect(page.locator(".alert")).to_have_count(3)
    dashboard.check_accessibility()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    dashboard.shoot(f"overview-{language}-{theme}-{size[0]}", whole=True)
    page.goto(f"{busy.url}/#/queues")
    expect(page.locator("tr[data-queue]")).to_have_count(5)
    dashboard.check_accessibility()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    dashboard.shoot(f"queues-{language}-{theme}-{size[0]}", whole=True)
