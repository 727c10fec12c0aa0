"""Where an environment stands on the path, what is kept, what limits dependencies, locks and back-off."""

import importlib.metadata
import os
import sys
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

from pyoco_server.worker.wheels import environments
from pyoco_server.worker.wheels import wheel_failures as troubles
from pyoco_server.worker.wheels.import_path import is_inside, use_environment
from pyoco_server.worker.wheels.installer import _limits, own_constraints
from pyoco_server.worker.wheels.locks import try_lock


def test_an_environment_comes_behind_what_is_installed_and_before_the_working_directory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "path", ["/stdlib", "/site-packages", "/cwd"])
    use_environment("/env", behind=2)
    assert sys.path == ["/stdlib", "/site-packages", "/env", "/cwd"]
    use_environment(None, behind=2)
    assert len(sys.path) == 4


def test_a_file_is_inside_by_whole_names() -> None:
    assert is_inside("/env/a/b.py", "/env")
    assert not is_inside("/environment/a.py", "/env")
    assert not is_inside(None, "/env")


def test_the_last_used_environments_stay() -> None:
    last_used = {f"e{number}": float(number) for number in range(6)}
    assert environments.to_remove(last_used) == ["e2", "e1", "e0"]
    assert environments.to_remove({"a": 1.0}) == []


def test_dependencies_are_limited_to_what_the_worker_has(tmp_path: Path) -> None:
    options = _limits(tmp_path)
    assert options == ["--constraints", f"{tmp_path}/constraints.txt", "--excludes", f"{tmp_path}/excludes.txt"]
    pinned = (tmp_path / "constraints.txt").read_text().split()
    assert f"pydantic=={importlib.metadata.version('pydantic')}" in pinned
    assert pinned == own_constraints() == sorted(set(pinned))
    for name in (tmp_path / "excludes.txt").read_text().split():  # a checkout is on no index
        assert canonicalize_name(name) == name
        assert importlib.metadata.distribution(name).read_text("direct_url.json") is not None


def test_each_try_waits_twice_as_long_and_success_forgets(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(troubles.time, "monotonic", lambda: now)
    known = troubles.Troubles(2.0)
    waits = []
    for _ in range(12):
        known.note("d", "w.whl", "bad")
        waits.append(known.next_try_in())
    assert waits[:4] == [2, 4, 8, 16]
    assert waits[-1] == troubles.LONGEST
    assert known.waiting("d")
    now += troubles.LONGEST
    assert not known.waiting("d")
    known.keep_only([])
    assert known.all() == []
    assert known.next_try_in() == float("inf")


def test_a_lock_is_shared_exclusive_and_let_go_with_its_object(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    first, second = try_lock(path, shared=True), try_lock(path, shared=True)
    assert first is not None
    assert second is not None
    assert try_lock(path) is None
    first.release()
    assert try_lock(path) is None
    del second
    alone = try_lock(path)
    assert alone is not None
    assert not os.get_inheritable(os.open(path, os.O_RDONLY))
    alone.remove()
    assert not path.exists()


def test_a_lock_on_a_removed_file_is_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody opens the file, its holder removes it, and only then the lock is taken."""
    path = tmp_path / "lock"
    holder = try_lock(path)
    assert holder is not None
    real = environments.try_lock.__globals__["fcntl"].flock
    removed = []

    def flock(descriptor: int, how: int) -> None:
        if not removed:
            removed.append(True)
            holder.remove()
        real(descriptor, how)

    monkeypatch.setattr("pyoco_server.worker.wheels.locks.fcntl.flock", flock)
    late = try_lock(path)
    assert late is not None
    assert path.exists()
    assert try_lock(path) is None
