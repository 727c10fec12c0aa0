"""Reports the tasks of a run to the worker while pyoco's engine runs them."""

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from pyoco.core.models import RunContext
from pyoco.trace.backend import TraceBackend

from pyoco_server.model.text import MAX_TRACEBACK, clean_text, clean_value
from pyoco_server.worker.child.failures import describe_exception
from pyoco_server.worker.child.protocol import Message

_BURST = 100
_REPEAT_SEC = 0.05
"""After its first ``_BURST`` messages a task in a tight loop is reported this often; its last state always."""
_NO_ERROR: dict[str, Any] = {"error": None, "exception": None, "traceback": None, "origin": None}


class TaskReporter(TraceBackend):
    """Turns the engine's trace calls, and what ``retries`` tells of tries, into messages. Called from any thread.

    The engine stores a task's output only after it has announced the task's end, so a finished task is sent twice:
    its end at once, its output with the next message or at the close.

    Args:
        send: Sends a message to the worker.
        context: The run.
        max_value_bytes: Largest input or output value that is sent.
        announce: Called in a task's own thread with its name, before it starts.
    """

    def __init__(
        self,
        send: Callable[[Message], None],
        context: RunContext,
        max_value_bytes: int,
        announce: Callable[[str], None],
    ) -> None:
        self._send = send
        self._announce = announce
        self._context = context
        self._max_value_bytes = max_value_bytes
        self._lock = threading.RLock()
        self._unsent: set[str] = set()
        self._timer: threading.Timer | None = None
        self._sent_at: dict[str, float] = {}
        self._count: Counter[str] = Counter()
        self._own: dict[str, dict[str, Any]] = {}
        """By task: the fields of its record that the engine does not know, or has wrong."""
        self._raised: dict[str, BaseException] = {}
        self.tries: dict[str, int] = {}
        """By task: how many tries it has."""

    def on_flow_start(self, flow_name: str, run_id: str | None = None) -> None:
        """Nothing to tell: the worker knows."""

    def on_flow_end(self, flow_name: str) -> None:
        """Nothing to tell: the result follows."""

    def on_node_start(self, node_name: str) -> None:
        """Tell that a task starts."""
        self._announce(node_name)
        with self._lock:
            own: dict[str, Any] = {}
            if (tries := self.tries.get(node_name, 1)) > 1:
                own = {"try": 1, "tries": tries, "retry_at": None, "last_error": None}
            if "error" in self._own.get(node_name, {}):  # of an earlier round of a loop
                own |= _NO_ERROR
            self._own[node_name] = own
            self._tell(node_name, {"state": "RUNNING", "started_at": time.time(), "ended_at": None, **own})

    def on_try_error(self, name: str, number: int, error: Exception, retry_at: float) -> None:
        """Tell that a try failed, and when the next one follows (unix seconds)."""
        told = describe_exception(error)  # runs user code, which must not keep the other tasks from reporting
        with self._lock:
            self._own[name] |= {"try": number, "retry_at": retry_at, "last_error": told["error"], **told}
            self._tell(name, {"state": "RUNNING", **self._own[name]})

    def on_try_start(self, name: str, number: int) -> None:
        """Tell that a task is tried again."""
        with self._lock:
            self._own[name] |= {"try": number, "retry_at": None}
            self._tell(name, {"state": "RUNNING", **self._own[name]})

    def on_node_end(self, node_name: str, duration_ms: float) -> None:
        """Tell that a task succeeded."""
        with self._lock:
            own = self._own.setdefault(node_name, {})
            if "error" in own:  # of an earlier try; last_error keeps its sentence
                own |= _NO_ERROR
            ended = {"state": "SUCCEEDED", "ended_at": time.time(), "duration_ms": duration_ms}
            self._tell(node_name, {**ended, **own})
            self._unsent.add(node_name)

    def on_node_error(self, node_name: str, error: BaseException) -> None:
        """Tell that a task failed."""
        if self._raised.get(node_name) is error:
            return  # the engine tells it twice where the task is isolated
        told = describe_exception(error)  # runs user code, which must not keep the other tasks from reporting
        with self._lock:
            self._raised[node_name] = error
            own = self._own.setdefault(node_name, {})
            own |= {"state": "FAILED", "ended_at": time.time(), **told}
            self._count[node_name] = 0
            self._tell(node_name, own)
            self._unsent.add(node_name)

    def on_stopped(self, name: str) -> None:
        """Tell that a task ends because the run does."""
        with self._lock:
            own = self._own.setdefault(name, {})
            own |= {"state": "CANCELLED", "ended_at": time.time()}
            if "retry_at" in own:
                own["retry_at"] = None
            self._tell(name, own)

    def task_that_raised(self, error: BaseException) -> str | None:
        """Give the task that failed with exactly this exception; ``None`` if it is the engine's own."""
        return next((name for name, raised in self._raised.items() if raised is error), None)

    def count_tries(self, name: str | None) -> str:
        """Say in how many tries a task failed; nothing for one that had only one."""
        tries = self.tries.get(name, 1) if name else 1
        return f" (in {tries} tries)" if tries > 1 else ""

    def close(self) -> None:
        """Send what is still unsent; nothing follows."""
        with self._lock:
            timer, self._timer = self._timer, None
            self._flush()
        if timer is not None:
            timer.cancel()
            timer.join()

    def _tell(self, name: str, fields: dict[str, Any]) -> None:
        self._unsent.discard(name)
        now = time.monotonic()
        self._count[name] += 1
        if self._count[name] > _BURST and now - self._sent_at.get(name, 0.0) < _REPEAT_SEC:
            self._unsent.add(name)
            self._send_soon()
            return
        self._flush()
        self._sent_at[name] = now
        self._send({"type": "task", "name": name, "fields": fields})

    def _send_soon(self) -> None:
        """A task that hangs in a late round of a loop must be seen running, and its time limit must begin."""
        if self._timer is None:
            self._timer = threading.Timer(_REPEAT_SEC, self._send_late)
            self._timer.daemon = True
            self._timer.start()

    def _send_late(self) -> None:
        with self._lock:
            if self._timer is threading.current_thread():
                self._timer = None
                with contextlib.suppress(OSError):  # the worker is gone, and this process will be
                    self._flush()

    def _flush(self) -> None:
        for name in sorted(self._unsent):
            self._send({"type": "task", "name": name, "fields": self._record(name)})
            self._sent_at[name] = time.monotonic()
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
        return {**fields, **self._own.get(name, {})}
