"""The functions that a flow names: what is said where they cannot be had."""

import functools
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyoco_server.model.run import EndReason
from pyoco_server.worker.child.flow.modules import CannotLoad, load_function, refused_argument

FILES = {
    "test.py": "def prep(): return 1",
    "statistics.py": "def mean(): return 'my own'",
    "queue.py": "def work(): return 1",
    "time.py": "def work(): return 1",
    "yaml.py": "def read(): return 1",
    "json/__init__.py": "",
    "json/steps.py": "def f(): return 1",
    "email/steps.py": "def f(): return 1",  # no __init__.py: Python's own package is all there is
    "prep_data.py": "def clean_rows(): return 1\nnothing = None\nnumber = 3\nimport os\n"
    "class Steps:\n    @staticmethod\n    def first(): return 1\n",
    "broken.py": "def f(:\n    pass",
    "asks.py": "from test import helper\ndef f(): return 1",
    "asks_too.py": "import queue\nx = queue.work\ndef f(): return 1",
    "needs.py": "import nowhere_to_be_found\ndef f(): return 1",
    "raises.py": "1 / 0",
    "classes.py": "from pyoco.core.base_task import BaseTask\nclass Mine(BaseTask):\n    def run(self, ctx): return 1\n"
    "class Plain:\n    def __init__(self, x=1): pass\n",
    "folder/inner.py": "def f(): return 1",
    "前処理.py": "def 読む(): return 1",
    "tasks.py": "from pyoco.dsl.syntax import task\n@task\ndef t(): return 1",
}


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    importlib.invalidate_caches()
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]
    importlib.invalidate_caches()


@pytest.mark.parametrize(
    "path",
    ["prep_data:clean_rows", "prep_data:Steps.first", "folder.inner:f", "前処理:読む", "tasks:t", "classes:Plain",
     "pyoco_server._workflow_test_tasks:add_one", "collections:Counter"],
)  # fmt: skip
def test_what_can_be_had(own: Path, path: str) -> None:
    assert callable(load_function(path))


SHADOWED = "which comes before your own {own}/%s. Give your file another name"


@pytest.mark.parametrize(
    ("path", "reason", "parts"),
    [
        ("test:prep", "invalid_flow", ["module 'test' has no 'prep'", "test/__init__.py (Python's standard library)",
                                       SHADOWED % "test.py"]),
        ("statistics:mean", "invalid_flow", ["statistics.py (Python's standard library)", SHADOWED % "statistics.py"]),
        ("queue:work", "invalid_flow", ["has no 'work'", SHADOWED % "queue.py"]),
        ("time:work", "invalid_flow", ["built into Python", SHADOWED % "time.py"]),
        ("yaml:read", "invalid_flow", ["site-packages/yaml/__init__.py", SHADOWED % "yaml.py"]),
        ("json.steps:f", "dependency_missing", ["'json.steps'", "'json' is", SHADOWED % "json/__init__.py"]),
        ("email.steps:f", "dependency_missing", ["'email' is", "standard library)", SHADOWED % "email/steps.py"]),
        ("prep_data:clean_row", "invalid_flow", ["has no 'clean_row'", "{own}/prep_data.py", "mean 'clean_rows'?"]),
        ("prep_data:Steps.frist", "invalid_flow", ["'Steps' in module 'prep_data' has no 'frist'", "mean 'first'?"]),
        ("prep_data:nothing", "invalid_flow", ["({own}/prep_data.py) is None, not a function"]),
        ("prep_data:number", "invalid_flow", ["of the type int, not a function"]),
        ("prep_data:os", "invalid_flow", ["is a module: write os:function"]),
        ("prep_dat:f", "dependency_missing", ["no module named 'prep_dat'", "Did you mean 'prep_data'?"]),
        ("prep_data.py:f", "dependency_missing", ["write prep_data, without .py"]),
        ("folder:f", "invalid_flow", ["the folder {own}/folder, which holds no __init__.py"]),
        ("broken:f", "invalid_flow", ["SyntaxError", "broken.py, line 1"]),
        ("asks:f", "dependency_missing", ["cannot import name 'helper' from 'test'", SHADOWED % "test.py"]),
        ("asks_too:f", "invalid_flow", ["AttributeError", SHADOWED % "queue.py"]),
        ("needs:f", "dependency_missing", ["no module named 'nowhere_to_be_found' on this worker"]),
        ("raises:f", "invalid_flow", ["ZeroDivisionError"]),
        ("classes:Mine", "invalid_flow", ["is a class of tasks"]),
        ("math:hypot", "invalid_flow", ["written in C"]),
    ],
)  # fmt: skip
def test_what_cannot(own: Path, path: str, reason: str, parts: list[str]) -> None:
    with pytest.raises(CannotLoad) as caught:
        load_function(path)
    assert caught.value.reason is EndReason(reason)
    for part in parts:
        assert part.replace("{own}", str(own)) in str(caught.value), str(caught.value)


def test_inputs_that_a_function_does_not_take() -> None:
    def named(rows: int, *, lr: int) -> None: ...
    def open_(rows: int, **others: int) -> None: ...
    def positional(rows: int, /) -> None: ...

    @functools.wraps(positional)
    def decorated(**others: int) -> None: ...

    assert refused_argument(named, ["rows", "lr"]) == ""
    assert refused_argument(open_, ["anything"]) == ""
    assert refused_argument(decorated, ["anything"]) == ""
    assert refused_argument(named, ["rows", "row"]).startswith("takes no input 'row'. Did you mean 'rows'?")
    assert refused_argument(positional, ["rows"]).startswith("takes no input 'rows'")
