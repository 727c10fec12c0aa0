"""The tutorial's chapter 6b on real workers: each has its wheels from the next run on; an upload breaks nothing."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyoco_server.worker.wheels.trees import remove_tree
from tests.wheels import make_wheel

from .conftest import System, running_system
from .test_tutorial import client
from .wheel_uploads import change, flow_of, installed, outputs, until_wheels, upload

pytestmark = pytest.mark.slow

FAST = {"PYOCO_WORKER_HEARTBEAT_INTERVAL_SEC": "0.5", "PYOCO_WHEEL_SYNC_INTERVAL_SEC": "60"}


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with running_system(tmp_path_factory.mktemp("system"), **FAST) as running:
        for kind in ("cpu", "gpu"):
            running.worker("--wheel-sync", worker_id=f"{kind}-1", tags=kind, **FAST)
        yield running


def library(folder: Path, package: str, version: str, code: str = "", **options: object) -> Path:
    """Build a wheel whose function ``t`` gives its name and version."""
    module = package.replace("-", "_")
    text = f"def t():\n    return '{package} {version}'\n{code}"
    return make_wheel(folder, package, version, {f"{module}/__init__.py": text}, **options)


def test_the_tutorials_wheels(system: System) -> None:
    folder = system.folder / "dist"
    folder.mkdir()
    for name in ("task-cpu", "task-gpu", "task-shared"):
        library(folder, name, "0.1.0")
    for line in (
        "wheel-upload --wheel-file dist/task_cpu-0.1.0-py3-none-any.whl --tags cpu",
        "wheel-upload --wheel-file dist/task_gpu-0.1.0-py3-none-any.whl --tags gpu",
        "wheel-upload --wheel-file dist/task_shared-0.1.0-py3-none-any.whl",
    ):
        client(system, *line.split())
    for kind, other in (("cpu", "gpu"), ("gpu", "cpu")):
        run = system.run(flow_of(f"task_{kind}:t", "task_shared:t"), tag=kind)
        assert outputs(run) == [f"task-{kind} 0.1.0", "task-shared 0.1.0"]
        assert run["worker_id"] == f"{kind}-1"
        shown = until_wheels(system, f"{kind}-1", lambda found: len(found["installed_wheels"]) == 2)
        assert installed(shown) == [f"task-{kind}==0.1.0", "task-shared==0.1.0"]
        assert shown["enabled"] is True
        assert (shown["last_result"], shown["last_error"]) == ("ok", None)
        assert shown["environment"] == run["environment"]
        assert shown["selected_wheels"] == [f"task_{kind}-0.1.0-py3-none-any.whl", "task_shared-0.1.0-py3-none-any.whl"]
        missing = system.run(flow_of(f"task_{other}:t"), tag=kind)
        assert missing["end_reason"] == "dependency_missing"
    client(system, "wheel-upload", "--wheel-file", "dist/task_cpu-0.1.0-py3-none-any.whl", "--tags", "cpu", code=6)


def test_files_may_be_named_in_any_language(system: System) -> None:
    code = """
from importlib.resources import files

def t():
    return sorted(path.read_text(encoding="utf-8") for path in (files("names") / "資料").iterdir())
"""
    names = ["学習　データ.csv", "no\xa0break.txt", "\U0001f468\ufe0f.txt", "a : ? * < .txt"]
    content = {"names/__init__.py": code, **{f"names/資料/{name}": name for name in names}}
    upload(system, make_wheel(system.folder, "names", "1.0", content), "cpu")
    assert outputs(system.run(flow_of("names:t")))[0] == sorted(names)


def test_a_new_version_is_used_by_the_next_run_and_not_by_the_one_running(system: System, tmp_path: Path) -> None:
    system.worker("--wheel-sync", "--concurrency", "2", worker_id="two", tags="two", **FAST)
    go = tmp_path / "go"
    code = (
        f"def slow():\n    import os, time\n    while not os.path.exists({str(go)!r}): time.sleep(0.01)\n"
        "    from task_two import late\n    return late.VERSION\n"
    )
    for version in ("1", "2"):
        modules = {
            "task_two/__init__.py": f"def t():\n    return {version}\n{code}",
            "task_two/late.py": f"VERSION = {version}\n",
        }
        wheel = make_wheel(tmp_path, "task-two", version, modules)
        upload(system, wheel, "two")
        if version == "1":
            running = system.client.submit_run_yaml(flow_of("task_two:slow"), flow_name="main", tag="two")["run_id"]
            first = system.until(running, lambda run: run["tasks"].get("t0") == "RUNNING")
    run = system.run(flow_of("task_two:t"), tag="two")
    assert outputs(run) == [2]
    go.touch()
    ended = system.end(running)
    assert outputs(ended) == [1]  # it imported a part of its package only now
    assert first["environment"] == ended["environment"] != run["environment"]


@pytest.mark.slow
def test_a_deleted_wheel_goes_and_a_pin_goes_back(system: System, tmp_path: Path) -> None:
    system.worker("--wheel-sync", worker_id="pins", tags="pins", **FAST)
    first, second = (library(tmp_path, "task-pins", version) for version in ("1.0", "1.1"))
    upload(system, first, "pins")
    upload(system, second, "pins")
    flow = flow_of("task_pins:t")
    assert outputs(system.run(flow, tag="pins")) == ["task-pins 1.1"]
    asked = time.monotonic()
    change(system, "POST", f"{first.name}/pin")
    assert outputs(system.run(flow, tag="pins")) == ["task-pins 1.0"]
    print(f"\npinned version used {time.monotonic() - asked:.3f} s after the command began")
    assert time.monotonic() - asked < 10
    change(system, "DELETE", f"{first.name}/pin")
    assert outputs(system.run(flow, tag="pins")) == ["task-pins 1.1"]
    change(system, "DELETE", second.name)
    assert outputs(system.run(flow, tag="pins")) == ["task-pins 1.0"]
    change(system, "DELETE", first.name)
    run = system.run(flow, tag="pins")
    assert run["end_reason"] == "dependency_missing"
    shown = until_wheels(system, "pins", lambda found: found["environment"] == run["environment"])
    assert "task-pins" not in str(shown["installed_wheels"])


@pytest.mark.slow
def test_two_versions_of_one_library_run_at_once_on_one_machine(system: System, tmp_path: Path) -> None:
    meet = tmp_path / "meet"
    meet.mkdir()
    code = (
        "    import os, time\n    open(os.path.join(MEET, VERSION), 'w').close()\n"
        "    while len(os.listdir(MEET)) < 2: time.sleep(0.01)\n    return [VERSION, __file__]\n"
    )
    for version, tag in (("1", "old"), ("2", "new")):
        system.worker("--wheel-sync", worker_id=tag, tags=tag, **FAST)
        text = f"MEET, VERSION = {str(meet)!r}, {version!r}\ndef t():\n{code}"
        upload(system, make_wheel(tmp_path, "library", version, {"library.py": text}), tag)
    ids = [
        system.client.submit_run_yaml(flow_of("library:t"), flow_name="main", tag=tag)["run_id"]
        for tag in ("old", "new")
    ]
    (one, place), (two, other) = (outputs(system.end(run_id))[0] for run_id in ids)
    assert (one, two) == ("1", "2")
    assert place != other


def test_a_plug_in_of_a_wheel_is_used_and_listed(system: System, tmp_path: Path) -> None:
    import subprocess

    from .conftest import BIN

    code = "def hook(registry):\n    registry.register_callable(t, name='shout/hello')\n"
    upload(system, library(tmp_path, "task-plug", "0.1.0", code, entry_points={"shout": "task_plug:hook"}), "cpu")
    flow = "version: 1\nflow:\n  graph: t\ntasks:\n  t:\n    use: shout/hello\n"
    assert outputs(system.run(flow, tag="cpu")) == ["task-plug 0.1.0"]
    until_wheels(system, "cpu-1", lambda found: bool(found["plugins"]))
    said = subprocess.run(
        [BIN / "pyoco-client", "--server", system.url, "workers", "--output", "plugins"],
        capture_output=True, text=True, check=True, timeout=30,
    ).stdout  # fmt: skip
    assert any("cpu-1" in line and "task-plug" in line and "shout/hello" in line for line in said.splitlines()), said


def test_a_broken_wheel_breaks_nothing_and_good_ones_come_in(system: System, tmp_path: Path) -> None:
    worker = system.worker("--wheel-sync", worker_id="hurt", tags="hurt", **FAST)
    upload(system, library(tmp_path, "task-hurt", "1"), "hurt")
    flow = flow_of("task_hurt:t")
    assert outputs(system.run(flow, tag="hurt")) == ["task-hurt 1"]
    bad = library(tmp_path, "task-hurt", "2", "import nowhere_to_be_found\n", entry_points={"p": "task_hurt:t"})
    upload(system, bad, "hurt")
    upload(system, library(tmp_path, "task-fine", "1"), "hurt")
    run = system.run(flow_of("task_hurt:t", "task_fine:t"), tag="hurt")
    assert outputs(run) == ["task-hurt 1", "task-fine 1"]  # the version before, and the good one
    shown = until_wheels(system, "hurt", lambda found: found["outcome"] == "partial")
    assert "nowhere_to_be_found" in shown["last_error"]
    assert [item["wheel_name"] for item in shown["skipped_incompatible"]] == [bad.name]
    assert worker.wait_for("a wheel cannot be used and is left out")["wheel"] == bad.name
    gone = system.run(flow_of("nowhere_to_be_found:t"), tag="hurt")
    why = system.client.why_run(gone["run_id"])
    assert why["code"] == "dependency_missing"
    assert bad.name in why["hint"]
    change(system, "DELETE", bad.name)
    until_wheels(system, "hurt", lambda found: (found["last_result"], found["last_error"]) == ("ok", None))


@pytest.mark.slow
def test_a_resolver_from_a_wheel_and_one_that_no_longer_loads(system: System, tmp_path: Path) -> None:
    def resolver(version: str, first: str = "") -> Path:
        code = (
            f"{first}\nfrom pyoco import Flow\nfrom pyoco.core.models import Task\ndef resolve(name):\n"
            f"    flow = Flow(name)\n    flow.add_task(Task(func=lambda: {version}, name='t'))\n    return flow\n"
        )
        return make_wheel(tmp_path, "task-flows", version, {"task_flows.py": code})

    upload(system, resolver("1"), "flows")
    worker = system.worker(
        "--wheel-sync", "--flow-resolver", "task_flows:resolve", worker_id="flows", tags="flows", **FAST
    )
    first = system.end(system.client.submit_run("main", tag="flows")["run_id"])
    upload(system, resolver("2", "1 / 0"), "flows")
    worker.wait_for("no process for runs starts with the new wheels; the environment before stays in use")
    second = system.end(system.client.submit_run("main", tag="flows")["run_id"])
    assert [run["task_records"]["t"]["output"] for run in (first, second)] == [1, 1]
    assert second["environment"] == first["environment"]
    shown = until_wheels(system, "flows", lambda found: found["last_result"] != "ok")
    assert "ZeroDivisionError" in shown["last_error"]
    upload(system, resolver("3"), "flows")
    third = system.end(system.client.submit_run("main", tag="flows")["run_id"])
    assert third["task_records"]["t"]["output"] == 3


@pytest.mark.slow
def test_an_error_in_a_wheel_shows_the_tasks_own_line(system: System, tmp_path: Path) -> None:
    upload(system, make_wheel(tmp_path, "task-lib", "1", {"task_lib/__init__.py": "def f():\n    1 / 0\n"}), "cpu")
    code = "import task_lib\ndef t():\n    task_lib.f()\n"
    upload(system, make_wheel(tmp_path, "task-own", "1", {"task_own.py": code}), "cpu")
    run = system.run(flow_of("task_own:t"), tag="cpu")
    place = run["task_records"]["t0"]["exception"]
    assert (Path(place["file"]).name, place["line"]) == ("task_own.py", 3)
    assert "building" not in place["file"]


def test_from_upload_to_the_first_run_that_uses_it(system: System, tmp_path: Path) -> None:
    """The bound is generous: the machine that tests is busy. The figure is printed."""
    system.worker("--wheel-sync", worker_id="quick", tags="quick", **FAST)
    seconds = []
    for version in range(1, 4):
        wheel = library(tmp_path, "task-quick", str(version))
        stored = upload(system, wheel, "quick")
        run = system.run(flow_of("task_quick:t"), tag="quick")
        assert outputs(run) == [f"task-quick {version}"]
        seconds.append(run["end_time"] - stored)
    print(
        f"\nfrom upload to the end of the first run that uses it: {', '.join(f'{second:.3f}' for second in seconds)} s"
    )
    assert min(seconds) < 10


@pytest.mark.slow
def test_an_environment_that_a_cleaner_removed_is_made_anew_before_the_next_run(system: System, tmp_path: Path) -> None:
    folder = tmp_path / "wheels"
    worker = system.worker("--wheel-sync", "--wheel-sync-dir", str(folder), worker_id="swept", tags="swept", **FAST)
    upload(system, library(tmp_path, "task-swept", "1.0"), "swept")
    flow = flow_of("task_swept:t")
    first = system.run(flow, tag="swept")
    assert outputs(first) == ["task-swept 1.0"]
    environment = folder / "envs" / first["environment"]
    for removed in (environment, environment / "pyoco-environment.json"):
        environment.chmod(0o755)  # it is read-only
        remove_tree(removed) if removed.is_dir() else removed.unlink()
        run = system.run(flow, tag="swept")
        assert (outputs(run), run["attempt"]) == (["task-swept 1.0"], 1)
        found = worker.wait_for("this machine cannot begin runs; trying again by itself")
        assert (found["kind"], str(environment) in found["reason"]) == ("environment", True)
