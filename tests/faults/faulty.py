"""A connection whose n-th call fails before it is sent, is answered by nobody after it was executed, or is the last."""

import os
import signal
from collections.abc import Awaitable, Callable
from enum import Enum
from typing import Any

import nats.errors

from pyoco_server.settings.environment import Settings
from pyoco_server.store.nats.connection import Connection


class Mode(str, Enum):
    """What happens to the call."""

    REFUSED = "refused"  # it fails before anything is sent
    UNANSWERED = "unanswered"  # it is executed, and the answer never comes
    VANISHED = "vanished"  # a message without an answer is lost in a socket, and nobody is told
    CUT_BEFORE = "cut before"  # it and every later call fail
    CUT_AFTER = "cut after"  # it is executed and never answered, and every later call fails
    DIES_BEFORE = "dies before"  # the process is killed instead
    DIES_AFTER = "dies after"  # the process is killed once the server has answered


class Fault:
    """Counts the calls that matter, and spoils one.

    Args:
        settings: Tell which subjects matter: records, flows, jobs, dead letters and acknowledgements. Heartbeats,
            pulls and looks at streams come by the clock; counting them would make no two runs alike.
    """

    def __init__(self, settings: Settings) -> None:
        self._names = {
            f"$KV.{settings.runs_kv_bucket}.": "record",
            f"$KV.{settings.flows_kv_bucket}.": "flow",
            f"{settings.work_subject_prefix}.": "job",
            f"{settings.dlq_subject_prefix}.": "letter",
            f"{settings.control_subject_prefix}.": "control",
            "$JS.ACK.": "delivery",
        }
        self.calls: list[str] = []
        """The calls since the last ``arm``, in words."""
        self.spoiled: str | None = None
        self._at: int | None = None
        self._mode = Mode.REFUSED

    def arm(self, at: int | None, mode: Mode) -> None:
        """Spoil the call number ``at`` from now, counted from 1; ``None`` for none."""
        self.calls, self.spoiled, self._at, self._mode = [], None, at, mode

    async def call(self, what: str, subject: str, payload: bytes, real: Callable[[], Awaitable[Any]]) -> Any:
        """Make a call, or spoil it."""
        name = next((name for prefix, name in self._names.items() if subject.startswith(prefix)), None)
        if name is None or payload == b"+WPI" or (self._mode is Mode.VANISHED and what != "tell"):
            return await real()
        self.calls.append(f"{what} {name} {payload.decode() if what == 'tell' else ''}".rstrip())
        if self.spoiled is not None and self._mode in (Mode.CUT_BEFORE, Mode.CUT_AFTER):
            raise nats.errors.TimeoutError
        if len(self.calls) != self._at:
            return await real()
        self.spoiled = self.calls[-1]
        if self._mode in (Mode.REFUSED, Mode.CUT_BEFORE):
            raise nats.errors.TimeoutError
        if self._mode is Mode.VANISHED:
            return None
        if self._mode is Mode.DIES_BEFORE:
            os.kill(os.getpid(), signal.SIGKILL)
        await real()
        if self._mode is Mode.DIES_AFTER:
            if what == "tell":
                await self.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        raise nats.errors.TimeoutError

    async def flush(self) -> None:
        """Bring what was sent to the server; set by the connection."""

    def _name(self, subject: str) -> str:
        prefix = next(prefix for prefix in self._prefixes if subject.startswith(prefix))
        return dict(zip(self._prefixes, ("record", "flow", "job", "letter", "control", "delivery"), strict=True))[
            prefix
        ]


class FaultyConnection(Connection):
    """A connection whose calls pass through a fault."""

    fault: Fault

    def __init__(self, settings: Settings, name: str, **options: Any) -> None:
        super().__init__(settings, name, **options)
        self._faulty_client = _Client(self)
        self._faulty_js = _JetStream(self)
        self._faulty_js_of_short_tries = _JetStream(self)

    @classmethod
    def with_fault(cls, fault: Fault) -> type["FaultyConnection"]:
        """Give a class that stands in for ``Connection``."""
        return type("FaultyConnection", (cls,), {"fault": fault})

    @property
    def client(self) -> Any:
        """The client, faulty."""
        self._faulty_client.real = super().client
        self.fault.flush = self._faulty_client.real.flush  # type: ignore[method-assign]
        return self._faulty_client

    @property
    def js(self) -> Any:
        """JetStream, faulty."""
        self._faulty_js.real = super().js
        return self._faulty_js

    @property
    def js_of_short_tries(self) -> Any:
        """The same with short tries, faulty."""
        self._faulty_js_of_short_tries.real = super().js_of_short_tries
        return self._faulty_js_of_short_tries


class _Client:
    """The client's ``publish`` and ``request``; everything else is the real one's."""

    real: Any

    def __init__(self, connection: FaultyConnection) -> None:
        self._connection = connection

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    async def publish(self, subject: str, payload: bytes = b"", *args: Any, **options: Any) -> Any:
        real = self.real.publish
        return await self._connection.fault.call(
            "tell", subject, payload, lambda: real(subject, payload, *args, **options)
        )

    async def request(self, subject: str, payload: bytes = b"", *args: Any, **options: Any) -> Any:
        real = self.real.request
        return await self._connection.fault.call(
            "ask", subject, payload, lambda: real(subject, payload, *args, **options)
        )


class _JetStream:
    """JetStream's ``publish`` and ``get_msg``; everything else is the real one's."""

    real: Any

    def __init__(self, connection: FaultyConnection) -> None:
        self._connection = connection

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    async def publish(self, subject: str, payload: bytes = b"", *args: Any, **options: Any) -> Any:
        real = self.real.publish
        return await self._connection.fault.call(
            "write", subject, b"", lambda: real(subject, payload, *args, **options)
        )

    async def get_msg(self, stream: str, seq: int | None = None, subject: str | None = None, **options: Any) -> Any:
        real = self.real.get_msg
        return await self._connection.fault.call(
            "read", subject or "", b"", lambda: real(stream, seq, subject=subject, **options)
        )
