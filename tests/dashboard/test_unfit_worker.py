"""A worker whose machine cannot begin runs, as the page shows it; and that it is gone when the machine is mended."""

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import expect

from tests.acceptance.conftest import TUTORIAL, System, running_system

from .conftest import LANGUAGES, NARROW, WIDE, Dashboard

pytestmark = pytest.mark.browser

SAID = {
    "en": ("Cannot begin runs", "Its state directory cannot be written.", "Worker broken takes no runs"),
    "ja": (
        "受付不可",
        "状態ディレクトリに書き込めません。",
        "ワーカー 1 台が実行を受け付けていません。マシンの問題で開始できません",
    ),
}


@pytest.fixture(scope="module")
def unfit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A system with a worker whose state directory is a file, and a run that waits for it; another one is well."""
    with running_system(tmp_path_factory.mktemp("unfit")) as running:
        blocked = running.folder / "blocked"
        blocked.touch()
        running.worker(worker_id="broken", tags="cpu", PYOCO_STATE_DIR=str(blocked))
        running.worker(worker_id="well", tags="gpu")
        running.client.submit_run_yaml(TUTORIAL, flow_name="main", tag="cpu")
        yield running


@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
@pytest.mark.parametrize("language", LANGUAGES)
def test_the_page_says_why_it_takes_no_runs(
    dashboards: Callable[..., Dashboard], unfit: System, language: str, size: tuple[int, int]
) -> None:
    state, why, alert = SAID[language]
    dashboard = dashboards(unfit.url, language=language, size=size)
    page = dashboard.open("/workers")
    expect(page.locator("tr[data-worker='broken'] .status")).to_have_text(state)
    below = page.locator("tr[data-trouble='broken']")
    expect(below).to_contain_text(why)
    expect(below).to_contain_text("blocked/runs (PYOCO_STATE_DIR): Not a directory (ENOTDIR)")
    expect(page.locator("tr[data-trouble='well']")).to_have_count(0)
    dashboard.check_accessibility()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    dashboard.shoot(f"unfit-workers-{language}-{size[0]}")
    dashboard.open("/")
    alerts = page.locator(".alerts")
    expect(alerts).to_contain_text(alert)
    expect(alerts.locator(".alert.bad")).to_have_count(2)  # and the tag that nobody else serves
    expect(page.locator("[data-queue='cpu'] .status")).to_be_visible()
    dashboard.check_accessibility()
    dashboard.shoot(f"unfit-overview-{language}-{size[0]}", whole=True)


def test_it_is_well_again_when_the_machine_is_mended(dashboards: Callable[..., Dashboard], unfit: System) -> None:
    page = dashboards(unfit.url).open("/workers")
    blocked = unfit.folder / "blocked-too"
    blocked.touch()
    unfit.worker(worker_id="mended", tags="other", PYOCO_STATE_DIR=str(blocked))
    expect(page.locator("tr[data-trouble='mended']")).to_be_visible()
    blocked.unlink()
    expect(page.locator("tr[data-trouble='mended']")).to_have_count(0)
    expect(page.locator("tr[data-worker='mended'] .status")).to_have_text("Idle")
    assert unfit.run(TUTORIAL, tag="other")["status"] == "COMPLETED"
