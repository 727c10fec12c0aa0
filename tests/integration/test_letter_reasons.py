"""Dead letters by reason, counted from a real stream that others change too."""

import json
from collections import Counter

import pytest

from pyoco_server.model.deadletter import DeadLetter, DeadLetterReason
from pyoco_server.settings.environment import Settings
from pyoco_server.store import topology
from pyoco_server.store.deadletters import DeadLetterStore
from pyoco_server.store.nats.connection import Connection
from tests.unit.test_metrics import one

from .test_gateway import Running, here, running
from .test_metrics import scrape

__all__ = ["here"]  # a fixture

pytestmark = pytest.mark.anyio


async def publish(store: DeadLetterStore, reason: DeadLetterReason, *names: str) -> list[int]:
    return [await store.publish(DeadLetter(reason=reason, tag="cpu"), name) for name in names]


async def shown(here: Running) -> tuple[dict[str, float], dict[str, float]]:
    """Give what lies there, and what came, as /metrics shows both after a look."""
    while not await here.gateway.letter_reasons.round():
        pass
    samples = await scrape(here)
    names = ("pyoco_dlq_letters", "pyoco_dlq_received_total")
    lie, came = (
        {dict(labels)["reason"]: value for (name, labels), value in samples.items() if name == wanted and value}
        for wanted in names
    )
    assert all(one(samples, name, reason=reason.value) is not None for name in names for reason in DeadLetterReason)
    return lie, came


async def test_letters_come_and_go(settings: Settings) -> None:
    connection = await Connection(settings, "test").start()
    assert await connection.wait_up(10)
    await topology.ensure(connection)
    store = DeadLetterStore(connection)
    old = await publish(store, DeadLetterReason.EXECUTION_ERROR, *(f"old{n}" for n in range(200)))
    assert await store.remove(old[0])
    assert await store.remove(old[100])
    async with running(settings) as here:
        assert await shown(here) == ({"execution_error": 198}, {})  # what lay there before is history
        first, *_ = await publish(store, DeadLetterReason.FLOW_NOT_FOUND, "a", "b", "c")
        await connection.js.publish(f"{settings.dlq_subject_prefix}.cpu", b"\xff no letter")
        await connection.js.publish(f"{settings.dlq_subject_prefix}.cpu", json.dumps({"reason": ["odd"]}).encode())
        came = {"flow_not_found": 3, "other": 2}
        assert await shown(here) == ({"execution_error": 198, **came}, came)
        assert await store.remove(first)  # by another gateway
        assert await store.remove(old[1])  # the first one of the stream
        assert (await here.http.delete(f"/dlq/{old[7]}")).status_code == 200
        lie = {"execution_error": 196, "flow_not_found": 2, "other": 2}
        assert await shown(here) == (lie, came)
        assert await connection.js.purge_stream(settings.dlq_stream)
        assert await shown(here) == ({}, came)
        await publish(store, DeadLetterReason.INVALID_JOB, "d")
        assert await shown(here) == ({"invalid_job": 1}, {**came, "invalid_job": 1})
        await connection.js.delete_stream(settings.dlq_stream)
        await topology.ensure(connection)
        await publish(store, DeadLetterReason.ATTEMPTS_EXHAUSTED, *(f"again{n}" for n in range(300)))
        assert (await shown(here))[0] == {"attempts_exhausted": 300}
    await connection.close()


async def test_a_letter_is_read_once(here: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    read: Counter[int] = Counter()
    store = here.gateway.letters
    plain = store.read_on

    async def counted(after: int, limit: int) -> object:
        page = await plain(after, limit)
        read.update(letter.id for letter in page)
        return page

    monkeypatch.setattr(store, "read_on", counted)
    ids = await publish(store, DeadLetterReason.EXECUTION_ERROR, *(f"n{n}" for n in range(100)))
    for gone in ids[10:20]:
        assert await shown(here)
        assert await store.remove(gone)
    assert (await shown(here))[0] == {"execution_error": 90}
    assert read == Counter(ids)
