"""Whether consumers know of all that their stream holds, and a restore that waits until they do."""

from collections.abc import AsyncIterator

import pytest
from nats.js import api

from pyoco_server.errors import CommandFailed
from pyoco_server.settings.environment import Settings
from pyoco_server.store.backup import restoring as restore
from pyoco_server.store.nats.connection import Connection, connected
from pyoco_server.store.status.consumers import behind

from .backups import connection, filled, put_back, taken, wipe

__all__ = ["connection", "filled"]  # fixtures
pytestmark = pytest.mark.anyio


@pytest.fixture
async def stream(settings: Settings) -> AsyncIterator[tuple[Connection, str]]:
    async with connected(settings, "test", 10) as there:
        name = settings.work_stream
        await there.js.add_stream(name=name, subjects=[f"{name}.>"])
        for tag in ("a", "a", "b"):
            await there.js.publish(f"{name}.{tag}", b"job")
        yield there, name
        await there.js.delete_stream(name)


async def add(there: Connection, stream: str, name: str, policy: api.DeliverPolicy, **more: str) -> None:
    config = api.ConsumerConfig(durable_name=name, deliver_policy=policy, ack_policy=api.AckPolicy.EXPLICIT, **more)
    await there.js.add_consumer(stream, config)


async def test_consumers_that_count_less_than_there_is_are_behind(stream: tuple[Connection, str]) -> None:
    there, name = stream
    await add(there, name, "all", api.DeliverPolicy.ALL)
    await add(there, name, "some", api.DeliverPolicy.ALL, filter_subject=f"{name}.a")
    await add(there, name, "none", api.DeliverPolicy.ALL, filter_subject=f"{name}.c")
    assert await behind(there, name) == []
    (taken_away,) = await (await there.js.pull_subscribe_bind("some", name)).fetch(1)
    assert await behind(there, name) == []  # it is handed out, and still there
    await taken_away.ack()
    await add(there, name, "late", api.DeliverPolicy.NEW, filter_subject=f"{name}.b")  # counts none of what was before
    assert "late" in await behind(there, name)


async def test_a_restore_ends_when_its_jobs_are_counted(filled: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    raw, answers = await taken(filled), [["cpu"], ["cpu"], []]

    async def told(_connection: Connection, stream: str) -> list[str]:
        return answers.pop(0) if stream == filled.settings.work_stream else []

    monkeypatch.setattr(restore, "behind", told)
    await put_back(filled, raw, replace=True)
    assert answers == []
    monkeypatch.setattr(restore, "_COUNTED_SEC", 0.0)
    answers[:] = [["cpu"]] * 2
    await wipe(filled)
    with pytest.raises(CommandFailed, match="does not count all jobs of cpu"):
        await put_back(filled, raw)
