"""What is done with a text that somebody sent. It runs in a checker process, and for short texts in the gateway."""

import hashlib
import json
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pydantic_core

from pyoco_server.errors import InvalidInput, TooLarge
from pyoco_server.gateway.submitting.checking.frames import Frame
from pyoco_server.model.existing.flows import own_workers_only
from pyoco_server.model.flow.drawing import flow_graph
from pyoco_server.model.flow.workflow import Workflow, parse_workflow
from pyoco_server.model.text.clean import clean_strings
from pyoco_server.model.text.jsontext import check_finite, read_json

_REMEMBERED_BYTES = 1 << 20
"""Of texts; what is made of one takes many times its size."""


@dataclass(frozen=True)
class CheckedFlow:
    """A flow.yaml that was found good: what a submission needs of it.

    Args:
        sha256: Hash of its text.
        size_bytes: Length of its text.
        node_names: The graph's task nodes, in an order in which they can run.
        defaults_json: The params that a run has unless it is given others.
        asks_for_params: Whether it depends on a run's params if the run is good.
        own_workers_only: What of it workers of the existing system would run wrongly; ``None`` if nothing.
        workflow: The flow itself, where it was checked in this process.
    """

    sha256: str
    size_bytes: int
    node_names: tuple[str, ...]
    defaults_json: bytes
    asks_for_params: bool
    own_workers_only: str | None = None
    workflow: Workflow | None = field(default=None, repr=False, compare=False)

    @property
    def defaults(self) -> dict[str, Any]:
        """The params that a run has unless it is given others."""
        found: dict[str, Any] = pydantic_core.from_json(self.defaults_json)
        return found

    @classmethod
    def of(cls, workflow: Workflow) -> "CheckedFlow":
        """Return what a submission needs of a flow, with the flow."""
        return cls(
            sha256=workflow.sha256,
            size_bytes=workflow.size_bytes,
            node_names=workflow.node_names,
            defaults_json=pydantic_core.to_json(workflow.file.flow.defaults),
            asks_for_params=workflow.names.ask_for_params,
            own_workers_only=own_workers_only(workflow.file),
            workflow=workflow,
        )

    def to_frame(self) -> Frame:
        """Return it without the flow, as another process takes it."""
        head = {
            "sha256": self.sha256,
            "size_bytes": self.size_bytes,
            "asks_for_params": self.asks_for_params,
            "own_workers_only": self.own_workers_only,
            "names": len(names := pydantic_core.to_json(self.node_names)),
        }
        return Frame(head, names + self.defaults_json)

    @classmethod
    def from_frame(cls, frame: Frame) -> "CheckedFlow":
        """Read what ``to_frame`` gave."""
        head, names = frame.head, frame.head["names"]
        return cls(
            sha256=head["sha256"],
            size_bytes=head["size_bytes"],
            node_names=tuple(pydantic_core.from_json(frame.body[:names])),
            defaults_json=frame.body[names:],
            asks_for_params=head["asks_for_params"],
            own_workers_only=head["own_workers_only"],
        )


class Bench:
    """Does the work, and remembers the flows that it read last."""

    def __init__(self) -> None:
        self._flows: OrderedDict[str, Workflow] = OrderedDict()
        self._bytes = 0
        self._works: dict[str, Callable[[Frame], Frame]] = {
            "flow": self._flow,
            "params": self._params,
            "graph": self._graph,
            "json": _json,
        }

    def do(self, asked: Frame) -> Frame:
        """Do what a frame asks for.

        Raises:
            PyocoError: what is wrong with the text.
        """
        return self._works[asked.head["do"]](asked)

    def _flow(self, asked: Frame) -> Frame:
        return CheckedFlow.of(self._read(asked.body, asked)).to_frame()

    def _params(self, asked: Frame) -> Frame:
        text, params = asked.body[: asked.head["text"]], asked.body[asked.head["text"] :]
        self._read(text, asked).check(pydantic_core.from_json(params))
        return Frame()

    def _graph(self, asked: Frame) -> Frame:
        return Frame(body=pydantic_core.to_json(flow_graph(self._read(asked.body, asked).file).as_json()))

    def _read(self, raw: bytes, asked: Frame) -> Workflow:
        sha256 = hashlib.sha256(raw).hexdigest()
        if sha256 not in self._flows:
            self._flows[sha256] = parse_workflow(raw, max_bytes=asked.head["max_bytes"])
            self._bytes += len(raw)
        self._flows.move_to_end(sha256)
        while self._bytes > _REMEMBERED_BYTES and len(self._flows) > 1:
            self._bytes -= self._flows.popitem(last=False)[1].size_bytes
        return self._flows[sha256]


def _json(asked: Frame) -> Frame:
    """Read JSON as strictly as we do, and give it in a form that is quickly read."""
    try:
        value = clean_strings(read_json(asked.body))
        at = asked.head["params_at"]
        check_finite(value if at is None else value.get(at) if isinstance(value, dict) else None, "params")
        written = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    except json.JSONDecodeError as error:
        return Frame({"no_json": [error.msg, error.pos]})
    except UnicodeDecodeError as error:
        return Frame({"no_text": [error.encoding, error.start, error.end, error.reason]})
    except RecursionError:
        raise InvalidInput("the JSON nests too deeply", hint="Send it flatter.") from None
    if len(written) > asked.head["max_bytes"]:
        raise TooLarge(
            f"the JSON takes {len(written)} bytes; {asked.head['max_bytes']} are accepted",
            hint="Put large data where tasks can fetch it, and pass its address.",
        )
    return Frame(body=written)
