"""What /metrics tells of this moment: from the index, the workers and NATS, asked at once and for a second at most."""

import asyncio
import time
from collections.abc import Awaitable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeVar

import structlog

from pyoco_server.errors import StoreUnavailable
from pyoco_server.gateway.index.totals import WaitingTag
from pyoco_server.model.access import Caller, Tenants
from pyoco_server.model.tags import is_tag
from pyoco_server.model.worker import WorkerRecord, WorkerState
from pyoco_server.store import topology
from pyoco_server.store.queue.job_queue import ConsumerFigures
from pyoco_server.store.topology import StreamFigures

if TYPE_CHECKING:
    from pyoco_server.gateway.gateway import Gateway

log = structlog.get_logger(__name__)

MOST_TAGS = 100
"""So many tags are shown. Half of them may be those that runs wait for and nobody serves: somebody has to know. Then
come those with live workers, then those that most runs wait for."""
MOST_WORKERS = 100
"""So many live workers are shown one by one: the first by name, so that they stay the same."""
_ASK_SEC = 1.0
_FRESH_SEC = 1.0
_Answer = TypeVar("_Answer")


@dataclass(frozen=True)
class TagFigures:
    """How a tag stands."""

    waiting: int
    oldest: float | None
    """When the oldest waiting run was submitted, in unix seconds."""
    workers: int
    """Live workers that take its runs."""
    oldest_run_id: str | None = None


@dataclass(frozen=True)
class NatsFigures:
    """What NATS answered in time; ``None`` for what it did not."""

    up: bool
    records: StreamFigures | None = None
    letters: StreamFigures | None = None
    consumers: dict[str, ConsumerFigures] = field(default_factory=dict)


@dataclass(frozen=True)
class Figures:
    """Everything that is read anew for each answer."""

    runs: dict[str, int]
    runs_today: dict[str, int]
    """Those that were last changed today."""
    workers: dict[WorkerState, int]
    live_workers: dict[str, WorkerRecord]
    """Those that are shown, by name."""
    workers_left_out: int
    tags: dict[str, TagFigures]
    tags_left_out: int
    nats: NatsFigures
    index_caught_up: bool
    index_reached: int
    open_logs: int
    store_used_share: float | None = None
    accepts_submissions: bool = True
    workers_unfit: int = 0
    """Those that are there and can begin no run."""
    letters: dict[str, int] | None = None
    """Dead letters by reason; ``None`` until all were read."""
    own_letters: int | None = None
    """Dead letters of the tenants, where they are some; so many as are counted, see ``letter_counts``."""
    tenants: Tenants = None
    """Whose runs are counted. What is counted over everybody's alone is missing where these are some."""

    @property
    def dead_letters(self) -> int | None:
        """How many dead letters there are; ``None`` while nobody knows."""
        if self.tenants is not None:
            return self.own_letters
        return self.nats.letters.messages if self.nats.letters else None


class FiguresReader:
    """Reads the figures; NATS is asked once a second, however many ask us.

    Args:
        here: The gateway.
    """

    def __init__(self, here: "Gateway") -> None:
        self._here = here
        self._asking = asyncio.Lock()
        self._nats = NatsFigures(up=False)
        self._asked_at = 0.0

    async def read(self) -> Figures:
        """Give the figures of now. Where NATS does not answer, its part is missing and the rest is there."""
        here = self._here
        workers = here.worker_index.states()
        totals = here.index.totals
        tags = tag_figures(workers, totals.waiting(MOST_TAGS))
        nats = await self._ask_nats(list(tags))
        states = [state for _, state in workers]
        live, left_out = _live(workers)
        room = here.room.figures()
        return Figures(
            runs=totals.by_status(),
            runs_today=here.index.today.by_status(),
            workers={state: states.count(state) for state in WorkerState},
            live_workers=live,
            workers_left_out=left_out,
            workers_unfit=sum(state.is_active and record.is_unfit for record, state in workers),
            tags=tags,
            tags_left_out=max(0, totals.tags_waiting() - sum(tag.waiting > 0 for tag in tags.values())),
            nats=nats,
            index_caught_up=here.run_feed.caught_up.is_set(),
            index_reached=here.run_feed.reached,
            open_logs=here.open_logs,
            store_used_share=room["used_share"],
            accepts_submissions=room["accepts_submissions"],
            letters=here.letter_reasons.by_reason(),
        )

    async def seen_by(self, who: Caller) -> Figures:
        """Return the figures of now as a caller may know them, the dead letters among them."""
        everybodys = await self.read()
        figures = self.of(everybodys, who.figures)
        if figures.tenants is None:
            return figures
        letters = await self._here.letter_counts.of(who, everybodys.nats.letters)
        return replace(figures, own_letters=letters.letters if letters else None)

    def of(self, figures: Figures, tenants: Tenants) -> Figures:
        """Return what some tenants may know of figures: their own, and how what all share stands.

        Args:
            figures: Everybody's, as they were read.
            tenants: Whose to give.
        """
        if tenants is None:
            return figures
        totals = self._here.index.totals
        tags = tag_figures(self._here.worker_index.states(), totals.waiting(MOST_TAGS, tenants))
        return replace(
            figures,
            tenants=tenants,
            runs=totals.by_status(tenants),
            runs_today=self._here.index.today.by_status(tenants),
            tags=tags,
            tags_left_out=max(0, totals.tags_waiting(tenants) - sum(tag.waiting > 0 for tag in tags.values())),
            nats=NatsFigures(figures.nats.up),
            letters=None,
        )

    async def _ask_nats(self, tags: list[str]) -> NatsFigures:
        async with self._asking:  # whoever has it lets go after a second
            if not self._here.connection.is_up:
                return NatsFigures(up=False)
            if time.monotonic() - self._asked_at >= _FRESH_SEC:
                self._nats = await self._ask(tags)
                self._asked_at = time.monotonic()
            return self._nats

    async def _ask(self, tags: list[str]) -> NatsFigures:
        here, settings = self._here, self._here.settings
        streams = [f"KV_{settings.runs_kv_bucket}", settings.dlq_stream]
        looks = [asyncio.ensure_future(_answer(topology.figures(here.connection, name))) for name in streams]
        asked = {tag: asyncio.ensure_future(_answer(here.queue.figures(tag))) for tag in tags}
        _, late = await asyncio.wait([*looks, *asked.values()], timeout=_ASK_SEC)
        for task in late:
            task.cancel()
        answers = [task.result() if task.done() and task not in late else None for task in looks]
        consumers = {}
        for tag, task in asked.items():
            told = task.result() if task not in late else None
            if told and told[0]:
                consumers[tag] = told[0]
        records, letters = (answer[0] if answer else None for answer in answers)
        return NatsFigures(any(answers), records, letters, consumers)


async def _answer(asking: Awaitable[_Answer]) -> tuple[_Answer] | None:
    """Give what was answered; ``None`` if nothing was."""
    try:
        return (await asking,)
    except StoreUnavailable as error:
        log.debug("a figure of NATS is missing", reason=error.message)
        return None


def _live(workers: list[tuple[WorkerRecord, WorkerState]]) -> tuple[dict[str, WorkerRecord], int]:
    """Give the live workers that are shown, by name, and how many are not."""
    live = {record.worker_id: record for record, state in workers if state.is_active}
    return {name: live[name] for name in sorted(live)[:MOST_WORKERS]}, max(0, len(live) - MOST_WORKERS)


def tag_figures(workers: list[tuple[WorkerRecord, WorkerState]], waiting: list[WaitingTag]) -> dict[str, TagFigures]:
    """Tell how tags stand: those with live workers first, then those that most runs wait for, then those once served.

    Args:
        workers: All that are known, and their states.
        waiting: The tags that runs wait for.
    """
    serving: dict[str, int] = {}
    known: set[str] = set()
    for record, state in workers:
        for tag in filter(is_tag, record.tags):
            known.add(tag)
            if state.is_active and record.takes_runs:
                serving[tag] = serving.get(tag, 0) + 1
    waits = {one.tag: one for one in waiting if is_tag(one.tag)}
    unserved = [tag for tag in waits if tag not in serving][: MOST_TAGS // 2]
    shown = list(dict.fromkeys([*unserved, *sorted(serving), *waits, *sorted(known)]))[:MOST_TAGS]
    return {
        tag: TagFigures(
            waiting=waits[tag].runs if tag in waits else 0,
            oldest=waits[tag].oldest if tag in waits else None,
            workers=serving.get(tag, 0),
            oldest_run_id=waits[tag].oldest_run_id if tag in waits else None,
        )
        for tag in shown
    }
