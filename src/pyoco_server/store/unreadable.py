"""Records that cannot be read are told of once each, however often somebody comes across them."""

from collections import OrderedDict

import structlog

log = structlog.get_logger(__name__)

_REMEMBERED = 1000


class UnreadableLog:
    """Logs each record that cannot be read, in each of its revisions, once.

    Attributes:
        seen: How often one was come across.
    """

    def __init__(self) -> None:
        self._told: OrderedDict[tuple[str, int], None] = OrderedDict()
        self.seen = 0

    def note(self, run_id: str, revision: int, why: str) -> None:
        """Log a record, unless that was done before.

        Args:
            run_id: The run.
            revision: The revision of its record.
            why: What is wrong with it.
        """
        self.seen += 1
        key = (run_id, revision)
        if key in self._told:
            self._told.move_to_end(key)
            return
        self._told[key] = None
        if len(self._told) > _REMEMBERED:
            self._told.popitem(last=False)
        log.error("a run's record cannot be read", run_id=run_id, reason=why)
