"""Pull requests: one that nobody answers is made again, long before a worker would be taken for deaf."""

import asyncio
from typing import Any

import pytest

from pyoco_server.model.job import Job
from pyoco_server.settings.environment import Settings
from pyoco_server.store import topology
from pyoco_server.store.nats.connection import connected
from pyoco_server.store.nats.pull_line import PullLine
from pyoco_server.store.queue import tag_puller as puller
from pyoco_server.store.queue.job_queue import JobQueue

pytestmark = pytest.mark.anyio

DEADLINE = 10.0


async def test_a_request_that_is_lost_with_its_consumer_is_made_again(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(puller, "_BEAT", 0.2)
    monkeypatch.setattr(puller, "_SILENCE", 0.5)
    request, lost = PullLine.request, 0
    async with connected(settings, "test", DEADLINE) as connection:
        await topology.ensure(connection)
        queue = JobQueue(connection)

        async def lose(line: PullLine, **wish: Any) -> None:
            nonlocal lost
            if lost:
                await request(line, **wish)
            else:
                lost += 1
                await connection.js.delete_consumer(settings.work_stream, queue.consumer_name("cpu"))

        monkeypatch.setattr(PullLine, "request", lose)
        seq = await queue.publish(Job(run_id="r", flow_name="f"), "cpu")
        pulls, stop = puller.TagPuller(queue, ["cpu"]), asyncio.Event()
        assert await asyncio.wait_for(pulls.next(60, stop), DEADLINE) is None
        assert pulls.unanswered_since is not None  # or the watchdog would never look
        delivery = await asyncio.wait_for(pulls.next(60, stop), DEADLINE)
        assert delivery is not None and (delivery.seq, lost) == (seq, 1)
        assert pulls.unanswered_since is None
        await pulls.close()
