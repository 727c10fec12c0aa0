"""What changes among the runs, told to everyone who listens; it costs next to nothing while nobody does."""

import contextlib
import secrets
from asyncio import Event
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

_REMEMBERED = 2000
"""So many changes back a listener may take up again where it was."""
_MOST_KEPT = 1000
"""So many runs wait in a mailbox; when more have changed, the listener had better read its list anew."""


@dataclass(frozen=True)
class RunChange:
    """A run's newest state.

    Attributes:
        item: The list's item as JSON; ``None``: the run was removed.
    """

    run_id: str
    revision: int
    tenant_id: str | None = None
    flow_name: str | None = None
    tag: str | None = None
    item: str | None = None


@dataclass
class NewsBox:
    """What has changed since one listener last looked: each run once, in its newest state.

    Attributes:
        wants: Tells whether a change is for this listener.
        arrived: Set while there is something to fetch.
        changes: What is kept.
        spilled: Whether more came than is kept: nothing of it is worth telling then.
        counts_changed: Whether any run changed, also one that is not wanted.
    """

    wants: Callable[[RunChange], bool]
    arrived: Event = field(default_factory=Event)
    changes: dict[str, RunChange] = field(default_factory=dict)
    spilled: bool = False
    counts_changed: bool = True

    def put(self, change: RunChange) -> None:
        """Leave a change."""
        self.counts_changed = True
        self.arrived.set()
        if self.spilled or not self.wants(change):
            return
        known = self.changes.pop(change.run_id, None)  # so that what changed last stands last
        self.changes[change.run_id] = known if known and known.revision > change.revision else change
        if len(self.changes) > _MOST_KEPT:
            self.spill()

    def spill(self) -> None:
        """Give up telling the changes one by one."""
        self.spilled = True
        self.changes.clear()
        self.arrived.set()

    def take(self) -> tuple[list[RunChange], bool]:
        """Fetch the changes, and whether the list must be read anew instead."""
        taken, spilled = list(self.changes.values()), self.spilled
        self.changes.clear()
        self.spilled = False
        self.arrived.clear()
        return taken, spilled


class RunNews:
    """Hands changes to the listeners, and remembers the last ones for those who come back.

    Places are counted in the order of arrival, and begin with a word of their own for each process and each bucket: a
    place that another gateway gave is not known here, and its holder reads the list anew.
    """

    def __init__(self) -> None:
        self._boxes: list[NewsBox] = []
        self._word = secrets.token_hex(4)
        self._place = 0
        self._last: deque[tuple[str, str | None]] = deque(maxlen=_REMEMBERED)

    @property
    def heard(self) -> bool:
        """Tell whether anybody listens."""
        return bool(self._boxes)

    @property
    def place(self) -> str:
        """Name the place up to which everything has been told."""
        return f"{self._word}-{self._place}"

    def put(self, change: RunChange) -> None:
        """Tell a change."""
        self._place += 1
        self._last.append((change.run_id, change.tenant_id))
        for box in self._boxes:
            box.put(change)

    def begin_anew(self) -> None:
        """Forget all: the runs are others now."""
        self.forget()
        for box in self._boxes:
            box.counts_changed = True
            box.spill()

    def forget(self) -> None:
        """Let nobody take up what came so far: something happened that was not told."""
        self._word = secrets.token_hex(4)
        self._place = 0
        self._last.clear()

    def since(self, place: str) -> dict[str, str | None] | None:
        """Tell which runs have changed since a place, and their tenants; ``None`` if that is not known."""
        word, _, number = place.partition("-")
        if word != self._word or not (number.isascii() and number.isdecimal()) or len(number) > 18:
            return None
        missed = self._place - int(number)
        if not 0 <= missed <= len(self._last):
            return None
        return dict(self._last[-back] for back in range(1, missed + 1))

    @contextlib.contextmanager
    def listen(self, wants: Callable[[RunChange], bool]) -> Iterator[NewsBox]:
        """Receive changes while the block lasts."""
        box = NewsBox(wants)
        self._boxes.append(box)
        try:
            yield box
        finally:
            self._boxes.remove(box)
