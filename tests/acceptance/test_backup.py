"""Backup and restore as a user has them: the commands, a file, and a system that was lost."""

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.wheels import make_wheel

from .conftest import BIN, DEADLINE, TUTORIAL, Process, running_system
from .test_processes import within
from .wheel_uploads import upload


def command(folder: Path, *arguments: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYOCO_")}
    return subprocess.run(
        [BIN / "pyoco-server", *arguments], cwd=folder, env=kept, capture_output=True, timeout=60, **options
    )


@pytest.fixture
def interrupted(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A backup that waits for a NATS which does not answer, over an earlier one."""
    (tmp_path / "b.tar").write_text("the one before")
    arguments = ["backup", "b.tar", "--nats-url", "nats://127.0.0.1:1"]
    with subprocess.Popen([BIN / "pyoco-server", *arguments], cwd=tmp_path, stderr=subprocess.PIPE) as process:
        within(lambda: len(list(tmp_path.iterdir())) == 2)
        yield process
        process.kill()


@pytest.mark.slow
def test_a_system_is_lost_and_comes_back(tmp_path: Path) -> None:
    with running_system(tmp_path) as system:
        system.worker()
        runs = [system.run(TUTORIAL, params={"x": number}) for number in range(3)]
        wheel = make_wheel(tmp_path, "some", "1", {"some.py": "x = 1\n"})
        upload(system, wheel)
        made = command(tmp_path, "backup", "b.tar", "--nats-url", system.nats_url)
        assert made.returncode == 0, made.stderr
        told = json.loads(made.stdout)
        assert (told["streams"]["KV_pyoco_runs"], told["missing"]) == (3, [])
        assert told["bytes"] == (tmp_path / "b.tar").stat().st_size
        assert b"KV_pyoco_runs: 3 messages" in made.stderr
        assert (tmp_path / "b.tar").stat().st_mode & 0o777 == 0o600
        refused = command(tmp_path, "restore", "b.tar", "--nats-url", system.nats_url, "--replace")
        assert refused.returncode == 1
        assert b"error: a gateway (it pulls from" in refused.stderr and b"hint: Stop" in refused.stderr
        lost = system.run(TUTORIAL)["run_id"]
    shutil.rmtree(tmp_path / ".pyoco/nats")
    back = command(tmp_path, "restore", "-", "--with-nats", input=(tmp_path / "b.tar").read_bytes())
    assert back.returncode == 0, back.stderr
    assert json.loads(back.stdout)["replaced"] == []
    assert b"KV_pyoco_runs: 3 messages restored" in back.stderr
    with running_system(tmp_path) as system:  # with the index of before, which knows the lost run
        listed = [run["run_id"] for run in system.client.list_runs()]
        assert sorted(listed) == sorted(run["run_id"] for run in runs) and lost not in listed
        after = [system.client.get_run_with_records(run["run_id"]) for run in runs]
        assert [told_of(run) for run in after] == [told_of(run) for run in runs]
        assert httpx2.get(f"{system.url}/wheels/{wheel.name}").content == wheel.read_bytes()
        doctor = Process(["pyoco-client", "--server", system.url, "doctor", "--lang", "en"], tmp_path)
        check = Process(["pyoco-server", "check", "--nats-url", system.nats_url, "--url", system.url], tmp_path)
        assert (doctor.popen.wait(DEADLINE), check.popen.wait(DEADLINE)) == (0, 0)


def told_of(run: dict[str, Any]) -> dict[str, Any]:
    """A run's record, without what is known of its worker now."""
    return {field: value for field, value in run.items() if not field.startswith(("worker_", "heartbeat_"))}


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_backup_is_none(
    tmp_path: Path, interrupted: subprocess.Popen[bytes], sig: signal.Signals
) -> None:
    (aside,) = [path for path in tmp_path.iterdir() if path.name != "b.tar"]
    assert aside.stat().st_mode & 0o777 == 0o600
    interrupted.send_signal(sig)
    assert interrupted.wait(30) == (-sig if sig is signal.SIGKILL else 130)
    assert (tmp_path / "b.tar").read_text() == "the one before"
    if sig is not signal.SIGKILL:
        assert list(tmp_path.iterdir()) == [tmp_path / "b.tar"]
