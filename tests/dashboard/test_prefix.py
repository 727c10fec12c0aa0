"""The page behind a proxy that serves it under a path of its own."""

import re
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import expect

from tests.acceptance.conftest import DEADLINE, Process, System, running_system
from tests.reverse_proxy import reverse_proxy

from . import flows
from .conftest import Dashboard

pytestmark = pytest.mark.browser

PREFIX = "/tools/pyoco"


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A system that knows no prefix, with a worker."""
    folder = tmp_path_factory.mktemp("system")
    flows.write_code(folder)
    with running_system(folder) as running:
        running.worker(worker_id="cpu-1", PYOCO_CANCEL_GRACE_PERIOD_SEC="1")
        yield running


@pytest.fixture(scope="module")
def told(system: System) -> str:
    """A gateway of the same system that knows it."""
    (system.folder / "told").mkdir()
    arguments = ["up", "--nats-url", system.nats_url, "--port", "0", "--root-path", PREFIX]
    process = Process(["pyoco-server", *arguments], system.folder / "told")
    system.processes.append(process)
    return str(process.wait_for("pyoco-server is up", DEADLINE)["url"])


@pytest.fixture(params=["taken off, en", "kept, ja"])
def proxied(request: pytest.FixtureRequest, system: System) -> Iterator[tuple[str, str]]:
    """The page's address behind a proxy, and the language to look at it in."""
    form, language = request.param.split(", ")
    kept = form == "kept"
    target = request.getfixturevalue("told") if kept else system.url
    with reverse_proxy(target, PREFIX, keeps=kept, host=kept) as url:
        yield url, language


def test_every_view_works_and_nothing_is_asked_for_beside_it(
    dashboards: Callable[..., Dashboard], proxied: tuple[str, str], system: System
) -> None:
    url, language = proxied
    run_id = system.client.submit_run_yaml(flows.WAITING, flow_name="waits", tag="cpu")["run_id"]
    dashboard = dashboards(url, language=language, permissions=["clipboard-read", "clipboard-write"])
    asked: list[str] = []
    dashboard.page.on("request", lambda request: asked.append(request.url))
    page = dashboard.open("/")
    for link in page.locator("nav a").all():
        link.click()
        expect(link).to_have_attribute("aria-current", "page")
        expect(page.locator("main h1")).to_be_visible()
        expect(page.get_by_role("alert")).to_have_count(0)
    page.goto(f"{url}/#/runs")
    page.locator(f"tr[data-run='{run_id}'] a").first.click()
    expect(page).to_have_url(f"{url}/#/runs/{run_id}")
    expect(page.locator(".line", has_text="line 5").first).to_be_visible()  # a stream
    page.locator(".run-head .actions button").last.click()
    page.wait_for_function("navigator.clipboard.readText().then((text) => text.includes('get'))")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied == f"pyoco-client --server {url} get {run_id} --records"
    dashboard.shoot(f"prefix-{language}")
    page.locator(".run-head .actions button").first.click()
    page.get_by_role("dialog").locator("button.danger").click()  # the gateway takes it for its own page's
    expect(page.locator(".title .status")).to_have_class(re.compile("cancelled"))
    page.reload()
    expect(page.locator(".title .status")).to_have_class(re.compile("cancelled"))
    assert len(asked) > 100 and [each for each in asked if not each.startswith(f"{url}/")] == []


def test_the_address_without_its_last_slash(dashboards: Callable[..., Dashboard], told: str) -> None:
    for path in (PREFIX, f"{PREFIX}/", "/"):
        dashboard = dashboards(told + path)
        dashboard.page.goto(told + path)
        expect(dashboard.page.locator(".pulse.live")).to_be_visible()


def test_a_key_is_kept_for_its_server_alone(dashboards: Callable[..., Dashboard], system: System) -> None:
    dashboard = dashboards(system.url)
    with reverse_proxy(system.url, "/one") as one, reverse_proxy(system.url, "/two") as two:
        page = dashboard.page
        for url in (system.url, one, two):
            page.goto(f"{url}/")
            expect(page.locator(".pulse.live")).to_be_visible()
            key = page.evaluate(
                """async (key) => {
                  const files = document.querySelector("script[src]").src.replace(/app\\.js$/, "");
                  const session = await import(`${files}session.js`);
                  if (key) session.setKey(key);
                  return Object.keys(sessionStorage);
                }""",
                "a key",
            )
            name = {one: "pyoco-server.key/one", two: "pyoco-server.key/two"}.get(url, "pyoco-server.key")
            assert key == [name]
