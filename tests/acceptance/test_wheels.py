"""Chapter 6b: wheels in the registry, typed as printed."""

import json
from pathlib import Path

import pytest

from tests.wheels import make_wheel

from .conftest import System
from .test_tutorial import client


@pytest.fixture(scope="module", autouse=True)
def wheels(system: System) -> Path:
    folder = system.folder / "dist"
    folder.mkdir()
    for name in ("task-cpu", "task-gpu", "task-shared"):
        make_wheel(folder, name, "0.1.0")
    make_wheel(folder, "task-cpu", "0.2.0")
    return folder


def upload(system: System, name: str, *arguments: str, code: int = 0) -> str:
    done = client(system, "wheel-upload", "--wheel-file", f"dist/{name}-py3-none-any.whl", *arguments, code=code)
    return done.stderr if code else str(json.loads(done.stdout)["name"])


def test_the_chapters_commands(system: System) -> None:
    upload(system, "task_cpu-0.1.0", "--tags", "cpu")
    upload(system, "task_gpu-0.1.0", "--tags", "gpu")
    upload(system, "task_shared-0.1.0")
    listed = json.loads(client(system, "wheels").stdout)
    assert [(wheel["name"], wheel["tags"]) for wheel in listed] == [
        ("task_cpu-0.1.0-py3-none-any.whl", ["cpu"]),
        ("task_gpu-0.1.0-py3-none-any.whl", ["gpu"]),
        ("task_shared-0.1.0-py3-none-any.whl", []),
    ]
    history = json.loads(client(system, "wheel-history", "--limit", "20").stdout)
    assert [event["wheel_name"][:8] for event in history] == ["task_sha", "task_gpu", "task_cpu"]
    assert {event["action"] for event in history} == {"upload"}
    assert all(event["source"]["remote_addr"] == "127.0.0.1" for event in history)


def test_a_second_upload_is_a_conflict_a_new_version_is_none_and_one_command_goes_back(system: System) -> None:
    said = upload(system, "task_cpu-0.1.0", "--tags", "gpu", code=6)
    assert "not newer than 0.1.0" in said and "hint: Raise the version above 0.1.0" in said
    upload(system, "task_cpu-0.2.0", "--tags", "cpu")
    answer = json.loads(client(system, "wheel-pin", "task-cpu==0.1.0").stdout)
    assert answer["pinned"] == ["task_cpu-0.1.0-py3-none-any.whl"]
    assert "task-cpu==0.2.0" in client(system, "wheel-pin", "task-cpu==0.3.0", code=5).stderr
    assert json.loads(client(system, "wheel-unpin", "task-cpu").stdout)["unpinned"] == answer["pinned"]
    assert client(system, "wheel-delete", "--name", "task_cpu-0.2.0-py3-none-any.whl").stdout.count("true") == 1
    client(system, "wheel-delete", "--name", "task_cpu-0.2.0-py3-none-any.whl", code=5)
    table = client(system, "wheel-history", "--output", "table").stdout.splitlines()
    assert [line.split()[1] for line in table[1:6]] == ["delete", "unpin", "pin", "upload", "upload"]


def test_the_look_before_an_upload(system: System) -> None:
    make_wheel(system.folder / "dist", "task-plain", "1.0")
    assert "pyoco.tasks" in upload(system, "task_plain-1.0", "--preflight", "strict", code=1)
    assert "warning: " in client(system, "wheel-upload", "--wheel-file", "dist/task_plain-1.0-py3-none-any.whl").stderr
