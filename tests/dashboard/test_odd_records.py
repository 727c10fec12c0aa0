"""Records that hold anything: the list and the page of a run show what can be shown, whatever a field is."""

import asyncio
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import nats
import pytest
from playwright.sync_api import Route, expect

from tests.acceptance.conftest import System

from .conftest import Dashboard

pytestmark = pytest.mark.browser

ODD: list[Any] = [None, {}, [], {"a": [1]}, [None, {"b": 2}], "text", "", -1, 0, 1.5, 1e300, 10**30, True, False]
TASK_FIELDS = (
    "state", "started_at", "ended_at", "duration_ms", "try", "tries", "retry_at", "error", "last_error", "traceback",
    "exception", "inputs", "artifacts", "output",
)  # fmt: skip
FINE: dict[str, Any] = {
    "flow_name": "odd", "status": "RUNNING", "params": {"x": 1}, "tag": "cpu", "tags": ["cpu"], "worker_id": "w",
    "tasks": {"t": "RUNNING"}, "task_records": {"t": {"state": "RUNNING", "started_at": 1.7e9}}, "skipped_tasks": [],
    "submitted_at": 1.7e9, "start_time": 1.7e9, "end_time": None, "heartbeat_at": 1.7e9, "updated_at": 1.7e9,
    "error": None, "end_reason": None, "attempt": 1, "max_attempts": 3, "timeout_sec": 5.0, "queue_wait_ms": 3.0,
    "run_ms": None, "tenant_id": None, "rerun_of": None, "isolation": "process", "environment": None,
    "workflow_yaml_sha256": None, "cancel_requested_at": None, "unreadable": None,
}  # fmt: skip
TEXTS: dict[str, bytes] = {
    "cut": b'{"run_id": "cut", "flow_name": "odd", "status": "COMPLETED", "params": {"x": [',
    "deep": b'{"run_id":"deep","flow_name":"odd","status":"COMPLETED","params":{"x":' + b"[" * 300 + b"]" * 300 + b"}}",
    "nothing": b"\x00\xff",
    "list": b"[1, 2]",
}


def records() -> dict[str, bytes]:
    """Return a record for each kind of value, with that value in every field but the id."""
    found = dict(TEXTS)
    for number, odd in enumerate(ODD):
        found[f"all-{number}"] = json.dumps(dict.fromkeys(FINE, odd)).encode()
        task = {"t": dict.fromkeys(TASK_FIELDS, odd)}
        for status in ("RUNNING", "FAILED", "COMPLETED"):
            record = {**FINE, "run_id": f"task-{number}-{status}", "status": status, "tasks": {"t": "FAILED"}}
            found[record["run_id"]] = json.dumps({**record, "task_records": task}).encode()
    exception = {field: {"x": 1} for field in ("class", "message", "file", "line", "function")}
    task = {"t": {"exception": exception, "error": "e"}}
    found["exception"] = json.dumps({**FINE, "run_id": "exception", "status": "FAILED", "task_records": task}).encode()
    return found


def answering(body: Any, status: int = 200) -> Callable[[Route], None]:
    return lambda route: route.fulfill(status=status, json=body)


def test_a_run_page_survives_any_record(dashboard: Dashboard, system: System) -> None:
    dashboard.expect_console("404|409|422")
    stored = records()

    async def store() -> None:
        client = await nats.connect(system.nats_url)
        for run_id, raw in stored.items():
            await client.jetstream().publish(f"$KV.pyoco_runs.{run_id}", raw)
        await client.close()

    with ThreadPoolExecutor(1) as aside:  # playwright has an event loop of its own here
        aside.submit(asyncio.run, store()).result()
    page = dashboard.open("/runs")
    expect(page.locator("tr[data-run]").first).to_be_visible()
    for run_id in stored:
        page.goto(f"{dashboard.url}/#/runs/{run_id}")
        expect(page.locator(".run-head .run-id code")).to_have_text(run_id)
        expect(page.locator("section.source")).to_be_visible()
        page.locator("section.source summary").last.click()
        expect(page.locator("section.source details[open] pre")).to_contain_text("run_id")
    page.goto(f"{dashboard.url}/#/runs/nothing")
    expect(page.locator(".verdict")).to_contain_text("Its record cannot be read")
    assert not [line for line in dashboard.said if "rror:" in line], dashboard.said


def test_what_the_server_does_not_mend_the_page_does(dashboard: Dashboard, system: System) -> None:
    """Answer in the server's place, for what a newer or older one may let through."""
    page = dashboard.open("/runs")
    answers: dict[str, Any] = {f"odd-{number}": {**dict.fromkeys(FINE, odd)} for number, odd in enumerate(ODD)}
    for run_id, told in answers.items():
        told["run_id"] = run_id
        page.route(f"**/runs/{run_id}?**", answering(told))
        graph = {"run_id": run_id, "source": None, "nodes": [], "edges": [], "groups": [], "cut": False}
        page.route(f"**/runs/{run_id}/graph", answering(graph))
        why = {"status": None, "code": "unreadable", "message": "m", "hint": "", "details": {}}
        page.route(f"**/runs/{run_id}/why?**", answering(why))
        page.route(f"**/runs/{run_id}/logs?**", answering({}, 404))
    dashboard.expect_console("404")
    for run_id in answers:
        page.goto(f"{dashboard.url}/#/runs/{run_id}")
        expect(page.locator(".run-head .run-id code")).to_have_text(run_id)
        expect(page.locator("section.source")).to_be_visible()
    listed = {"items": list(answers.values()), "next_cursor": None}
    page.route("**/runs?cursor=**", answering(listed))
    page.goto(f"{dashboard.url}/#/runs?flow=odd")
    expect(page.locator("tr[data-run]")).to_have_count(len(answers))
