"""The tutorial's chapters on settings, logs and stopping, typed as printed, with a NATS of their own."""

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.ports import free_port

from .conftest import BIN, Process
from .test_processes import within

DOCS = Path(__file__).parents[2] / "docs"
TUTORIAL = (DOCS / "tutorial.md").read_text()
NATS = "nats://127.0.0.1:4222"


def blocks(number: int, language: str) -> list[str]:
    chapter = re.split(rf"^## {number}\. ", TUTORIAL, flags=re.MULTILINE)[1].split("\n## ")[0]
    return re.findall(rf"^```{language}\n(.*?)^```", chapter, re.MULTILINE | re.DOTALL)


class Terminals:
    """A to D, in one folder with the tutorial's ``.env``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        env = blocks(3, "bash")[0]
        assert NATS in env
        (folder / ".env").write_text(env.replace(NATS, f"nats://127.0.0.1:{self.port}"))
        a = f"nats-server -js -a 127.0.0.1 -p {self.port} -sd {folder / 'nats'}"
        self.open = {"A": Process(a.split(), folder)}
        self.open["B"] = Process("pyoco-server up --host 127.0.0.1 --port 0".split(), folder)
        self.url = self.open["B"].wait_for("pyoco-server is up")["url"]
        for name, tag in (("C", "cpu"), ("D", "gpu")):
            # The address comes from .env.
            self.open[name] = Process(f"pyoco-worker --tags {tag} --worker-id {tag}-1 --wheel-sync".split(), folder)
            self.open[name].wait_for("worker ready")

    def type(self, commands: str) -> subprocess.CompletedProcess[str]:
        typed = commands.replace("uv run ", "").replace("http://127.0.0.1:8000", self.url)
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PYOCO_")}
        return subprocess.run(
            ["bash", "-c", typed], cwd=self.folder, capture_output=True, text=True, timeout=60,
            env={**kept, "PATH": f"{BIN}:{os.environ['PATH']}", "PYOCO_SERVER": self.url},
        )  # fmt: skip


@pytest.fixture(scope="module")
def terminals(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Terminals]:
    opened = Terminals(tmp_path_factory.mktemp("tutorial"))
    try:
        yield opened
    finally:
        for process in opened.open.values():
            if process.popen.poll() is None:
                process.popen.kill()
                process.popen.wait()


def in_the_docs(value: Any) -> Any:
    """Return a value as the docs show it: with the folder of somebody else, and any time and id."""
    text = re.sub(r'"(/[^" ]*)/(\w+\.py)', r'"…/\2', json.dumps(value, ensure_ascii=False))
    shown = json.loads(re.sub(r'\\"(/[^" ]*)/(\w+\.py)', r'\\"…/\2', text))
    return {name: item for name, item in shown.items() if name not in ("ts", "run_id", "lineno")}


def test_the_failing_task_of_chapter_8(terminals: Terminals) -> None:
    [sourcing] = [block for block in blocks(3, "bash") if "source" in block]
    commands, ask = blocks(8, "bash")
    done = terminals.type(f"{sourcing}\n{commands}")
    assert done.returncode == 3, (done.stdout, done.stderr)
    run_id = json.loads(done.stdout)["run_id"]
    lines = terminals.open["C"].lines
    within(lambda: any(line["message"] == "run ended" and line["run_id"] == run_id for line in list(lines)))
    told = [line for line in lines if line.get("run_id") == run_id]
    assert [line["message"] for line in told] == ["run started", "task failed", "run ended"]
    line = told[1]
    [shown] = blocks(8, "json")
    assert list(line) == list(json.loads(shown))
    emitted, documented = in_the_docs(line), in_the_docs(json.loads(shown))
    # Its source lines differ between versions of Python: how much of them is underlined.
    assert emitted.pop("exc_traceback").splitlines()[-1] == documented.pop("exc_traceback").splitlines()[-1]
    assert emitted == documented
    said = terminals.type(ask.replace("<run_id>", run_id)).stdout
    assert f"at {terminals.folder / 'prices.py'}:2." in said


def test_the_fields_are_those_of_the_spec(terminals: Terminals) -> None:
    section = (DOCS / "spec.md").read_text().split("(REQ-0013)")[1].split("\n## ")[0]
    table = section.split("| what happens |")[0]
    columns = [row.split("|")[1] for row in table.splitlines() if row.startswith("| `")]
    names = [re.sub(r"\{.*\}", "", name) for column in columns for name in re.findall(r"`([^`]+)`", column)]
    line = json.loads(blocks(8, "json")[0])
    for process in (terminals.open["B"], terminals.open["C"]):
        for told in process.lines:
            assert set(names[:8]) <= told.keys(), told
    assert line.keys() <= set(names)
    assert set(names) - line.keys() == {"err_id", "end_reason", "reason", "try", "tries"}


def test_ctrl_c_in_each_terminal_in_the_order_of_chapter_9(terminals: Terminals) -> None:
    for name, process in terminals.open.items():
        code = process.stop(signal.SIGINT)
        assert code == 0, (name, process.lines[-5:])
        assert not [line for line in process.lines if "Traceback" in line["message"]]
