"""What the tests beside the existing system use."""

import contextlib
import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from anyio.from_thread import start_blocking_portal

from pyoco_server.embedded.nats_server import NatsServer

from .existing import Existing, installed
from .oldstore import OldFiles, make_old_files
from .populated import Populated, populate


@pytest.fixture(scope="session")
def existing() -> Existing:
    """The existing pyoco-server 0.5.1, installed."""
    return installed()


@contextlib.contextmanager
def served(store: Path) -> Iterator[str]:
    """Run a nats-server that no other test uses, for the existing system has fixed names; yields its URL."""
    server = NatsServer(store, client_port=-1, http_port=-1, sync="interval")
    with start_blocking_portal("asyncio") as portal, portal.wrap_async_context_manager(server):
        yield server.url


@pytest.fixture
def nats_alone(tmp_path: Path) -> Iterator[str]:
    """The URL of a nats-server in which nothing is."""
    with served(tmp_path / "nats") as url:
        yield url


@pytest.fixture(scope="session")
def populated(existing: Existing, tmp_path_factory: pytest.TempPathFactory) -> tuple[Populated, Path]:
    """A store that the existing system has made and used, and where it lies; no server runs on it."""
    folder = tmp_path_factory.mktemp("populated")
    with served(folder / "nats") as url:
        made = populate(existing, url, folder)
    return made, folder / "nats"


@pytest.fixture
def made(populated: tuple[Populated, Path], tmp_path: Path) -> Iterator[Populated]:
    """Such a store, of the test's own, and a nats-server on it."""
    made, store = populated
    shutil.copytree(store, tmp_path / "nats")
    with served(tmp_path / "nats") as url:
        yield dataclasses.replace(made, url=url)


@pytest.fixture(scope="session")
def old_files(existing: Existing, tmp_path_factory: pytest.TempPathFactory) -> OldFiles:
    """A store that the existing system made and worked with, at rest; it takes eight seconds, once."""
    return make_old_files(existing, tmp_path_factory.mktemp("old-store"))
