"""Records of workers that have been gone for long are forgotten. Several gateways may do it at once."""

import structlog

from pyoco_server.errors import RevisionConflict
from pyoco_server.gateway.index.worker_index import WorkerIndex
from pyoco_server.store.workers import WorkerStore

log = structlog.get_logger(__name__)

_A_ROUND = 100


class GoneWorkers:
    """Forgets them.

    Args:
        workers: The records.
        index: The workers as last seen.
        after_sec: Seconds since a worker was last seen after which its record is removed; 0: never.
    """

    def __init__(self, workers: WorkerStore, index: WorkerIndex, *, after_sec: float) -> None:
        self._workers = workers
        self._index = index
        self._after_sec = after_sec

    async def round(self) -> None:
        """Forget some of those whose time has come.

        Raises:
            StoreUnavailable: NATS is away.
        """
        if not self._after_sec:
            return
        for key, record in list(self._index.gone_for(self._after_sec).items())[:_A_ROUND]:
            stored = await self._workers.get(key)
            if stored is None:
                self._index.drop(key, record)  # removed while this gateway heard nothing
                continue
            if stored.record != record:
                continue  # it is back, and the index is about to hear of it
            try:
                await self._workers.forget(key, stored.revision)
            except RevisionConflict:
                continue  # it came back in this moment
            log.info(
                "forgot a worker that is gone",
                worker_id=key,
                state=self._index.state(record).value,
                last_seen_at=record.last_seen_at,
            )
