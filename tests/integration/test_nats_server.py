"""The supervised nats-server, as a real process."""

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2
import nats
import psutil
import pytest

from pyoco_server.embedded import nats_server as module
from pyoco_server.embedded.nats_server import NatsServer
from pyoco_server.errors import CommandFailed
from tests.ports import free_port

pytestmark = pytest.mark.anyio

OWNER = """
import asyncio, sys
from pathlib import Path
from pyoco_server.embedded.nats_server import NatsServer

async def main():
    async with NatsServer(Path(sys.argv[1]), client_port=-1, http_port=-1) as server:
        print("up", server.pid, flush=True)
        await server.wait()

if "uvloop" in sys.argv:
    import uvloop
    uvloop.install()
asyncio.run(main())
"""


def server_in(folder: Path, *, client_port: int = -1, http_port: int = -1) -> NatsServer:
    return NatsServer(folder, client_port=client_port, http_port=http_port)


@contextlib.contextmanager
def owner_of(folder: Path, loop: str = "asyncio") -> Iterator[tuple[subprocess.Popen[str], psutil.Process]]:
    """Run a server in another process; give that process and the server's."""
    command = [sys.executable, "-c", OWNER, str(folder), loop]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        server = None
        try:
            # The owner's own log line comes before.
            line = next(line for line in owner.stdout if line.startswith("up "))
            server = psutil.Process(int(line.split()[1]))
            yield owner, server
        finally:
            owner.kill()
            if server is not None:
                with contextlib.suppress(psutil.NoSuchProcess):
                    server.kill()  # when it did not die with its owner


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield int(listener.getsockname()[1])


async def test_it_is_healthy_on_free_ports_when_start_returns(tmp_path: Path) -> None:
    async with server_in(tmp_path / "a b" / "データ") as server:
        assert server.url.startswith("nats://127.0.0.1:")
        assert httpx2.get(f"{server.monitor_url}/healthz").status_code == 200
        client = await nats.connect(server.url)
        info = await client.jetstream().account_info()
        assert info.streams == 0
        await client.close()
        assert (tmp_path / "a b" / "データ").stat().st_mode & 0o777 == 0o700
        assert psutil.Process(server.pid).name() == "nats-server"
    assert not psutil.pid_exists(server.pid)


async def test_the_asked_ports_are_used(tmp_path: Path) -> None:
    client, monitor = free_port(), free_port()
    async with server_in(tmp_path, client_port=client, http_port=monitor) as server:
        assert (server.url, server.monitor_url) == (f"nats://127.0.0.1:{client}", f"http://127.0.0.1:{monitor}")


@pytest.mark.parametrize("host", ["0.0.0.0", "localhost"])
async def test_the_url_can_be_reached_whatever_it_listens_on(tmp_path: Path, host: str) -> None:
    async with NatsServer(tmp_path, host=host, client_port=-1, http_port=-1) as server:
        await (await nats.connect(server.url)).close()


async def test_data_outlives_a_restart(tmp_path: Path) -> None:
    async with server_in(tmp_path) as server:
        client = await nats.connect(server.url)
        bucket = await client.jetstream().create_key_value(bucket="kept")
        await bucket.put("key", b"value")
        await client.close()
    async with server_in(tmp_path) as server:
        client = await nats.connect(server.url)
        bucket = await client.jetstream().key_value("kept")
        assert (await bucket.get("key")).value == b"value"
        await client.close()


async def test_stop_twice_and_without_start_is_harmless(tmp_path: Path) -> None:
    server = server_in(tmp_path)
    await server.stop()
    await server.start()
    await server.stop()
    await server.stop()
    assert await server.wait() is not None


async def test_a_server_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    server = await server_in(tmp_path).start()
    psutil.Process(server.pid).suspend()
    await server.stop(timeout=0.2)
    assert await server.wait() == -9
    await (await server_in(tmp_path).start()).stop()


async def test_wait_tells_that_the_server_died(tmp_path: Path) -> None:
    async with server_in(tmp_path) as server:
        psutil.Process(server.pid).kill()
        assert await asyncio.wait_for(server.wait(), 10) == -9


async def test_a_second_server_on_the_directory_is_refused(tmp_path: Path) -> None:
    async with server_in(tmp_path):
        with pytest.raises(CommandFailed, match=rf"{tmp_path} is in use .*process {os.getpid()}\)") as error:
            await server_in(tmp_path).start()
        assert "--nats-store-dir" in error.value.hint
    async with server_in(tmp_path) as server:
        assert server.url


@pytest.mark.parametrize(("port", "flag"), [("client_port", "--nats-client-port"), ("http_port", "--nats-http-port")])
async def test_a_taken_port_names_the_flag(tmp_path: Path, taken_port: int, port: str, flag: str) -> None:
    with pytest.raises(CommandFailed, match=f"127.0.0.1:{taken_port}: Address already in use") as error:
        await server_in(tmp_path, **{port: taken_port}).start()
    assert flag in error.value.hint
    async with server_in(tmp_path) as server:  # the lock was given back
        assert server.url


async def test_no_binary_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CommandFailed, match=r"pip install 'pyoco-server\[nats\]'"):
        await server_in(tmp_path / "data").start()
    assert not (tmp_path / "data").exists()


async def test_a_directory_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()  # not a matter of rights, so that root sees it too
    with pytest.raises(CommandFailed, match=rf"cannot be written: {tmp_path}/file/data") as error:
        await server_in(tmp_path / "file" / "data").start()
    assert "\n" not in error.value.message


async def test_a_server_that_does_not_come_up_shows_its_last_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    binary = tmp_path / "nats-server"
    binary.write_text("#!/bin/sh\necho 'JetStream is out of luck' >&2\nexit 3\n")
    binary.chmod(0o755)
    monkeypatch.setattr(module, "_find_binary", lambda: str(binary))
    with pytest.raises(CommandFailed, match="did not start: JetStream is out of luck"):
        await server_in(tmp_path / "data").start()


async def test_a_server_that_never_gets_healthy_is_given_up_and_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    binary = tmp_path / "nats-server"
    binary.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\nexec sleep 60\n")
    binary.chmod(0o755)
    monkeypatch.setattr(module, "_find_binary", lambda: str(binary))
    with pytest.raises(CommandFailed, match=r"not healthy within 0\.5 s"):
        await server_in(tmp_path / "data").start(timeout=0.5)
    assert not psutil.pid_exists(int((tmp_path / "pid").read_text()))


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
async def test_it_dies_with_its_owner_and_the_next_one_takes_over(tmp_path: Path, loop: str) -> None:
    with owner_of(tmp_path, loop) as (owner, server):
        with pytest.raises(CommandFailed, match=rf"in use .*process {owner.pid}\)"):
            await server_in(tmp_path).start()
        owner.kill()
        owner.wait()
        async with server_in(tmp_path) as mine:  # waits for the orphan to let go of the directory
            assert mine.pid != server.pid
        _, alive = psutil.wait_procs([server], timeout=10)
        assert not [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]
