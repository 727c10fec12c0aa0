"""The page in a real Chromium, against a real gateway, NATS and workers.

A test fails on anything that the browser's console says and was not expected.
"""

import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, TimeoutError, expect, sync_playwright

from tests.acceptance.conftest import System, running_system

CHROMIUM = "/usr/bin/chromium"
REQUIRED = "DASHBOARD_TESTS_REQUIRED"
"""Set where a test that cannot be made is a failure."""
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
ARTIFACTS = Path(__file__).parents[2] / ".ci/artifacts/dashboard"
AXE = (Path(__file__).parent / "vendor/axe.min.js").read_text()
_CHANGED = "net::ERR_NETWORK_CHANGED"
LANGUAGES = ("en", "ja")
THEMES = ("light", "dark")
WIDE, NARROW = (1280, 800), (390, 844)

expect.set_options(timeout=15_000)


@dataclass
class Dashboard:
    """A tab that shows the page.

    Attributes:
        expected: What the console may say all the same, as regular expressions.
        disturbed: Whether this machine's network interfaces have changed meanwhile: Chromium then drops what it loads.
    """

    page: Page
    url: str
    said: list[str] = field(default_factory=list)
    expected: list[str] = field(default_factory=list)
    disturbed: bool = False

    def open(self, place: str = "/runs") -> Page:
        """Go to a place of the page, and wait until it is live."""
        live = self.page.locator(".pulse.live")
        self.page.goto(f"{self.url}/#{place}")
        for _ in range(3):
            try:
                live.wait_for(timeout=5_000)
            except TimeoutError:
                if not self.disturbed:
                    break
                self.disturbed = False
                self.page.reload()
        expect(live).to_be_visible()
        return self.page

    def expect_console(self, *patterns: str) -> None:
        """Allow messages that a test brings about."""
        self.expected += patterns

    def complaints(self) -> list[str]:
        """Give what the console said that nobody expected."""
        return [line for line in self.said if not any(re.search(pattern, line) for pattern in self.expected)]

    def check_accessibility(self) -> None:
        """Let axe-core look at what is shown now."""
        self.page.evaluate(AXE)
        found = self.page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        problems = [
            (rule["id"], rule["help"], [(node["target"], node["failureSummary"]) for node in rule["nodes"][:3]])
            for rule in found["violations"]
        ]
        assert problems == [], json.dumps(problems, indent=1, ensure_ascii=False)

    def shoot(self, name: str, *, whole: bool = False) -> None:
        """Keep a picture of what is shown, or of the whole page, for whoever looks at a change."""
        ARTIFACTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=ARTIFACTS / f"{name}.png", full_page=whole)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """One Chromium for all tests."""
    if not Path(CHROMIUM).exists():
        missing = f"there is no {CHROMIUM}: apt-get install chromium fonts-noto-cjk"
        if os.environ.get(REQUIRED):
            pytest.fail(missing)
        pytest.skip(missing)
    # Chromium counts on a directory of its own, and none of the session's settings.
    os.environ.pop("DBUS_SESSION_BUS_ADDRESS", None)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A system shared by the tests of a module."""
    with running_system(tmp_path_factory.mktemp("system")) as running:
        yield running


@pytest.fixture
def dashboards(browser: Browser) -> Iterator[Callable[..., Dashboard]]:
    """Open tabs; each watches its console until the test's end."""
    opened: list[Dashboard] = []

    def make(
        url: str, *, language: str = "en", theme: str = "light", size: tuple[int, int] = WIDE, **options: Any
    ) -> Dashboard:
        context = browser.new_context(
            viewport={"width": size[0], "height": size[1]}, locale=language,
            color_scheme="dark" if theme == "dark" else "light", timezone_id="Asia/Tokyo", **options,
        )  # fmt: skip
        page = context.new_page()
        made = Dashboard(page, url)
        page.on("console", lambda message: _note(made, message))
        page.on("pageerror", lambda error: made.said.append(f"error: {error}"))
        page.on("requestfailed", lambda request: _note_failed(made, request))
        opened.append(made)
        return made

    yield make
    complaints = {made.page.url: made.complaints() for made in opened}
    for made in opened:
        made.page.context.close()
    assert not any(complaints.values()), complaints


def _note(made: Dashboard, message: ConsoleMessage) -> None:
    if message.type not in ("log", "info", "debug") and _CHANGED not in message.text:
        made.said.append(f"{message.type}: {message.text} ({message.location.get('url', '')})")


def _note_failed(made: Dashboard, request: Request) -> None:
    # Streams, and requests for what is no longer shown, are ended by the page itself.
    if request.failure == _CHANGED:
        made.disturbed = True
    elif request.failure != "net::ERR_ABORTED":
        made.said.append(f"failed: {request.url} {request.failure}")


@pytest.fixture
def dashboard(dashboards: Callable[..., Dashboard], system: System) -> Dashboard:
    """A tab at the module's system."""
    return dashboards(system.url)
