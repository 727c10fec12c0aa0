"""Hosts of their own on this machine: network namespaces on one bridge, whose cables can be pulled."""

import contextlib
import os
import random
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

_NAME = re.compile(r"pf(\d+)-")
_TRIES = 20


class Host:
    """A machine with an address: what runs there sees its own network and its own host name only."""

    def __init__(self, name: str, namespace: str, cable: str, address: str) -> None:
        self.name = name
        self._namespace = namespace
        self._cable = cable
        self.address = address

    def command(self, arguments: list[str]) -> list[str]:
        """Give the command that runs another one here, as the same process."""
        as_host = ["unshare", "--uts", "sh", "-c", 'hostname "$0" && exec "$@"', self.name]
        return [str(shutil.which("ip")), "netns", "exec", self._namespace, *as_host, *arguments]

    def cut(self) -> None:
        """Pull the cable: nothing goes out or comes in, and nobody is told."""
        _ip("link", "set", self._cable, "down")

    def heal(self) -> None:
        """Put the cable back."""
        _ip("link", "set", self._cable, "up")


class Network:
    """A bridge; the tests themselves sit on it too.

    Args:
        prefix: Of the names of everything that is made; holds our process id, so that what a killed test run has left
            behind is known.
        subnet: The first three numbers of its addresses.
    """

    def __init__(self, prefix: str, subnet: str) -> None:
        self._prefix = prefix
        self._subnet = subnet
        self._hosts: dict[str, Host] = {}
        self.address = f"{subnet}.1"
        """Where the hosts find what the tests themselves serve."""

    def host(self, name: str) -> Host:
        """Add a host."""
        number = len(self._hosts) + 1
        namespace, cable, inner = f"{self._prefix}h{number}", f"{self._prefix}c{number}", f"{self._prefix}i{number}"
        address = f"{self._subnet}.{number + 10}"
        _ip("netns", "add", namespace)
        _ip("link", "add", cable, "type", "veth", "peer", "name", inner, "netns", namespace)
        _ip("link", "set", cable, "master", f"{self._prefix}b", "up")
        for words in (f"addr add {address}/24 dev {inner}", f"link set {inner} up", "link set lo up"):
            _ip("-n", namespace, *words.split())
        self._hosts[name] = Host(name, namespace, cable, address)
        return self._hosts[name]

    def remove(self) -> None:
        """Remove everything."""
        for number in range(1, len(self._hosts) + 1):
            _ip("netns", "del", f"{self._prefix}h{number}")  # its end of the cable goes with it, and so the other one
        _ip("link", "del", f"{self._prefix}b")


@contextlib.contextmanager
def network() -> Iterator[Network]:
    """Make a network for as long as the block lasts; skip the test where this user has no right to."""
    if os.geteuid() != 0:
        pytest.skip("hosts of their own are network namespaces, which only root may make")
    _sweep()
    try:
        made = _make_bridge()
    except (FileNotFoundError, PermissionError, RuntimeError) as error:
        pytest.skip(f"no network namespaces can be made here: {error}")
    try:
        yield made
    finally:
        made.remove()


def _make_bridge() -> Network:
    prefix = f"pf{os.getpid()}-"
    _ip("link", "add", f"{prefix}b", "type", "bridge")
    try:
        subnet = _free_subnet()
        _ip("addr", "add", f"{subnet}.1/24", "dev", f"{prefix}b")
        _ip("link", "set", f"{prefix}b", "up")
        probe = f"{prefix}h0"
        _ip("netns", "add", probe)
        _ip("netns", "del", probe)
    except RuntimeError:
        _ip("link", "del", f"{prefix}b")
        raise
    return Network(prefix, subnet)


def _free_subnet() -> str:
    taken = _ip("-4", "route", "show")
    for _ in range(_TRIES):
        subnet = f"10.{random.randrange(100, 250)}.{random.randrange(1, 250)}"
        if subnet not in taken:
            return subnet
    raise RuntimeError("no free subnet was found")


def _sweep() -> None:
    """Remove what test runs that were killed have left behind."""
    names = [line.split()[0] for line in _ip("netns", "list").splitlines()]
    for name in names:
        if (found := _NAME.match(name)) and not psutil.pid_exists(int(found[1])):
            _ip("netns", "del", name)
    for path in Path("/sys/class/net").iterdir():
        if (found := _NAME.match(path.name)) and not psutil.pid_exists(int(found[1])) and (path / "bridge").exists():
            _ip("link", "del", path.name)


def _ip(*arguments: str) -> str:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout
