"""Code that was edited is what the next run uses, however soon it was edited."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.acceptance.conftest import System

from .conftest import FAST, Module, output

pytestmark = pytest.mark.usercode


def test_a_module_that_was_edited(isolation: str, module: Callable[..., Module]) -> None:
    made = module("def t(): return 0\n")
    for number in range(1, 5):  # the same size, and within one second
        output(made.run(isolation))
        made.write(f"def t(): return {number}\n")
        assert output(made.run(isolation)) == number


def test_a_module_with_the_time_of_the_one_before(isolation: str, module: Callable[..., Module]) -> None:
    made = module("def t(): return 1\n")
    before = made.path.stat()
    assert output(made.run(isolation)) == 1
    made.write("def t(): return 22\n")  # another size: all that Python itself can see
    os.utime(made.path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert output(made.run(isolation)) == 22


def test_a_helper_that_the_module_imports(system: System, isolation: str, module: Callable[..., Module]) -> None:
    package = system.folder / f"helpers_{isolation}"
    package.mkdir()
    (package / "__init__.py").write_text("")
    made = module(f"from helpers_{isolation} import inner\ndef t(): return inner.VALUE\n")
    for value in (1, 2, 3):
        (package / "inner.py").write_text(f"VALUE = {value}\n")
        assert output(made.run(isolation)) == value


def test_a_module_that_comes_and_goes(system: System, isolation: str, module: Callable[..., Module]) -> None:
    made = module(f"import fleeting_{isolation}\ndef t(): return 1\n")
    place = system.folder / f"fleeting_{isolation}.py"
    assert made.run(isolation)["end_reason"] == "dependency_missing"
    place.write_text("")
    assert output(made.run(isolation)) == 1
    place.unlink()
    assert made.run(isolation)["end_reason"] == "dependency_missing"


def test_the_file_of_a_resolver(system: System, isolation: str, tmp_path: Path) -> None:
    resolver, helper = tmp_path / "flows.py", tmp_path / "helper_of_flows.py"

    def write(value: int) -> None:
        resolver.write_text(
            "from pyoco import Flow, task\nimport helper_of_flows\n"
            f"@task\ndef t():\n    return [{value}, helper_of_flows.VALUE]\n"
            "def resolve(name):\n    return Flow(name) >> t\n"
        )
        helper.write_text(f"VALUE = {value}\n")

    write(1)
    tag = f"resolver-{isolation}"
    system.worker("--flow-resolver", f"{resolver}:resolve", "--isolation", isolation, worker_id=tag, tags=tag, **FAST)
    for value in (1, 2, 3):
        write(value)
        run = system.end(system.client.submit_run("main", tag=tag)["run_id"])
        assert output(run) == [value, value]
    resolver.write_text("1 / 0\n")
    run = system.end(system.client.submit_run("main", tag=tag)["run_id"])
    assert (run["status"], run["end_reason"]) == ("FAILED", "invalid_flow")
    assert "ZeroDivisionError" in run["error"]
    write(4)
    assert output(system.end(system.client.submit_run("main", tag=tag)["run_id"])) == [4, 4]
