"""The soak of ``benchmarks/soak.py`` in small: many more runs go by than are kept."""

import asyncio

import pytest
from benchmarks.soak import Pace, end_runs, submit

from pyoco_server.gateway.maintenance import retention
from pyoco_server.gateway.maintenance import unused_flows as loose_flows
from pyoco_server.settings.environment import Settings
from pyoco_server.store.nats import bucket
from pyoco_server.store.status.stream_state import StreamState, read_stream

from .test_gateway import Running, running
from .test_retention import eventually

pytestmark = [pytest.mark.anyio, pytest.mark.slow, pytest.mark.timeout(400)]

_LOT, _LOTS, _KEPT = 200, 6, 100
_AUDITED = 2000


@pytest.fixture
def bounded(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setattr(retention, "_YOUNG_SEC", 0.0)
    monkeypatch.setattr(loose_flows, "_TURN_SEC", 0.0)
    monkeypatch.setattr(bucket, "MARK_SEC", 1)
    return settings.model_copy(
        update={
            "run_retention_max_runs": _KEPT, "retention_interval_sec": 0.2, "flow_retention_sec": 1.0,
            "audit_max_msgs": _AUDITED,
        }
    )  # fmt: skip


async def stream(here: Running, name: str) -> StreamState:
    state = await read_stream(here.gateway.connection, name)
    assert state is not None
    return state


async def test_what_is_kept_is_bounded_however_many_runs_go_by(bounded: Settings) -> None:
    sizes = []
    async with running(bounded) as here:

        async def level() -> bool:
            """Tell whether nothing is left but what is to be kept."""
            names = (f"KV_{bounded.runs_kv_bucket}", bounded.logs_stream, bounded.work_stream)
            runs, logs, jobs = [(await stream(here, name)).messages for name in names]
            flows = (await stream(here, f"KV_{bounded.flows_kv_bucket}")).messages
            # One run in fifty has its own; without the removal there would be 25 in the end.
            return (runs, logs, jobs, here.gateway.index.count()) == (_KEPT, _KEPT, 0, _KEPT) and flows < 8

        for _ in range(_LOTS):
            pace = Pace(_LOT)
            await asyncio.gather(end_runs(bounded, pace), *(submit(here.http, pace) for _ in range(8)))
            assert not pace.refused
            await eventually(level, 60)
            sizes.append((await stream(here, f"KV_{bounded.runs_kv_bucket}")).bytes)
        assert max(sizes) < 1.2 * min(sizes)
        assert (await stream(here, bounded.audit_stream)).messages == _AUDITED // 10
        assert here.gateway.index.totals.by_status()["COMPLETED"] == _KEPT
