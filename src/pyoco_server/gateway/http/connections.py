"""How many connections there are, which of them wait for their clients, and for how long they may.

One timer looks at all connections; a request costs two entries in a table and no timer of its own. When as many are
open as may be, the one that has waited longest for its client gives way to a new one: whoever sends nothing keeps
nobody out.
"""

import asyncio
import ipaddress
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import Any, Protocol

import structlog

from pyoco_server.gateway.access.peer_address import source
from pyoco_server.model.addresses import is_loopback
from pyoco_server.process import descriptors
from pyoco_server.process.reports import Reports
from pyoco_server.settings.environment import Settings

log = structlog.get_logger(__name__)

STATE = "pyoco_connections"
"""Where the app leaves its table in the state that the web server hands to its connections."""
TOLD_SEC = 300.0
"""For so long ``/ready`` and ``doctor`` tell that connections had no room."""
_RESERVE = 256
"""Descriptors that are left for NATS, files, uploads and the index."""
_TURNS = 4
_TURNS_SEC = 0.005
"""So many requests that were sent ahead are begun in so many seconds, so that there is time for all others."""
_SHARE = 4
"""One address may have a quarter of all connections."""


class Why(str, Enum):
    """Why a connection was ended from this side."""

    SILENT = "silent"
    """Nothing came over a new one."""
    HEAD = "head"
    """The head of a request did not arrive in time."""
    IDLE = "idle"
    """No further request came."""
    BODY = "body"
    """The body of a request stood still, or trickled."""
    UNREAD = "unread"
    """The client did not read its answer."""
    ROOM = "room"
    """It waited for its client, and a new one needed the room."""
    REFUSED = "refused"
    """It was a new one, and none could give way."""


@dataclass(frozen=True)
class Deadlines:
    """For how long a connection may wait for its client.

    Args:
        head_sec: Seconds for the first byte, and again for the whole head of a request.
        body_sec: Seconds in which a body must make progress.
        body_bytes: So many bytes are progress.
        unread_sec: Seconds in which a client must read some of its answer.
        look_sec: Seconds between two looks.
    """

    head_sec: float = 10.0
    body_sec: float = 10.0
    body_bytes: int = 256
    unread_sec: float = 30.0
    look_sec: float = 1.0


class Held(Protocol):
    """A connection, as its table sees it."""

    address: str
    """Under what it is counted; empty where there is none, as of a Unix socket."""

    def overdue(self, now: float, deadlines: Deadlines) -> Why | None:
        """Return why the connection is to be ended; ``None`` if it may go on.

        Args:
            now: The loop's time.
            deadlines: For how long it may wait.
        """

    def end(self, why: Why) -> None:
        """End the connection at once."""

    def go_on(self) -> None:
        """Begin the next of the requests that were sent ahead of their turn."""


class Connections:
    """The connections of one gateway.

    Args:
        settings: How many there may be, and which proxies carry many clients.
        deadlines: For how long each may wait for its client.
        ended: Called with the reason of each end.
    """

    def __init__(
        self,
        settings: Settings,
        deadlines: Deadlines | None = None,
        ended: Callable[[Why], None] | None = None,
    ) -> None:
        self.deadlines = deadlines or Deadlines()
        self.descriptors = descriptors.limit()
        # With very few descriptors the half is left: a gateway that answers few is better than none.
        self.most = min(settings.http_max_connections, self.descriptors - min(_RESERVE, self.descriptors // 2))
        self.most_per_address = settings.http_max_connections_per_address or max(1, self.most // _SHARE)
        self._proxies = [ipaddress.ip_network(network) for network in settings.trusted_proxies]
        self._carries_many = lru_cache(maxsize=1024)(self._is_shared)
        self._ended = ended
        self._all: set[Held] = set()
        self._waiting: OrderedDict[Held, None] = OrderedDict()
        self._line: OrderedDict[Held, None] = OrderedDict()
        self._turns = _TURNS
        self._next_turns: asyncio.TimerHandle | None = None
        self._of_address: Counter[str] = Counter()
        self._reports = Reports()
        self._short = 0
        self._short_at = float("-inf")
        self._timer: asyncio.TimerHandle | None = None

    @property
    def open(self) -> int:
        """How many are open."""
        return len(self._all)

    def enter(self, held: Held) -> bool:
        """Count a new connection; ``False`` if there is no room for it, and none that could give way."""
        loop = asyncio.get_running_loop()
        mine = self._of_address[held.address]
        victim: Held | None = None
        if mine >= self.most_per_address and not self._carries_many(held.address):
            victim = next((other for other in self._waiting if other.address == held.address), None)
            full = True
        elif full := len(self._all) >= self.most:
            victim = next(iter(self._waiting), None)
        if full:
            why = Why.REFUSED if victim is None else Why.ROOM
            self._tell_of_room(why, loop.time(), held.address)
            if victim is None:
                self._count(why)
                return False
            self._end(victim, why)
        self._all.add(held)
        self._of_address[held.address] += 1
        self._waiting[held] = None
        if self._timer is None:
            self._timer = loop.call_later(self.deadlines.look_sec, self._look, loop)
        return True

    def leave(self, held: Held) -> None:
        """Count a connection no more."""
        self._waiting.pop(held, None)
        self._line.pop(held, None)
        if held in self._all:
            self._all.remove(held)
            self._of_address[held.address] -= 1
            if not self._of_address[held.address]:
                del self._of_address[held.address]

    def waits(self, held: Held) -> None:
        """Note that a connection waits for its client from now on."""
        self._waiting[held] = None
        self._waiting.move_to_end(held)

    def served(self, held: Held) -> None:
        """Note that it is the server's turn."""
        self._waiting.pop(held, None)

    def line_up(self, held: Held) -> None:
        """Let a connection's next request wait its turn: to send many ahead costs a client nothing.

        Until then the connection gives way to new ones as if it waited for its client.
        """
        if self._turns:
            self._turns -= 1
            held.go_on()
        else:
            self._line[held] = None
        if self._next_turns is None:
            self._plan_turns(_TURNS_SEC)

    def _plan_turns(self, after: float) -> None:
        loop = asyncio.get_running_loop()
        self._next_turns = loop.call_later(after, self._give_turns, loop, loop.time() + after)

    def _give_turns(self, loop: asyncio.AbstractEventLoop, due: float) -> None:
        begun = min(_TURNS, len(self._line))
        idle = self._turns == _TURNS
        self._turns = _TURNS - begun
        self._next_turns = None
        if not idle:
            self._plan_turns(_TURNS_SEC + max(0.0, loop.time() - due))  # the busier it is, the longer they wait
        for _ in range(begun):
            self._line.popitem(last=False)[0].go_on()

    def short_of_room(self) -> int:
        """Return how many connections had no room lately: since the first one, while they keep coming."""
        return self._short if asyncio.get_running_loop().time() - self._short_at < TOLD_SEC else 0

    def figures(self) -> dict[str, Any]:
        """Return what ``/ready`` shows."""
        return {
            "open": len(self._all),
            "waiting": len(self._waiting),
            "limit": self.most,
            "limit_per_address": self.most_per_address,
            "descriptors": self.descriptors,
            "short_of_room": self.short_of_room(),
        }

    def warning(self) -> str:
        """Return the sentence that ``/ready`` warns with; empty if there was room for all."""
        short = self.short_of_room()
        if not short:
            return ""
        return (
            f"{short} connections were closed or refused lately because too many were open: {len(self._all)} are, "
            f"{self.most} may be, {self.most_per_address} from one address (PYOCO_HTTP_MAX_CONNECTIONS, and the "
            f"process's limit of {self.descriptors} descriptors)"
        )

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = loop.call_later(self.deadlines.look_sec, self._look, loop) if self._all else None
        now = loop.time()
        for held in list(self._all):
            if (why := held.overdue(now, self.deadlines)) is not None:
                self._tell_of_client(why, held.address, now)
                self._end(held, why)

    def _end(self, held: Held, why: Why) -> None:
        self.leave(held)
        self._count(why)
        held.end(why)

    def _count(self, why: Why) -> None:
        if self._ended is not None:
            self._ended(why)

    def _tell_of_client(self, why: Why, address: str, now: float) -> None:
        """Log what a client is to blame for, once a minute and address; browsers open connections to have them."""
        if why in (Why.SILENT, Why.IDLE):
            return
        if times := self._reports.due(f"{why.value} {address}", now):
            log.warning("a connection was ended: its client stands still", address=address, reason=why.value,
                        connections=times)  # fmt: skip

    def _tell_of_room(self, why: Why, now: float, address: str) -> None:
        if now - self._short_at >= TOLD_SEC:
            self._short = 0
        self._short += 1
        self._short_at = now
        if times := self._reports.due(why.value, now):
            said = "connections are refused" if why is Why.REFUSED else "connections that wait give way to new ones"
            most = self._of_address.most_common(1)
            log.warning(
                f"{said}: too many are open", connections=times, open=len(self._all), limit=self.most,
                limit_per_address=self.most_per_address, descriptors=self.descriptors, address=address,
                most_from=most[0][0] if most else None, most_from_open=most[0][1] if most else 0,
                hint="PYOCO_HTTP_MAX_CONNECTIONS and the limit of descriptors (ulimit -n) set how many may be.",
            )  # fmt: skip

    def _is_shared(self, address: str) -> bool:
        """Whether many clients come from an address: a proxy's, or this machine's, where proxies and tests run."""
        if not address or is_loopback(address):
            return True
        try:
            network = ipaddress.ip_network(address)
        except ValueError:
            return False
        return any(network.version == proxy.version and network.subnet_of(proxy) for proxy in self._proxies)  # type: ignore[arg-type]


def table_of(state: dict[str, Any]) -> Connections:
    """Return the table of a web server's connections; of an app that has none, a new one.

    Args:
        state: The lifespan's state.
    """
    found: Connections | None = state.get(STATE)
    if found is None:
        found = state[STATE] = Connections(Settings())
    return found


address_of = lru_cache(maxsize=4096)(source)
"""Return under what address a peer is counted: of IPv6 the network of one customer."""
