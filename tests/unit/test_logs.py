"""Logging: what a line holds, whoever wrote it and whatever is in it."""

import datetime
import json
import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import structlog
import uvicorn

from pyoco_server.process.logs import configure_logging
from pyoco_server.settings.environment import Settings

log = structlog.get_logger("pyoco_server.test")
Lines = Callable[[], list[dict[str, Any]]]
HTTP, WORKER = "pyoco-server:http", "pyoco-server:worker"


@pytest.fixture
def lines(capfdbinary: pytest.CaptureFixture[bytes]) -> Lines:
    """Give the JSON lines since the last call; nothing may be on stderr."""

    def read() -> list[dict[str, Any]]:
        captured = capfdbinary.readouterr()
        assert captured.err == b""
        return [json.loads(line, parse_constant=pytest.fail) for line in captured.out.decode().splitlines()]

    return read


def configure(service: str = HTTP, **options: Any) -> None:
    configure_logging(service=service, settings=Settings(_env_file=None, **options))


def raise_deeper() -> None:
    raise LookupError("no such thing")


def test_a_line_of_ours_and_one_of_a_library_have_the_same_fields(lines: Lines) -> None:
    configure()
    log.info("ours", run_id="r1", attempt=2)
    logging.getLogger("a.library").info("its %s", "own", extra={"run_id": "r1", "attempt": 2})
    ours, its = lines()
    assert list(ours)[:8] == ["ts", "level", "logger", "message", "service", "pathname", "lineno", "func"]
    assert ours.keys() == its.keys()
    assert (ours["message"], ours["logger"]) == ("ours", "pyoco_server.test")
    assert (its["message"], its["logger"]) == ("its own", "a.library")
    assert its["lineno"] == ours["lineno"] + 1
    for line in (ours, its):
        assert (line["level"], line["service"], line["run_id"], line["attempt"]) == ("INFO", HTTP, "r1", 2)
        assert (line["pathname"], line["func"]) == (__file__, sys._getframe().f_code.co_name)


def test_bound_context_is_in_the_lines_of_libraries_too(lines: Lines) -> None:
    configure()
    with structlog.contextvars.bound_contextvars(run_id="r1", tag="cpu"):
        log.info("ours", tag="gpu")
        logging.getLogger("nats.aio.client").warning("its")
    assert [(line["run_id"], line["tag"]) for line in lines()] == [("r1", "gpu"), ("r1", "cpu")]


@pytest.mark.parametrize("error_of", ["ours", "library"])
def test_an_exception_tells_where_it_was_raised(lines: Lines, error_of: str) -> None:
    configure()
    try:
        raise_deeper()
    except LookupError:
        if error_of == "ours":
            log.exception("failed", err_id="e1")
        else:
            logging.getLogger("asyncio").exception("failed", extra={"err_id": "e1"})
    (line,) = lines()
    assert (line["level"], line["err_id"], line["func"]) == ("ERROR", "e1", sys._getframe().f_code.co_name)
    assert (line["exc_type"], line["exc_message"]) == ("LookupError", "no such thing")
    first_line = raise_deeper.__code__.co_firstlineno
    assert line["exc_origin"] == {"file": __file__, "line": first_line + 1, "func": "raise_deeper"}
    assert line["exc_traceback"].startswith("Traceback (most recent call last)")


def test_an_exception_object_without_a_traceback(lines: Lines) -> None:
    configure()
    log.error("failed", exc_info=ValueError("never raised"))
    log.error("nothing was raised", exc_info=True)
    failed, nothing = lines()
    assert failed["exc_type"] == "ValueError"
    assert "exc_origin" not in failed
    assert "exc_type" not in nothing


def test_the_traceback_can_be_left_out(lines: Lines) -> None:
    configure(log_include_traceback=False)
    try:
        raise_deeper()
    except LookupError:
        log.exception("failed")
    (line,) = lines()
    assert line["exc_origin"]["func"] == "raise_deeper"
    assert "exc_traceback" not in line


def test_no_value_can_break_a_line(lines: Lines) -> None:
    class Broken(Exception):
        def __repr__(self) -> str:
            raise ValueError

        __str__ = __repr__

    loop: list[Any] = []
    loop.append(loop)
    configure()
    log.info("surrogate \ud800 日本\nline", value="\udcff", key={1: object()})
    log.info("hard", broken=Broken(), keys={(1, 2): 3}, nan=float("nan"), loop=loop, good=[1, "a", None])
    log.error("cannot be shown", exc_info=Broken())
    log.info("two", message="m", service="s", pathname="p")
    surrogate, hard, shown, two = lines()
    assert (surrogate["message"], surrogate["value"]) == ("surrogate ? 日本\nline", "?")
    assert surrogate["key"]["1"].startswith("<object object")
    assert (hard["keys"], hard["nan"], hard["loop"]) == ("{(1, 2): 3}", "nan", "[[...]]")
    assert (hard["broken"], hard["good"]) == ("<Broken: cannot be shown: ValueError>", [1, "a", None])
    assert (shown["exc_type"], shown["exc_message"]) == ("Broken", "<Broken: cannot be shown: ValueError>")
    assert (two["message"], two["service"], two["pathname"]) == ("two", HTTP, __file__)


def test_the_level_filters_ours_and_libraries(lines: Lines) -> None:
    configure(log_level="WARNING")
    for logger in (log, logging.getLogger("a.library")):
        logger.info("no")
        logger.warning("yes")
    assert [line["message"] for line in lines()] == ["yes", "yes"]


def test_again_replaces_what_was_set_up_also_in_cached_loggers(lines: Lines) -> None:
    logger = structlog.get_logger("cached")
    configure(log_level="ERROR")
    logger.error("first")
    configure(WORKER)
    configure(WORKER)
    logger.info("second")
    assert [(line["message"], line["service"]) for line in lines()] == [("first", HTTP), ("second", WORKER)]


def test_uvicorn_cannot_keep_handlers_of_its_own(lines: Lines) -> None:
    uvicorn.Config(app="none:app", log_level="error")  # sets up its loggers, as the command uvicorn does
    configure()
    logging.getLogger("uvicorn.access").info('%s - "%s"', "127.0.0.1:5", "GET /health")
    logging.getLogger("uvicorn.error").info("Started", extra={"color_message": "\x1b[36mStarted\x1b[0m"})
    access, started = lines()
    assert (access["logger"], access["message"]) == ("uvicorn.access", '127.0.0.1:5 - "GET /health"')
    assert started["message"] == "Started"
    assert "color_message" not in started


def test_our_own_http_requests_are_for_debugging_only(lines: Lines) -> None:
    configure()
    logging.getLogger("httpx2").info("GET")
    configure(log_level="DEBUG")
    logging.getLogger("httpx2").info("GET again")
    assert [line["message"] for line in lines()] == ["GET again"]


@pytest.mark.parametrize("utc", [True, False])
def test_the_time_says_its_zone(lines: Lines, utc: bool) -> None:
    configure(log_utc=utc)
    before = datetime.datetime.now(datetime.timezone.utc)
    log.info("now")
    (line,) = lines()
    assert line["ts"].endswith("Z") == utc
    stamp = datetime.datetime.fromisoformat(line["ts"].replace("Z", "+00:00"))
    assert abs((stamp - before).total_seconds()) < 5


def test_text_is_one_line_but_for_a_traceback(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    configure(log_format="text")
    log.info("two\nlines", run_id="r1", why="a\nb", thing=object())
    try:
        raise_deeper()
    except LookupError:
        log.exception("failed")
    first, second, *trace = capfdbinary.readouterr().out.decode().splitlines()
    assert r"two\nlines [pyoco_server.test]" in first
    assert r"run_id=r1 why='a\nb' thing='<object object at" in first
    assert "exc_type=LookupError exc_message='no such thing'" in second
    assert (trace[0], trace[-1]) == ("Traceback (most recent call last):", "LookupError: no such thing")


def test_a_file_instead_of_stdout(tmp_path: Path, lines: Lines) -> None:
    path = tmp_path / "demo.log"
    configure_logging(service=WORKER, settings=Settings(_env_file=None), file=path)
    log.info("surrogate \ud800")
    logging.getLogger().handlers[0].close()
    assert json.loads(path.read_text(encoding="utf-8"))["message"] == "surrogate ?"
    assert lines() == []


def test_a_process_with_only_its_environment_and_a_foreign_locale(tmp_path: Path) -> None:
    code = (
        "import structlog, pyoco_server; pyoco_server.configure_logging(service='pyoco-server:worker');"
        "print('before'); structlog.get_logger('x').debug('日本')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, timeout=60, check=True,
        env={"LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYOCO_LOG_LEVEL": "debug"},
    )  # fmt: skip
    before, line = done.stdout.decode("utf-8").splitlines()
    assert before == "before"
    assert json.loads(line)["message"] == "日本"


TOLD: dict[str, Any] = {
    "exc_type": "ValueError",
    "exc_message": "bad \x1b[31mred",
    "exc_origin": {"file": "/a/lib.py", "line": 3, "func": "f"},
    "exc_user_origin": {"file": "/a/mine.py", "line": 7, "func": "t"},
    "exc_traceback": "Traceback\n  a\nValueError: \x1b",
}


@pytest.mark.parametrize("include", [True, False])
def test_an_exception_that_another_process_told_is_as_one_of_ours(lines: Lines, include: bool) -> None:
    configure(WORKER, log_include_traceback=include)
    log.error("task failed", **TOLD)
    (line,) = lines()
    kept = {name: value for name, value in TOLD.items() if include or name != "exc_traceback"}
    assert {name: value for name, value in line.items() if name.startswith("exc_")} == kept


@pytest.mark.parametrize("include", [True, False])
def test_text_shows_the_places_as_a_terminal_opens_them(
    capfdbinary: pytest.CaptureFixture[bytes], include: bool
) -> None:
    configure(WORKER, log_format="text", log_include_traceback=include)
    log.error("task failed", **TOLD)
    log.error("task failed", **{**TOLD, "exc_user_origin": TOLD["exc_origin"]})
    shown = capfdbinary.readouterr().out.decode()
    assert "\x1b" not in shown
    first, *rest = shown.splitlines()
    assert "exc_origin='/a/lib.py:3 in f' exc_user_origin='/a/mine.py:7 in t'" in first
    assert "exc_message='bad ?[31mred'" in first
    second = rest[3] if include else rest[0]
    assert "exc_origin='/a/lib.py:3 in f'" in second
    assert "exc_user_origin" not in second
    assert rest[:3] == ["Traceback", "  a", "ValueError: ?"] if include else len(rest) == 1


SPLITTING = [chr(code) for code in range(sys.maxunicode + 1) if len(f"a{chr(code)}b".splitlines()) > 1]
"""Everything that Python's own reader takes for the end of a line."""


def log_in_every_place(end: str) -> int:
    """Log lines with such a character wherever one may stand, and tell how many lines that makes."""
    odd = f"a{end}b"
    log.info(odd)
    log.info("value", value=odd, nested={odd: [odd]}, other=type("Odd", (), {"__repr__": lambda _: odd})())
    log.info("audit", _event="audit", target={"id": odd})
    logging.getLogger("uvicorn.access").info("%s", odd)
    logging.getLogger("a.library").warning(odd, extra={"path": odd})
    return 5


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_a_record_is_one_line_for_every_reader(capfdbinary: pytest.CaptureFixture[bytes], log_format: str) -> None:
    configure(log_format=log_format)
    assert {"\n", "\r", "\v", "\f", "\x1c", "\x85", "\u2028", "\u2029"} <= set(SPLITTING)
    for end in [*SPLITTING, "\ud800", "\udfff", "\0", "\x1b", "\x7f"]:
        count = log_in_every_place(end)
        text = capfdbinary.readouterr().out.decode()
        assert len(text.splitlines()) == text.count("\n") == count, (end, text)
        if log_format == "json" and end.isascii():
            first, value, *_ = [json.loads(line) for line in text.splitlines()]
            assert first["message"] == value["value"] == value["nested"][f"a{end}b"][0] == f"a{end}b"


def test_what_was_raised_is_in_its_record(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    configure()
    for end in SPLITTING:
        try:
            raise ValueError(f"a{end}b")
        except ValueError:
            log.exception("failed")
        [line] = capfdbinary.readouterr().out.decode().splitlines()
        assert json.loads(line)["exc_message"] == f"a{end}b"
