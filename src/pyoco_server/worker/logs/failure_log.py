"""What failed in a run, in the worker's own log: one ERROR line for each failure, with its place in the user's code.

The lines have the fields that any exception has in our logs, though what was raised was raised in another process.
"""

import logging
from typing import Any

import structlog

from pyoco_server.model.record.snapshot import end_fields, log_fields
from pyoco_server.model.run import RunRecord, RunStatus
from pyoco_server.model.text.clean import MAX_TEXT, MAX_TRACEBACK, clean_text
from pyoco_server.worker.child.protocol import Message

log = structlog.get_logger(__name__)

_MAX_LINES = 5_000
"""About the tasks of one attempt."""
_MAX_NAME = 1_000
_MAX_NAMED = 20
"""Tasks that one line names."""


class FailureLog:
    """Writes the failures of one attempt of a run.

    What comes from the child may have been made by user code, so no field is taken to be what it should be.

    Args:
        record: The run as it was claimed.
    """

    def __init__(self, record: RunRecord) -> None:
        self._context = {**log_fields(record), "worker_id": record.worker_id}
        self._failed: dict[str, bool] = {}
        """By task that failed: whether that was written as an error."""
        self._retry_at: dict[str, Any] = {}
        self._lines = 0
        self._explained = False
        self._culprit: str | None = None
        self._details: dict[str, Any] = {}

    def note_task(self, name: str, fields: dict[str, Any], *, stopping: bool) -> None:
        """Write what a task tells, if it tells of a failure that has not been written yet.

        Args:
            name: The task.
            fields: What has changed in its record.
            stopping: Whether the run is being ended: what a task raises then is how it ends, and no error.
        """
        if fields["state"] == "FAILED":
            if name not in self._failed:  # else it is its output, which follows its end
                self._failed[name] = not stopping
                level, said = (
                    (logging.INFO, "a task failed while its run was being stopped")
                    if stopping
                    else (logging.ERROR, "task failed")
                )
                self._write(level, said, name, fields)
            return
        self._failed.pop(name, None)  # another round of a loop
        retry_at = fields.get("retry_at")
        if retry_at and retry_at != self._retry_at.get(name):
            self._retry_at[name] = retry_at
            self._write(logging.WARNING, "a try of a task failed; another one follows", name, fields)

    def note_end(self, message: Message) -> None:
        """Note the child's last word, where it tells of a failure."""
        raised_in, details = message.get("raised_in"), message.get("details")
        self._explained = isinstance(raised_in, str) and self._failed.get(raised_in, False)
        self._culprit = _text(message.get("task"), _MAX_NAME)
        self._details = details if isinstance(details, dict) else {}

    def run_ended(self, record: RunRecord | None) -> None:
        """Write that the run failed, unless that is how a task ended which has been written.

        Args:
            record: As it is stored now.
        """
        if record is None or record.status is not RunStatus.FAILED or self._explained:
            return
        failed = [
            name for name, state in record.tasks.items() if state.value == "FAILED" and not self._failed.get(name)
        ]
        told: dict[str, Any] = {}
        if self._culprit or len(failed) == 1:
            told["task"] = self._culprit or failed[0]
        elif failed:  # they ran side by side when their process died
            told["tasks"] = failed[:_MAX_NAMED]
        log.error("run failed", **{**self._context, **told, **exception_fields(self._details), **end_fields(record)})

    def _write(self, level: int, said: str, name: str, fields: dict[str, Any]) -> None:
        self._lines += 1
        if self._lines < _MAX_LINES:
            tries = {key: fields[key] for key in ("try", "tries") if isinstance(fields.get(key), int)}
            task = clean_text(name, _MAX_NAME)
            log.log(level, said, **{**self._context, "task": task, **tries, **exception_fields(fields)})
        elif self._lines == _MAX_LINES:
            log.warning("further failures of tasks of this run are in its record only", **self._context)


def exception_fields(told: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a log line for an exception as a child tells it; only those that are known.

    Args:
        told: A task record, or the part of it that ``describe_exception`` makes.
    """
    exception, error = told.get("exception"), told.get("error")
    if not isinstance(exception, dict):
        return {"reason": clean_text(error, MAX_TEXT)} if isinstance(error, str) else {}
    name = _text(exception.get("class"), _MAX_NAME) or "?"
    fields = {
        "exc_type": name.rpartition(".")[2],
        "exc_message": _text(exception.get("message"), MAX_TEXT) or "",
        "exc_origin": _place(told.get("origin"), "func"),
        "exc_user_origin": _place(exception, "function"),
        "exc_traceback": _text(told.get("traceback"), MAX_TRACEBACK),
    }
    return {key: value for key, value in fields.items() if value is not None}


def _place(told: Any, function: str) -> dict[str, Any] | None:
    file = _text(told.get("file"), _MAX_NAME) if isinstance(told, dict) else None
    if file is None:
        return None
    line = told.get("line")
    return {"file": file, "line": line if isinstance(line, int) else None, "func": _text(told.get(function), _MAX_NAME)}


def _text(value: Any, limit: int) -> str | None:
    return clean_text(value, limit) if isinstance(value, str) else None
