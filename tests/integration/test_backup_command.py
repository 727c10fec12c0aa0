"""The commands themselves, in this process."""

import asyncio
import io
import json
import signal
import tarfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from anyio.from_thread import start_blocking_portal

from pyoco_server.cli import backup as module
from pyoco_server.cli.server import main
from pyoco_server.embedded.nats_server import NatsServer
from pyoco_server.settings.environment import Settings, variable
from pyoco_server.store import topology
from pyoco_server.store.keys import KeyStore
from pyoco_server.store.nats.connection import connected
from tests.nats_with_users import SecuredNats

from .keyholders import make_key


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYOCO_LOAD_DOTENV", "0")
    monkeypatch.setattr(module, "_CONNECT_SEC", 0.5)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("backup .", "is no file that could be replaced"),
        ("backup /dev/null", "/dev/null is no file that could be replaced"),
        ("backup nowhere/b.tar", "cannot be written: No such file"),
        ("backup b.tar --with-nats --nats-url nats://x", "--with-nats starts another"),
        ("restore b.tar", "b.tar cannot be read: No such file"),
        ("restore f.tar", "this is no backup"),
    ],
)
def test_what_is_wrong_is_told(tmp_path: Path, arguments: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "f.tar").write_text("no archive")
    assert main(arguments.split()) == 1
    out, err = capsys.readouterr()
    assert out == "" and said in err
    assert [path.name for path in tmp_path.iterdir()] == ["f.tar"]


def test_no_nats(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["backup", "b.tar", "--nats-url", "nats://user:secret@127.0.0.1:1"]) == 7
    said = capsys.readouterr().err
    assert "NATS is not reachable at nats://127.0.0.1:1" in said and "secret" not in said
    assert list(tmp_path.iterdir()) == []


def test_nothing_to_back_up(nats_server: NatsServer, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["backup", "b.tar", "--nats-url", nats_server.url]) == 1
    assert "there is nothing to back up" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_into_a_pipe(
    settings: Settings, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    for field in settings.model_fields_set:
        monkeypatch.setenv(variable(field), str(getattr(settings, field)))
    asyncio.run(make_streams(settings))
    capfdbinary.readouterr()  # what the test itself logged
    assert main(["backup", "-"]) == 0
    out, err = capfdbinary.readouterr()
    with tarfile.open(fileobj=io.BytesIO(out)) as archive:
        names = archive.getnames()
    assert f"{settings.work_stream}/snapshot.00001" in names and names[-1] == "manifest.sha256"
    assert b"backed up " in err


async def make_streams(settings: Settings) -> None:
    async with connected(settings, "test", 10) as connection:
        await topology.ensure(connection)


def test_on_the_nats_that_we_tell_users_to_take(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With API keys in an account of their own, and users who may do this and not that."""

    def be(user: str, keys_user: str) -> None:
        for name, value in (("NATS", user), ("AUTH_NATS", keys_user)):
            monkeypatch.setenv(f"PYOCO_{name}_USER", value)
            monkeypatch.setenv(f"PYOCO_{name}_PASSWORD", SecuredNats.PASSWORDS[value.upper()])

    def codes(*arguments: str) -> list[str]:
        main(["check", "--output", "json", *arguments])
        return [found["code"] for found in json.loads(capsys.readouterr().out)["findings"]]

    monkeypatch.setenv("PYOCO_HTTP_AUTH_MODE", "api_key")
    server = SecuredNats(tmp_path / "nats")
    with start_blocking_portal("asyncio") as portal, portal.wrap_async_context_manager(server):
        monkeypatch.setenv("PYOCO_NATS_URL", server.url)
        be("admin", "keys_admin")
        settings = Settings(_env_file=None)
        asyncio.run(make_streams(settings))
        asyncio.run(keys(settings, make_key))
        before = asyncio.run(keys(settings, KeyStore.list))
        capsys.readouterr()  # what the test itself logged
        assert main(["backup", "b.tar"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert (told["streams"]["KV_pyoco_auth"], told["missing"]) == (1, [])
        asyncio.run(keys(settings, make_key))
        assert main(["restore", "b.tar"]) == 1
        assert "there is something already: KV_pyoco_auth" in capsys.readouterr().err
        assert main(["restore", "b.tar", "--replace"]) == 0
        capsys.readouterr()
        assert asyncio.run(keys(settings, KeyStore.list)) == before
        be("gateway", "keys")  # who may look, and neither take a snapshot nor remove anything
        assert codes() == []
        for command in (["backup", "c.tar"], ["restore", "b.tar", "--replace"]):
            began = time.monotonic()
            assert main(command) == 7
            assert "ermissions" in capsys.readouterr().err and time.monotonic() - began < 15
        assert not (tmp_path / "c.tar").exists()
        assert asyncio.run(keys(settings, KeyStore.list)) == before
        monkeypatch.setenv("PYOCO_AUTH_NATS_PASSWORD", "wrong-word")
        assert main(["backup", "c.tar"]) == 4
        assert "refuses the credential in PYOCO_AUTH_NATS_USER" in capsys.readouterr().err
        assert codes() == ["nats_refused"]


async def keys(settings: Settings, work: Callable[[KeyStore], Awaitable[Any]]) -> Any:
    async with connected(settings, "test", 10, target=settings.keys_target()) as connection:
        store = KeyStore(connection)
        await store.ensure()
        return await work(store)
