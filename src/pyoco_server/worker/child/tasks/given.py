"""What a task was given, kept so that each of its tries finds it as it was.

Plain data is put back into the very objects: two inputs that share a list share it in every try, and what other tasks
see of them afterwards is what the try did that succeeded. Everything else is passed on as the last try left it.
"""

from collections.abc import Iterable
from typing import Any

from pyoco_server.model.values.lookup import class_name
from pyoco_server.model.values.tables import pandas_kind
from pyoco_server.worker.child.tasks.keeping import Kept, TooLarge, is_fixed, keep

MAX_BYTES = 64 * 1024 * 1024
MAX_ITEMS = 1_000_000
"""Items of all containers together: they are looked at in about a tenth of a second."""


class GivenInputs:
    """The inputs of a task with retries, and the item of the loop that it runs in.

    Args:
        inputs: By name, as the first try gets them.
    """

    def __init__(self, inputs: dict[str, Any]) -> None:
        self._inputs = inputs
        self._kept: list[tuple[str, Kept]] = []
        self._tables: dict[str, Any] = {}
        self._seen: dict[int, Any] = {}
        """By identity, with the object itself, so that no other one gets its id."""
        self._bytes = MAX_BYTES
        self._items = MAX_ITEMS
        self._loose: dict[str, tuple[str, str]] = {}
        """By input: what cannot be put back, and why."""
        for name, value in inputs.items():
            if name != "ctx":  # shared by all tasks, whose work on it must not be undone
                self._keep_input(name, value)
            elif (frame := getattr(value, "loop", None)) is not None:
                self._keep_input("ctx.loop.item", frame.item)

    def again(self) -> dict[str, Any]:
        """Return the inputs for the next try, with all that was kept as it was."""
        for name, kept in self._kept:
            try:
                kept.put_back()
            except (BufferError, ValueError, RuntimeError):  # exported, read-only, read by another thread right now
                self._loose.setdefault(name, (f"{_a(kept.value)} in {name!r}", "it is in use"))
        return {**self._inputs, **{name: table.copy() for name, table in self._tables.items()}}

    def note(self, number: int) -> str | None:
        """Say which inputs a try gets as the one before left them; ``None`` if it is none."""
        told = [f"{what} as try {number - 1} left it: {why}" for what, why in self._loose.values()]
        return f"try {number} got {'; '.join(told)}" if told else None

    def _keep_input(self, name: str, value: Any) -> None:
        if pandas_kind(value) is not None:
            self._keep_table(name, value)
            return
        kept: list[Kept] = []
        seen: list[int] = []
        left = [value]
        while left:
            one = left.pop()
            if is_fixed(one) or id(one) in self._seen:
                continue
            self._seen[id(one)] = one
            seen.append(id(one))
            try:
                made = keep(one, self._items, self._bytes)
            except TooLarge:
                self._let_go(name, seen)
                return
            if made is None:
                whole = one is value
                what = f"{name!r}" if whole else f"{_a(one)} in {name!r}"
                self._loose[name] = (what, f"{_a(one) if whole else 'it'} cannot be put back")
                continue
            kept.append(made)
            left += made.parts
            self._items -= 1 + len(made.parts)
            self._bytes -= made.size
            if self._items < 0 or self._bytes < 0:
                self._let_go(name, seen)
                return
        self._kept += [(name, one) for one in kept if one.put is not None]

    def _let_go(self, name: str, seen: Iterable[int]) -> None:
        """Forget an input that is too large: half of it put back would be worse than nothing."""
        limit = f"{MAX_ITEMS:,} items or {MAX_BYTES >> 20} MiB"
        self._loose[name] = (f"{name!r}", f"more than {limit} are not kept for another try")
        self._items, self._bytes = max(0, self._items), max(0, self._bytes)
        for one in seen:
            del self._seen[one]

    def _keep_table(self, name: str, value: Any) -> None:
        # Its inside cannot be put back: the next try gets a copy instead.
        size = int(value.memory_usage(index=True).sum()) if pandas_kind(value) == "DataFrame" else int(value.nbytes)
        if size > self._bytes:
            self._let_go(name, ())
            return
        self._bytes -= size
        self._tables[name] = value.copy()


def _a(value: Any) -> str:
    name = class_name(type(value))
    return f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"
