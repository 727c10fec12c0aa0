"""Reports the tasks of a run to the worker while pyoco's engine runs them."""

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from pyoco.core.models import RunContext
from pyoco.trace.backend import TraceBackend

from pyoco_server.model.values import clean_value, clean_values
from pyoco_server.worker.child.flow.exposure import Mask
from pyoco_server.worker.child.protocol import Message
from pyoco_server.worker.child.tasks.failures import describe_exception
from pyoco_server.worker.child.tasks.unread import UnreadGenerators

_BURST = 100
_REPEAT_SEC = 0.05
"""After its first ``_BURST`` messages a task in a tight loop is reported this often; its last state always."""
_NO_ERROR: dict[str, Any] = {"error": None, "exception": None, "traceback": None, "origin": None}
_NOTHING_YET: dict[str, Any] = {"inputs": {}, "output": None, "artifacts": {}}


class TaskReporter(TraceBackend):
    """Turns the engine's trace calls, and what ``retries`` tells of tries, into messages. Called from any thread.

    What a task took and gave is written down when ``retries`` tells it, at the call and at the return: afterwards the
    values may be changed. A task's start is told with its inputs, in one message.

    Args:
        send: Sends a message to the worker.
        context: The run.
        max_value_bytes: Largest input or output value that is sent.
        announce: Called in a task's own thread with its name, before it starts.
        mask: Hides values of the environment.
    """

    def __init__(
        self,
        send: Callable[[Message], None],
        context: RunContext,
        max_value_bytes: int,
        announce: Callable[[str], None],
        mask: Mask | None = None,
    ) -> None:
        self._send = send
        self._mask = mask or Mask(())
        self._announce = announce
        self._context = context
        self._max_value_bytes = max_value_bytes
        self._lock = threading.RLock()
        self._timer: threading.Timer | None = None
        self._unsent: dict[str, dict[str, Any]] = {}
        """By task: the fields of its record that have changed since its last message."""
        self._sent_at: dict[str, float] = {}
        self._count: Counter[str] = Counter()
        self._own: dict[str, dict[str, Any]] = {}
        """By task: fields of its record that its current round has set."""
        self._raised: dict[str, BaseException] = {}
        self._generators = UnreadGenerators()
        self.tries: dict[str, int] = {}
        """By task: how many tries it has."""
        self.asks_values: set[str] = set()
        """Tasks whose inputs are attributes of values: the engine may run code of theirs before the call."""

    def on_flow_start(self, flow_name: str, run_id: str | None = None) -> None:
        """Nothing to tell: the worker knows."""

    def on_flow_end(self, flow_name: str) -> None:
        """Nothing to tell: the result follows."""

    def on_node_start(self, node_name: str) -> None:
        """Note that a task starts; it is told with the inputs, when those are known."""
        self._announce(node_name)
        with self._lock:
            before = self._own.get(node_name)
            own: dict[str, Any] = {"started_at": time.time(), "ended_at": None}
            if (tries := self.tries.get(node_name, 1)) > 1:
                own |= {"try": 1, "tries": tries, "retry_at": None, "last_error": None, "inputs_note": None}
            if before is not None:  # of an earlier round of a loop
                own |= _NOTHING_YET
                own |= _NO_ERROR if "error" in before else {}
            self._own[node_name] = own
            self._unsent.setdefault(node_name, {}).update(own, state="RUNNING")
            if node_name in self.asks_values:
                self._tell(node_name, {})

    def on_call(self, name: str, inputs: dict[str, Any]) -> None:
        """Report that a task's function is called, and with what."""
        given = {key: value for key, value in inputs.items() if key != "ctx"}
        shown = self._mask.inputs(clean_values(given, self._max_value_bytes))
        with self._lock:
            self._own[name]["inputs"] = shown
            self._tell(name, {"state": "RUNNING", "inputs": shown})

    def on_result(self, name: str, result: Any) -> None:
        """Note what a task gave; it is told with the task's end, which follows."""
        output = self._mask.other(clean_value(result, self._max_value_bytes))
        with self._lock:
            self._own[name]["output"] = output
            self._generators.note(name, result)

    def on_try_error(self, name: str, number: int, error: Exception, retry_at: float) -> None:
        """Report that a try failed, and when the next one follows (unix seconds)."""
        told = self._mask.other(
            describe_exception(error)
        )  # runs user code, which must not keep the other tasks from reporting
        with self._lock:
            tries = self.tries.get(name, 1)
            news = {"try": number, "tries": tries, "retry_at": retry_at, "last_error": told["error"], **told}
            self._own[name] |= news
            self._tell(name, {"state": "RUNNING", **news})

    def on_try_start(self, name: str, number: int, inputs_note: str | None) -> None:
        """Report that a task is tried again, and which inputs may not be what they were."""
        with self._lock:
            news = {"try": number, "retry_at": None, "inputs_note": inputs_note}
            self._own[name] |= news
            self._tell(name, {"state": "RUNNING", **news})

    def on_node_end(self, node_name: str, duration_ms: float) -> None:
        """Report that a task succeeded."""
        with self._lock:
            own = self._own.setdefault(node_name, {})
            own |= _NO_ERROR if "error" in own else {"error": None, "traceback": None}  # last_error keeps its sentence
            self._end(node_name, "SUCCEEDED", duration_ms)

    def on_node_error(self, node_name: str, error: BaseException) -> None:
        """Report that a task failed."""
        if self._raised.get(node_name) is error:
            return  # the engine tells it twice where the task is isolated
        told = self._mask.other(
            describe_exception(error)
        )  # runs user code, which must not keep the other tasks from reporting
        with self._lock:
            self._raised[node_name] = error
            own = self._own.setdefault(node_name, {})
            own |= {**told, "output": None}
            self._count[node_name] = 0
            started = own.get("started_at")
            self._end(node_name, "FAILED", (time.time() - started) * 1000 if started else None)

    def _end(self, name: str, state: str, duration_ms: float | None) -> None:
        own = self._own[name]
        artifacts = self._context.ensure_task_record(name).artifacts
        artifacts = self._mask.other(clean_value(artifacts, self._max_value_bytes))
        fields = {"inputs": {}, "output": None, **own, "artifacts": artifacts, "duration_ms": duration_ms}
        if "inputs" in own:
            del fields["inputs"]  # told already, and perhaps large
        fields |= {"state": state, "ended_at": time.time()}
        self._tell(name, fields)

    def on_stopped(self, name: str) -> None:
        """Report that a task ends because the run does."""
        with self._lock:
            own = self._own.setdefault(name, {})
            own |= {"state": "CANCELLED", "ended_at": time.time()}
            if "retry_at" in own:
                own["retry_at"] = None
            self._tell(name, own)

    def tell_unread(self, notice: Callable[[str], None]) -> None:
        """At the end of a run that went well: tell of the generators that no task has read.

        Args:
            notice: Puts a line into the run's log.
        """
        for name in self._generators.decide():
            advice = "return a list to run it"
            notice(f"task {name!r} returned a generator that no task has read: its body never ran; {advice}")
            with self._lock:
                shown = f"<generator object: no task has read it, so its body never ran; {advice}>"
                self._tell(name, {"state": "SUCCEEDED", "output": shown})

    def task_that_raised(self, error: BaseException) -> str | None:
        """Return the task that failed with exactly this exception; ``None`` if it is the engine's own."""
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
        now = time.monotonic()
        self._unsent.setdefault(name, {}).update(fields)
        self._count[name] += 1
        if self._count[name] > _BURST and now - self._sent_at.get(name, 0.0) < _REPEAT_SEC:
            self._send_soon()
        else:
            self._flush()

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
        for name, fields in self._unsent.items():
            self._send({"type": "task", "name": name, "fields": fields})
            self._sent_at[name] = time.monotonic()
        self._unsent.clear()
