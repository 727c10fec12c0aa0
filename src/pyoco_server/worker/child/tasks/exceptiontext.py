"""An exception as text, whatever its own code does: bounded in size and in time, asked once.

The text of an exception is made by its class, so by user code: ``__str__`` may raise, never end, or return a gigabyte.
It is asked in a thread of its own, which is left behind when it does not answer; what is known without it is told then.
"""

import contextvars
import threading
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from types import TracebackType

from pyoco_server.model.text.clean import MAX_TEXT, MAX_TRACEBACK, clean_text

PATIENCE_SEC = 2.0
"""How long an exception may take to say what it is."""
_MOST_SILENT = 4
"""Threads that wait for an answer in vain; with so many of them nobody is asked any more."""
_MOST_FRAMES = 2_000
_MOST_LINKS = 1_000
"""Exceptions of a chain or group that are looked at; of a longer one only the last is shown."""
_PLAIN_FRAMES = 100
_NO_MESSAGE = "(its message cannot be shown{})"
_UNPRINTABLE = ("<exception str() failed>", "<unprintable ")
"""What the standard library says where ``__str__`` raises."""

_silent: list[threading.Thread] = []


@dataclass(frozen=True)
class ExceptionText:
    """What an exception says of itself, and its traceback with everything that it was raised from."""

    message: str
    traceback: str


def exception_text(error: BaseException, trace: TracebackType | None) -> ExceptionText:
    """Return what an exception says; never raises, and takes little more than ``PATIENCE_SEC``.

    Args:
        error: What was raised.
        trace: Its traceback, or the part of it that is to be shown.
    """
    _silent[:] = [thread for thread in _silent if thread.is_alive()]
    if len(_silent) >= _MOST_SILENT:
        return _plain(error, trace, _NO_MESSAGE.format(": others did not say theirs in time"))
    asked = _Question(error, trace)
    # Values that the text looks up in a context variable are those of the code that raised it.
    thread = threading.Thread(
        target=contextvars.copy_context().run, args=(asked.ask,), name="pyoco-exception-text", daemon=True
    )
    try:
        thread.start()
    except (RuntimeError, MemoryError):  # no thread can be had: that may be the very error
        asked.ask()
    else:
        thread.join(PATIENCE_SEC)
        if thread.is_alive():
            _silent.append(thread)
    return asked.answer()


def class_name(error: BaseException) -> str:
    """Return the qualified name of an exception's class, whatever its metaclass says."""
    return clean_text(str(type.__dict__["__qualname__"].__get__(type(error))), 200)


class _Question:
    """Asks an exception for its text, and keeps what has been heard so far."""

    def __init__(self, error: BaseException, trace: TracebackType | None) -> None:
        self._error = error
        self._trace = trace
        self._message: str | None = None
        self._text: str | None = None
        self._trouble = f": str() of it took longer than {PATIENCE_SEC:g} s"

    def ask(self) -> None:
        try:
            if sum(1 for _ in _links(self._error)) > _MOST_LINKS:
                self._message = clean_text(str(self._error))
                return
            # str() of the exception is called once, here; source files are read later, by format().
            whole = traceback.TracebackException(
                type(self._error), self._error, self._trace, limit=-_MOST_FRAMES, lookup_lines=False, compact=True
            )
            said = str(whole)
            self._message = _NO_MESSAGE.format("") if said.startswith(_UNPRINTABLE) else clean_text(said)
            self._text = join_bounded(whole.format(), MAX_TRACEBACK)
        except BaseException as trouble:  # noqa: BLE001 - it is user code, which may raise anything
            self._trouble = f": asking for it raised {class_name(trouble)}"

    def answer(self) -> ExceptionText:
        message, text = self._message, self._text  # the thread may still be at work
        if message is None:
            message = _NO_MESSAGE.format(self._trouble)
        return _plain(self._error, self._trace, message) if text is None else ExceptionText(message, text)


def join_bounded(parts: Iterable[str], limit: int) -> str:
    """Join texts; what is longer than ``limit`` characters loses its middle, and is never held as a whole."""
    half = limit // 2
    head, tail, cut = "", "", 0
    for part in parts:
        room = max(0, half - len(head))
        head += part[:room]
        rest = part[room:]
        cut += max(0, len(tail) + len(rest) - half)
        tail = (tail + rest[-half:])[-half:]
    note = f"\n… {cut} characters cut …\n" if cut else ""
    return clean_text(f"{head}{note}{tail}", limit + len(note))


def _links(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and what it was raised from, and what it holds as a group; no further than is shown."""
    seen: set[int] = set()
    waiting: list[BaseException] = [error]
    while waiting and len(seen) <= _MOST_LINKS:
        link = waiting.pop()
        if id(link) in seen:
            continue
        seen.add(id(link))
        yield link
        for name in ("__cause__", "__context__"):  # not by the instance: a class may have put a property there
            other = BaseException.__dict__[name].__get__(link)
            if other is not None:
                waiting.append(other)
        members = getattr(link, "exceptions", None)  # of a group
        if isinstance(members, tuple):
            waiting += [item for item in members[: _MOST_LINKS + 1] if isinstance(item, BaseException)]


def _plain(error: BaseException, trace: TracebackType | None, message: str) -> ExceptionText:
    """Show an exception without a word of its own: the places, no source lines, nothing of what it was raised from."""
    frames: list[str] = []
    left_out = 0
    while trace is not None:
        code = trace.tb_frame.f_code
        frames.append(f'  File "{code.co_filename}", line {trace.tb_lineno}, in {code.co_name}\n')
        if len(frames) > _PLAIN_FRAMES:
            del frames[_PLAIN_FRAMES // 2]
            left_out += 1
        trace = trace.tb_next
    if left_out:
        frames.insert(_PLAIN_FRAMES // 2, f"  … {left_out} frames left out …\n")
    head = "Traceback (most recent call last):\n" if frames else ""
    parts = [head, *frames, f"{class_name(error)}: {message[:MAX_TEXT]}\n"]
    return ExceptionText(message, join_bounded(parts, MAX_TRACEBACK))
