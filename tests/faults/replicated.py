"""The whole system on hosts of its own: three nats-servers, two gateways behind a balancer, workers."""

import contextlib
import json
from pathlib import Path

import httpx2

from tests.acceptance.conftest import BIN, Process

from .balancer import Balancer
from .cluster import Cluster, Member, until
from .hosts import Host, Network

REPLICAS = 3
_CLIENT, _ROUTES, _MONITOR, _HTTP = 4222, 6222, 8222, 8000


class ReplicatedCluster(Cluster):
    """As ``Cluster``, with a host for each process.

    Args:
        folder: Everything lies here.
        seed: Decides whatever is random.
        network: Where the hosts are made.
        environment: Variables over the common short times.
    """

    def __init__(self, folder: Path, seed: int, network: Network, **environment: str) -> None:
        self._network = network
        self.hosts: dict[str, Host] = {}
        super().__init__(folder, seed, PYOCO_NATS_REPLICAS=str(REPLICAS), **environment)
        self.balancer = self._closing.enter_context(self._balancer([self._gateway_on("g1"), self._gateway_on("g2")]))
        self.urls = [self.balancer.url]

    @property
    def nats_url(self) -> str:
        """All servers."""
        return ",".join(f"nats://{self.hosts[name].address}:{_CLIENT}" for name in self.servers)

    @property
    def servers(self) -> list[str]:
        """The names of the nats-servers and of their hosts."""
        return [f"nats-{number}" for number in range(1, REPLICAS + 1)]

    def worker_on(self, name: str, *arguments: str, tags: str = "cpu") -> Member:
        """Start a worker on a host of its name and wait until it serves."""
        command = ["pyoco-worker", "--nats-url", self.nats_url, "--worker-id", name, "--tags", tags, *arguments]
        return self._on(name, command, self.folder, lambda process: process.wait_for("worker ready")).ready()

    def leader(self, stream: str) -> str:
        """Tell which server leads a stream now."""
        return str(until(lambda: self.witness.leader(stream), f"{stream} has a leader"))

    def in_sync(self) -> bool:
        """Tell whether every server says that all it keeps is up to date, and every stream has all its replicas."""
        return all(self._is_well(name) for name in self.servers) and self.witness.in_sync(REPLICAS)

    def _on(self, name: str, command: list[str], place: Path, ready: object) -> Member:
        if name not in self.hosts:
            self.hosts[name] = self._network.host(name)
        whole = self.hosts[name].command([str(BIN / command[0]), *command[1:]])
        return self.member(name, lambda: Process(whole, place, **self.environment), ready)  # type: ignore[arg-type]

    def _gateway_on(self, name: str) -> tuple[str, int]:
        place = self.folder / name
        place.mkdir()
        command = ["pyoco-server", "--host", "0.0.0.0", "--insecure", "--port", str(_HTTP), "--nats-url", self.nats_url]
        member = self._on(name, command, place, lambda _: until(lambda: self.is_ready(url), f"{name} is ready"))
        url = f"http://{self.hosts[name].address}:{_HTTP}"
        member.ready()
        return self.hosts[name].address, _HTTP

    @contextlib.contextmanager
    def _balancer(self, gateways: list[tuple[str, int]]):  # type: ignore[no-untyped-def]
        with Balancer(self._network.address, gateways).running() as balancer:
            until(lambda: self.is_ready(balancer.url), "the balancer serves")
            yield balancer

    def _start_nats(self) -> None:
        for name in self.servers:
            self.hosts[name] = self._network.host(name)
        for name in self.servers:
            self._on(name, ["nats-server", "-c", str(self._configure(name))], self.folder, lambda _: None)
        for name in self.servers:
            until(lambda name=name: self._is_well(name), f"{name} is well")  # type: ignore[misc]
        self.nats = self.members[self.servers[0]]

    def _configure(self, name: str) -> Path:
        routes = [f"nats://{self.hosts[other].address}:{_ROUTES}" for other in self.servers]
        path = self.folder / f"{name}.conf"
        path.write_text(
            json.dumps(
                {
                    "server_name": name,
                    "listen": f"{self.hosts[name].address}:{_CLIENT}",
                    "http": f"{self.hosts[name].address}:{_MONITOR}",
                    "jetstream": {"store_dir": str(self.folder / name)},
                    "cluster": {
                        "name": "pyoco",
                        "listen": f"{self.hosts[name].address}:{_ROUTES}",
                        "routes": routes,
                    },
                }
            )
        )
        return path

    def _is_well(self, name: str) -> bool:
        with contextlib.suppress(httpx2.HTTPError):
            return self.http.get(f"http://{self.hosts[name].address}:{_MONITOR}/healthz", timeout=1).status_code == 200
        return False
