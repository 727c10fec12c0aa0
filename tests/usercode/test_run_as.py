"""Tasks as another user than their worker, and workers that are an ordinary user's: needs root to set up."""

import os
import pwd
import shutil
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from pyoco_server.worker.child.confinement.confinement import support
from tests.acceptance.conftest import Process, System, running_system
from tests.acceptance.wheel_uploads import flow_of, outputs, until_wheels, upload
from tests.wheels import make_wheel

from .conftest import FAST
from .test_confinement import call

ROOT = Path(__file__).parents[2]
NOBODY = "nobody"
_BECOME = "import os, sys; os.setgroups([]); os.setgid({gid}); os.setuid({uid}); os.execv(sys.argv[1], sys.argv[1:])"


def _interpreter() -> str | None:
    """Return an interpreter of this version that everybody may run; one in root's home is none."""
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    for place in (Path(sys.executable).resolve(), Path("/usr/bin", version), Path("/usr/local/bin", version)):
        if place.is_file() and all(parent.stat().st_mode & 0o001 for parent in place.parents):
            return str(place)
    return None


PYTHON = _interpreter()
pytestmark = [
    pytest.mark.usercode,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root may change users"),
    pytest.mark.skipif(PYTHON is None, reason="nobody else may run this Python"),
    pytest.mark.skipif(not support().whole, reason=f"this Linux cannot confine: {support().missing}"),
]
MODULES = os.pathsep.join([sysconfig.get_path("purelib"), str(ROOT / "src"), str(ROOT)])


@pytest.fixture(scope="module")
def system() -> Iterator[System]:
    # pytest's own directories are closed to other users.
    folder = Path(tempfile.mkdtemp(prefix="pyoco-run-as-"))
    try:
        folder.chmod(0o755)
        with running_system(folder, **FAST) as running:
            yield running
    finally:
        shutil.rmtree(folder)


def worker(system: System, *arguments: str, name: str, before: tuple[str, ...] = (), **environment: str) -> Process:
    """Start a worker with an interpreter that others may run too."""
    process = Process(
        [*before, str(PYTHON), "-m", "pyoco_server.cli.worker", "--nats-url", system.nats_url, "--worker-id", name,
         "--tags", name, *arguments],
        system.folder, **{"PYTHONPATH": MODULES, **FAST, **environment},
    )  # fmt: skip
    system.processes.append(process)
    return process


@pytest.mark.parametrize("isolation", ["process", "shared"])
def test_tasks_are_that_users(system: System, isolation: str) -> None:
    name = f"as-nobody-{isolation}"
    worker(system, "--run-as", NOBODY, "--isolation", isolation, name=name, TMPDIR="/root").wait_for("worker ready")
    found, user = call(system, name, "ordinary_processes:who"), pwd.getpwnam(NOBODY)
    assert found == {
        "user": NOBODY, "ids": [user.pw_uid] * 3, "group": user.pw_gid, "home": user.pw_dir, "own": user.pw_uid,
        "mode": 0o700, "tmp": "/tmp",
    }  # fmt: skip
    state = system.folder / ".pyoco"
    closed = [str(place) for place in (state / "index", state / "nats", state / "runs")]
    closed.append(str(state / "index" / "pyoco_runs.sqlite3"))
    assert call(system, name, "ordinary_processes:readable", places=closed) == []
    assert call(system, name, "ordinary_processes:fail") == {}
    victims = {f"{one.name()} {one.pid}": one.pid for one in psutil.Process(system.server.popen.pid).children()}
    assert call(system, name, "attacks_on_processes:succeed", victims=victims) == {}
    told = {one["worker_id"]: one["tasks_run"] for one in system.client.get_workers()}[name]
    assert told == {"confinement": "whole", "missing": None, "user": NOBODY, "root": False, "own_user": True}


def test_the_worker_still_ends_them(system: System) -> None:
    worker(system, "--run-as", NOBODY, name="ending", PYOCO_CANCEL_GRACE_PERIOD_SEC="0.5").wait_for("worker ready")
    text = (
        "flow: {graph: t}\ntasks:\n  t: {callable: 'tests.usercode.ordinary_processes:rest', inputs: {seconds: 600}}\n"
    )
    run_id = system.client.submit_run_yaml(text, flow_name="main", tag="ending")["run_id"]
    system.until(run_id, lambda snapshot: snapshot["tasks"].get("t") == "RUNNING")
    system.client.cancel_run(run_id)
    assert system.end(run_id)["status"] == "CANCELLED"


def test_a_worker_that_is_an_ordinary_users(system: System) -> None:
    user = pwd.getpwnam(NOBODY)
    become = (sys.executable, "-c", _BECOME.format(uid=user.pw_uid, gid=user.pw_gid))
    state = Path(tempfile.mkdtemp(prefix="pyoco-nobodys-"))
    try:
        os.chown(state, user.pw_uid, user.pw_gid)
        worker(
            system, name="nobodys", before=become, PYOCO_CONFINE_TASKS="on", PYOCO_STATE_DIR=str(state), HOME="/tmp"
        ).wait_for("worker ready")
        mine = system.processes[-1].popen.pid
        victims = {"worker": mine, **{f"{one.name()}": one.pid for one in psutil.Process(mine).children()}}
        assert call(system, "nobodys", "attacks_on_processes:succeed", victims=victims) == {}
        assert call(system, "nobodys", "attacks_on_processes:succeed_on_the_machine") == []
        assert call(system, "nobodys", "ordinary_processes:fail") == {}
        again = worker(
            system, "--run-as", "daemon", name="no-right", before=become, PYOCO_STATE_DIR=str(state), HOME="/tmp"
        )
        assert again.popen.wait(60) == 1
        assert any("this worker may not change its user" in line["message"] for line in again.lines)
        system.processes[-2].stop()
    finally:
        shutil.rmtree(state)


def test_what_is_refused_at_the_start(system: System) -> None:
    wrong = worker(system, "--run-as", "no-such-user", name="no-user")
    assert wrong.popen.wait(60) == 1
    closed = system.folder / "closed"
    closed.mkdir(mode=0o700)
    shut = worker(system, "--run-as", NOBODY, name="shut", PYOCO_STATE_DIR=str(closed / "state"))
    assert shut.popen.wait(60) == 1
    for process, said in (
        (wrong, "there is no such user on this machine"),
        (
            shut,
            f"cannot enter the directory of its runs (PYOCO_STATE_DIR): {closed}/state/runs lies in {closed}",
        ),
    ):
        assert any(said in line["message"] for line in process.lines), process.lines


def test_that_user_imports_from_wheels_and_changes_none(system: System, tmp_path: Path) -> None:
    code = (
        "import os\ndef hook(registry):\n    registry.register_callable(t, name='n')\n"
        "def t():\n    try:\n        os.chmod(__file__, 0o644)\n    except PermissionError:\n        return 'refused'\n"
    )
    upload(system, make_wheel(tmp_path, "task-as", "1", {"task_as.py": code}, entry_points={"p": "task_as:hook"}))
    worker(system, "--run-as", NOBODY, "--wheel-sync", name="wheels").wait_for("worker ready")
    assert until_wheels(system, "wheels", lambda found: bool(found.get("last_sync_at")))["last_result"] == "ok"
    assert outputs(system.run(flow_of("task_as:t"), tag="wheels")) == ["refused"]
