"""The page beside 100,000 stored runs, and while 50 runs a second go by. Figures are printed, not judged."""

import asyncio
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import nats
import pytest
from playwright.sync_api import CDPSession, expect

from pyoco_server.model.run import EndReason, RunRecord, RunStatus, claim, new_run_id, settle
from tests.acceptance.conftest import System, running_system

from .conftest import Dashboard

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timeout(400)]

STORED = 100_000
A_SECOND = 50
SECONDS = int(os.environ.get("DASHBOARD_STREAM_SEC", "120"))
AT_ONCE = 500
BUCKET = "$KV.pyoco_runs"


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A system with many runs, written as a worker writes them."""
    with running_system(tmp_path_factory.mktemp("load")) as running:
        with ThreadPoolExecutor(1) as thread:  # Playwright has an event loop in this one
            thread.submit(asyncio.run, fill(running.nats_url)).result()
        deadline = time.monotonic() + 120
        while sum(counts(running).values()) < STORED:
            assert time.monotonic() < deadline, counts(running)
            time.sleep(0.2)
        yield running


def counts(system: System) -> dict[str, int]:
    return dict(httpx2.get(f"{system.url}/runs/counts", timeout=30).json()["counts"])


def life(number: int, begun_at: float) -> list[RunRecord]:
    """Give the records of a run as it goes through its life."""
    waits = RunRecord(
        run_id=new_run_id(), flow_name=f"flow-{number % 20}", tag=("cpu", "gpu", "io")[number % 3],
        submitted_at=begun_at, updated_at=begun_at,
    )  # fmt: skip
    runs = claim(waits, worker_id=f"w-{number % 7}", instance_id="i", job_seq=number + 1)
    failed = number % 50 == 0
    ended = settle(
        runs,
        RunStatus.FAILED if failed else RunStatus.COMPLETED,
        EndReason.TASK_FAILED if failed else EndReason.COMPLETED,
        "task 'load' failed: ValueError: row 17 has no price" if failed else None,
    )
    return [waits, runs, ended]


async def fill(url: str) -> None:
    client = await nats.connect(url)
    stream = client.jetstream()
    now = time.time()
    for start in range(0, STORED, AT_ONCE):
        records = [life(number, now - STORED + number)[-1] for number in range(start, start + AT_ONCE)]
        records = [record.model_copy(update={"updated_at": now - STORED + start}) for record in records]
        await asyncio.gather(*(stream.publish(f"{BUCKET}.{record.run_id}", record.to_json()) for record in records))
    await client.close()


class Going:
    """Lets runs go by, in a thread of its own."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._stop = threading.Event()
        self.runs = 0
        self._thread = threading.Thread(target=lambda: asyncio.run(self._go()), daemon=True)

    def __enter__(self) -> "Going":
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._stop.set()
        self._thread.join(30)

    async def _go(self) -> None:
        client = await nats.connect(self._url)
        stream = client.jetstream()
        began = time.monotonic()
        while not self._stop.is_set():
            for record in life(self.runs, time.time()):
                await stream.publish(f"{BUCKET}.{record.run_id}", record.to_json())
            self.runs += 1
            await asyncio.sleep(max(0.0, began + self.runs / A_SECOND - time.monotonic()))
        await client.close()


def measured(tab: CDPSession) -> dict[str, float]:
    tab.send("HeapProfiler.collectGarbage")
    found = {one["name"]: one["value"] for one in tab.send("Performance.getMetrics")["metrics"]}
    names = {"heap_mb": "JSHeapUsedSize", "nodes": "Nodes", "listeners": "JSEventListeners"}
    return {name: round(found[metric] / (1e6 if name == "heap_mb" else 1), 1) for name, metric in names.items()}


PLACES = {"all": "/runs", "failed": "/runs?status=failed", "words": "/runs?status=failed&tag=gpu&worker=w-3"}


def test_the_first_list(dashboards: Callable[..., Dashboard], system: System) -> None:
    took = {}
    for name, place in PLACES.items():
        page = dashboards(system.url).page
        began = time.monotonic()
        page.goto(f"{system.url}/#{place}")
        page.locator("tr[data-run]").first.wait_for()
        took[name] = round(time.monotonic() - began, 2)
    page = dashboards(system.url).page
    began = time.monotonic()
    page.goto(f"{system.url}/")
    page.locator(".chart canvas").nth(2).wait_for()
    took["overview"] = round(time.monotonic() - began, 2)
    answers = [httpx2.get(f"{system.url}/overview").elapsed.total_seconds() for _ in range(20)]
    took["GET /overview"] = round(sorted(answers)[10], 4)
    print(f"\nfirst list on the screen beside {STORED} runs, in seconds: {took}")


def test_runs_that_go_by(dashboards: Callable[..., Dashboard], system: System) -> None:
    dashboard = dashboards(system.url)
    page = dashboard.open("/runs")
    expect(page.locator("tr[data-run]").first).to_be_visible()
    first = page.locator("tr[data-run]").first.get_attribute("data-run")
    tab = page.context.new_cdp_session(page)
    tab.send("Performance.enable")
    figures = []
    with Going(system.nats_url) as going:
        began = time.monotonic()
        for second in range(0, SECONDS + 1, 20):
            page.wait_for_timeout(max(0.0, (began + second - time.monotonic()) * 1000))
            figures.append({"s": second, **measured(tab), "rows": page.locator("tr[data-run]").count()})
            assert page.locator("tr[data-run]").first.get_attribute("data-run") == first  # nothing jumps
        expect(page.get_by_role("button", name="new")).to_be_visible()
        gone = going.runs
        page.get_by_role("button", name="new").click()  # and it can be used while they go by
        expect(page.locator(f"tr[data-run='{first}']")).to_be_hidden()
    print(f"\n{gone} runs went by in {SECONDS} s: {figures}")
    assert gone > A_SECOND * SECONDS / 3, "the machine was too slow to tell anything"
    settled = figures[2:]
    assert max(one["rows"] for one in figures) < 100
    assert settled[-1]["nodes"] < settled[0]["nodes"] * 1.2 + 200
    assert settled[-1]["heap_mb"] < settled[0]["heap_mb"] * 1.25 + 2  # it stays where it was
