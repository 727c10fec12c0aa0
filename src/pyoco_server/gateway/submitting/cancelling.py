"""Recording a cancel: also of a run whose record cannot be read, and in a store that takes no more writes."""

from pyoco_server.errors import RunNotFound, StoreFull
from pyoco_server.gateway.gateway import Gateway
from pyoco_server.gateway.index.json_fields import tenant_of_unreadable
from pyoco_server.model.access import Caller
from pyoco_server.model.record.salvage import mend
from pyoco_server.model.run import RunRecord, RunStatus, end_unreadable, request_cancel
from pyoco_server.store.runs import StoredRun

_KEPT = {"flow_name", "tag", "tags", "submitted_at", "start_time", "worker_id", "attempt", "workflow_yaml_sha256"}
"""What was known of a run before its record was damaged, and is kept of it."""

_BY_KEY = "api_key:"
"""Before the id of the key in ``cancel_requested_by``; others than keys may ask one day."""


class Cancelling:
    """Records one request to stop a run.

    Args:
        here: The gateway.
        who: Who asks.
        run_id: The run.
        reason: Why.
    """

    def __init__(self, here: Gateway, who: Caller, run_id: str, reason: str | None) -> None:
        self._here = here
        self._who = who
        self._run_id = run_id
        self._reason = reason
        self.happened = False
        """Whether anything has changed."""
        self.was_unreadable = False
        """Whether the record could not be read, and was replaced."""

    async def record(self) -> StoredRun | None:
        """Write it down; ``None`` if there is no such run.

        Raises:
            RunNotFound: it is another tenant's.
            StoreUnavailable: NATS is away.
        """
        runs = self._here.runs
        try:
            return await runs.change(self._run_id, self._ask, mend=self._replace)
        except StoreFull:
            await self._here.relief.free()
        try:
            return await runs.change(self._run_id, self._ask, mend=self._replace)
        except StoreFull:
            return await runs.change_without_room(self._run_id, self._ask, mend=self._replace)

    def _ask(self, record: RunRecord) -> RunRecord:
        if not self._who.sees(record.tenant_id):
            raise RunNotFound
        by = f"{_BY_KEY}{self._who.key_id}" if self._who.key_id is not None else None
        asked = request_cancel(record, by=by, reason=self._reason)
        self.happened, self.was_unreadable = asked is not record, False
        return asked

    def _replace(self, stored: StoredRun) -> RunRecord:
        """Return a record that can be read in place of one that cannot: of a run that had ended, with its end."""
        found = stored.unreadable
        assert found is not None  # noqa: S101 - only then it is called
        known = self._here.index.last_known(self._run_id)
        tenant_id = tenant_of_unreadable(found, known)
        if not self._who.sees(tenant_id):
            raise RunNotFound
        self.happened = self.was_unreadable = True
        kept = {} if found.intact else {name: known[name] for name in _KEPT - found.known if known.get(name)}
        record = mend(stored.record.evolve(**kept, tenant_id=tenant_id))
        return record if found.has_ended else end_unreadable(record, RunStatus.CANCELLED, found.why)
