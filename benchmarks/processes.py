"""Real processes for benchmarks: a gateway with its NATS, their memory, their files."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
from typing_extensions import Self

BIN = Path(sys.executable).parent
_START_SEC = 120


class Server:
    """``pyoco-server up`` as a process; left with ``stop``.

    Args:
        folder: Its working directory.
        arguments: Beside ``--port 0``.
        environment: Variables, over our own.
    """

    def __init__(self, folder: Path, *arguments: str, **environment: str) -> None:
        self.began = time.perf_counter()
        self.process = subprocess.Popen(
            [BIN / "pyoco-server", "up", "--port", "0", *arguments],
            cwd=folder, env={**os.environ, **environment}, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._up = threading.Event()
        self.url = self.nats_url = ""
        self.warnings: list[str] = []
        # A line is printed for each run; nobody may wait for us to read it.
        threading.Thread(target=self._read, daemon=True).start()
        if not self._up.wait(_START_SEC) or not self.url:
            raise SystemExit(f"the server did not start: {self.warnings[-3:]}")

    def _read(self) -> None:
        for text in self.process.stdout or ():
            try:
                line: dict[str, Any] = json.loads(text)
            except ValueError:
                continue
            if line["level"] in ("WARNING", "ERROR"):
                self.warnings = [*self.warnings[-99:], text.strip()]
            if line["message"] == "nats-server is up":
                self.nats_url = line["nats_url"]
            if line["message"] == "pyoco-server is up":
                self.url = line["url"]
                self._up.set()
        self._up.set()

    def memory(self) -> dict[str, float]:
        """Tell the resident memory of gateway and nats-server, in MiB."""
        sizes = {"gateway": 0.0, "nats": 0.0}
        root = psutil.Process(self.process.pid)
        for process in [root, *root.children(recursive=True)]:
            try:
                words = process.cmdline()
                kind = "nats" if words and "nats-server" in words[0] else "gateway" if process.pid == root.pid else None
                if kind:
                    sizes[kind] += process.memory_info().rss / 2**20
            except psutil.NoSuchProcess:
                continue
        return {name: round(size, 1) for name, size in sizes.items()}

    def cpu_sec(self) -> float:
        """Tell what the gateway has had of the processor's time, in seconds: the same on a busy machine."""
        spent = psutil.Process(self.process.pid).cpu_times()
        return round(spent.user + spent.system, 2)

    def stop(self) -> None:
        """Stop it in order."""
        self.process.terminate()
        self.process.wait(60)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class Worker:
    """A ``pyoco-worker`` with one slot as a process; left with ``stop``.

    Args:
        folder: Its working directory.
        nats_url: Where NATS is.
        name: The worker's id.
    """

    def __init__(self, folder: Path, nats_url: str, name: str) -> None:
        command = [BIN / "pyoco-worker", "--nats-url", nats_url, "--worker-id", name]
        with (folder / f"{name}.log").open("wb") as log:
            self.process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)

    def memory(self) -> float:
        """Tell the resident memory of the worker and its children, in MiB."""
        root, total = psutil.Process(self.process.pid), 0.0
        for process in [root, *root.children(recursive=True)]:
            try:
                total += process.memory_info().rss / 2**20
            except psutil.NoSuchProcess:
                continue
        return total

    def stop(self) -> None:
        """Stop it in order."""
        self.process.terminate()
        self.process.wait(60)


def size_mib(place: Path, pattern: str = "**/*") -> float:
    """Tell what files take on the disk, in MiB."""
    total = 0
    for path in place.glob(pattern):
        try:
            if path.is_file():
                total += path.stat().st_blocks * 512
        except FileNotFoundError:
            continue
    return round(total / 2**20, 1)
