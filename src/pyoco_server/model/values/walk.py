"""The walk through a value: what of it is kept, and where it ends."""

import contextlib
import math
import time
from collections.abc import Callable, Iterable, Iterator
from json.encoder import encode_basestring
from typing import Any

from pyoco_server.model.values.keys import LONGEST_KEY, key_text, other_text
from pyoco_server.model.values.kinds import HANDLERS, Handler, find_handler
from pyoco_server.model.values.lookup import bases, class_name, clean, plain
from pyoco_server.model.values.shown import ALWAYS_BITS, number

MAX_DEPTH = 100
"""Levels of a value. Readers of JSON take 200, some of which are a record's own."""
MAX_ITEMS = 100_000
PREVIEW = 200
"""Bytes of a preview."""
_WORK = 300_000
_WORK_PER_BYTE = 10
"""What reading a value may cost beside its items, in tenths of a microsecond: looking through classes with very many
bases, and through dicts that once were large. Counted, because a clock also tells what else the machine does."""
_CPU_SEC = 1.0
"""CPU time after which reading ends whatever was counted."""
_LOOK_EVERY = 64
_SHORT_BYTES = 100
"""Bytes that are no text are written out up to this length; of more only the first."""
_FIRST_BYTES = 48
_FEW = 8
_LONGEST_FLOAT = 24
_FLOATS, _INTS, _TEXTS = ({id(kind)} for kind in (float, int, str))


class Walk:
    """One value on its way into a record; stops adding when a bound is reached, and says which in ``why``."""

    __slots__ = (
        "_exact",
        "_found",
        "_inside",
        "_items",
        "_look_at",
        "_stop_at",
        "_work",
        "is_rough",
        "left",
        "limit",
        "why",
    )

    def __init__(self, max_bytes: int, *, exact: bool = False) -> None:
        self.limit = self.left = max_bytes
        self.is_rough = False
        self._exact = exact
        self.why: str | None = None
        self._inside: set[int] = set()
        self._found: dict[int, tuple[type, Handler]] = {}
        self._items = 0
        self._look_at = _LOOK_EVERY
        self._stop_at = time.thread_time() + _CPU_SEC
        self._work = 0

    def value(self, value: Any, depth: int) -> Any:
        """Return a value of any kind as JSON data."""
        kind = type(value)
        if kind is str:
            return self.text(value)
        if kind is int:
            return self.integer(value)
        if kind is float:
            return self.floating(value)
        try:
            handler = HANDLERS.get(id(kind))
            if handler is None:
                # The class is kept beside its handler, so that no other one gets its id meanwhile.
                known = self._found.get(id(kind))
                if known is None:
                    known = self._found[id(kind)] = (kind, find_handler(value, kind))
                self.work(2 * len(bases(kind)))
                handler = known[1]
            return handler(self, value, depth)
        except Exception as error:  # noqa: BLE001 - no memory, a library's bug: never the end of a task that worked
            return self.text(f"<{class_name(kind)} object: could not be recorded: {class_name(type(error))}>")

    def work(self, units: int) -> None:
        """Count what does not show in the bytes that are kept."""
        self._work += units
        if self._work > _WORK + _WORK_PER_BYTE * (self.limit - self.left):
            self._end("reading it takes too long")

    def text(self, value: str) -> Any:
        """Return a text; a very long one alone becomes a preview, so that what stands beside it is kept."""
        length = str.__len__(value)
        if length > self.limit:
            start = clean(plain(str.__getitem__(value, slice(PREVIEW))))
            self.left -= 4 * PREVIEW
            return {"truncated": True, "size_bytes": length if str.isascii(value) else None, "preview": start}
        if str.isascii(value):
            self.left -= len(encode_basestring(value))
            return plain(value)
        text = clean(plain(value))
        self.left -= len(encode_basestring(text).encode())
        return text

    def integer(self, value: int) -> Any:
        """Return an int, exactly."""
        found = number(value)
        self.left -= len(str(found)) + 2 * (type(found) is str)
        return found

    def floating(self, value: float) -> Any:
        """Return a float, or the name of what JSON has no number for."""
        found = float.__float__(value)
        self.left -= 24
        if math.isfinite(found):
            self.left += 24 - len(float.__repr__(found))
            return found
        return "NaN" if math.isnan(found) else "Infinity" if found > 0 else "-Infinity"

    def constant(self, value: bool | None) -> Any:
        """Return ``True``, ``False`` or ``None``."""
        self.left -= 5
        return value

    def binary(self, value: Any, size: int, begin: Callable[[Any, slice], Any]) -> Any:
        """Return bytes as the text that they are; else what they begin with."""
        if size <= self.limit:
            with contextlib.suppress(UnicodeDecodeError):
                return self.text(bytes(begin(value, slice(None))).decode())
        start = repr(bytes(begin(value, slice(_SHORT_BYTES if size <= _SHORT_BYTES else _FIRST_BYTES))))
        self.left -= len(encode_basestring(start)) + 60
        if size > self.limit:
            return {"truncated": True, "size_bytes": size, "preview": start}
        return start if size <= _SHORT_BYTES else {"bytes": size, "preview": start}

    def _alike(self, items: list[Any]) -> bool:
        """Whether all items are texts, ints or floats as JSON has them; such a list is measured as a whole."""
        kinds = set(map(id, map(type, items)))
        if kinds == _FLOATS and all(map(math.isfinite, items)):
            if self._exact:
                self.left -= sum(map(len, map(float.__repr__, items)))
            else:
                self.is_rough = True
                self.left -= _LONGEST_FLOAT * len(items)
        elif kinds == _INTS and max(map(int.bit_length, items)) <= ALWAYS_BITS:
            self.left -= sum(map(len, map(int.__repr__, items)))
        elif kinds == _TEXTS and all(map(str.isascii, items)) and max(map(len, items)) <= self.limit:
            self.left -= sum(map(len, map(encode_basestring, items)))
        else:
            return False
        self.left -= len(items)
        self._items += len(items)
        return True

    def sequence(self, items: Iterator[Any], size: int, value: Any, depth: int) -> Any:
        """Return the items of a list, a tuple, a set, …"""
        if (refused := self._enter(value, size, depth)) is not None:
            return refused
        out: list[Any] = []
        if type(value) is list and size >= _FEW and self.why is None and self._alike(made := value.copy()):
            self._inside.discard(id(value))
            self._must_stop()
            return made
        try:
            for item in items:
                out.append(self.value(item, depth + 1))
                self.left -= 1
                self._items += 1
                if self.left < 0 or (self._items >= self._look_at and self._must_stop()):
                    break
        except RuntimeError:  # of a set; by another thread
            self.why = self.why or "it changed while it was read"
        self._inside.discard(id(value))
        return out

    def mapping(self, items: Iterable[tuple[Any, Any]], size: int, value: Any, depth: int) -> Any:
        """Return the items of a dict, or the fields of an object; no two of its keys become one."""
        if (refused := self._enter(value, 2 * size, depth)) is not None:
            return refused
        out: dict[str, Any] = {}
        counts: dict[str, int] = {}
        try:
            for key, item in items:
                name = key if type(key) is str and len(key) <= LONGEST_KEY and key.isascii() else key_text(key)
                if name in out:
                    name = other_text(name, key, out, counts)
                self.left -= len(encode_basestring(name).encode()) + 2
                out[name] = self.value(item, depth + 1)
                self._items += 1
                if self.left < 0 or (self._items >= self._look_at and self._must_stop()):
                    break
        except RuntimeError:
            self.why = self.why or "it changed while it was read"
        self._inside.discard(id(value))
        return out

    def _enter(self, value: Any, size: int, depth: int) -> str | None:
        """Begin a container; what stands for it if it must not be read."""
        self.left -= 2
        if depth >= MAX_DEPTH:
            self._end(f"it is nested deeper than {MAX_DEPTH} levels")
            return "…"
        if id(value) in self._inside:
            text = f"<{class_name(type(value))} that contains itself>"
            self.left -= len(text) + 2
            return text
        if 2 * size > self.left:  # cannot fit: no more of it than its preview shows
            self.why = self.why or f"it is larger than the {self.limit} bytes that are kept"
            self.left = min(self.left, max(0, self.left + PREVIEW - self.limit))
        self._inside.add(id(value))
        return None

    def _must_stop(self) -> bool:
        self._look_at = self._items + _LOOK_EVERY
        if self._items > MAX_ITEMS:
            self._end(f"it has more than {MAX_ITEMS:,} items")
        elif time.thread_time() > self._stop_at:
            self._end("reading it takes too long")
        return self.left < 0

    def _end(self, why: str) -> None:
        self.why = self.why or why
        self.left = -1
