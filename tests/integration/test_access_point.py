"""Who gets a credential for the embedded NATS: commands of our user, and nothing that a run has started."""

import asyncio
import base64
import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from pyoco_server.embedded import access_point as module
from pyoco_server.embedded.access_point import AccessPoint
from pyoco_server.embedded.keyring import Keyring
from pyoco_server.embedded.nats_server import NatsServer
from pyoco_server.errors import CommandFailed
from pyoco_server.settings import nats_signer
from pyoco_server.settings.environment import Settings
from pyoco_server.settings.nats_signer import LocalSigner, NatsRole, SignatureRefused, socket_name
from pyoco_server.store.nats.connection import Connection
from tests.ports import free_port

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="local sockets tell who asks"),
]

ASK = """\
import json, socket, sys
def ask(port, role="worker"):
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(10)
        s.connect(f"\\0pyoco-server/nats/{port}")
        try: s.sendall(json.dumps({"do": "sign", "role": role, "nonce": "n"}).encode() + b"\\n")
        except (BrokenPipeError, ConnectionResetError): pass
        return s.makefile().readline()
"""
TELL = "print(ask(PORT), flush=True)"
DAEMON = """\
import ctypes, os, time
ctypes.CDLL(None).prctl(36, 1)  # PR_SET_CHILD_SUBREAPER, as the guardian of a run
if not os.fork():
    os.setsid()
    middle = os.getpid()
    if os.fork(): os._exit(0)
    while os.getppid() == middle: time.sleep(0.005)  # until it is an orphan
    print(ask(PORT), flush=True)
    os._exit(0)
os.wait(); os.wait()
"""


@pytest.fixture
async def place() -> AsyncIterator[tuple[AccessPoint, int, Keyring]]:
    keyring, port = Keyring(), free_port()
    point = AccessPoint(keyring)
    point.open(port)
    yield point, port, keyring
    await point.close()


async def said(
    code: str, port: int, note: Callable[[int], None] = lambda _: None, **options: Any
) -> list[dict[str, Any]]:
    """Run a program that asks; give what it was told."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-S", "-c", "import sys; sys.stdin.read()\n" + ASK + code.replace("PORT", str(port)),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, **options,
    )  # fmt: skip
    note(process.pid)
    out, _ = await asyncio.wait_for(process.communicate(b""), 30)
    return [json.loads(line) for line in out.splitlines() if line]


def below(code: str) -> str:
    """Return a program that has another one run the code."""
    inner = ASK + code
    return f"import subprocess; subprocess.run([sys.executable, '-S', '-c', {inner!r}])"


def refused(answers: list[dict[str, Any]], why: str) -> bool:
    return bool(answers) and all("nkey" not in one and why in one["refused"] and one["hint"] for one in answers)


@pytest.mark.parametrize("role", NatsRole)
async def test_a_command_of_ours_is_signed_for(place: tuple[AccessPoint, int, Keyring], role: NatsRole) -> None:
    _, port, keyring = place
    signed = await asyncio.to_thread(LocalSigner().sign, role, "nonce", "127.0.0.1", port)
    assert signed is not None and signed.nkey == keyring.users[role]
    other = base64.b64encode(Keyring()._pairs[role].sign(b"nonce")).decode()
    assert signed.signature == base64.b64encode(keyring._pairs[role].sign(b"nonce")).decode() != other
    assert await asyncio.to_thread(LocalSigner().answers, "localhost", port)


async def test_nothing_of_a_run_is_signed_for(place: tuple[AccessPoint, int, Keyring]) -> None:
    point, port, _ = place
    # A worker, which may ask again and again, and what it starts, which may not.
    answers = await said(TELL + ";" + TELL + ";" + below(TELL), port)
    assert ["nkey" in one for one in answers] == [True, True, False]
    assert refused(answers[2:], "process of a run")
    # One that "up" has started and that did not ask yet; its task's task; a daemon below its guardian.
    for code in (below(TELL), below(below(TELL)), below(DAEMON)):
        assert refused(await said(code, port, point.note_worker), "process of a run"), code
    # None of it is left in the memory of those who ask for something else.
    assert "nkey" in (await said(TELL, port))[0]


async def test_a_worker_that_we_do_not_know_is_known_by_what_it_forks_runs_from(
    place: tuple[AccessPoint, int, Keyring],
) -> None:
    _, port, _ = place
    assert refused(await said(below(below("pass") + "\n# pyoco_server.worker.child.template\n" + below(TELL)), port),
                   "process of a run")  # fmt: skip
    assert "nkey" in (await said(below(TELL), port))[0]


async def test_what_a_run_cannot_shake_off(place: tuple[AccessPoint, int, Keyring]) -> None:
    _, port, _ = place
    confined = "import ctypes; ctypes.CDLL(None).prctl(38, 1, 0, 0, 0)\n"  # PR_SET_NO_NEW_PRIVS
    assert refused(await said(confined + TELL, port), "no_new_privs")
    assert refused(await said(confined + "import os\nif os.fork(): os._exit(0)\n" + TELL, port), "no_new_privs")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
async def test_another_user(place: tuple[AccessPoint, int, Keyring]) -> None:
    _, port, _ = place
    nobody = "import os; os.setgid(65534); os.setuid(65534)\n"
    assert refused(await said(nobody + TELL, port), "another user")


async def test_who_has_gone_gets_nothing(
    place: tuple[AccessPoint, int, Keyring], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its connection may be another's by now, and its number too."""
    _, port, _ = place
    child = (
        "import os, socket, sys\n"
        f"s = socket.socket(socket.AF_UNIX); s.connect('\\0pyoco-server/nats/{port}')\n"
        "s.set_inheritable(True)\n"
        "if os.fork(): os._exit(0)\n"
        "print(s.makefile().readline(), flush=True)"
    )
    waiting = asyncio.Event()
    peer_of = module.Peer

    class Late(peer_of):  # type: ignore[misc, valid-type]
        def examine(self, workers: Any) -> Any:
            assert waiting.is_set()
            return super().examine(workers)

    answer = AccessPoint._answer

    async def answer_late(self: AccessPoint, connection: socket.socket) -> Any:
        await waiting.wait()
        return await answer(self, connection)

    monkeypatch.setattr(module, "Peer", Late)
    monkeypatch.setattr(AccessPoint, "_answer", answer_late)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-S", "-c", child, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    deadline = time.monotonic() + 20
    while psutil.pid_exists(process.pid):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)
    waiting.set()
    assert process.stdin is not None and process.stdout is not None
    process.stdin.close()
    text = await asyncio.wait_for(process.stdout.read(), 10)
    assert refused([json.loads(text)], "gone")


HOSTILE = [b"", b"\n", b"[" * 4000 + b"\n", b"\xff" * 100 + b"\n", b"x" * 100_000, b"[1]\n", b'{"do": "sign"}\n',
           b'{"do": "sign", "role": "owner", "nonce": "n"}\n', b'{"do": "sign", "role": [], "nonce": 1}\n',
           b'{"do": "sign", "role": "worker"}\n', b'{"do": "fly"}\n']  # fmt: skip


async def test_odd_and_silent_peers_keep_nobody_waiting(place: tuple[AccessPoint, int, Keyring]) -> None:
    _, port, _ = place
    loop, silent = asyncio.get_running_loop(), []
    for _ in range(40):
        peer = socket.socket(socket.AF_UNIX)
        peer.connect(socket_name(port))
        silent.append(peer)
    for words in HOSTILE:
        with socket.socket(socket.AF_UNIX) as odd:
            odd.setblocking(False)
            await loop.sock_connect(odd, socket_name(port))
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                await loop.sock_sendall(odd, words)
                odd.shutdown(socket.SHUT_WR)
            with contextlib.suppress(ConnectionResetError):
                answer = await asyncio.wait_for(loop.sock_recv(odd, 9999), 10)
                assert b"nkey" not in answer, words
    assert await asyncio.to_thread(LocalSigner().sign, NatsRole.WORKER, "n", "127.0.0.1", port)
    for peer in silent:
        peer.setblocking(False)
        assert await asyncio.wait_for(loop.sock_recv(peer, 9), 10) == b""
        peer.close()


async def test_nobody_there_is_no_error_and_another_one_there_is(
    place: tuple[AccessPoint, int, Keyring], monkeypatch: pytest.MonkeyPatch
) -> None:
    point, port, keyring = place
    with pytest.raises(CommandFailed, match="in use") as taken:
        AccessPoint(keyring).open(port)
    assert "--nats-client-port" in taken.value.hint
    await point.close()
    for host in ("127.0.0.1", "localhost", "::1", "192.0.2.1", "nats.example"):
        assert LocalSigner().sign(NatsRole.WORKER, "n", host, port) is None
    with socket.socket(socket.AF_UNIX) as squatter:
        squatter.bind(socket_name(port))
        squatter.listen()
        monkeypatch.setattr(nats_signer, "ANSWER_SEC", 0.2)
        with pytest.raises(SignatureRefused, match="gave no credential"):
            await asyncio.to_thread(LocalSigner().answers, "127.0.0.1", port)


@pytest.mark.parametrize("asks", [False, True])
async def test_nobody_speaks_to_another_server_on_its_port(tmp_path: Path, asks: bool) -> None:
    keyring = Keyring()
    async with NatsServer(tmp_path / "ours", client_port=-1, http_port=-1, keyring=keyring) as server:
        port = int(server.url.rpartition(":")[2])
        settings = Settings(_env_file=None).at(server.url, signer=keyring)
        connection = await Connection(settings, "gateway").start()
        assert await connection.wait_up(10)
        psutil.Process(server.pid).kill()
        assert await server.wait() == -9
        other = Keyring() if asks else None
        async with NatsServer(tmp_path / "theirs", client_port=port, http_port=-1, keyring=other):
            await until(lambda: connection.refused is not None)
            assert connection.refused is not None and not connection.is_up
            why = "does not run now" if asks else "does not ask who we are"
            assert why in connection.refused.message and "ss -ltp" in connection.refused.hint
            with pytest.raises(CommandFailed, match="did not start"):
                await server.restart()
        await server.restart()
        await until(lambda: connection.is_up)
        await connection.close()


async def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
