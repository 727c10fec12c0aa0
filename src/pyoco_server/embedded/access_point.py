"""Signs the challenges of our nats-server for the commands of our user, and for no process of a run."""

import asyncio
import contextlib
import json
import socket
import time
from typing import Any

import structlog

from pyoco_server.embedded.keyring import Keyring
from pyoco_server.embedded.peers import Peer, PeerRefused, Process, identify
from pyoco_server.errors import CommandFailed
from pyoco_server.settings.nats_signer import ANSWER_SEC, LONGEST, NatsRole, SignatureRefused, socket_name

log = structlog.get_logger(__name__)

_AT_ONCE = 64
_TELL_EVERY_SEC = 10.0
_HINT = (
    "Run it in a shell of your own, as the user of that pyoco-server. Tasks get none: a program that speaks to NATS "
    "itself needs a nats-server with users of its own, see docs/how-to/secure-nats.md."
)


class AccessPoint:
    """Answers at a local socket for as long as it is open.

    Args:
        keyring: Signs.
    """

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring
        self._workers: set[Process] = set()
        self._room = asyncio.Semaphore(_AT_ONCE)
        self._refused = 0
        self._told = float("-inf")
        self._socket: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._answering: set[asyncio.Task[None]] = set()

    def open(self, port: int) -> None:
        """Begin to answer for the nats-server on a port.

        Raises:
            CommandFailed: another process does so.
        """
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            listening.bind(socket_name(port))
            listening.listen(_AT_ONCE)
        except OSError as error:
            listening.close()
            raise CommandFailed(
                f"no credentials can be given out for NATS on port {port}: {error.strerror or error}",
                hint="Another process answers in its place (ss -xlp shows which). Stop that one, or take another "
                "--nats-client-port.",
            ) from None
        self._socket = listening
        self._accepting = asyncio.create_task(self._accept(listening), name="nats-access")

    def note_worker(self, pid: int) -> None:
        """Take every process that will be below a process for one of a run."""
        with contextlib.suppress(PeerRefused):  # it has ended, and nothing is below it
            self._workers.add(identify(pid))

    async def close(self) -> None:
        """Answer no more."""
        if self._accepting is not None:
            tasks = {self._accepting, *self._answering}
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=ANSWER_SEC)
            self._accepting = None
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._room.acquire()
            try:
                connection, _ = await loop.sock_accept(listening)
            except OSError as error:  # no descriptors left, for one
                self._room.release()
                log.error("a command cannot be given its credential for NATS", reason=error.strerror or str(error))
                await asyncio.sleep(1.0)
                continue
            except BaseException:
                self._room.release()
                raise
            task = asyncio.create_task(self._serve(connection), name="nats-credential")
            self._answering.add(task)
            task.add_done_callback(self._served)

    def _served(self, task: "asyncio.Task[None]") -> None:
        self._answering.discard(task)
        self._room.release()

    async def _serve(self, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with connection:
            connection.setblocking(False)
            try:
                answer = await asyncio.wait_for(self._answer(connection), ANSWER_SEC / 2)
                await asyncio.wait_for(
                    loop.sock_sendall(connection, json.dumps(answer).encode() + b"\n"), ANSWER_SEC / 2
                )
            except (asyncio.TimeoutError, OSError) as error:
                log.debug("who asked for a credential for NATS went away", reason=repr(error))

    async def _answer(self, connection: socket.socket) -> dict[str, Any]:
        try:
            peer = Peer(connection)
        except PeerRefused as refused:
            return self._refuse(0, str(refused))
        try:
            # Before a word is read: what it is decides, not what it says.
            process = peer.examine(self._living_workers())
            return self._sign(await _read(connection), process)
        except PeerRefused as refused:
            return self._refuse(peer.pid, str(refused))
        finally:
            peer.close()

    def _sign(self, request: dict[str, Any], process: Process) -> dict[str, Any]:
        if request.get("do") == "look":
            return {"ok": True}
        try:
            role, nonce = NatsRole(request.get("role")), request["nonce"]
        except (ValueError, KeyError):
            return {"refused": "it is not known what was asked for", "hint": "Bring all to one version."}
        try:
            signed = self._keyring.sign(role, str(nonce), "", 0)
        except SignatureRefused as refused:
            return {"refused": refused.message, "hint": refused.hint}
        if role is NatsRole.WORKER:
            self._workers.add(process)
        log.debug("let into NATS", role=role.value, pid=process.pid)
        return {"nkey": signed.nkey, "signature": signed.signature}

    def _refuse(self, pid: int, reason: str) -> dict[str, Any]:
        now = time.monotonic()
        self._refused += 1
        if now - self._told >= _TELL_EVERY_SEC:  # whoever is refused may ask as often as he likes
            log.warning(
                "a process was given no credential for NATS", pid=pid or None, reason=reason, refused=self._refused
            )
            self._told, self._refused = now, 0
        return {"refused": f"pyoco-server gives this process no credential: {reason}", "hint": _HINT}

    def _living_workers(self) -> set[Process]:
        for process in list(self._workers):
            try:
                lives = identify(process.pid) == process
            except PeerRefused:
                lives = False
            if not lives:
                self._workers.discard(process)
        return self._workers


async def _read(connection: socket.socket) -> dict[str, Any]:
    loop = asyncio.get_running_loop()
    text = b""
    while not text.endswith(b"\n") and len(text) < LONGEST and (more := await loop.sock_recv(connection, LONGEST)):
        text += more
    try:
        request = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return request if isinstance(request, dict) else {}
