"""A cancel that meets the end of the run: whichever was written first stands, and the record tells."""

from typing import Any

import pytest
from structlog.testing import capture_logs

from pyoco_server.errors import RevisionConflict, StoreUnavailable
from pyoco_server.model.run import EndReason, RunRecord, RunStatus, TaskStatus, claim, request_cancel, settle
from pyoco_server.store.runs import StoredRun
from pyoco_server.worker.recorder import Recorder

pytestmark = pytest.mark.anyio

OURS = claim(
    RunRecord(run_id="r", flow_name="main", submitted_at=1.0, tasks={"t": TaskStatus.PENDING}),
    worker_id="w", instance_id="i", job_seq=7,
)  # fmt: skip


class Store:
    """One record under compare-and-set."""

    may_be_late = False

    def __init__(self, record: RunRecord) -> None:
        self.stored = StoredRun(record, 1)

    async def get(self, _: str, *, salvaged: bool = False) -> StoredRun:
        return self.stored

    async def update(self, record: RunRecord, revision: int) -> StoredRun:
        if revision != self.stored.revision:
            raise RevisionConflict("somebody else wrote first")
        self.stored = StoredRun(record, revision + 1)
        return self.stored


def recorder(store: Any, heard: list[str]) -> Recorder:
    return Recorder(
        store, store.stored, interval=1.0,
        on_cancel=lambda: heard.append("cancel"), on_lost=lambda: heard.append("lost"),
    )  # fmt: skip


async def test_a_cancel_that_was_recorded_first_stands() -> None:
    store, heard = Store(OURS), []
    ours = recorder(store, heard)
    await store.update(request_cancel(OURS, by="ann", reason="enough"), 1)
    with capture_logs() as lines:
        ended = await ours.settle(RunStatus.COMPLETED, EndReason.COMPLETED, None)
    assert ended is not None
    assert (ended.status, ended.end_reason, ended.error) == (RunStatus.CANCELLED, EndReason.CANCELLED, "enough")
    assert (ended.cancel_requested_by, ended.cancel_reason) == ("ann", "enough")
    assert ended.cancel_requested_at
    assert store.stored.record == ended
    assert [line["event"] for line in lines] == ["a cancel came before the end of the run was written"]


async def test_a_record_older_than_our_own_write_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    store, heard = Store(OURS), []
    store.may_be_late = True
    newest = StoredRun(OURS, 5)
    store.stored = newest
    ours = recorder(store, heard)
    for old in (None, StoredRun(RunRecord(run_id="r", flow_name="main"), 4)):
        store.stored = old  # type: ignore[assignment]
        with pytest.raises(StoreUnavailable):
            await ours.refresh()
    assert heard == []
    store.stored = newest
    await ours.refresh()
    monkeypatch.setattr("pyoco_server.worker.recorder._DOUBT_SEC", 0.0)  # so it stays: it is gone indeed
    store.stored = None  # type: ignore[assignment]
    await ours.refresh()
    assert heard == ["lost"]


async def test_an_end_that_was_recorded_first_stands() -> None:
    ended = settle(OURS, RunStatus.COMPLETED, EndReason.COMPLETED, None)
    assert request_cancel(ended, by="ann", reason="late") is ended
