"""Calls that may never come back, on threads that nobody has to wait for: not the event loop, not the process's end."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

Result = TypeVar("Result")


class NoThread(OSError):
    """The system has no thread left, which it has no number for."""


class Sideline(Generic[Result]):
    """One blocking call, made again and again, never twice at once.

    Args:
        call: The call.
        deadline: Seconds that its caller waits.
    """

    def __init__(self, call: Callable[[], Result], deadline: float) -> None:
        self._call = call
        self._deadline = deadline
        self._pending: Future[Result] | None = None

    async def ask(self) -> Result:
        """Make the call, or go on waiting for the one that has not come back yet.

        Raises:
            NoThread: the system has no thread for it.
            TimeoutError: it does not come back in time.
            Exception: what the call raised.
        """
        if self._pending is None:
            self._pending = Future()
            self._pending.set_running_or_notify_cancel()  # so that who stops waiting does not undo it
            # A daemon: an executor's thread would be waited for when the process ends.
            try:
                threading.Thread(target=self._run, args=(self._pending,), name="sideline", daemon=True).start()
            except RuntimeError as error:
                self._pending = None  # nobody would ever answer
                raise NoThread(str(error)) from error
        waiting = asyncio.wrap_future(self._pending)
        await asyncio.wait({waiting}, timeout=self._deadline)
        if not waiting.done():
            waiting.cancel()
            raise TimeoutError(f"no answer within {self._deadline:g} s")
        self._pending = None
        return waiting.result()

    def _run(self, pending: "Future[Result]") -> None:
        try:
            pending.set_result(self._call())
        except Exception as error:  # noqa: BLE001 - it is raised again where the result is asked for
            pending.set_exception(error)
