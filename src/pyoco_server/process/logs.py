"""Logging: one JSON object a line on stdout, for our own lines and for those of every library.

Our code logs with ``structlog.get_logger(__name__)``, libraries with ``logging``; both end in one handler,
whose formatter holds all that the settings decide. The chain before it never changes, so loggers may be
cached and logging may be set up again.
"""

import datetime
import json
import logging
import sys
import traceback
from pathlib import Path
from types import TracebackType
from typing import Any

import structlog
from structlog.processors import CallsiteParameter, CallsiteParameterAdder, EventRenamer
from structlog.stdlib import ProcessorFormatter
from structlog.typing import EventDict, Processor

from pyoco_server.model.text.oneline import one_line
from pyoco_server.settings.environment import Settings

_WITH_OWN_HANDLERS = ("uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi", "nats")
_CHATTY = ("httpx2", "httpcore2", "asyncio")
_CALLSITE = {"pathname", "lineno", "func"}
_PLACES = ("exc_origin", "exc_user_origin")
_CONTROLS = dict.fromkeys([*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029], "?") | {
    ord(kept): kept for kept in "\n\t"
}
"""What a terminal may take for a command, or a reader for a line's end, in a text that is shown as it is."""
_COLOUR = "color_message"
"""uvicorn's second copy of the message, with terminal codes in it."""

_utc_time = structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts")
_CHAIN: list[Processor] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_logger_name,
    structlog.stdlib.add_log_level,
    structlog.stdlib.PositionalArgumentsFormatter(),
    structlog.stdlib.ExtraAdder(),
    CallsiteParameterAdder({CallsiteParameter.PATHNAME, CallsiteParameter.LINENO, CallsiteParameter.FUNC_NAME}),
]


def configure_logging(
    *, service: str, settings: Settings | None = None, file: Path | None = None, stderr: bool = False
) -> None:
    """Set up logging for a process; calling it again replaces what was set up.

    Args:
        service: Who speaks: ``pyoco-server:http`` or ``pyoco-server:worker``.
        settings: Level and format; read from the environment when not given.
        file: Write there instead of to stdout.
        stderr: Write there instead of to stdout, which a command needs for its answer.

    Raises:
        InvalidSetting: the environment was read, and a variable has a value that cannot be used.
    """
    settings = settings or Settings.from_env()
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *_CHAIN, ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler: logging.Handler = logging.StreamHandler(_Utf8("stderr" if stderr else "stdout"))
    if file is not None:
        handler = logging.FileHandler(file, encoding="utf-8", errors="replace")
    handler.setFormatter(
        _Lines(
            foreign_pre_chain=_CHAIN,
            processors=[
                ProcessorFormatter.remove_processors_meta,
                _utc_time if settings.log_utc else _local_time,
                _Exceptions(include_traceback=settings.log_include_traceback),
                EventRenamer("message", replace_by="_event"),
                _Names(service),
                *(_json_renderers() if settings.log_format == "json" else _text_renderers()),
            ],
        )
    )
    # What no line shows need not be found out for each one: that is half of what making a record costs.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level)
    for name in _WITH_OWN_HANDLERS:
        library = logging.getLogger(name)
        library.handlers.clear()
        library.setLevel(logging.NOTSET)
        library.propagate = True
    for name in _CHATTY:  # a line for each request that we make ourselves is for debugging only
        logging.getLogger(name).setLevel(logging.NOTSET if settings.log_level == "DEBUG" else logging.WARNING)


class _Utf8:
    """Writes UTF-8 to whatever stdout or stderr is now, whatever its locale and whatever characters a line holds."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lost = ""

    def write(self, text: str) -> int:
        try:
            self._write(text)
        except OSError as error:  # a full disk, a closed pipe: what we are there for goes on without a log
            self._tell(f"log lines are lost: {error.strerror or error}")
        else:
            self._tell("")
        return len(text)

    def _tell(self, lost: str) -> None:
        """Say on stderr that lines get lost, once for each reason."""
        if lost and lost != self._lost and self._name != "stderr":
            sys.stderr.write(f"error: {lost}\n")
        self._lost = lost

    def _write(self, text: str) -> None:
        data = text.encode("utf-8", "replace")  # a lone surrogate becomes a question mark
        stream = getattr(sys, self._name)
        buffer = getattr(stream, "buffer", None)
        if buffer is None:  # replaced by a StringIO or the like
            stream.write(data.decode("utf-8"))
            return
        stream.flush()  # what print left there comes first
        raw = getattr(buffer, "raw", buffer)  # a line that cannot be written must not wait in a buffer
        while data:
            data = data[raw.write(data) or 0 :]

    def flush(self) -> None:
        """Nothing waits here."""


class _Lines(ProcessorFormatter):
    """Formats our own lines without the copy of the record, and all that a plain formatter looks for in one."""

    def format(self, record: logging.LogRecord) -> str:
        ours: Any = record
        if not isinstance(record.msg, dict) or not hasattr(record, "_logger"):  # a library's line
            return super().format(record)
        event: Any = {**record.msg, "_record": record, "_from_structlog": True}
        for process in self.processors:
            event = process(ours._logger, ours._name, event)
        return str(event)


class _Exceptions:
    """Adds what was raised, and where: the place it came from, not the place that logged it."""

    def __init__(self, *, include_traceback: bool) -> None:
        self._include_traceback = include_traceback

    def __call__(self, logger: Any, method: str, event: EventDict) -> EventDict:
        info = event.pop("exc_info", None)
        if info and not isinstance(info, (BaseException, tuple)):
            info = sys.exc_info()
        error = info[1] if isinstance(info, tuple) else info
        if not isinstance(error, BaseException):
            if not self._include_traceback:  # of an exception that another process has told us
                event.pop("exc_traceback", None)
            return event
        event["exc_type"] = type(error).__name__
        event["exc_message"] = _text_of(error)
        if error.__traceback__ is not None:
            event["exc_origin"] = _origin(error.__traceback__)
        if self._include_traceback:
            lines = traceback.format_exception(type(error), error, error.__traceback__)
            event["exc_traceback"] = "".join(lines)
        return event


class _Names:
    """Gives the fields the names and the order that readers of our logs expect."""

    def __init__(self, service: str) -> None:
        self._service = service

    def __call__(self, logger: Any, method: str, event: EventDict) -> EventDict:
        head = {
            "ts": event.pop("ts", None),
            "level": str(event.pop("level", "")).upper(),
            "logger": event.pop("logger", None),
            "message": event.pop("message", ""),
            "service": self._service,
            "pathname": event.pop("pathname", None),
            "lineno": event.pop("lineno", None),
            "func": event.pop("func_name", None),
        }
        return head | {name: value for name, value in event.items() if name not in head and name != _COLOUR}


def _json_renderers() -> list[Processor]:
    return [structlog.processors.JSONRenderer(serializer=_dump, ensure_ascii=False)]


def _dump(event: EventDict, **options: Any) -> str:
    """Serialise; a value that makes the whole unserialisable is shown as its ``repr``."""
    try:
        return one_line(json.dumps(event, allow_nan=False, **options))
    except Exception:  # noqa: BLE001 - a key that is no text, a loop, a NaN, a __repr__ that raises
        return one_line(json.dumps({name: _plain(value) for name, value in event.items()}, **options))


def _plain(value: Any) -> Any:
    try:
        json.dumps(value, allow_nan=False)
    except Exception:  # noqa: BLE001 - as above
        return _text_of(value, repr)
    return value


def _text_renderers() -> list[Processor]:
    console = structlog.dev.ConsoleRenderer(
        colors=False,
        sort_keys=False,
        pad_event_to=0,
        event_key="message",
        timestamp_key="ts",
        exception_formatter=structlog.dev.plain_traceback,
    )
    return [_for_people, console]


def _for_people(logger: Any, method: str, event: EventDict) -> EventDict:
    """Keep what helps on a terminal, and each line a single one; only a traceback has more."""
    trace = event.pop("exc_traceback", None)
    kept = {
        name: value.translate(_CONTROLS) if isinstance(value, str)
        else value if isinstance(value, (int, float))
        else _text_of(value, repr).translate(_CONTROLS)
        for name, value in event.items()
        if name not in _CALLSITE
    }  # fmt: skip
    kept["message"] = "\\n".join(str(kept["message"]).splitlines())
    kept["level"] = event["level"].lower()
    for name in _PLACES:
        if isinstance(place := event.get(name), dict):
            kept[name] = f"{place.get('file')}:{place.get('line')} in {place.get('func')}"
    if kept.get("exc_user_origin") == kept.get("exc_origin"):
        kept.pop("exc_user_origin", None)
    return kept | ({"exception": str(trace).rstrip().translate(_CONTROLS)} if trace else {})


def _local_time(logger: Any, method: str, event: EventDict) -> EventDict:
    """Stamp this machine's time with its offset, which structlog's own stamper leaves out."""
    event["ts"] = datetime.datetime.now().astimezone().isoformat(timespec="microseconds")
    return event


def _origin(trace: TracebackType) -> dict[str, Any]:
    while trace.tb_next is not None:
        trace = trace.tb_next
    code = trace.tb_frame.f_code
    return {"file": code.co_filename, "line": trace.tb_lineno, "func": code.co_name}


def _text_of(value: object, convert: Any = str) -> str:
    """Give a value as text, also when its own code for that raises."""
    try:
        return str(convert(value))
    except Exception as error:  # noqa: BLE001 - it is somebody else's __str__
        return f"<{type(value).__name__}: cannot be shown: {type(error).__name__}>"
