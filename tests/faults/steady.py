"""So many submissions a second through the real client, and for how long they were refused."""

import asyncio
import contextlib
import contextvars
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from anyio.from_thread import start_blocking_portal

from pyoco_server.client.async_http import AsyncPyocoHttpClient
from pyoco_server.client.errors import ApiError
from pyoco_server.errors import PyocoError

from .cluster import FLOW, Cluster

_PATIENCE = 60.0


@dataclass
class Submission:
    """One submission, from its first try to its answer."""

    asked: float
    answered: float = 0.0
    refused: list[tuple[float, str]] = field(default_factory=list)
    """When, and how: an HTTP status or the name of an error."""


class SteadyLoad:
    """Submits in a thread of its own; each submission is repeated by the client until it is answered.

    Args:
        cluster: Where what was answered is journalled.
        url: Where to submit.
        per_second: How many are begun each second, also while earlier ones wait.
        seconds: How long each run takes.
    """

    def __init__(self, cluster: Cluster, url: str, *, per_second: float, seconds: float) -> None:
        self._cluster = cluster
        self._url = url
        self._every = 1 / per_second
        self._params = {"seconds": seconds}
        self._open: set[asyncio.Task[None]] = set()
        self.submissions: list[Submission] = []
        self.runs: list[str] = []
        self.failed: list[str] = []
        """What the client raised at last."""

    @contextlib.contextmanager
    def going(self) -> Iterator["SteadyLoad"]:
        """Submit for as long as the block lasts; what was begun is finished afterwards."""
        with start_blocking_portal("asyncio") as portal:
            self._over = portal.call(asyncio.Event)
            running = portal.start_task_soon(self._run)
            try:
                yield self
            finally:
                portal.call(self._over.set)
                running.result(_PATIENCE)

    def is_answered(self, before: float) -> bool:
        """Tell whether every submission that was begun before a monotonic time has its answer."""
        assert not self.failed, f"submissions ended without an answer: {self.failed[:3]}"
        return all(one.answered for one in self.submissions if one.asked < before)

    def told(self, began: float, ended: float) -> str:
        """Say how submissions fared between two monotonic times; a refusal counts with its distance from the first."""
        concerned = [one for one in self.submissions if one.asked < ended and one.answered > began]
        refusals = [(at, how) for one in concerned for at, how in one.refused if began <= at < ended]
        refused = max((at for at, _ in refusals), default=began) - began
        waited = max((one.answered - max(one.asked, began) for one in concerned), default=0.0)
        ways = ", ".join(f"{count} times {how}" for how, count in Counter(how for _, how in refusals).items())
        last = f"the last of {ways} came after {refused:.1f} s" if refusals else "none was refused"
        return f"{last}, the longest wait was {waited:.1f} s"

    async def _run(self) -> None:
        async with AsyncPyocoHttpClient(self._url, retry_sec=_PATIENCE, on_retry=_note_refusal) as client:
            begun = time.monotonic()
            while not self._over.is_set():
                task = asyncio.create_task(self._submit(client))
                self._open.add(task)
                task.add_done_callback(self._open.discard)
                begun += self._every
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self._over.wait(), max(0.0, begun - time.monotonic()))
            await asyncio.gather(*self._open)

    async def _submit(self, client: AsyncPyocoHttpClient) -> None:
        mine, key = Submission(time.monotonic()), uuid.uuid4().hex
        self.submissions.append(mine)
        _CURRENT.set(mine)
        try:
            answer = await client.submit_run_yaml(
                FLOW.format(task="say"), flow_name="say", tag="cpu", params=self._params, idempotency_key=key
            )
        except PyocoError as error:
            self.failed.append(f"{key}: {error!r} {error.message} after {mine.refused}")
            return
        mine.answered = time.monotonic()
        self._cluster.journal.note("answered", answer["run_id"], key=key, task="say")
        self.runs.append(answer["run_id"])


_CURRENT: contextvars.ContextVar[Submission] = contextvars.ContextVar("submission")


def _note_refusal(error: PyocoError) -> None:
    how = str(error.status) if isinstance(error, ApiError) else type(error.__cause__).__name__
    _CURRENT.get().refused.append((time.monotonic(), how))
