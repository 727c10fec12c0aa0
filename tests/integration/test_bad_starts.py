"""Starts that cannot work: one sentence and an exit code, nothing of ours in between, and nothing left behind."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from pyoco_server.cli import server, worker
from pyoco_server.errors import CommandFailed
from pyoco_server.settings.environment import Settings
from pyoco_server.worker.embedding import PyocoNatsWorker

FILES = {
    "raises.py": "def inner():\n    raise RuntimeError('boom')\ninner()\n",
    "imports.py": "import no_such_module_anywhere\n",
    "broken.py": "def f(:\n",
    "leaves.py": "import sys\nsys.exit(3)\n",
    "odd.py": "number = 1\nclass Flows:\n    @staticmethod\n    def resolve(name):\n        raise LookupError(name)\n",
}


def start(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    for name, text in FILES.items():
        (folder / name).write_text(text)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYOCO_")}
    return subprocess.run(
        [sys.executable, "-m", *words], cwd=folder, env={**kept, "PYOCO_LOAD_DOTENV": "0", **environment},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def check(done: subprocess.CompletedProcess[str], *said: str, own_lines: int = 0) -> None:
    assert done.returncode == 1, done.stderr
    lines = done.stderr.splitlines()
    assert lines[0].startswith("error: ") and all(word in done.stderr for word in said), done.stderr
    assert "Traceback" not in done.stderr + done.stdout and "pyoco_server/" not in done.stderr
    assert len(lines) <= 2 + own_lines, done.stderr


WORKER = ("pyoco_server.cli.worker", "--nats-url", "nats://127.0.0.1:1", "--flow-resolver")


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("nocolon", "names no function"), (":f", "names no function"), ("odd.py:", "names no function"),
        ("odd.py:f()", "names no function"), ("missing.py:f", "there is no file"), ("a/b:f", "no Python file"),
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    ("main", "words"),
    [
        (worker.main, ["--nats-url", "nats://127.0.0.1:1", "--flow-resolver"]),
        (server.main, ["--port", "0", "--nats-url", "nats://127.0.0.1:1", "--with-worker", "--worker-flow-resolver"]),
    ],
    ids=["worker", "up"],
)
def test_a_resolver_that_is_none_is_told_before_anything_starts(
    main: Callable[[list[str]], int], words: list[str], spec: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, spec]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and lines[0].startswith("error: --flow-resolver ") and said in lines[0]


@pytest.mark.parametrize(
    ("spec", "said", "own_lines"),
    [
        ("no_such_module:f", "there is no module 'no_such_module'", 0), ("odd.py:number", "type int", 0),
        ("odd.py:nothing", "has no 'nothing'", 0), ("odd.py:Flows.nothing", "has no 'nothing'", 0),
        ("raises.py:f", "RuntimeError: boom|raises.py\", line 3|raises.py\", line 2", 8),
        ("imports.py:f", "no_such_module_anywhere|imports.py\", line 1", 4),
        ("broken.py:f", "SyntaxError|broken.py\", line 1|def f(:", 4), ("leaves.py:f", "SystemExit: 3", 4),
    ],
)  # fmt: skip
@pytest.mark.slow
def test_a_resolver_that_does_not_load(tmp_path: Path, spec: str, said: str, own_lines: int) -> None:
    check(start(tmp_path, *WORKER, spec), "the flow resolver does not load", *said.split("|"), own_lines=own_lines)


@pytest.mark.parametrize(
    "words",
    [
        ["worker", "--nats-url", "bogus://x"], ["worker", "--tags", ""], ["worker", "--worker-id", "a b"],
        ["worker", "--wheel-sync", "--wheel-sync-dir", "odd.py/x"],
        ["worker", "--wheel-sync", "--wheel-sync-dir", "/proc/x"],
        ["server", "up", "--nats-url", "bogus://x"], ["server", "up", "--host", "no.such.host.invalid", "--port", "0"],
        ["server", "up", "--with-worker", "--worker-tags", "a.b"],
    ],
)  # fmt: skip
@pytest.mark.slow
def test_neighbours(tmp_path: Path, words: list[str]) -> None:
    check(start(tmp_path, f"pyoco_server.cli.{words[0]}", *words[1:]))


@pytest.mark.anyio
async def test_a_program_that_embeds_a_worker_keeps_nothing_of_it(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "raises.py").write_text(FILES["raises.py"])
    before = {child.pid for child in psutil.Process().children()}
    with pytest.raises(CommandFailed, match="RuntimeError: boom") as told:
        await PyocoNatsWorker.connect(config=settings, flow_resolver=f"{tmp_path}/raises.py:f")
    assert told.value.__context__ is None and 'raises.py", line 2' in told.value.hint
    assert not [task for task in asyncio.all_tasks() if task.get_name() in ("nats-connect", "nats-pulse", "heartbeat")]
    assert {child.pid for child in psutil.Process().children()} <= before
