"""Checks texts at submission: short ones at once, others in processes of their own; the same text is checked once."""

import contextlib
import hashlib
import json
import time
from collections import Counter, OrderedDict
from collections.abc import Iterator
from typing import Any

import pydantic_core

from pyoco_server.errors import TooLarge, TooManyChecks
from pyoco_server.gateway.access.client import Client
from pyoco_server.gateway.submitting.checking.flights import Flights
from pyoco_server.gateway.submitting.checking.frames import Frame
from pyoco_server.gateway.submitting.checking.pool import CheckPool
from pyoco_server.gateway.submitting.checking.work import CheckedFlow
from pyoco_server.model.flow.drawing import flow_graph
from pyoco_server.model.flow.workflow import parse_workflow
from pyoco_server.model.text.jsontext import read_json

_REMEMBERED = 256
_REMEMBERED_BYTES = 8 << 20
_TIMES_ITS_TEXT = 100
"""What a flow that was read takes of memory, in proportion to its text."""
_SHORT_FLOW = 2 * 1024
"""Bytes of a flow that the event loop checks: the worst of them take it about 10 ms."""
_SHORT_JSON = 32 * 1024
_SHARE = 0.1
"""Of the event loop's time that checks may take, in the long run."""
_AT_ONCE_SEC = 0.02
_PLACES = 128
_PLACES_OF_ONE = 64
_REPEATED = 8
"""How many times the text's limit an answer may be long, beside what aliases may add: JSON escapes characters."""
_MORE = 8 << 20


class FlowChecker:
    """Checks flow files and bodies, and remembers the flows that were found good.

    Args:
        max_bytes: Largest flow.yaml.
        max_json: Largest JSON, in the shortest form.
        pool: Where long texts are checked.
    """

    def __init__(self, max_bytes: int, max_json: int, pool: CheckPool | None = None) -> None:
        self._max_bytes = max_bytes
        self._max_json = max_json
        self.pool = pool or CheckPool()
        self._good: OrderedDict[str, CheckedFlow] = OrderedDict()
        self._good_bytes = 0
        self._flights = Flights()
        self._places: Counter[str] = Counter()
        self._loop_time = _LoopTime()

    async def check(self, raw: bytes, client: Client) -> CheckedFlow:
        """Return the checked flow.

        Args:
            raw: Its text.
            client: Who waits for it.

        Raises:
            InvalidFlow: it cannot be run.
            TooLarge: it is larger than the limit.
            TooManyChecks: too much is to be checked at this time.
            CheckUnavailable: it could not be checked, or not in time.
            ClientGone: nobody waits for it any more.
        """
        self._check_size(raw)
        sha256 = hashlib.sha256(raw).hexdigest()
        found = self._good.get(sha256)
        if found is not None:
            self._good.move_to_end(sha256)
            return found
        if len(raw) <= _SHORT_FLOW and self._loop_time.is_left:
            with self._loop_time.spent():
                found = CheckedFlow.of(parse_workflow(raw, max_bytes=self._max_bytes))
        else:
            found = CheckedFlow.from_frame(await self._ask(client, sha256, Frame({"do": "flow"}, raw)))
        self._remember(found)
        return found

    async def check_params(self, flow: CheckedFlow, raw: bytes, params: dict[str, Any], client: Client) -> None:
        """Check what the params of a run decide.

        Args:
            flow: The checked flow.
            raw: Its text.
            params: The run's params over its defaults.
            client: Who waits for it.

        Raises:
            InvalidFlow: a task asks for a param that is not there.
            PyocoError: as ``check`` does.
        """
        if not flow.asks_for_params:
            return
        if flow.workflow is not None:
            flow.workflow.check(params)
            return
        written = pydantic_core.to_json(params)
        key = f"{flow.sha256} {hashlib.sha256(written).hexdigest()}"
        await self._ask(client, key, Frame({"do": "params", "text": len(raw)}, raw + written))

    async def graph(self, raw: bytes, client: Client) -> bytes:
        """Return the graph of a flow as JSON.

        Raises:
            PyocoError: as ``check`` does.
        """
        self._check_size(raw)
        sha256 = hashlib.sha256(raw).hexdigest()
        if len(raw) <= _SHORT_FLOW and self._loop_time.is_left:
            workflow = (await self.check(raw, client)).workflow
            if workflow is not None:
                with self._loop_time.spent():
                    return pydantic_core.to_json(flow_graph(workflow.file).as_json())
        return (await self._ask(client, f"graph {sha256}", Frame({"do": "graph"}, raw))).body

    async def read_json(self, raw: bytes, client: Client, *, params_at: str | None = "params") -> Any:
        """Read JSON as strictly as ``jsontext.read_json``, and with its errors.

        Args:
            raw: The text.
            client: Who waits for it.
            params_at: The key of a run's params, which are looked through for numbers that are not finite where that
                takes long; ``None`` if they are the whole.

        Raises:
            InvalidInput: it is JSON, and would not be read as it was written.
            TooLarge: it is larger than what a record may hold.
            PyocoError: as ``check`` does.
        """
        if len(raw) <= _SHORT_JSON:
            return read_json(raw)
        key = f"json {params_at} {hashlib.sha256(raw).hexdigest()}"
        asked = Frame({"do": "json", "params_at": params_at}, raw)
        answer = await self._ask(client, key, asked, max_bytes=self._max_json)
        if "no_json" in answer.head:
            message, position = answer.head["no_json"]
            raise json.JSONDecodeError(message, raw.decode("utf-8", "replace"), position)
        if "no_text" in answer.head:
            encoding, start, end, reason = answer.head["no_text"]
            raise UnicodeDecodeError(encoding, raw, start, end, reason)
        return pydantic_core.from_json(answer.body)

    async def close(self) -> None:
        """End the processes."""
        await self.pool.close()

    def _check_size(self, raw: bytes) -> None:
        if len(raw) > self._max_bytes:
            raise TooLarge(
                f"the workflow has {len(raw)} bytes, more than the {self._max_bytes} that are accepted",
                hint="Pass large data as params or files; PYOCO_WORKFLOW_YAML_MAX_BYTES sets the limit.",
            )

    async def _ask(self, client: Client, key: str, asked: Frame, *, max_bytes: int | None = None) -> Frame:
        """Let a process do something, once for all who ask for the same."""
        limit = self._max_bytes if max_bytes is None else max_bytes
        asked.head["max_bytes"] = limit
        with self._place(client.name):
            name = client.name
            return await client.unless_gone(
                self._flights.join(key, lambda: self.pool.ask(name, asked, _REPEATED * limit + _MORE))
            )

    @contextlib.contextmanager
    def _place(self, name: str) -> Iterator[None]:
        if self._places[name] >= _PLACES_OF_ONE:
            raise TooManyChecks(f"{_PLACES_OF_ONE} of your submissions wait to be checked already")
        if self._places.total() >= _PLACES:
            raise TooManyChecks(f"{_PLACES} submissions wait to be checked already")
        self._places[name] += 1
        try:
            yield
        finally:
            self._places[name] -= 1
            if not self._places[name]:
                del self._places[name]

    def _remember(self, found: CheckedFlow) -> None:
        if found.sha256 in self._good:
            return
        self._good[found.sha256] = found
        self._good_bytes += _memory_of(found)
        while len(self._good) > _REMEMBERED or (self._good_bytes > _REMEMBERED_BYTES and len(self._good) > 1):
            self._good_bytes -= _memory_of(self._good.popitem(last=False)[1])


class _LoopTime:
    """How much of its time the event loop gives to checks: a little at once, and a share in the long run."""

    def __init__(self) -> None:
        self._left = _AT_ONCE_SEC
        self._seen = time.monotonic()

    @property
    def is_left(self) -> bool:
        """Whether there is time now."""
        now = time.monotonic()
        self._left = min(_AT_ONCE_SEC, self._left + (now - self._seen) * _SHARE)
        self._seen = now
        return self._left > 0

    @contextlib.contextmanager
    def spent(self) -> Iterator[None]:
        """Count what is done meanwhile."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self._left -= time.perf_counter() - began


def _memory_of(flow: CheckedFlow) -> int:
    kept = flow.size_bytes * _TIMES_ITS_TEXT if flow.workflow is not None else 0
    return kept + len(flow.defaults_json) + sum(len(name) + 60 for name in flow.node_names)
