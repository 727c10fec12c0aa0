"""A worker is ended when it is deaf, and not when nobody could have answered."""

import asyncio
import time
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pyoco_server.errors import CommandFailed, StoreUnavailable
from pyoco_server.worker import watchdog
from pyoco_server.worker.watchdog import Watchdog

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_SUSPICIOUS_SEC", "_SURE_SEC"):
        monkeypatch.setattr(watchdog, name, 0.05)


def watching(answers: list[bool], up_since: float | None = 0.0) -> Watchdog:
    """Watch a puller that gets no answer; the consumer answers as told, at last for ever."""

    async def figures(_: str) -> None:
        if not (answers.pop(0) if len(answers) > 1 else answers[0]):
            raise StoreUnavailable("there is no leader")

    puller = SimpleNamespace(unanswered_since=time.monotonic() - 60)
    connection = SimpleNamespace(up_since=up_since)
    return Watchdog(
        cast(Any, connection), cast(Any, SimpleNamespace(figures=figures)), ["t"], lambda: [cast(Any, puller)]
    )


async def keep_looking(watching: Watchdog) -> None:
    while True:
        await watching.look()
        await asyncio.sleep(0.05)


async def test_a_deaf_worker_is_ended() -> None:
    with pytest.raises(CommandFailed, match="no request for a job was answered"):
        await asyncio.wait_for(keep_looking(watching([True])), 5)


@pytest.mark.parametrize(("answers", "up_since"), [([False], 0.0), ([True], None), ([False, True, False], 0.0)])
async def test_while_nobody_could_answer_it_lives(answers: list[bool], up_since: float | None) -> None:
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(keep_looking(watching(answers, up_since)), 0.6)
