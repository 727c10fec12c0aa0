"""The log of a run while it is being written: lines that are rewritten, and logs that are too long."""

import pytest
from playwright.sync_api import expect

from tests.acceptance.conftest import System

from .conftest import Dashboard

pytestmark = pytest.mark.browser

CODE = """
import pathlib, sys, time
def t():
    print("学習　開始")
    for line in range(1000): print("line", line)
    n = 0
    while not pathlib.Path(GO).exists():
        n += 1
        sys.stderr.write(f"\\rstep {n}")
        time.sleep(0.02)
    sys.stderr.write("\\rover\\n")
    print("FINAL")
"""


@pytest.mark.parametrize("limit", [1_000_000, 20_000])
def test_a_progress_bar_is_one_line_that_moves(dashboard: Dashboard, system: System, limit: int) -> None:
    go = system.folder / f"go{limit}"
    system.worker(tags=f"t{limit}", worker_id=f"w{limit}", PYOCO_RUN_LOG_MAX_BYTES=str(limit))
    text = system.flow(f"GO = {str(go)!r}\n{CODE}")
    run_id = system.client.submit_run_yaml(text, flow_name="bars", tag=f"t{limit}")["run_id"]
    page = dashboard.open(f"/runs/{run_id}")
    live = page.locator(".live .line")
    bar = page.locator(".line.stderr")
    expect(bar).to_have_count(1)
    first = live.last.inner_text()
    expect(live.last).not_to_have_text(first)
    expect(live.last).to_contain_text("step")
    expect(live).to_have_count(1 if limit == 1_000_000 else 22)
    if limit == 20_000:
        expect(live.first).to_contain_text("lines are left out here")
    dashboard.shoot(f"log-live-{limit}")
    page.get_by_label("Search the log").fill("line 999")
    expect(page.locator(".lines .line")).to_have_count(1)
    page.get_by_label("Search the log").fill("")
    dashboard.check_accessibility()
    go.touch()
    expect(page.locator(".title .status")).to_have_text("Completed")
    expect(live).to_have_count(0)
    expect(bar).to_contain_text("over")
    expect(bar).to_have_count(1)
    expect(page.locator(".lines .line").last).to_contain_text("FINAL")
    expect(page.locator(".lines .line").first).to_contain_text("学習　開始")
    expect(page.locator(".line.notice")).to_have_count(0 if limit == 1_000_000 else 1)
