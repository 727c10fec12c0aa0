"""``pyoco-server check``: what is wrong is found, named, and ends with exit code 1."""

import asyncio
import contextlib
import json
import shutil
import socket
import subprocess
import sys
import threading
from collections import namedtuple
from collections.abc import Awaitable, Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from nats.js import api

from pyoco_server import __version__
from pyoco_server.cli.server import main
from pyoco_server.settings.environment import Settings, variable
from pyoco_server.store import examination, topology
from pyoco_server.store.nats.connection import Connection, connected


@pytest.fixture
def there(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings of a whole system, as the environment of the command."""
    for field in settings.model_fields_set:
        monkeypatch.setenv(variable(field), str(getattr(settings, field)))
    monkeypatch.setenv("PYOCO_LOAD_DOTENV", "0")
    change(settings, topology.ensure)
    return settings


def change(settings: Settings, act: Callable[[Connection], Awaitable[Any]]) -> None:
    async def acting() -> None:
        async with connected(settings, "test", 10) as connection:
            await act(connection)

    asyncio.run(acting())


@pytest.fixture
def check(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, dict[str, Any]]]:
    """The command; its exit code and what it tells, with the findings by code."""

    def run(*arguments: str) -> tuple[int, dict[str, Any]]:
        capsys.readouterr()  # what the test itself logged
        code = main(["check", "--output", "json", "--timeout-sec", "10", *arguments])
        out, err = capsys.readouterr()
        assert err == ""
        told = json.loads(out)
        assert told["ok"] is (code == 0)
        told["findings"] = {found["code"]: found for found in told["findings"]}
        return code, told

    return run


Check = Callable[..., tuple[int, dict[str, Any]]]


def test_all_is_well(there: Settings, check: Check) -> None:
    code, told = check()
    assert (code, told["findings"]) == (0, {})
    assert (told["pyoco_server"], told["nats_server"], told["nats_url"]) == (__version__, "2.15.1", there.nats_url)


def test_the_settings(there: Settings, check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYOCO_RUN_MAX_ATTEMPT", "3")
    code, told = check()
    assert code == 0 and "did you mean PYOCO_RUN_MAX_ATTEMPTS?" in told["findings"]["setting_unknown"]["message"]
    monkeypatch.setenv("PYOCO_NATS_REPLICAS", "many")
    code, told = check()
    assert code == 1 and "PYOCO_NATS_REPLICAS='many'" in told["findings"]["settings_invalid"]["message"]


def test_nats_is_not_there(check: Check) -> None:
    code, told = check("--nats-url", "nats://127.0.0.1:1", "--timeout-sec", "0.5")
    assert code == 1 and list(told["findings"]) == ["nats_unreachable"]


def test_something_else_is_there_that_says_nothing(check: Check) -> None:
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        code, told = check("--nats-url", f"nats://127.0.0.1:{mute.getsockname()[1]}", "--timeout-sec", "0.5")
    assert code == 1 and list(told["findings"]) == ["nats_unreachable"]


def test_nats_does_not_answer(there: Settings, check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    async def for_ever(_: Connection) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr("pyoco_server.cli.check.examine", for_ever)
    code, told = check("--timeout-sec", "2")
    assert code == 1 and "did not answer within 2.0 s" in told["findings"]["nats_slow"]["message"]


@pytest.fixture
def nats_url(tmp_path: Path) -> Iterator[Callable[[str], str]]:
    """Start another nats-server with a configuration; its address is the answer."""
    with contextlib.ExitStack() as servers:

        def start(config: str) -> str:
            (tmp_path / "nats.conf").write_text(f'ports_file_dir: "{tmp_path}"\nlisten: "127.0.0.1:-1"\n{config}')
            command = [Path(sys.executable).parent / "nats-server", "-c", tmp_path / "nats.conf"]
            server = servers.enter_context(subprocess.Popen(command, stderr=subprocess.DEVNULL))
            servers.callback(server.terminate)
            ports = tmp_path / f"nats-server_{server.pid}.ports"
            while not (ports.exists() and ports.read_text().endswith("}")):
                assert server.poll() is None
            return str(json.loads(ports.read_text())["nats"][0])

        yield start


def test_no_jetstream(nats_url: Callable[[str], str], check: Check) -> None:
    code, told = check("--nats-url", nats_url(""))
    assert code == 1 and list(told["findings"]) == ["jetstream_off"]


def test_a_credential_is_asked_for(nats_url: Callable[[str], str], check: Check) -> None:
    code, told = check("--nats-url", nats_url("authorization {user: a, password: b}"))
    assert code == 1 and "asks for a credential" in told["findings"]["nats_refused"]["message"]
    assert "PYOCO_NATS_USER" in told["findings"]["nats_refused"]["hint"]


def test_no_room_in_the_account(nats_url: Callable[[str], str], check: Check, tmp_path: Path) -> None:
    url = nats_url(
        f'jetstream {{store_dir: "{tmp_path}/js"}}\nno_auth_user: u\n'
        "accounts {A {jetstream {max_file: 1000000}, users: [{user: u, password: p}]}}"
    )

    async def fill(connection: Connection) -> None:
        await connection.js.add_stream(api.StreamConfig(name="S", subjects=["s"]))
        await connection.js.publish("s", bytes(850_000))

    change(Settings(_env_file=None, nats_url=url), fill)
    code, told = check("--nats-url", url)
    found = told["findings"]["storage_full"]
    assert (code, found["severity"]) == (0, "warning") and "85% full" in found["message"]
    assert told["findings"]["streams_not_made"]["severity"] == "warning"


def test_an_old_nats(there: Settings, check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examination, "OLDEST_NATS", "99.0.0")
    code, told = check()
    assert code == 0 and told["findings"]["nats_old"]["severity"] == "warning"


def test_streams(there: Settings, check: Check) -> None:
    async def spoil(connection: Connection) -> None:
        js = connection.js
        await js.delete_stream(there.logs_stream)
        runs = (await js.stream_info(f"KV_{there.runs_kv_bucket}")).config
        runs.allow_direct, runs.metadata = False, {topology.RESTORED: "x", topology.RESTORING: "x"}
        await js.update_stream(runs)

    change(there, spoil)
    code, told = check()
    found = told["findings"]
    assert code == 1
    assert found["stream_missing"]["details"] == {"streams": [there.logs_stream]}
    assert found["restore_not_ended"]["details"] == {"streams": [f"KV_{there.runs_kv_bucket}"]}


def test_streams_that_differ(there: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    async def spoil(connection: Connection) -> None:
        config = (await connection.js.stream_info(there.work_stream)).config
        config.subjects = [f"elsewhere.{there.work_stream}.>"]
        await connection.js.update_stream(config)

    change(there, spoil)
    capsys.readouterr()  # what the test itself logged
    assert main(["check", "--lang", "en"]) == 1
    text = capsys.readouterr().out.splitlines()
    assert text[1].startswith("error: Streams are not as the settings say: subjects is ['elsewhere.")
    assert text[2].startswith("  → They are left as they are")
    assert text[-1] == "error: 1"
    assert main(["check", "--lang", "ja"]) == 1
    assert "ストリームが設定と違います" in capsys.readouterr().out


def test_direct_reads_that_are_off_are_turned_on_when_asked_to(there: Settings, check: Check) -> None:
    names = [f"KV_{there.runs_kv_bucket}", f"KV_{there.auth_kv_bucket}"]
    before: dict[str, Any] = {}

    async def spoil(connection: Connection) -> None:
        await topology.ensure_one(connection, topology.keys_definition(there))
        for name in names:
            config = (await connection.js.stream_info(name)).config
            config.allow_direct = False
            await connection.js.update_stream(config)
            before[name] = (await connection.js.stream_info(name)).config

    async def look(connection: Connection) -> None:
        for name in names:
            before[name].allow_direct = True
            assert (await connection.js.stream_info(name)).config == before[name]

    change(there, spoil)
    code, told = check()
    found = told["findings"]["reads_slow"]
    assert (code, found["severity"], found["details"]) == (0, "warning", {"streams": names[:1]})
    assert "pyoco-server check --mend" in found["hint"] and "stream_differs" not in told["findings"]
    code, told = check("--mend")
    assert (code, told["findings"]["reads_mended"]["details"]) == (0, {"streams": names})
    assert "reads_slow" not in told["findings"]
    change(there, look)
    assert "reads_mended" not in check("--mend")[1]["findings"]


def test_runs_that_cannot_expire(there: Settings, check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    async def make_anew(connection: Connection) -> None:
        config = (await connection.js.stream_info(f"KV_{there.runs_kv_bucket}")).config
        await connection.js.delete_stream(str(config.name))
        config.allow_msg_ttl, config.subject_delete_marker_ttl = False, None
        await connection.js.add_stream(config)

    change(there, make_anew)
    assert check()[1]["findings"] == {}
    monkeypatch.setenv("PYOCO_RUN_RETENTION_FAILED_SEC", "60")
    code, told = check()
    assert (code, list(told["findings"])) == (0, ["runs_without_expiry"])


def test_a_user_who_may_not_see_all(nats_url: Callable[[str], str], check: Check, tmp_path: Path) -> None:
    url = nats_url(
        f'jetstream {{store_dir: "{tmp_path}/js"}}\nno_auth_user: w\n'
        "accounts {A {jetstream: enabled, users: [{user: g, password: p}, {user: w, password: p, permissions: {"
        'publish: {allow: ["$JS.API.INFO", "$JS.API.STREAM.INFO.PYOCO_WORK", "$JS.API.STREAM.INFO.KV_pyoco_runs"]}}}]}}'
    )
    change(Settings(_env_file=None, nats_url=url, nats_user="g", nats_password="p"), topology.ensure)
    code, told = check("--nats-url", url)
    assert (code, list(told["findings"])) == (0, ["stream_not_seen"])
    assert "PYOCO_LOGS" in told["findings"]["stream_not_seen"]["details"]["streams"]


def test_a_full_disk(there: Settings, check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(100 * 2**30, 97 * 2**30, 3 * 2**30))
    code, told = check()
    assert code == 1 and "3.0 GiB left (97% full)" in told["findings"]["disk_full"]["message"]


@contextlib.contextmanager
def answering(status: int, body: bytes) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body if self.path == "/ready" else b"")

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "body", "codes"),
    [
        (200, b'{"status": "ready", "problems": []}', []),
        (503, b'{"status": "not ready", "problems": ["the index is being built"]}', ["server_not_ready"]),
        (200, b'{"status": "ready"}', ["server_odd"]),
        (200, b"<html>", ["server_odd"]),
        (200, b"{}", ["server_odd"]),
        (404, b'{"detail": "Not Found"}', ["server_odd"]),
    ],
)
def test_a_gateway(there: Settings, check: Check, status: int, body: bytes, codes: list[str]) -> None:
    with answering(status, body) as url:
        code, told = check("--url", url)
    assert (code, list(told["findings"])) == (int(bool(codes)), codes)


def test_no_gateway(there: Settings, check: Check) -> None:
    code, told = check("--url", "http://127.0.0.1:1")
    assert code == 1 and list(told["findings"]) == ["server_unreachable"]
    code, told = check("--url", "nonsense")
    assert code == 1 and list(told["findings"]) == ["server_unreachable"]
