"""What a wheel brings is found by the subprocesses of a run too: its modules, and its commands by their names."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.conftest import System
from tests.acceptance.wheel_uploads import flow_of, upload
from tests.wheels import wheel_members, wheel_name, write_wheel

from .conftest import FAST, output

pytestmark = pytest.mark.usercode

TASKS = """
import json, os, shutil, subprocess, sys
def said(*command, **options):
    return subprocess.run(command, capture_output=True, text=True, check=True, **options).stdout.strip()
def module(): return said(sys.executable, "-m", "acme_tool")
def command(): return said("acme-train")
def shell(): return said("sh", "-c", "acme-train && python -m acme_tool")
def which(): return shutil.which("acme-train") is not None
INNER = "import subprocess; print(subprocess.check_output('acme-train', text=True))"
def nested(): return said(sys.executable, "-c", INNER)
def elsewhere(): return said(sys.executable, "-m", "acme_tool", cwd="/")
def isolated(): return subprocess.run([sys.executable, "-I", "-c", "import acme_tool"], capture_output=True).returncode
def spawned():
    import multiprocessing
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(work)
def work():
    import acme_tool
    return acme_tool.NAME
def standard(): return said(sys.executable, "-c", "import json, pydantic; print(json.__file__, pydantic.__file__)")
def own(): return json.__file__
def startup(): return said(sys.executable, "-c", "import sitecustomize; print(sitecustomize.MARK)", env={
    **os.environ, "PYTHONPATH": os.environ["PYTHONPATH"] + os.pathsep + os.environ["MARKED"]})
"""


@pytest.fixture(scope="module")
def tag(system: System, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("wheel")
    members = wheel_members(
        "acme-tool",
        "1.0",
        {
            "acme_tool/__init__.py": "NAME = 'acme'\ndef main():\n    print('trained')\n",
            "acme_tool/__main__.py": "print('as a module')\n",
            "acme_tool/tasks.py": TASKS,
            "json/__init__.py": "raise RuntimeError('not the standard one')\n",
        },
    )
    members["acme_tool-1.0.dist-info/entry_points.txt"] = "[console_scripts]\nacme-train = acme_tool:main\n"
    marked = folder / "marked"
    marked.mkdir()
    (marked / "sitecustomize.py").write_text("MARK = 'the next one'\n")
    system.worker("--wheel-sync", worker_id="acme", tags="acme", MARKED=str(marked), **FAST)
    upload(system, write_wheel(folder / wheel_name("acme-tool", "1.0"), members), "acme")
    yield "acme"


@pytest.mark.parametrize(
    ("task", "said"),
    [
        ("module", "as a module"),
        ("command", "trained"),
        ("shell", "trained\nas a module"),
        ("which", True),
        ("nested", "trained"),
        ("elsewhere", "as a module"),
        ("isolated", 1),  # -I asks for just that
        ("spawned", "acme"),
        ("startup", "the next one"),
    ],
)
def test_subprocesses_find_it(system: System, tag: str, task: str, said: object) -> None:
    assert output(system.run(flow_of(f"acme_tool.tasks:{task}"), tag=tag), "t0") == said


def test_the_standard_library_and_the_workers_packages_come_first(system: System, tag: str) -> None:
    places = output(system.run(flow_of("acme_tool.tasks:standard"), tag=tag), "t0").split()
    own = output(system.run(flow_of("acme_tool.tasks:own"), tag=tag), "t0")
    assert places[0] == own == json.__file__
    assert Path(places[1]).parts[-3:-1] == ("site-packages", "pydantic")


def test_modules_beside_the_worker_are_found_too(system: System) -> None:
    (system.folder / "beside_the_worker.py").write_text(
        "import subprocess, sys\n"
        "def t(): return subprocess.check_output([sys.executable, '-m', 'beside_the_worker'], text=True).strip()\n"
        "if __name__ == '__main__': print('found')\n"
    )
    assert output(system.run(flow_of("beside_the_worker:t"), tag="process"), "t0") == "found"
