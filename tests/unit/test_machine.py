"""What of its machine keeps a worker from beginning runs, found where the system says so."""

import errno
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from pyoco_server.model.worker import TroubleKind
from pyoco_server.worker.machine.directories import Machine, MachineFault, describe, drop_run_directory

RUN = "7b1c3d0e-run-of-somebody"


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Path]:
    """A directory in which this process works while a test lasts."""
    before, place = Path.cwd(), tmp_path / "app"
    place.mkdir()
    os.chdir(place)
    try:
        yield place
    finally:
        os.chdir(before)


@pytest.fixture
def machine(tmp_path: Path, start: Path) -> Machine:
    return Machine(tmp_path / "state/runs", start)


def fault(machine: Machine, environment: Any = None) -> MachineFault:
    with pytest.raises(MachineFault) as raised:
        machine.probe(environment)
    return raised.value


def test_a_look_leaves_nothing_behind(machine: Machine) -> None:
    machine.probe()
    assert list(machine.runs.iterdir()) == []


def test_a_run_gets_its_directory_and_an_unused_one_goes(machine: Machine) -> None:
    place = machine.make_run_directory(RUN, 2)
    assert place == machine.run_directory(RUN, 2)
    assert (place.name, place.stat().st_mode & 0o777) == (f"{RUN}-2", 0o700)
    drop_run_directory(place)
    assert not place.exists()
    used = machine.make_run_directory(RUN, 3)
    (used / "result.csv").touch()
    drop_run_directory(used)
    assert (used / "result.csv").exists()


STATE, PROCESS = TroubleKind.STATE_DIRECTORY, TroubleKind.PROCESS


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, STATE), (errno.EDQUOT, STATE), (errno.EROFS, STATE), (errno.EACCES, STATE), (errno.EPERM, STATE),
        (errno.ENOTDIR, STATE), (errno.EIO, STATE), (errno.ESTALE, STATE), (errno.ENAMETOOLONG, STATE),
        (errno.EMFILE, PROCESS), (errno.ENFILE, PROCESS), (errno.ENOMEM, PROCESS),
    ],
)  # fmt: skip
@pytest.mark.parametrize("call", ["mkdtemp", "write_bytes", "mkdir"])
def test_what_the_system_says_is_told_and_no_run_is_named(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, number: int, kind: TroubleKind, call: str
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number), f"/somewhere/{RUN}")

    machine.runs.mkdir(parents=True)
    monkeypatch.setattr(tempfile if call == "mkdtemp" else Path, call, refuse)
    faults = [fault(machine)]
    if call == "mkdir":
        with pytest.raises(MachineFault) as raised:
            machine.make_run_directory(RUN, 1)
        faults.append(raised.value)
    for found in faults:
        assert found.kind is kind
        assert errno.errorcode[number] in found.message and RUN not in found.message
        assert (str(machine.runs) in found.message) is (kind is STATE)


@pytest.mark.parametrize(("place", "said"), [("/proc/x", "ENOENT"), ("/dev/null", "ENOTDIR"), ("/proc/1/x", "ENOENT")])
def test_places_where_nothing_can_be_made(start: Path, place: str, said: str) -> None:
    machine = Machine(Path(place) / "runs", start)
    assert said in fault(machine).message
    with pytest.raises(MachineFault, match=said):
        machine.make_run_directory(RUN, 1)


@pytest.fixture
def not_root() -> Iterator[Callable[[], None]]:
    """Become somebody to whom something may be forbidden."""
    before = os.geteuid()
    yield lambda: os.seteuid(65534) if before == 0 else None
    os.seteuid(before)


def test_a_directory_in_which_we_may_not_write(machine: Machine, not_root: Callable[[], None]) -> None:
    machine.runs.mkdir(parents=True)
    machine.runs.chmod(0o500)
    not_root()
    assert "Permission denied (EACCES)" in fault(machine).message
    with pytest.raises(MachineFault, match="EACCES"):
        machine.make_run_directory(RUN, 1)


def test_a_directory_that_we_may_not_even_see(machine: Machine, not_root: Callable[[], None]) -> None:
    machine.runs.mkdir(parents=True)
    machine.runs.parent.chmod(0o000)
    not_root()
    assert "EACCES" in fault(machine).message
    with pytest.raises(MachineFault, match="EACCES"):
        machine.sweep()


def test_a_state_directory_that_was_removed_is_made_again(machine: Machine) -> None:
    machine.probe()
    shutil.rmtree(machine.runs.parent)
    machine.probe()
    assert machine.make_run_directory(RUN, 1).is_dir()


def test_the_start_directory_goes_and_another_one_comes(machine: Machine, start: Path) -> None:
    start.rmdir()
    assert fault(machine).kind is TroubleKind.START_DIRECTORY
    assert f"{start}: No such file or directory (ENOENT)" in fault(machine).message
    with pytest.raises(MachineFault):
        machine.look_for(None)
    start.mkdir()
    machine.probe()
    assert machine.moves == 1
    assert Path.cwd() == start
    machine.probe()
    assert machine.moves == 1


def test_a_start_directory_that_was_exchanged_is_entered(machine: Machine, start: Path) -> None:
    start.rename(start.with_name("old"))
    start.mkdir()
    machine.look_for(None)
    assert (machine.moves, Path.cwd()) == (1, start)


def test_a_start_directory_that_became_a_file(machine: Machine, start: Path) -> None:
    start.rmdir()
    start.touch()
    assert "ENOTDIR" in fault(machine).message


def test_its_own_program_is_gone(start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = tmp_path / "venv/bin/python"
    python.parent.mkdir(parents=True)
    python.touch()
    monkeypatch.setattr(sys, "executable", str(python))
    machine = Machine(tmp_path / "runs", start)
    machine.probe()
    shutil.rmtree(python.parent)
    found = fault(machine)
    assert (found.kind, found.message) == (
        TroubleKind.PROGRAM, f"the worker's own program is gone: {python} does not exist",
    )  # fmt: skip


@pytest.mark.parametrize("flaw", ["is gone", "was changed"])
def test_its_wheels_are_gone_or_changed(machine: Machine, tmp_path: Path, flaw: str) -> None:
    class Flawed:
        directory = tmp_path / "envs/abc"

        def flaw(self) -> str:
            return flaw

    found = fault(machine, cast(Any, Flawed()))
    assert found.kind is TroubleKind.ENVIRONMENT and str(Flawed.directory) in found.message and flaw in found.message


def test_old_directories_of_runs_are_removed(machine: Machine) -> None:
    machine.sweep()  # there is nothing yet
    old, new = machine.make_run_directory("old", 1), machine.make_run_directory("new", 1)
    long_ago = time.time() - 8 * 24 * 3600
    os.utime(old, (long_ago, long_ago))
    machine.sweep()
    assert (old.exists(), new.exists()) == (False, True)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.EAGAIN, "Resource temporarily unavailable"), "Resource temporarily unavailable (EAGAIN)"),
        (OSError(errno.ENOENT, "No such file or directory", "/x"), "/x: No such file or directory (ENOENT)"),
        (OSError("odd"), "odd"),
        (OSError(), "OSError"),
    ],
)
def test_an_error_of_the_system_in_words(error: OSError, said: str) -> None:
    assert describe(error) == said
