"""The page's files: what is vendored is what its list says, and both languages have every text."""

import hashlib
import json
import re
from pathlib import Path

import pytest

from pyoco_server.errors import PyocoError

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "src/pyoco_server/dashboard"
VENDORED = [PAGE / "vendor", ROOT / "tests/dashboard/vendor"]
OURS = [path for path in PAGE.rglob("*") if path.suffix in (".js", ".css", ".html") and "vendor" not in path.parts]
SCRIPTS = [path for path in OURS if path.suffix == ".js"]
TEXTS = {name: json.loads((PAGE / f"i18n/{name}.json").read_text()) for name in ("en", "ja")}
ENTRIES = [(folder, entry) for folder in VENDORED for entry in json.loads((folder / "VENDOR.json").read_text())]


@pytest.mark.parametrize(
    ("folder", "entry"), ENTRIES, ids=lambda value: value["file"] if isinstance(value, dict) else ""
)
def test_a_vendored_file_is_what_its_list_says(folder: Path, entry: dict[str, str]) -> None:
    body = (folder / entry["file"]).read_bytes()
    assert hashlib.sha256(body).hexdigest() == entry["sha256"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", entry["version"]) and len(entry["source_sha256"]) == 64
    assert entry["licence"] in ("MIT", "Apache-2.0", "MPL-2.0")
    licence = (folder / entry["licence_file"]).read_text()
    assert len(licence) > 500 and re.search("licen[cs]e", licence, re.IGNORECASE)
    assert not re.search(r"\bfrom\s*\"[@\w]", body.decode())  # a browser finds no packages
    assert "sourceMappingURL" not in body.decode()


@pytest.mark.parametrize("folder", VENDORED, ids=lambda folder: folder.parent.name)
def test_nothing_is_vendored_that_is_not_listed(folder: Path) -> None:
    entries = [entry for place, entry in ENTRIES if place == folder]
    listed = {name for entry in entries for name in (entry["file"], entry["licence_file"])}
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert there == listed | {"VENDOR.json"}


def test_both_languages_have_every_text() -> None:
    english, japanese = TEXTS["en"], TEXTS["ja"]
    assert set(english) == set(japanese)
    for key, text in english.items():
        assert text.strip() and japanese[key].strip(), key
        assert set(re.findall(r"\{\w+\}", text)) == set(re.findall(r"\{\w+\}", japanese[key])), key


def test_every_text_that_is_asked_for_is_there_and_no_other() -> None:
    source = "\n".join(path.read_text() for path in SCRIPTS)
    literal = set(re.findall(r"\"([a-z][\w.]*)\"", source, re.IGNORECASE))
    begun = set(re.findall(r"`([a-z]+\.(?:[\w.]+\.)?)\$\{", source))
    asked = set(re.findall(r"\bt\(\"([\w.]+)\"", source))
    plural = set(re.findall(r"\btn\(\"([\w.]+)\"", source))
    assert sorted(asked - set(TEXTS["en"])) == []
    assert sorted(key for key in plural if f"{key}.one" not in TEXTS["en"] or f"{key}.other" not in TEXTS["en"]) == []
    unused = [
        key
        for key in TEXTS["en"]
        if key not in literal
        and key.removesuffix(".one").removesuffix(".other") not in literal
        and not any(key.startswith(begin) for begin in begun)
    ]
    assert unused == []


def test_errors_have_words_for_codes_that_the_server_knows() -> None:
    told = {key.removeprefix("problem.") for key in TEXTS["en"] if key.startswith("problem.")}
    assert told <= {kind.code for kind in all_kinds(PyocoError)}
    assert all(TEXTS["ja"][f"problem.{code}"] != "{detail}" for code in told)


def all_kinds(kind: type[PyocoError]) -> set[type[PyocoError]]:
    return {kind}.union(*(all_kinds(narrower) for narrower in kind.__subclasses__()))


@pytest.mark.parametrize("path", OURS, ids=lambda path: path.relative_to(PAGE).as_posix())
def test_a_file_keeps_the_house_rules(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 250
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text)
    assert not re.search(r"\bstyle=[\"']", text)  # the policy forbids it; style=${{…}} sets properties
    assert not re.search(r"https?://(?!www\.w3\.org)", text)  # nothing is loaded from elsewhere
    if path.suffix == ".js":
        assert text.startswith("// "), "say in the first line what the file is for"
        for target in re.findall(r"(?:from|import\()\s*\"([^\"]+)\"", text):
            assert (path.parent / target).resolve().is_file(), target
