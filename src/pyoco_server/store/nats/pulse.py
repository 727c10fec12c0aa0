"""Whether the JetStream behind a connection answers, and whether the connection's own client still works.

A server of a cluster may be reachable and have no say: while the others choose a leader, when too few of them are left,
or when it is cut off from them. A connection alone does not tell.
"""

import json
import time
from collections.abc import Awaitable, Callable

import structlog

from pyoco_server.errors import RightMissing, StoreUnavailable
from pyoco_server.store.nats.client import PatientClient
from pyoco_server.store.nats.cluster import Cluster

log = structlog.get_logger(__name__)

_EVERY, _EVERY_IN_SILENCE = 2.0, 0.5
_NO_LEADER = 503
_ANOTHER_SERVER = 20.0
"""Seconds of silence after which another server is tried: much longer than it takes to choose a leader."""


class Pulse:
    """Asks for the state of a stream every two seconds; whether there is such a stream does not matter.

    Args:
        client: The client.
        cluster: What is known of the servers; is told what comes out.
        ask: Sends an empty request to a subject and gives the answer's data. Without the right to, nothing is known.
        ping: Waits for the server's own sign of life.
        stream: The stream's name.
        on_silence: Called when the answers begin to stay away.
        on_return: Called with the first one that comes again.
    """

    def __init__(
        self,
        client: PatientClient,
        cluster: Cluster,
        ask: Callable[[str], Awaitable[bytes]],
        ping: Callable[[], Awaitable[None]],
        stream: str,
        *,
        on_silence: Callable[[], None],
        on_return: Callable[[], None],
    ) -> None:
        self._client = client
        self._cluster = cluster
        self._ask = ask
        self._ping = ping
        self._subject = f"$JS.API.STREAM.INFO.{stream}"
        self._on_silence = on_silence
        self._on_return = on_return
        self._moved_at = 0.0
        self._may_ask = True

    def pause(self) -> float:
        """Return the seconds between two beats."""
        return _EVERY if self._cluster.silent_since is None else _EVERY_IN_SILENCE

    async def beat(self) -> None:
        """Look once whether NATS answers."""
        if self._client.is_maimed:
            log.error("the client of NATS has stopped working; connecting anew", server=self._server)
            await self._client.force_reconnect()
        if not self._client.is_connected:
            self._cluster.silent_since = None  # the connection itself tells of that, and of its return
        elif self._may_ask:
            try:
                self._note(await self._answers())
            except RightMissing as error:
                log.debug("whether JetStream has a leader cannot be asked", reason=error.message)
                self._may_ask = False
            await self._move_on()

    def _note(self, answered: bool) -> None:
        now = time.monotonic()
        if answered and self._cluster.silent_since is not None:
            log.info(
                "JetStream answers again", server=self._server, silent_sec=round(now - self._cluster.silent_since, 1)
            )
            self._cluster.silent_since = None
            self._on_return()
        elif not answered and self._client.is_connected and self._cluster.silent_since is None:
            log.warning("NATS is there, but its JetStream does not answer: there is no leader", server=self._server)
            self._cluster.silent_since = self._moved_at = now
            self._on_silence()

    async def _move_on(self) -> None:
        """Leave a server that is gone, or is cut off from the others; where there is no other, nothing changes."""
        if self._cluster.silent_since is None or not self._cluster.has_others:
            return
        now = time.monotonic()
        if now - self._moved_at > _ANOTHER_SERVER or not await self._is_there():
            self._moved_at = now
            log.warning("trying another server of NATS", server=self._server)
            await self._client.force_reconnect()

    async def _is_there(self) -> bool:
        """Tell whether the server itself answers; the client would find out too, but later.

        If it does not, the connection must be given up: the client's reader would die of an answer that comes late.
        """
        try:
            await self._ping()
        except StoreUnavailable:
            return False
        return True

    async def _answers(self) -> bool:
        try:
            answer = json.loads(await self._ask(self._subject))
        except RightMissing:
            raise
        except StoreUnavailable:
            return False
        error, cluster = answer.get("error") or {}, answer.get("cluster")
        return bool(error.get("code") != _NO_LEADER and (cluster is None or cluster.get("leader")))

    @property
    def _server(self) -> str:
        url = self._client.connected_url
        return f"{url.hostname}:{url.port}" if url else ""
