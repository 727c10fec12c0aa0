"""Three nats-servers on this machine that know each other, and can be killed and started again."""

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

from pyoco_server.embedded.nats_server import _find_binary
from tests.ports import free_port

REPLICAS = 3


class NatsCluster:
    """The servers ``n0``, ``n1`` and ``n2``.

    Args:
        folder: Where they keep their data.
    """

    def __init__(self, folder: Path) -> None:
        ports, routes = [free_port() for _ in range(REPLICAS)], [free_port() for _ in range(REPLICAS)]
        peers = ",".join(f"nats-route://127.0.0.1:{port}" for port in routes)
        self._commands = {
            f"n{n}": [
                _find_binary(), "-a", "127.0.0.1", "-p", str(ports[n]), "-js", "-sd", str(folder / f"{n}"), "-n",
                f"n{n}", "--cluster_name", "c", "--cluster", f"nats://127.0.0.1:{routes[n]}", "--routes", peers,
            ]
            for n in range(REPLICAS)
        }  # fmt: skip
        self.urls = [f"nats://127.0.0.1:{port}" for port in ports]
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def names(self) -> list[str]:
        """Their names."""
        return list(self._commands)

    @contextlib.contextmanager
    def running(self) -> Iterator["NatsCluster"]:
        """Run for as long as the block lasts."""
        try:
            for name in self.names:
                self.start(name)
            yield self
        finally:
            for process in self._processes.values():
                process.kill()
                process.wait(10)

    def start(self, name: str) -> None:
        """Start a server."""
        self._processes[name] = subprocess.Popen(self._commands[name], stderr=subprocess.DEVNULL)

    def kill(self, name: str) -> None:
        """Kill a server with SIGKILL."""
        self._processes[name].kill()
        self._processes[name].wait(10)
