"""The seed, the figures, and a system of one's own for each test."""

import contextlib
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from .cluster import Cluster

SEED_VARIABLE = "FAULTS_SEED"
_FIGURES: list[str] = []
_SEED = int(os.environ.get(SEED_VARIABLE) or random.SystemRandom().randrange(10**6))

Figure = Callable[[str], None]
Start = Callable[..., Any]


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """The seed of this test: the suite's seed and the test's name, so that one test repeats alone as in the suite."""
    return random.Random(f"{_SEED}:{request.node.name}").randrange(2**32)


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Figure:
    """Note a figure: it is shown at the end of the test run, whatever pytest captures."""

    def note(text: str) -> None:
        _FIGURES.append(f"{request.node.name}: {text}")

    return note


@contextlib.contextmanager
def clusters(folder: Path, seed: int) -> Iterator[Start]:
    """Start systems that end with the block; what they logged is printed, for pytest to show beside a failure."""
    systems: list[Cluster] = []

    def begin(*, gateway: bool = True, **options: Any) -> Cluster:
        systems.append(Cluster(folder, seed, **options))
        if gateway:
            systems[-1].gateway()
        return systems[-1]

    try:
        yield begin
    finally:
        for system in systems:
            system.show_logs()
            system.close()


@pytest.fixture
def start(tmp_path: Path, seed: int) -> Iterator[Start]:
    """Start a system, as ``start(gateway=True, store=…, PYOCO_…=…)``."""
    with clusters(tmp_path, seed) as begin:
        yield begin


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A system with one gateway and one worker, for all those tests of a module that leave it as they found it."""
    with clusters(tmp_path_factory.mktemp("shared"), _SEED) as begin:
        system: Cluster = begin()
        system.worker()
        yield system


@pytest.fixture
def cluster(start: Start) -> Cluster:
    """A system with one gateway and no worker yet."""
    system: Cluster = start()
    return system


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Show the figures, and how to repeat what was random."""
    if _FIGURES:
        terminalreporter.section(f"faults (repeat with {SEED_VARIABLE}={_SEED})")
        for line in _FIGURES:
            terminalreporter.write_line(line)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Say the seed beside every failure too, where no figure is noted."""
    if report.failed and "tests/faults" in report.nodeid:
        report.sections.append(("seed", f"{SEED_VARIABLE}={_SEED}"))
