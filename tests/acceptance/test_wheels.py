"""Chapter 6b: wheels in the registry, typed as printed."""

import hashlib
import io
import json
import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

import httpx2
import psutil
import pytest

from pyoco_server.client.http import ApiError
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


class Blank(io.RawIOBase):
    """A file of so many bytes that takes no room."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = (0, self._at, self._size)[whence] + offset
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, size: int = -1) -> bytes:
        data = bytes(min(size if size >= 0 else 1 << 20, self._size - self._at))
        self._at += len(data)
        return data


class Memory(threading.Thread):
    """Watches how much more memory a process takes than at the start."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._process = psutil.Process(pid)
        self._base = self._process.memory_info().rss
        self._done = threading.Event()
        self.grown = 0

    def run(self) -> None:
        while not self._done.wait(0.02):
            self.grown = max(self.grown, self._process.memory_info().rss - self._base)

    def stop(self) -> int:
        """Give the largest growth in bytes."""
        self._done.set()
        self.join(5)
        return self.grown


@pytest.mark.slow
def test_large_wheels_do_not_pass_through_memory(system: System, http: httpx2.Client, tmp_path: Path) -> None:
    name = "large-1-py3-none-any.whl"
    memory = Memory(system.server.popen.pid)
    memory.start()
    with pytest.raises(ApiError) as caught:
        system.client.upload_wheel(filename=name, data=cast(BinaryIO, Blank(600 << 20)))
    assert (caught.value.status, caught.value.code) == (413, "too_large")

    def body() -> Iterator[bytes]:
        yield f'--b\r\nContent-Disposition: form-data; name="wheel"; filename="{name}"\r\n\r\n'.encode()
        for _ in range(600):
            yield bytes(1 << 20)

    headers = {"content-type": "multipart/form-data; boundary=b"}
    assert http.post("/wheels", content=body(), headers=headers, timeout=120).status_code == 413
    noise = random.Random(1)
    modules = {f"large/{n}": noise.randbytes(1 << 20) for n in range(200)}
    path = make_wheel(tmp_path, "large", "1", modules)
    assert system.client.upload_wheel(path=path)["size_bytes"] == path.stat().st_size
    digest, size = hashlib.sha256(), 0
    with http.stream("GET", f"/wheels/{name}") as answer:
        for block in answer.iter_bytes():
            digest.update(block)
            size += len(block)
    assert (size, digest.digest()) == (path.stat().st_size, hashlib.sha256(path.read_bytes()).digest())
    system.client.delete_wheel(name)
    assert memory.stop() < 64 << 20
    assert list(system.folder.glob(".pyoco/uploads/*")) == []
