"""What stands around every view: switches, help, and the line to the server."""

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest
from playwright.sync_api import Route, expect

from pyoco_server.client.http import PyocoHttpClient
from pyoco_server.embedded.nats_server import NatsServer
from tests.acceptance.conftest import DEADLINE, Process, System
from tests.ports import free_port

from .conftest import Dashboard

pytestmark = pytest.mark.browser


def test_language_theme_and_clock_are_chosen_and_kept(dashboards: Callable[..., Dashboard], system: System) -> None:
    system.client.submit_run("f", {}, tag="chosen")
    dashboard = dashboards(system.url, language="en", theme="light")
    page = dashboard.open("/runs?tag=chosen")
    page.get_by_role("button", name="日本語").click()
    expect(page.locator("html")).to_have_attribute("lang", "ja")
    expect(page.get_by_role("heading", name="実行")).to_be_visible()
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    page.get_by_role("button", name="テーマ").click()  # from the system's to light …
    assert page.evaluate(ground) == light
    page.get_by_role("button", name="テーマ").click()  # … to dark
    assert page.evaluate(ground) != light
    page.get_by_role("button", name="時刻").click()
    page.reload()
    expect(page.locator("html")).to_have_attribute("lang", "ja")
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    expect(page.get_by_role("button", name=re.compile("時刻.UTC"))).to_be_visible()
    title = page.locator("td.updated time").get_attribute("title") or ""
    assert re.search(r"UTC$", title) and len(title.splitlines()) == 2


def test_the_servers_language_is_the_default(dashboards: Callable[..., Dashboard], system: System) -> None:
    page = dashboards(system.url, language="ja-JP").open("/nowhere")
    expect(page.get_by_text("ページが見つかりません")).to_be_visible()
    page.get_by_role("link", name="概要へ").click()
    expect(page).to_have_url(re.compile("#/$"))
    expect(page.get_by_role("heading", name="概要")).to_be_visible()


def test_what_the_server_refuses_is_told_in_the_readers_language(
    dashboards: Callable[..., Dashboard], system: System
) -> None:
    dashboard = dashboards(system.url, language="ja")
    dashboard.expect_console("status of 422")
    page = dashboard.open("/audit?action=nothing")
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text(re.compile("入力に誤りがあります。（action is 'nothing'; .*key.revoke.*）"))  # noqa: RUF001
    assert alert.inner_text().count("action is '") == 1


def test_the_page_asks_for_nothing_from_elsewhere(dashboards: Callable[..., Dashboard], system: System) -> None:
    dashboard = dashboards(system.url)
    asked: list[str] = []
    dashboard.page.on("request", lambda request: asked.append(request.url))
    page = dashboard.open()
    assert len(asked) > 20 and all(url.startswith(system.url) for url in asked)
    # The policy holds: what the page's own files do not bring does not run.
    dashboard.expect_console("Content Security Policy", "violates")
    page.evaluate("document.body.insertAdjacentHTML('beforeend', '<a id=bad onclick=\"window.ran=1\">x</a>')")
    with page.expect_console_message(lambda message: "violates" in message.text):
        page.evaluate("document.getElementById('bad').click()")
        page.evaluate("document.body.append(Object.assign(document.createElement('script'), {text: 'window.ran=1'}))")
    assert page.evaluate("window.ran") is None
    assert any("violates" in line for line in dashboard.said)


def test_a_page_of_an_older_version_says_so(dashboards: Callable[..., Dashboard], system: System) -> None:
    dashboard = dashboards(system.url)

    def older(route: Route) -> None:
        answer = route.fetch()
        route.fulfill(response=answer, body=re.sub('data-page="[^"]+"', 'data-page="older"', answer.text()))

    dashboard.page.route(re.compile(r"/$"), older)
    page = dashboard.open()
    expect(page.get_by_text("The server has been upgraded")).to_be_visible()
    dashboard.page.unroute_all()
    page.get_by_role("button", name="Reload").click()
    expect(page.locator(".pulse.live")).to_be_visible()
    expect(page.get_by_text("The server has been upgraded")).to_be_hidden()


class Gateway(Process):
    """A gateway, and where it answers."""

    url = ""


_LISTEN_TO_BANNERS = """
window.banners = [];
new MutationObserver(() => window.banners.push(document.querySelector('.banners').textContent))
  .observe(document.querySelector('.banners'), {subtree: true, childList: true, characterData: true});
"""


@pytest.fixture
def gateways(nats_server: NatsServer, tmp_path: Path) -> Iterator[Callable[[], Gateway]]:
    """Start gateways at one address, one after the other, beside a NATS that stays."""
    port = str(free_port())
    started: list[Gateway] = []

    def start() -> Gateway:
        process = Gateway(["pyoco-server", "up", "--nats-url", nats_server.url, "--port", port], tmp_path)
        started.append(process)
        process.wait_for("pyoco-server is up")
        with httpx2.Client(base_url=f"http://127.0.0.1:{port}") as http:
            deadline = time.monotonic() + DEADLINE
            while http.get("/ready").status_code != 200:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            process.url = str(http.base_url).rstrip("/")
        return process

    yield start
    for process in started:
        process.stop()


def test_a_gateway_that_restarts_under_the_page(
    dashboards: Callable[..., Dashboard], gateways: Callable[[], Gateway]
) -> None:
    gateway = gateways()
    url = gateway.url
    with PyocoHttpClient(url) as client:
        first = client.submit_run("f", {}, tag="restart")["run_id"]
        dashboard = dashboards(url)
        dashboard.expect_console("ERR_CONNECTION_REFUSED", "ERR_INCOMPLETE_CHUNKED_ENCODING", "ERR_EMPTY_RESPONSE",
                                 "ERR_CONNECTION_RESET")  # fmt: skip
        page = dashboard.open("/runs?tag=restart")
        expect(page.locator(f"tr[data-run='{first}']")).to_contain_text("Waiting")
        gateway.stop()
        expect(page.get_by_text("Reconnecting")).to_be_visible()
        expect(page.locator(".pulse")).to_have_text("away")
        dashboard.check_accessibility()
        page.evaluate(_LISTEN_TO_BANNERS)
        gateways()
        expect(page.locator(".pulse")).to_have_text("live")
        page.wait_for_function("() => window.banners.some(text => text.includes('The server is back'))")
        client.cancel_run(first)
        expect(page.locator(f"tr[data-run='{first}']")).to_contain_text("Cancelled")
        expect(page.get_by_text("The server is back")).to_be_hidden()
