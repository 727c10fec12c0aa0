"""Whether dead letters or wheels have changed: told by the figures of their streams, whoever changed them."""

import asyncio
import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import structlog

from pyoco_server.store.nats.connection import Connection
from pyoco_server.store.status.stream_state import read_stream

log = structlog.get_logger(__name__)

_LOOK_SEC, _IDLE_SEC = 1.0, 60.0


@dataclass
class ChangeBox:
    """What has changed since one listener last looked, by kind."""

    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    changed: set[str] = field(default_factory=set)

    def take(self) -> set[str]:
        """Fetch the kinds."""
        taken, self.changed = self.changed, set()
        self.arrived.clear()
        return taken


class StreamWatch:
    """Looks at a few streams once a second while anybody listens, however many do, and not at all otherwise.

    So it also sees what another gateway or program did and what expired, needs no rights but to look, and cannot
    miss a word.

    Args:
        connection: The connection.
        streams: The stream of each kind.
    """

    def __init__(self, connection: Connection, streams: Mapping[str, str]) -> None:
        self._connection = connection
        self._streams = streams
        self._boxes: list[ChangeBox] = []
        self.heard = asyncio.Event()
        """Set when the first one begins to listen."""
        self._seen: dict[str, tuple[int, int, int]] = {}

    @contextlib.contextmanager
    def listen(self) -> Iterator[ChangeBox]:
        """Receive the kinds that change while the block lasts; all of them at first, as none knows what it missed."""
        box = ChangeBox(changed=set(self._streams))
        box.arrived.set()
        if not self._boxes:
            self.heard.set()
        self._boxes.append(box)
        try:
            yield box
        finally:
            self._boxes.remove(box)
            if not self._boxes:
                self._seen.clear()

    async def round(self) -> None:
        """Look at the streams, if anybody listens.

        Raises:
            StoreUnavailable: NATS is away; nothing changes.
        """
        if self._boxes:
            for kind, stream in self._streams.items():
                await self._look(kind, stream)

    def pause(self) -> float:
        """Return for how many seconds a round may wait; ``heard`` ends it early."""
        return _LOOK_SEC if self._boxes else _IDLE_SEC

    async def _look(self, kind: str, stream: str) -> None:
        state = await read_stream(self._connection, stream)
        figures = (state.messages, state.first_seq, state.last_seq) if state else (0, 0, 0)
        if self._seen.get(kind) != figures:
            self._seen[kind] = figures
            for box in self._boxes:
                box.changed.add(kind)
                box.arrived.set()
