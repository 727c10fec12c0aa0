"""The demo: everything on free ports, the tutorial's flow on a cpu and a gpu worker, told as it happens."""

import asyncio
import locale
import os
import signal
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Column, Table

from pyoco_server.client.async_http import AsyncPyocoHttpClient
from pyoco_server.embedded.system import System
from pyoco_server.errors import CommandFailed
from pyoco_server.process.logs import configure_logging
from pyoco_server.settings.environment import Settings

_TAGS = {"cpu": "cpu-1", "gpu": "gpu-1"}
FLOW = """\
version: 1
flow:
  graph: |
    add_one >> to_text
  defaults:
    x: 1
tasks:
  add_one:
    callable: pyoco_server._workflow_test_tasks:add_one
  to_text:
    callable: pyoco_server._workflow_test_tasks:to_text
"""
_RUN_SEC = 60
_TABLE_WIDTH = 110
_TEXTS: dict[str, dict[str, Any]] = {
    "en": {
        "starting": "Starting NATS, the gateway, a cpu worker and a gpu worker …",
        "up": "Up at {url}",
        "submitted": "submitted to the tag {tag}: run {run_id}",
        "columns": ["run", "tag", "worker", "status", "result", "waited", "ran"],
        "page": "The page: {url}/    Stop with Ctrl-C.",
        "logs": "The logs: {path}",
        "stopped": "Stopped; nothing is left behind.",
    },
    "ja": {
        "starting": "NATS、ゲートウェイ、cpuワーカー、gpuワーカーを起動しています…",
        "up": "起動しました：{url}",
        "submitted": "タグ {tag} に投入しました：run {run_id}",
        "columns": ["run", "タグ", "ワーカー", "状態", "結果", "待ち時間", "実行時間"],
        "page": "ページ：{url}/    Ctrl-C で終了します。",
        "logs": "ログ：{path}",
        "stopped": "終了しました。何も残っていません。",
    },
}


async def run_demo(*, exit_after: bool, lang: str | None) -> bool:
    """Run the demo.

    Args:
        exit_after: End when the runs have ended, instead of waiting for Ctrl-C.
        lang: ``en`` or ``ja``; the machine's language when not given.

    Returns:
        Whether each run ended COMPLETED on the worker of its tag.
    """
    texts = _TEXTS[lang or _language()]
    console = Console(highlight=False, soft_wrap=True)
    console.width = max(console.width, _TABLE_WIDTH)  # a table cut to "COM…" tells nothing
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for sig in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(sig, stop.set)
    with tempfile.TemporaryDirectory(prefix="pyoco-demo-", ignore_cleanup_errors=True) as folder:
        system = _make_system(Path(folder))
        console.print(texts["starting"])
        await system.start()
        try:
            console.print(texts["up"].format(url=system.url))
            good = await _first_of(_show_runs(console, texts, system.url), system.watch(stop))
            if not exit_after and not stop.is_set():
                console.print(texts["page"].format(url=system.url))
                console.print(texts["logs"].format(path=folder))
                await system.watch(stop)
        finally:
            await system.stop()
        console.print(texts["stopped"])
    return good


def _make_system(folder: Path) -> System:
    """Make the system, with all logs in files: the terminal is for the story."""
    settings = Settings(_env_file=None, state_dir=folder / "state", http_auth_mode="none")
    configure_logging(service="pyoco-server:http", settings=settings, file=folder / "gateway.log")
    return System(
        settings,
        host="127.0.0.1",
        port=0,
        nats_store=folder / "nats",
        nats_listen=("127.0.0.1", -1, -1),
        workers=[["--tags", tag, "--worker-id", worker_id] for tag, worker_id in _TAGS.items()],
        worker_log=folder / "workers.log",
        # What is set up for another NATS is not for ours: empty counts as not given.
        worker_environment={"PYOCO_LOAD_DOTENV": "0", **dict.fromkeys(settings.nats_access, "")},
    )


async def _show_runs(console: Console, texts: dict[str, Any], url: str) -> bool:
    async with AsyncPyocoHttpClient(url) as client:
        submitted = [(tag, (await client.submit_run_yaml(FLOW, flow_name="main", tag=tag))["run_id"]) for tag in _TAGS]
        for tag, run_id in submitted:
            console.print(texts["submitted"].format(tag=tag, run_id=run_id))
        ended = await asyncio.gather(*(_follow(console, client, tag, run_id) for tag, run_id in submitted))
    first, *others = texts["columns"]
    table = Table(Column(first, no_wrap=True, min_width=36), *others)
    for snapshot in ended:
        table.add_row(
            snapshot["run_id"],
            snapshot["tag"],
            snapshot.get("worker_id") or "-",
            snapshot["status"],
            _result(snapshot),
            f"{snapshot.get('queue_wait_ms') or 0:.0f} ms",
            f"{snapshot.get('run_ms') or 0:.0f} ms",
        )
    console.print(table)
    return all(run["status"] == "COMPLETED" and run["worker_id"] == _TAGS[run["tag"]] for run in ended)


async def _follow(console: Console, client: AsyncPyocoHttpClient, tag: str, run_id: str) -> dict[str, Any]:
    """Print each change of a run; its last snapshot is the answer."""
    shown = ""
    snapshot: dict[str, Any] = {}
    async for event in client.watch_run(run_id, include_records=True, timeout_sec=_RUN_SEC):
        snapshot = event["data"].get("snapshot") or snapshot
        tasks = " ".join(f"{name}={state}" for name, state in (snapshot.get("tasks") or {}).items())
        line = f"  {tag}: {snapshot.get('status')} {tasks}"
        if snapshot and line != shown:
            shown = line
            console.print(line)
    if not snapshot:
        raise CommandFailed(f"the run {run_id} showed no sign of life within {_RUN_SEC} s")
    return snapshot


def _result(snapshot: dict[str, Any]) -> str:
    """Give the output of the task that ended last, or the error."""
    records = [record for record in (snapshot.get("task_records") or {}).values() if record.get("ended_at")]
    if snapshot["status"] != "COMPLETED" or not records:
        return str(snapshot.get("error") or "-")
    return str(max(records, key=lambda record: record["ended_at"]).get("output"))


async def _first_of(story: Coroutine[Any, Any, bool], watching: Coroutine[Any, Any, None]) -> bool:
    """Let the story end, unless a part of the system dies or Ctrl-C comes before."""
    told, watched = asyncio.ensure_future(story), asyncio.ensure_future(watching)
    await asyncio.wait({told, watched}, return_when=asyncio.FIRST_COMPLETED)
    if told.done():
        watched.cancel()
        return bool(told.result())
    told.cancel()
    watched.result()
    raise CommandFailed("stopped before the runs had ended")


def _language() -> str:
    wanted = os.environ.get("PYOCO_DASHBOARD_LANG", "auto")
    if wanted in _TEXTS:
        return wanted
    return "ja" if (locale.getlocale()[0] or "").startswith("ja") else "en"
