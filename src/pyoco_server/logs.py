"""Logging: one JSON object a line on stdout, for our own lines and for those of every library."""

import logging
import sys
import traceback
from collections.abc import MutableMapping
from typing import Any

import structlog
from structlog.processors import CallsiteParameter, CallsiteParameterAdder

from pyoco_server.settings import Settings

Event = MutableMapping[str, Any]
Processor = structlog.typing.Processor

_LIBRARIES = ("uvicorn", "uvicorn.error", "uvicorn.access", "nats")


def configure_logging(*, service: str, settings: Settings | None = None) -> None:
    """Set up logging for a process; calling it again replaces what was set up.

    Args:
        service: Who speaks: ``pyoco-server:http`` or ``pyoco-server:worker``.
        settings: Level and format; read from the environment when not given.
    """
    settings = settings or Settings.from_env()
    level = logging.getLevelName(settings.log_level)
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        CallsiteParameterAdder(
            [CallsiteParameter.PATHNAME, CallsiteParameter.LINENO, CallsiteParameter.FUNC_NAME],
            additional_ignores=["pyoco_server.logs"],
        ),
        structlog.processors.TimeStamper(fmt="iso", utc=settings.log_utc, key="ts"),
        _Exceptions(include_traceback=settings.log_include_traceback),
        _Names(service),
    ]
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    render: Processor = structlog.processors.JSONRenderer(default=repr) if settings.log_format == "json" else _text
    handler = logging.StreamHandler(_SafeStdout())
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, render],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in _LIBRARIES:
        library = logging.getLogger(name)
        library.handlers.clear()
        library.propagate = True


class _SafeStdout:
    """Writes to whatever stdout is now, whatever characters a line holds."""

    def write(self, text: str) -> int:
        return sys.stdout.write(text.encode("utf-8", "replace").decode("utf-8"))

    def flush(self) -> None:
        sys.stdout.flush()


class _Exceptions:
    """Adds what was raised, and where: the place it came from, not the place that logged it."""

    def __init__(self, *, include_traceback: bool) -> None:
        self._include_traceback = include_traceback

    def __call__(self, logger: Any, method: str, event: Event) -> Event:
        info = event.pop("exc_info", None)
        if info is True:
            info = sys.exc_info()
        error = info if isinstance(info, BaseException) else info[1] if isinstance(info, tuple) else None
        if error is None:
            return event
        event["exc_type"] = type(error).__name__
        event["exc_message"] = str(error)
        frames = traceback.extract_tb(error.__traceback__)
        if frames:
            event["exc_origin"] = {"file": frames[-1].filename, "line": frames[-1].lineno, "func": frames[-1].name}
        if self._include_traceback:
            event["exc_traceback"] = "".join(traceback.format_exception(type(error), error, error.__traceback__))
        return event


class _Names:
    """Gives the fields the names and the order that readers of our logs expect."""

    def __init__(self, service: str) -> None:
        self._service = service

    def __call__(self, logger: Any, method: str, event: Event) -> Event:
        if "event" not in event:  # the second pass over one of our own lines
            return event
        head = {
            "ts": event.pop("ts", None),
            "level": str(event.pop("level", "")).upper(),
            "service": self._service,
            "logger": event.pop("logger", None),
            "message": event.pop("event"),
            "pathname": event.pop("pathname", None),
            "lineno": event.pop("lineno", None),
            "func": event.pop("func_name", None),
        }
        return {**head, **event}


def _text(logger: Any, method: str, event: Event) -> str:
    """Render a line for people."""
    head = f"{event.pop('ts')} {event.pop('level'):<7} {event.pop('service')} {event.pop('message')}"
    trace = event.pop("exc_traceback", None)
    for field in ("pathname", "lineno", "func", "exc_origin"):
        event.pop(field, None)
    context = " ".join(f"{name}={value}" for name, value in event.items() if value is not None)
    return f"{head}  {context}" + (f"\n{trace}" if trace else "")
