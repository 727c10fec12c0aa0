"""This system's commands, as processes of their own beside those of the existing one."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.ports import free_port

BIN = Path(sys.executable).parent


def run(*command: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run one of our commands to its end."""
    return subprocess.run(
        [str(BIN / command[0]), *command[1:]], cwd=folder, env={**os.environ, **environment}, capture_output=True,
        text=True, timeout=60,
    )  # fmt: skip


@contextlib.contextmanager
def running(*command: str, folder: Path, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run one of our commands in the background; what it prints goes to ``ours-COMMAND.log`` in the folder."""
    with (
        (folder / f"ours-{command[0]}.log").open("ab") as log,
        subprocess.Popen(
            [str(BIN / command[0]), *command[1:]], cwd=folder, env={**os.environ, **environment}, stdout=log,
            stderr=subprocess.STDOUT,
        ) as process,
    ):  # fmt: skip
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


@contextlib.contextmanager
def gateway(nats_url: str, folder: Path, **environment: str) -> Iterator[str]:
    """Run our gateway; yields its URL."""
    port = free_port()
    with running("pyoco-server", "up", "--port", str(port), "--nats-url", nats_url, folder=folder, **environment):
        yield f"http://127.0.0.1:{port}"


def worker(
    nats_url: str, tags: str, folder: Path, *options: str
) -> contextlib.AbstractContextManager[subprocess.Popen[bytes]]:
    """Run our worker."""
    return running(
        "pyoco-worker", "--nats-url", nats_url, "--tags", tags, "--worker-id", "ours", *options, folder=folder
    )
