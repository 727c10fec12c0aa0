"""Reports the tasks of a run to the worker while pyoco's engine runs them."""

import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from typing import Any

from pyoco.core.models import RunContext
from pyoco.trace.backend import TraceBackend

from pyoco_server.model.text import MAX_TRACEBACK, clean_text, clean_value
from pyoco_server.worker.protocol import Message

_BURST = 100
_REPEAT_SEC = 0.05
"""After its first ``_BURST`` messages a task in a tight loop is reported this often; its last end always."""


def describe_exception(error: BaseException) -> dict[str, Any]:
    """Give an exception's class, message, place and traceback, without the engine's own frames."""
    frames = traceback.extract_tb(error.__traceback__)
    last = frames[-1] if frames else None
    text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    return {
        "exception": {
            "class": type(error).__qualname__,
            "message": clean_text(str(error)),
            "file": last.filename if last else None,
            "line": last.lineno if last else None,
            "function": last.name if last else None,
        },
        "traceback": clean_text(text, MAX_TRACEBACK),
    }


class TaskReporter(TraceBackend):
    """Turns the engine's trace calls into messages. Called from the engine's threads.

    The engine stores a task's output only after it has announced the task's end, so a finished task is sent twice:
    its end at once, its output with the next message or at the close.
    """

    def __init__(self, send: Callable[[Message], None], context: RunContext, max_value_bytes: int) -> None:
        self._send = send
        self._context = context
        self._max_value_bytes = max_value_bytes
        self._lock = threading.RLock()
        self._unsent: set[str] = set()
        self._sent_at: dict[str, float] = {}
        self._count: Counter[str] = Counter()
        self._errors: dict[str, dict[str, Any]] = {}
        self.failed_task: str | None = None

    def on_flow_start(self, flow_name: str, run_id: str | None = None) -> None:
        """Nothing to tell: the worker knows."""

    def on_flow_end(self, flow_name: str) -> None:
        """Nothing to tell: the result follows."""

    def on_node_start(self, node_name: str) -> None:
        """Tell that a task starts."""
        with self._lock:
            self._errors.pop(node_name, None)
            self._tell(node_name, {"state": "RUNNING", "started_at": time.time(), "ended_at": None})

    def on_node_end(self, node_name: str, duration_ms: float) -> None:
        """Tell that a task succeeded."""
        with self._lock:
            self._tell(node_name, {"state": "SUCCEEDED", "ended_at": time.time(), "duration_ms": duration_ms})
            self._unsent.add(node_name)

    def on_node_error(self, node_name: str, error: Exception) -> None:
        """Tell that a task failed."""
        with self._lock:
            self.failed_task = node_name
            self._errors[node_name] = describe_exception(error)
            self._count[node_name] = 0
            self._tell(node_name, {"state": "FAILED", "ended_at": time.time(), **self._errors[node_name]})
            self._unsent.add(node_name)

    def close(self, error: BaseException | None) -> None:
        """Send what is still unsent.

        Args:
            error: What ended the run, if something did. ``sys.exit`` in a task is announced nowhere else.
        """
        with self._lock:
            if error is not None and self.failed_task is None:
                running = [name for name, state in self._context.tasks.items() if state.value == "RUNNING"]
                if running:
                    self.failed_task = running[0]
                    self._errors[running[0]] = describe_exception(error)
                    fields = {"state": "FAILED", "ended_at": time.time(), "error": clean_text(str(error))}
                    self._tell(running[0], {**fields, **self._errors[running[0]]})
            self._flush()

    def _tell(self, name: str, fields: dict[str, Any]) -> None:
        self._unsent.discard(name)
        now = time.monotonic()
        self._count[name] += 1
        if self._count[name] > _BURST and now - self._sent_at.get(name, 0.0) < _REPEAT_SEC:
            self._unsent.add(name)
            return
        self._flush()
        self._sent_at[name] = now
        self._send({"type": "task", "name": name, "fields": fields})

    def _flush(self) -> None:
        for name in sorted(self._unsent):
            self._send({"type": "task", "name": name, "fields": self._record(name)})
        self._unsent.clear()

    def _record(self, name: str) -> dict[str, Any]:
        record = self._context.ensure_task_record(name)
        limit = self._max_value_bytes
        fields = {
            "state": record.state.value,
            "started_at": record.started_at,
            "ended_at": record.ended_at,
            "duration_ms": record.duration_ms,
            "error": clean_text(record.error) if record.error else None,
            "traceback": clean_text(record.traceback, MAX_TRACEBACK) if record.traceback else None,
            "inputs": {str(key): clean_value(value, limit) for key, value in record.inputs.items()},
            "output": clean_value(record.output, limit),
            "artifacts": clean_value(record.artifacts, limit),
        }
        return {**fields, **self._errors.get(name, {})}
