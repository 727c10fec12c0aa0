"""What is told of an exception: its place in the user's code, its text; whatever its own code does."""

import ast
import asyncio
import importlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyoco_server.model.run import EndReason
from pyoco_server.model.text.clean import MAX_TEXT, MAX_TRACEBACK
from pyoco_server.worker.child.tasks import exceptiontext, failures
from pyoco_server.worker.child.tasks.exceptiontext import join_bounded
from pyoco_server.worker.child.tasks.failures import (
    TaskExited,
    TaskFailed,
    describe_exception,
    end_reason,
    failure_of,
)

HIDDEN = "(its message cannot be shown"


@pytest.fixture(autouse=True)
def nobody_is_silent() -> Iterator[None]:
    yield
    exceptiontext._silent.clear()


def told(raises: Callable[[], Any]) -> dict[str, Any]:
    try:
        raises()
    except BaseException as error:  # noqa: BLE001 - of every kind
        described = describe_exception(error)
        json.dumps(described, allow_nan=False).encode()  # it can be sent, and stored
        assert len(described["error"]) <= MAX_TEXT + 300
        assert len(described["exception"]["message"]) <= MAX_TEXT + 60
        assert len(described["traceback"]) <= MAX_TRACEBACK + 60
        return described
    raise AssertionError("nothing was raised")


def line_of(function: Callable[..., Any], ahead: int = 1) -> int:
    return function.__code__.co_firstlineno + ahead


def direct() -> NoReturn:
    raise ValueError("boom")


def deeper() -> NoReturn:
    direct()


def in_a_library() -> None:
    json.loads("{")


def in_a_c_function() -> None:
    int("x")


def in_a_lambda() -> None:
    (lambda: 1 / 0)()  # noqa: PLC3002 - what users do


def raised_from() -> None:
    try:
        direct()
    except ValueError as error:
        raise RuntimeError("outer") from error


def raised_while_handling() -> None:
    try:
        direct()
    except ValueError:
        {}["key"]


def raised_again() -> None:
    try:
        direct()
    except ValueError:
        time.time()
        raise


def in_a_coroutine() -> None:
    async def work() -> None:
        await asyncio.sleep(0)
        direct()

    asyncio.run(work())


def importing_what_is_not_there() -> None:
    importlib.import_module("nowhere_to_be_found")


@pytest.mark.parametrize(
    ("raises", "kind", "message", "function", "line"),
    [
        (direct, "ValueError", "boom", "direct", line_of(direct)),
        (deeper, "ValueError", "boom", "direct", line_of(direct)),
        (in_a_c_function, "ValueError", "invalid literal for int() with base 10: 'x'", "in_a_c_function",
         line_of(in_a_c_function)),
        (in_a_lambda, "ZeroDivisionError", "division by zero", "<lambda>", line_of(in_a_lambda)),
        (raised_from, "RuntimeError", "outer", "raised_from", line_of(raised_from, 4)),
        (raised_while_handling, "KeyError", "'key'", "raised_while_handling", line_of(raised_while_handling, 4)),
        (raised_again, "ValueError", "boom", "direct", line_of(direct)),
        (in_a_coroutine, "ValueError", "boom", "direct", line_of(direct)),
        (importing_what_is_not_there, "ModuleNotFoundError", "No module named 'nowhere_to_be_found'",
         "importing_what_is_not_there", line_of(importing_what_is_not_there)),
    ],
)  # fmt: skip
def test_class_message_and_place(raises: Callable[[], None], kind: str, message: str, function: str, line: int) -> None:
    described = told(raises)
    exception = described["exception"]
    assert (exception["class"], exception["message"]) == (kind, message)
    assert described["error"] == f"{kind}: {message}"
    assert described["origin"] == {"file": __file__, "line": line, "func": function}
    assert (exception["file"], exception["line"], exception["function"]) == (__file__, line, function)


def test_of_what_a_library_raises_both_places_are_told() -> None:
    described = told(in_a_library)
    assert described["origin"]["file"] == json.decoder.__file__
    assert described["origin"]["func"] == "raw_decode"
    assert (described["exception"]["file"], described["exception"]["line"]) == (__file__, line_of(in_a_library))


@pytest.mark.parametrize("raises", [raised_from, raised_while_handling])
def test_the_traceback_shows_what_it_was_raised_from(raises: Callable[[], None]) -> None:
    text = told(raises)["traceback"]
    assert "ValueError: boom" in text
    assert "direct" in text
    assert text.startswith("Traceback (most recent call last):\n")


def test_code_that_is_executed_is_the_origin_and_the_line_that_executes_it_the_place() -> None:
    def t() -> None:
        exec("def f():\n    raise ValueError\nf()")

    described = told(t)
    assert described["origin"] == {"file": "<string>", "line": 2, "func": "f"}
    assert (described["exception"]["file"], described["exception"]["function"]) == (__file__, "t")


def test_a_syntax_error_is_where_the_text_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_module.py").write_text("good = 1\nbad = = 2\n")
    monkeypatch.syspath_prepend(tmp_path)
    described = told(lambda: importlib.import_module("broken_module"))
    place = {"file": str(tmp_path / "broken_module.py"), "line": 2, "func": "<module>"}
    assert described["origin"] == place
    assert described["exception"]["line"] == 2
    assert "bad = = 2" in described["traceback"]


def test_a_syntax_error_of_a_text_is_where_it_was_compiled() -> None:
    def t() -> None:
        ast.literal_eval("1 +")

    described = told(t)
    assert described["origin"]["file"] == ast.__file__
    assert (described["exception"]["file"], described["exception"]["line"]) == (__file__, line_of(t))


def test_a_package_of_a_wheel_is_the_users_and_one_that_it_calls_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, code in {
        "acme": "import lib_of_others\ndef t(): lib_of_others.fail()\n",
        "lib_of_others": "def fail():\n    raise OSError(5, 'disk')\n",
    }.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(failures, "_INSTALLED", [*failures._INSTALLED])
    failures.note_environment(str(tmp_path))
    acme = importlib.import_module("acme")
    described = told(acme.t)  # this file is no frame of it: told() is called by us
    assert described["error"] == "OSError: [Errno 5] disk"
    assert described["origin"] == {"file": str(tmp_path / "lib_of_others/__init__.py"), "line": 2, "func": "fail"}


def test_arguments_that_do_not_fit_are_at_the_function() -> None:
    def t(needed: int) -> int:
        return needed

    error = TypeError("t() missing 1 required positional argument: 'needed'")
    failure = failure_of(error, t)
    assert failure.told["origin"] == {"file": __file__, "line": line_of(t, 0), "func": "t"}


@pytest.mark.skipif(sys.version_info < (3, 11), reason="exception groups")
def test_a_group_shows_its_members() -> None:
    def t() -> None:
        raise ExceptionGroup("several", [ValueError("one"), TypeError("two")])  # noqa: F821

    described = told(t)
    assert described["error"] == "ExceptionGroup: several (2 sub-exceptions)"
    assert "ValueError: one" in described["traceback"]
    assert "TypeError: two" in described["traceback"]


@pytest.mark.skipif(sys.version_info < (3, 11), reason="notes")
def test_notes_are_shown() -> None:
    error = ValueError("x")
    error.add_note("while reading line 7")  # type: ignore[attr-defined,unused-ignore]
    assert "while reading line 7" in describe_exception(error)["traceback"]


class Counting(Exception):
    asked = 0

    def __str__(self) -> str:
        Counting.asked += 1
        return f"asked {Counting.asked}"


def test_an_exceptions_own_code_runs_once() -> None:
    Counting.asked = 0
    try:
        raise Counting
    except Counting as error:
        failure = failure_of(error, direct)
    assert Counting.asked == 1
    assert describe_exception(failure) is failure.told
    assert str(failure) == failure.told["error"] == "Counting: asked 1"
    assert "Counting: asked 1" in failure.told["traceback"]
    assert Counting.asked == 1


class Raising(Exception):
    def __str__(self) -> str:
        raise RuntimeError


class Leaving(Exception):
    def __str__(self) -> str:  # noqa: PLE0307
        sys.exit(3)


class NoText(Exception):
    def __str__(self) -> str:
        return 5  # type: ignore[return-value]  # noqa: PLE0307


class Recursive(Exception):
    def __str__(self) -> str:
        return str(self)


class NoRepr:
    def __repr__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize(
    "error", [Raising(), Leaving(), NoText(), Recursive(), KeyError(NoRepr()), ValueError(NoRepr(), 1)]
)
def test_a_text_that_cannot_be_had(error: Exception) -> None:
    described = told(lambda: raise_it(error))
    assert described["exception"]["message"].startswith(HIDDEN)
    assert described["exception"]["class"] == type(error).__name__
    assert described["origin"]["func"] == "raise_it"
    assert "in raise_it\n" in described["traceback"]


def raise_it(error: BaseException) -> NoReturn:
    raise error


released = threading.Event()


class Blocking(Exception):
    def __str__(self) -> str:
        released.wait(60)
        return "late"


class BlockingCause(Exception):
    @property  # type: ignore[misc]
    def __cause__(self) -> BaseException | None:  # type: ignore[override]
        released.wait(60)
        return None


@pytest.mark.parametrize("kind", [Blocking, BlockingCause])
def test_a_text_that_does_not_come_is_not_waited_for(kind: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exceptiontext, "PATIENCE_SEC", 0.2)
    released.clear()
    try:
        described = told(lambda: raise_it(kind("x")))
        assert described["exception"]["message"] == f"{HIDDEN}: str() of it took longer than 0.2 s)"
        assert described["origin"]["func"] == "raise_it"
        assert "in raise_it" in described["traceback"]
        for _ in range(exceptiontext._MOST_SILENT + 3):
            described = told(lambda: raise_it(kind("x")))
        assert described["exception"]["message"] == f"{HIDDEN}: others did not say theirs in time)"
        waiting = [thread for thread in threading.enumerate() if thread.name == "pyoco-exception-text"]
        assert len(waiting) == exceptiontext._MOST_SILENT
    finally:
        released.set()
        for thread in threading.enumerate():
            if thread.name == "pyoco-exception-text":
                thread.join(10)
    assert told(direct)["error"] == "ValueError: boom"  # and when they have answered others are asked again


def test_the_source_may_be_a_file_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exceptiontext, "PATIENCE_SEC", 0.3)
    pipe = tmp_path / "pipe.py"
    os.mkfifo(pipe)
    code = compile("def f():\n    raise ValueError('from a pipe')\nf()", str(pipe), "exec")
    described = told(lambda: exec(code, {}))
    assert described["error"] == "ValueError: from a pipe"  # it had been said when the source was read
    assert described["origin"] == {"file": str(pipe), "line": 2, "func": "f"}
    with os.fdopen(os.open(pipe, os.O_RDWR | os.O_NONBLOCK), "w"):
        pass  # lets the reader go


class Huge(Exception):
    def __str__(self) -> str:
        return "x" * 30_000_000 + "the end"


@pytest.mark.parametrize(
    "error", [Huge(), ValueError("y" * 30_000_000 + "the end"), ValueError("é\ud800" * 9_000 + "the end")]
)
def test_a_large_text_keeps_both_ends(error: Exception) -> None:
    described = told(lambda: raise_it(error))
    assert described["exception"]["message"].endswith("the end")
    assert "characters cut" in described["exception"]["message"]
    assert described["traceback"].startswith("Traceback")
    assert described["traceback"].endswith("the end\n")


def test_a_surrogate_is_replaced() -> None:
    assert told(lambda: raise_it(ValueError("bad \ud800 text")))["error"] == "ValueError: bad ? text"


class Meta(type):
    def __getattribute__(cls, name: str) -> Any:
        if name in ("__qualname__", "__name__", "__module__"):
            raise RuntimeError(name)
        return super().__getattribute__(name)


def test_a_class_may_lie_about_itself() -> None:
    odd = Meta("Odd", (Exception,), {"__class__": property(lambda _: 1 / 0), "__module__": 5})
    described = told(lambda: raise_it(odd("x")))
    assert described["exception"]["class"] == "Odd"
    assert described["error"].startswith("Odd: ")
    assert end_reason(odd("x")) is EndReason.TASK_FAILED


def test_a_recursion_and_a_deep_one_are_bounded() -> None:
    def walk(n: int) -> int:
        return walk(n + 1) + 1

    described = told(lambda: walk(0))
    assert described["exception"]["class"] == "RecursionError"
    assert "previous line repeated" in described["traceback"].lower()
    code = (
        "import sys, threading\n"
        "from pyoco_server.worker.child.tasks.failures import describe_exception\n"
        "sys.setrecursionlimit(60_000); threading.stack_size(512 << 20)\n"
        "def a(n):\n    if n == 50_000: raise ValueError('deep')\n    return b(n + 1)\n"
        "def b(n): return a(n)\n"
        "def main():\n"
        "    try: a(25_001)\n"
        "    except ValueError as e: print(describe_exception(e)['error'])\n"
        "t = threading.Thread(target=main); t.start(); t.join()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "ValueError: deep\n", done.stderr


def chain(length: int) -> BaseException:
    error: BaseException = ValueError("first")
    for n in range(length):
        later = ValueError(f"number {n}")
        later.__cause__ = error
        error = later
    return error


def test_an_endless_chain_is_not_followed() -> None:
    error = chain(50_000)
    described = told(lambda: raise_it(error))
    assert described["error"] == "ValueError: number 49999"
    assert "first" not in described["traceback"]
    one, two = ValueError("one"), ValueError("two")
    one.__cause__, two.__cause__ = two, one
    assert "ValueError: two" in told(lambda: raise_it(one))["traceback"]
    while error.__cause__ is not None:  # or taking it apart recurses
        error = error.__cause__


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (SystemExit(4), TaskExited, "SystemExit: 4"),
        (KeyboardInterrupt(), TaskExited, "KeyboardInterrupt"),
        (asyncio.CancelledError("stop"), TaskExited, "CancelledError: stop"),
        (GeneratorExit(), TaskExited, "GeneratorExit"),
        (MemoryError(), TaskFailed, "MemoryError"),
        (StopIteration(3), TaskFailed, "StopIteration: 3"),
        (subprocess.CalledProcessError(2, ["tool"]), TaskFailed,
         "CalledProcessError: Command '['tool']' returned non-zero exit status 2."),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"), TaskFailed,
         "UnicodeDecodeError: 'utf-8' codec can't decode byte 0xff in position 0: bad"),
    ],
)  # fmt: skip
def test_what_stands_for_it_in_the_engine(error: BaseException, kind: type[BaseException], text: str) -> None:
    failure = failure_of(error, direct)
    assert type(failure) is kind
    assert str(failure) == text
    assert end_reason(failure) is end_reason(error)


def test_it_is_told_where_no_thread_can_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> NoReturn:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert told(direct)["error"] == "ValueError: boom"


@given(st.lists(st.text(max_size=40), max_size=60), st.integers(2, 200))
def test_joined_texts_keep_their_ends(parts: list[str], limit: int) -> None:
    whole = "".join(parts).encode("utf-8", "replace").decode()
    joined = join_bounded(parts, limit)
    half = limit // 2
    if len(whole) <= 2 * half:
        assert joined == whole
    else:
        assert joined.startswith(whole[:half])
        assert joined.endswith(whole[len(whole) - half :])
        assert f"{len(whole) - 2 * half} characters cut" in joined
