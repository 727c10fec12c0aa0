"""Checks flow files at submission; the same text is checked once."""

import asyncio
import hashlib
from collections import OrderedDict

from pyoco_server.model.workflow import Workflow, parse_workflow

_REMEMBERED = 256
_LARGE = 16 * 1024


class FlowChecker:
    """Remembers the flow files that were found good."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._good: OrderedDict[str, Workflow] = OrderedDict()

    async def check(self, raw: bytes) -> Workflow:
        """Give the checked flow.

        Raises:
            InvalidFlow: it cannot be run.
            TooLarge: it is larger than the limit.
        """
        sha256 = hashlib.sha256(raw).hexdigest()
        workflow = self._good.get(sha256)
        if workflow is None:
            if len(raw) > _LARGE:  # keeps other requests moving meanwhile
                workflow = await asyncio.to_thread(parse_workflow, raw, max_bytes=self._max_bytes)
            else:
                workflow = parse_workflow(raw, max_bytes=self._max_bytes)
            self._good[sha256] = workflow
            if len(self._good) > _REMEMBERED:
                self._good.popitem(last=False)
        else:
            self._good.move_to_end(sha256)
        return workflow
