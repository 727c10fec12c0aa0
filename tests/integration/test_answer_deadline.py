"""A request that waits for NATS in several of its calls is answered before its sender gives up."""

from typing import Any

import pytest

from pyoco_server.store import topology
from pyoco_server.store.nats import deadline, messages

from .test_gateway import Running, here, until
from .test_idempotency import BODY, jobs, post, post_yaml

__all__ = ["here"]  # a fixture

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def _nobody_gives_up_by_himself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each call wait for a leader for ever, and a request for a moment. A stream that is missing has no leader."""
    monkeypatch.setattr(messages, "_ELECTION_SEC", 1e9)
    monkeypatch.setattr(deadline, "ANSWER_SEC", 0.3)


async def refused(answer: Any) -> None:
    assert (answer.status_code, answer.json()["code"]) == (503, "nats_unavailable")
    assert answer.headers["retry-after"] == "1"


async def test_no_leader_for_the_queue(here: Running) -> None:
    gateway = here.gateway
    run_id = await here.submit(tag="cpu")
    await gateway.connection.js.delete_stream(gateway.settings.work_stream)
    await refused(await here.http.post("/runs", json={"flow_name": "f"}))
    await refused(await here.http.post(f"/runs/{run_id}/rerun"))
    await post_yaml(here, 503)
    await until(lambda: gateway.index.count() == 1)  # made, and taken back
    await post(here, 503, **BODY)
    await topology.ensure(gateway.connection)
    kept = await post(here, **BODY)
    assert kept["created"] is False and await jobs(here) == 1  # a repeat brings the job along


async def test_no_leader_for_the_records(here: Running) -> None:
    gateway = here.gateway
    run_id = await here.submit()
    await gateway.connection.js.delete_stream(f"KV_{gateway.settings.runs_kv_bucket}")
    await refused(await here.http.post("/runs", json={"flow_name": "f"}))
    await post(here, 503, **BODY)
    await topology.ensure(gateway.connection)
    assert (await post(here, **BODY))["created"] is True
    assert (await here.http.get(f"/runs/{run_id}")).status_code == 404


async def test_the_nearest_of_two_deadlines_counts() -> None:
    assert deadline.for_try(4.0) == 4.0 and not deadline.is_over()
    with deadline.within(60):
        with deadline.within(0):
            assert deadline.is_over() and 0 < deadline.for_try(4.0) < 1
        with deadline.within(120):
            assert 1 < deadline.for_try(100.0) <= 60
        assert deadline.for_try(4.0) == 4.0 and not deadline.is_over()
