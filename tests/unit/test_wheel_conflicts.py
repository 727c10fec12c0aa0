"""Wheels that want the same place: the one that has had it longer stays, whole, and the other is told why not."""

import asyncio
import zipfile
from pathlib import Path
from typing import Any

import pytest

from pyoco_server.wheelfile import conflicts
from pyoco_server.wheelfile.inspection import Finding, Question, inspect
from tests.wheels import make_wheel

EXTEND = "__path__ = __import__('pkgutil').extend_path(__path__, __name__)\n"


def look(tmp_path: Path, *wheels: dict[str, Any]) -> list[Finding]:
    """Look into wheels, each stored a second after the one before it."""
    questions = []
    for number, wheel in enumerate(wheels):
        name, since = wheel.get("name", f"w{number}"), wheel.get("since", {})
        path = make_wheel(tmp_path, name, "1", wheel["files"], entry_points=wheel.get("entry_points"))
        questions.append(Question(path.name, path, stored_at=float(number), since=since))
    return asyncio.run(inspect(questions, max_bytes=1 << 20, timeout=30))


def commands(*names: str) -> dict[str, str]:
    lines = "".join(f"{name} = x:y\n" for name in names)
    return {"{i}/entry_points.txt": f"[console_scripts]\n{lines}"}


@pytest.mark.parametrize(
    ("older", "newer", "place"),
    [
        ({"v/__init__.py": "1"}, {"v/__init__.py": "2"}, "v/__init__.py"),
        ({"v/__init__.py": "1", "v/a.py": "1"}, {"v/a.py": "2"}, "v/a.py"),
        ({"v/__init__.py": "1"}, {"v/more.py": "2"}, "v/more.py"),
        ({"v/__init__.py": "1"}, {"v/__init__.py": "1", "v/more.py": "2"}, "v/more.py"),
        ({"v/__init__.py": "1"}, {"v/deep/er/more.py": "2"}, "v/deep/er/more.py"),
        ({"v/__init__.py": ""}, {"v/more.py": "2"}, "v/more.py"),
        ({"v.py": "1"}, {"v.py": "2"}, "v.py"),
        ({"v.py": "1"}, {"v/__init__.py": "2"}, "v/__init__.py"),
        ({"v/__init__.py": "1"}, {"v.py": "2"}, "v.py"),
        ({"v.py": "1"}, {"v.cpython-311-x86_64-linux-gnu.so": "2"}, "v.cpython-311"),
        ({"v.abi3.so": "1"}, {"v.py": "2"}, "v.py"),
        ({"v.py": "1"}, {"v.pyc": "2"}, "v.pyc"),
        ({"v.py": "1"}, {"__pycache__/v.cpython-311.pyc": "2"}, "__pycache__/v.cpython-311.pyc"),
        ({"v/__init__.py": "1"}, {"v/__init__.abi3.so": "2"}, "v/__init__.abi3.so"),
        ({"v/__init__.py": "1"}, {"v/__pycache__/__init__.cpython-311.pyc": "2"}, "v/__pycache__"),
        ({"v.py": "1"}, {"v/core.py": "2"}, "v/core.py"),
        ({"v/core.py": "1"}, {"v.py": "2"}, "v.py"),
        ({"v/core.py": "1"}, {"v/__init__.py": "2"}, "v/__init__.py"),
        ({"v/core.py": "1"}, {"v/core.py": "2"}, "v/core.py"),
        ({"v/core.py": "1"}, {"v/core/__init__.py": "2"}, "v/core/__init__.py"),
        ({"v/__init__.py": "1"}, {"V/__init__.py": "2"}, "V/__init__.py"),
        ({"v/__init__.py": "1"}, {"V/more.py": "2"}, "V/more.py"),
        ({"é.py": "1"}, {"e\u0301.py": "1"}, "e\u0301.py"),
        ({"vfi.py": "1"}, {"v\ufb01.py": "1"}, "v\ufb01.py"),
        ({"v": "a file"}, {"v/core.py": "2"}, "v/core.py"),
        ({"v/core.py": "1"}, {"v": "a file"}, "v"),
        ({"{d}/purelib/v.py": "1"}, {"{d}/platlib/v.py": "2"}, "v.py"),
        ({"v.py": "1"}, {"{d}/data/v.py": "2"}, "v.py"),
        ({"{d}/scripts/run": "#!python\n1"}, {"{d}/scripts/run": "#!python\n2"}, "bin/run"),
        ({"{d}/scripts/run": "#!python\n1"}, {"{d}/data/bin/run": "2"}, "bin/run"),
        ({"{d}/scripts/run": "1"}, commands("run"), "bin/run"),
        (commands("run"), commands("run"), "bin/run"),
        ({"README.md": "1"}, {"README.md": "2"}, "README.md"),
        ({"tests/__init__.py": "", "tests/test_x.py": "1"}, {"tests/__init__.py": "", "tests/test_x.py": "2"},
         "tests/test_x.py"),
    ],
)  # fmt: skip
def test_the_older_owner_stays(tmp_path: Path, older: dict[str, str], newer: dict[str, str], place: str) -> None:
    def named(files: dict[str, str], name: str) -> dict[str, str]:
        return {path.format(d=f"{name}-1.data", i=f"{name}-1.dist-info"): text for path, text in files.items()}

    found = look(tmp_path, {"files": named(older, "w0")}, {"files": named(newer, "w1")})
    assert found[0].conflict is None
    assert f"'{place}" in str(found[1].conflict)
    assert "w0-1-py3-none-any.whl" in str(found[1].conflict)
    assert [finding.reason for finding in found] == [None, None]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a/__init__.py": "1"}, {"b/__init__.py": "1"}),
        ({"ns/a/__init__.py": "1"}, {"ns/b/__init__.py": "2"}),
        ({"ns/a.py": "1"}, {"ns/b.py": "2"}),
        ({"ns/__init__.py": EXTEND, "ns/a.py": "1"}, {"ns/__init__.py": EXTEND, "ns/b.py": "2"}),
        ({"tests/__init__.py": "", "tests/test_a.py": "1"}, {"tests/__init__.py": "", "tests/test_b.py": "2"}),
        ({"LICENSE": "same"}, {"LICENSE": "same"}),
        ({"a.py": "1", "LICENSE": "same"}, {"b.py": "1", "LICENSE": "same"}),
        ({"share/x/one.txt": "1"}, {"share/x/two.txt": "2"}),
        ({"docs/a.txt": "1"}, {"docs.py": "1"}),
        ({"a.py": "1", "a.cpython-311-x86_64-linux-gnu.so": "1"}, {"b.py": ""}),
        (
            {"ns/__init__.py": EXTEND, "ns/a/__init__.py": "same"},
            {"ns/__init__.py": EXTEND, "ns/a/__init__.py": "same"},
        ),
    ],
)
def test_what_is_no_conflict(tmp_path: Path, one: dict[str, str], other: dict[str, str]) -> None:
    assert [finding.conflict for finding in look(tmp_path, {"files": one}, {"files": other})] == [None, None]


def test_who_came_first_is_not_who_was_uploaded_last(tmp_path: Path) -> None:
    """A new version keeps the places of the old one, and only those."""
    attacker = {"name": "attacker", "files": {"v.py": "2"}, "since": {"v": 5.0}}
    victim = {"name": "victim", "files": {"v.py": "3"}, "since": {"v": 1.0}}
    grown = {"name": "grown", "files": {"g.py": "1", "v.py": "4"}, "since": {"g": 0.5, "v": 6.0}}
    found = look(tmp_path, attacker, victim, grown)
    assert [finding.conflict is None for finding in found] == [False, True, False]
    assert "victim-1" in str(found[0].conflict)
    assert "victim-1" in str(found[2].conflict)


def test_who_is_evicted_hinders_nobody(tmp_path: Path) -> None:
    """It had other places for longer; with it go its claims to them, and who wanted those is in."""
    grown = {"name": "grown", "files": {"g.py": "1", "v.py": "4"}, "since": {"g": 0.5, "v": 6.0}}
    victim = {"name": "victim", "files": {"v.py": "3"}, "since": {"v": 1.0}}
    third = {"name": "third", "files": {"g.py": "9"}, "since": {"g": 7.0}}
    assert [finding.conflict is None for finding in look(tmp_path, grown, victim, third)] == [False, True, True]


def test_claims_are_packages_modules_and_files_that_belong_to_none(tmp_path: Path) -> None:
    files = {
        "a/__init__.py": "", "a/b.py": "", "a/data.txt": "", "m.py": "", "ns/x/__init__.py": "", "ns/y.py": "",
        "w0-1.data/scripts/run": "#!python", "LICENSE": "",
    }  # fmt: skip
    [found] = look(tmp_path, {"files": files})
    assert found.claims == ["a", "m", "ns/x", "ns/y", "bin/run", "license"]


def test_claims_of_very_many_are_few(tmp_path: Path) -> None:
    [found] = look(tmp_path, {"files": {f"module_{number}.py": "" for number in range(3000)}})
    assert 100 < len(found.claims) < 1000
    assert sum(map(len, found.claims)) < 8 << 10


def test_what_is_the_same_is_not_compared_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conflicts, "_COMPARED_BYTES", 1000)
    files = {f"x/{number}": "y" * 100 for number in range(10)}
    layouts = {}
    for number, name in enumerate(("one", "two")):
        path = make_wheel(tmp_path, name, "1", files)
        places = {place: place for place in files}
        layouts[number] = conflicts.Layout(path.name, places, zipfile.ZipFile(path), float(number))
    found = conflicts.compare(layouts)
    assert list(found) == [1]
    assert "so much of the same" in found[1]


def test_what_cannot_be_compared_hides_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def add(self: conflicts.Together, new: conflicts.Layout) -> None:
        if new.name.startswith("two"):
            raise MemoryError

    monkeypatch.setattr(conflicts.Together, "add", add)
    layouts = {
        number: conflicts.Layout(name, {}, zipfile.ZipFile(make_wheel(tmp_path, name, "1")), float(number))
        for number, name in enumerate(("one", "two", "three"))
    }
    assert conflicts.compare(layouts) == {1: "it cannot be compared with the others: MemoryError: "}
