"""``pyoco-client`` and wheels: the look before an upload, and what is sent."""

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest

from pyoco_server.cli.client import main, preflight
from pyoco_server.cli.client.preflight import IssueKind, look_at
from pyoco_server.client.async_http import AsyncPyocoHttpClient
from pyoco_server.client.http import PyocoHttpClient
from pyoco_server.errors import InvalidInput
from tests.unit.client_fakes import Server, fake_server
from tests.wheels import make_wheel

PLUGIN = """\
def add(x=0):
    return x + 1

def register(registry):
    print("a plug-in may print")
    registry.task(add, name="add")
"""
USAGE = """\
    registry.task_info(name="add", summary="adds", inputs=[], outputs=[], usage="add: give x")
"""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    server = fake_server(monkeypatch)
    server.answer = lambda _: httpx2.Response(200, json={"name": "x"})
    return server


def plugin(folder: Path, code: str, **options: Any) -> Path:
    entry_points = {"tasks": "task_a:register"}
    return make_wheel(folder, "task-a", "1", {"task_a.py": code}, **{"entry_points": entry_points, **options})


def kinds(wheel: Path) -> list[IssueKind]:
    return [issue.kind for issue in look_at(wheel)]


def test_a_wheel_whose_tasks_are_described_is_fine(tmp_path: Path) -> None:
    assert look_at(plugin(tmp_path, PLUGIN + USAGE)) == []


@pytest.mark.parametrize(
    ("code", "entry_points", "kind", "said"),
    [
        (PLUGIN, None, IssueKind.NO_ENTRY_POINTS, "pyoco.tasks"),
        ("def register(registry): pass", {"t": "task_a:register"}, IssueKind.NO_ENTRY_POINTS, "registers no task"),
        (PLUGIN, {"t": "task_a:register"}, IssueKind.MISSING_USAGE, "'add'"),
        ("import nowhere_to_be_found", {"t": "task_a:register"}, IssueKind.CANNOT_LOAD, "nowhere_to_be_found"),
        (PLUGIN, {"t": "task_a:nothing"}, IssueKind.CANNOT_LOAD, "nothing"),
        ("raise SystemExit('away')", {"t": "task_a:register"}, IssueKind.CANNOT_LOAD, "away"),
        ("import os; os._exit(7)", {"t": "task_a:register"}, IssueKind.CANNOT_LOAD, "exit code 7"),
    ],
)
def test_what_may_be_wrong(
    tmp_path: Path, code: str, entry_points: Mapping[str, str] | None, kind: IssueKind, said: str
) -> None:
    issues = look_at(plugin(tmp_path, code, entry_points=entry_points))
    assert [issue.kind for issue in issues] == [kind]
    assert said in issues[0].text


def test_a_plug_in_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "_LOAD_SEC", 0.5)
    assert kinds(plugin(tmp_path, "import time; time.sleep(60)")) == [IssueKind.CANNOT_LOAD]


def test_the_current_directory_is_not_what_a_worker_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "helper_here.py").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert kinds(plugin(tmp_path, "import helper_here\n" + PLUGIN + USAGE)) == [IssueKind.CANNOT_LOAD]


@pytest.mark.parametrize("content", [None, b"", b"text"])
def test_what_is_no_wheel_is_not_sent(tmp_path: Path, server: Server, content: bytes | None) -> None:
    path = tmp_path / "a-1-py3-none-any.whl"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InvalidInput, match="cannot be read as a wheel"):
        look_at(path)
    assert main(["wheel-upload", "--wheel-file", str(path)]) == 1
    assert server.seen == []


@pytest.mark.parametrize(
    ("arguments", "code", "warned"),
    [
        ("", 0, True),
        ("--preflight warn", 0, True),
        ("--preflight strict", 1, False),
        ("--preflight off", 0, False),
        ("--preflight strict --allow-no-entry-points", 0, False),
        ("--preflight strict --allow-missing-usage-doc", 1, False),
        ("--allow-no-entry-points", 0, False),
    ],
)
def test_strict_refuses_warn_tells_off_does_not_look(
    tmp_path: Path, server: Server, capsys: pytest.CaptureFixture[str], arguments: str, code: int, warned: bool
) -> None:
    wheel = make_wheel(tmp_path, "a", "1")
    assert main(["wheel-upload", "--wheel-file", str(wheel), "--tags", "cpu, gpu", *arguments.split()]) == code
    out, err = capsys.readouterr()
    assert ("warning: it has no entry point" in err) is warned
    assert len(server.seen) == (0 if code else 1)
    if code:
        assert "not uploaded" in err and "hint: --preflight warn" in err and out == ""
    else:
        assert json.loads(out) == {"name": "x"}
        sent = server.seen[0].content
        assert b'filename="a-1-py3-none-any.whl"' in sent and wheel.read_bytes() in sent
        assert b"cpu,gpu" in sent and b"true" in sent


def test_a_name_or_tag_that_cannot_be_is_not_sent(
    tmp_path: Path, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    wheel = make_wheel(tmp_path, "a", "1")
    assert main(["wheel-upload", "--wheel-file", str(wheel), "--tags", "a.b"]) == 1
    assert main(["wheel-upload", "--wheel-file", str(wheel.rename(tmp_path / "a.zip"))]) == 1
    assert "invalid tag" in (said := capsys.readouterr().err) and "not the name of a wheel" in said
    assert server.seen == []


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("wheels", "GET /wheels"),
        ("wheel-history", "GET /wheels/history?limit=100"),
        (
            "wheel-history --limit 20 --wheel-name a.whl --action pin",
            "GET /wheels/history?limit=20&wheel_name=a.whl&action=pin",
        ),
        ("wheel-delete --name a-1-py3-none-any.whl", "DELETE /wheels/a-1-py3-none-any.whl"),
        ("wheel-pin task-cpu==0.1.0", "POST /wheels/task-cpu%3D%3D0.1.0/pin"),
        ("wheel-unpin task-cpu", "DELETE /wheels/task-cpu/pin"),
    ],
)
def test_each_command_asks_for_its_path(server: Server, arguments: str, expected: str) -> None:
    assert main(arguments.split()) == 0
    assert f"{server.seen[0].method} {server.seen[0].url.raw_path.decode()}" == expected


def test_tables(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    wheel = {"name": "a.whl", "package": "a", "version": "1", "tags": ["cpu"], "pinned_at": None, "size_bytes": 7}
    event = {"occurred_at": 1.5, "action": "pin", "wheel_name": "a.whl", "source": {"remote_addr": "::1"}}
    for command, items, last in (
        ("wheels", [wheel], "a 1 cpu - 7 a.whl"), ("wheel-history", [event], "1.5 pin a.whl - - ::1"),
    ):  # fmt: skip
        server.answer = lambda _, items=items: httpx2.Response(200, json=items)  # type: ignore[misc]
        assert main([command, "--output", "table"]) == 0
        assert capsys.readouterr().out.splitlines()[-1].split() == last.split()


def test_a_wheel_is_given_as_bytes_as_a_file_or_by_its_path(tmp_path: Path, server: Server) -> None:
    wheel = make_wheel(tmp_path, "a", "1")
    content = wheel.read_bytes()
    sources: list[dict[str, Any]] = [
        {"filename": wheel.name, "data": content},
        {"filename": wheel.name, "data": io.BytesIO(content)},
        {"path": wheel},
        {"path": str(wheel)},
    ]
    with PyocoHttpClient("http://x") as client:
        for source in sources:
            client.upload_wheel(**source)
        for bad in ({}, {"data": b"x"}, {"path": wheel, "data": b"x"}, {"path": tmp_path / "none.whl"}):
            with pytest.raises(InvalidInput):
                client.upload_wheel(**bad)  # type: ignore[arg-type]
    assert len(server.seen) == 4
    assert all(content in request.content and b"a-1-py3" in request.content for request in server.seen)


def test_the_asynchronous_client_sends_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = make_wheel(tmp_path, "a", "1")
    seen: list[bytes] = []

    async def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append(await request.aread())
        return httpx2.Response(200, json={})

    async def send() -> None:
        async with AsyncPyocoHttpClient("http://x") as client:
            client._client = httpx2.AsyncClient(base_url="http://x", transport=httpx2.MockTransport(answer))
            await client.upload_wheel(path=wheel)
            await client.pin_wheel("a==1")
            await client.unpin_wheel("a")

    anyio.run(send)
    assert wheel.read_bytes() in seen[0]
