"""The places that the docs name exist, and the settings that they show are read as they say."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from pyoco_server.settings.environment import Settings, variable

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.rglob("*.md"), *ROOT.glob("*.md"), ROOT / "benchmarks/README.md"])
TUTORIALS = ["tutorial.md", "tutorial_ja.md"]
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
SPEC = (DOCS / "spec.md").read_text()


def slug(heading: str) -> str:
    """Return the anchor that GitHub makes of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def anchors(page: Path) -> set[str]:
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    return {slug(found) for found in re.findall(r"^#+ (.*)$", text, re.MULTILINE)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text()):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        place = page.parent / name if name else page
        assert place.exists(), target
        if anchor and place.suffix == ".md":
            assert anchor in anchors(place), target


@pytest.mark.parametrize(
    ("page", "words"),
    [("spec.md", "REQ-0013"), ("spec.md", "付録I"), ("architecture.md", "ログ仕様"), ("config.md", "`.env` 例")],
)
def test_what_is_looked_for_by_name_is_a_heading(page: str, words: str) -> None:
    assert [line for line in (DOCS / page).read_text().splitlines() if line.startswith("## ") and words in line]


def chapter(page: str, number: int) -> str:
    return re.split(r"^## ", (DOCS / page).read_text(), flags=re.MULTILINE)[number_of(page, number)]


def number_of(page: str, number: int) -> int:
    headings = re.findall(r"^## (.*)$", (DOCS / page).read_text(), re.MULTILINE)
    return 1 + next(index for index, heading in enumerate(headings) if heading.startswith(f"{number}."))


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", TUTORIALS)
def test_the_chapter_on_logs_names_the_places(page: str) -> None:
    for place in ("spec.md", "architecture.md", "config.md", "REQ-0013"):
        assert place in chapter(page, 8)
    [line] = blocks(chapter(page, 8), "json")
    shown = json.loads(line)
    assert shown["level"] == "ERROR"
    assert shown["exc_origin"]["func"] in shown["exc_traceback"]


def test_both_languages_have_the_same_chapter_on_logs() -> None:
    english, japanese = (chapter(page, 8) for page in TUTORIALS)
    for language in ("bash", "json"):
        assert blocks(english, language) == blocks(japanese, language)


def shown_default(value: Any) -> str:
    if value in (None, (), ""):
        return "\N{EN DASH}"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return (
        f"{value:g}"
        if isinstance(value, float) and value % 1
        else str(int(value))
        if isinstance(value, (int, float))
        else f"`{value}`"
    )


def test_the_appendix_has_every_setting_with_its_default() -> None:
    rows = re.findall(r"^\| `(PYOCO_\w+)` \| (.*?) \| .+ \|$", SPEC.split("付録I")[1], re.MULTILINE)
    told = dict(rows)
    assert len(told) == len(rows), "a setting stands there twice"
    expected = {variable(name): shown_default(field.default) for name, field in Settings.model_fields.items()}
    others = {"PYOCO_LOAD_DOTENV", "PYOCO_ENV_FILE", "PYOCO_SERVER", "PYOCO_API_KEY"}
    assert {name: default for name, default in told.items() if name not in others} == expected
    assert others <= told.keys()


@pytest.mark.parametrize(("page", "heading"), [("config.md", "## A `.env`"), *((page, "## 3. ") for page in TUTORIALS)])
def test_the_env_file_means_the_same_to_us_and_to_a_shell(page: str, heading: str, tmp_path: Path) -> None:
    section = (DOCS / page).read_text().split(heading)[1].split("\n## ")[0]
    example, sourcing = blocks(section, "bash")
    (tmp_path / ".env").write_text(example)
    ours = Settings(_env_file=tmp_path / ".env")  # type: ignore[call-arg]
    shell = subprocess.run(
        ["bash", "-c", f"{sourcing}\nenv"], cwd=tmp_path, env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True,
        check=True, timeout=30,
    ).stdout  # fmt: skip
    told = dict(line.split("=", 1) for line in shell.splitlines() if line.startswith("PYOCO_"))
    assert told.keys() == {line.split("=")[0] for line in example.splitlines() if line and not line.startswith("#")}
    fields = {variable(name): name for name in Settings.model_fields}
    by_shell = Settings(_env_file=None, **{fields[name]: value for name, value in told.items()})  # type: ignore[call-arg, arg-type]
    assert ours == by_shell
    assert "PYOCO_LOG_INCLUDE_TRACEBACK" in told
