"""The existing pyoco-server, in an environment of its own."""

import contextlib
import fcntl
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.ports import free_port

ROOT = Path(__file__).parents[2]
PINS = Path(__file__).with_name("existing.txt")
"""What it needs besides is pinned with our own dependencies."""
_INSTALL_SEC = 100


@dataclass(frozen=True)
class Existing:
    """Its commands.

    Attributes:
        bin: The folder that they lie in.
    """

    bin: Path

    def run(
        self, *command: str, folder: Path, check: bool = True, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run one of its commands (or ``python``) to its end.

        Args:
            command: Its name and arguments.
            folder: Where it runs.
            check: Whether another exit code than 0 is an error.
            environment: What it has besides ours.
        """
        return subprocess.run(
            [str(self.bin / command[0]), *command[1:]], cwd=folder, env={**os.environ, **environment}, check=check,
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip

    def python(self, script: str, *arguments: str, folder: Path, **environment: str) -> Any:
        """Run a script that prints JSON on its last line; return what that is."""
        done = self.run("python", "-c", script, *arguments, folder=folder, **environment)
        return json.loads(done.stdout.splitlines()[-1])

    @contextlib.contextmanager
    def running(self, *command: str, folder: Path, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
        """Run one of its commands in the background; what it prints goes to ``COMMAND.log`` in the folder."""
        with (
            (folder / f"{command[0]}.log").open("ab") as log,
            subprocess.Popen(
                [str(self.bin / command[0]), *command[1:]], cwd=folder, env={**os.environ, **environment},
                stdout=log, stderr=subprocess.STDOUT,
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
    def server(self, nats_url: str, folder: Path, **environment: str) -> Iterator[str]:
        """Run its HTTP server; yields its URL."""
        port = free_port()
        arguments = ["--host", "127.0.0.1", "--port", str(port), "--nats-url", nats_url]
        with self.running("pyoco-server", *arguments, folder=folder, **environment):
            yield f"http://127.0.0.1:{port}"


def installed() -> Existing:
    """Install it, once for all tests."""
    name = hashlib.sha256(PINS.read_bytes()).hexdigest()[:12]
    place = ROOT / ".tools" / f"existing-{name}"
    place.parent.mkdir(exist_ok=True)
    with place.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (place / "complete").exists():
            uv = os.environ.get("UV", "uv")
            python = str(place / "bin" / "python")
            for command in (
                [uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(place)],
                [uv, "pip", "install", "--quiet", "--python", python, "--requirements", str(PINS)],
            ):
                subprocess.run(command, check=True, timeout=_INSTALL_SEC)
            (place / "complete").touch()
    return Existing(place / "bin")
