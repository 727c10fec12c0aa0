"""The jobs of runs, with the text of the flow where that fits."""

from collections import OrderedDict
from collections.abc import Callable

from pyoco_server.model.job import ALWAYS_WHOLE, Job, only_for
from pyoco_server.model.run import RunRecord
from pyoco_server.store.flows import FlowStore
from pyoco_server.store.queue.job_queue import JobQueue

_ENVELOPE = 4096
"""What subject and headers take of NATS's payload limit."""
_BESIDE_FLOW = 1024
"""What a job without params takes beside its flow's text, which JSON escapes."""
_REMEMBERED = 32


class JobMaker:
    """Makes jobs and queues them.

    Args:
        queue: Where they go.
        flows: Where the texts of flows are.
        serves: Whether a worker of the existing system serves a tag: then its jobs may be as large as NATS takes them.
    """

    def __init__(self, queue: JobQueue, flows: FlowStore, serves: Callable[[str], bool] = lambda _tag: False) -> None:
        self._queue = queue
        self._flows = flows
        self._serves = serves
        self._texts: OrderedDict[str, str] = OrderedDict()

    def most(self, tag: str) -> int:
        """Return how many bytes a job of a tag may have before it is sealed."""
        taken = self._queue.connection.max_payload - _ENVELOPE
        return taken if self._serves(tag) else min(ALWAYS_WHOLE, taken)

    def size(self, record: RunRecord, stored: int) -> int:
        """Return how many bytes the job of a run may take on the queue.

        Args:
            record: The run.
            stored: Bytes of its record, which has the same params.
        """
        if only_for(record) is not None:
            return 0
        return min(self.most(record.tag), stored + 2 * (record.workflow_yaml_bytes or 0))

    async def queue(self, record: RunRecord, tag: str, *, requeued: str | None = None) -> int:
        """Queue the job of a run.

        Args:
            record: The run.
            tag: Its queue.
            requeued: As for ``JobQueue.publish``.

        Returns:
            The job's sequence.

        Raises:
            StoreUnavailable: no acknowledgement; doing it again is safe.
            pydantic.ValidationError: another program's record, which has no job.
        """
        most = self.most(tag)
        job = Job.of(record, await self._text_of(record, most - _BESIDE_FLOW))
        return await self._queue.publish(job, tag, requeued=requeued, most=most)

    def know(self, sha256: str, text: bytes) -> None:
        """Remember the text of a flow of which a run is about to be made."""
        if sha256 not in self._texts and len(text) <= ALWAYS_WHOLE:
            self._texts[sha256] = text.decode()
            if len(self._texts) > _REMEMBERED:
                self._texts.popitem(last=False)

    async def _text_of(self, record: RunRecord, most: int) -> str | None:
        sha256, size = record.workflow_yaml_sha256, record.workflow_yaml_bytes
        if sha256 is None or only_for(record) is not None or (size is not None and size > most):
            return None
        if sha256 not in self._texts:
            body = await self._flows.get(sha256)
            if body is None or len(body) > most:
                return None
            if len(body) > ALWAYS_WHOLE:
                return body.decode()
            self.know(sha256, body)
        self._texts.move_to_end(sha256)
        return self._texts[sha256]
