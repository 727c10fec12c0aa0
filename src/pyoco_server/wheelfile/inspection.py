"""Has wheels looked into by a process that is ended when it takes too long (``inspector.py``)."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pyoco_server.process.waiting import first_event
from pyoco_server.settings.environment import without_secrets

_INSPECT = """\
import sys
sys.path[:1] == [''] and sys.path.pop(0)
from pyoco_server.wheelfile.inspector import main
main()
"""
_LINGER = 5.0
_LONGEST_LINE = 1 << 20


@dataclass(frozen=True)
class Question:
    """A wheel to look into.

    Args:
        name: Its file name.
        file: Where it is: a path, or an open file's descriptor.
        read_all: Whether every member is read, not only the metadata.
        stored_at: When it was stored (unix seconds).
        since: Since when its package has had each of its claims, as far as that is known (unix seconds).
    """

    name: str
    file: Path | int
    read_all: bool = True
    stored_at: float = 0.0
    since: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Finding:
    """What was found in a wheel.

    Args:
        reason: Why it cannot be used; ``None`` if it can.
        hint: What to do about that.
        is_final: Whether it is the same at every look.
        conflict: With which of the other wheels it does not get on, and why; that one stays.
        requires_python: The interpreters that its metadata ask for.
        claims: The modules and packages that are its own, as paths.
    """

    reason: str | None = None
    hint: str = ""
    is_final: bool = False
    conflict: str | None = None
    requires_python: str | None = None
    claims: list[str] = field(default_factory=list)


class NotInspected(Exception):
    """No process could look into the wheels."""


async def inspect(
    questions: Sequence[Question], *, max_bytes: int, timeout: float, stop: asyncio.Event | None = None
) -> list[Finding]:
    """Look into wheels, and whether they get on with each other.

    Args:
        questions: The wheels.
        max_bytes: Largest wheel that is taken; sets how much one may unpack to.
        timeout: Seconds for each wheel, and for the comparison.
        stop: Ends it early.

    Returns:
        What was found in each of them.

    Raises:
        NotInspected: no process can be started, or ``stop`` was set.
    """
    lost: dict[int, str] = {}
    asked = list(questions)
    while True:
        there = [number for number in range(len(asked)) if number not in lost]
        told, cause = await _ask([asked[number] for number in there], max_bytes, timeout, stop)
        if cause is None:
            found = dict(zip(there, told, strict=True))
            return [found.get(number) or Finding(reason=lost[number]) for number in range(len(asked))]
        # One that took the process with it is known; the others are looked into again.
        for number, finding in zip(there, told, strict=False):
            if finding.reason is None:
                asked[number] = replace(asked[number], read_all=False)
        if len(told) == len(there):
            raise NotInspected(f"to compare the wheels {cause}")
        lost[there[len(told)]] = f"to look into it {cause}"


async def _ask(
    questions: Sequence[Question], max_bytes: int, timeout: float, stop: asyncio.Event | None
) -> tuple[list[Finding], str | None]:
    """Return what was found until the process ended, and how it ended if that was too early."""
    descriptors = [question.file for question in questions if isinstance(question.file, int)]
    asked = {
        "max_bytes": max_bytes,
        "wheels": [
            {
                "name": question.name,
                # Opened anew there: a descriptor of ours shares its place in the file with us.
                "file": f"/proc/self/fd/{question.file}" if isinstance(question.file, int) else str(question.file),
                "read_all": question.read_all,
                "stored_at": question.stored_at,
                "since": dict(question.since),
            }
            for question in questions
        ],
    }
    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", _INSPECT, str(os.getpid()),
            env=without_secrets(os.environ), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL, start_new_session=True, pass_fds=descriptors, limit=_LONGEST_LINE,
        )  # fmt: skip
    except OSError as error:
        raise NotInspected(f"no process can look into wheels: {error.strerror}") from error
    try:
        return await _listen(process, json.dumps(asked).encode(), timeout, stop)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await asyncio.wait_for(process.wait(), _LINGER)


async def _listen(
    process: asyncio.subprocess.Process, asked: bytes, timeout: float, stop: asyncio.Event | None
) -> tuple[list[Finding], str | None]:
    """Read what the process says, each line within the time."""
    pipe, out = process.stdin, process.stdout
    assert pipe is not None  # noqa: S101 - asked for
    assert out is not None  # noqa: S101 - asked for
    pipe.write(asked)
    pipe.close()
    told: list[Finding] = []
    began = False
    while True:
        line = await _line(out, timeout, stop)
        if line is None:
            return told, f"takes longer than {timeout:g} s"
        if not line.endswith(b"\n"):
            if not began:
                raise NotInspected("the process that looks into wheels ended before it began")
            return told, "takes the process that does it down"
        said: dict[str, Any] = json.loads(line)
        if "conflicts" in said:
            conflicts = {int(number): reason for number, reason in said["conflicts"].items()}
            return [replace(item, conflict=conflicts.get(number)) for number, item in enumerate(told)], None
        if "looking_at" in said:
            began = True
        elif "comparing" not in said:
            told.append(Finding(**said))


async def _line(out: asyncio.StreamReader, timeout: float, stop: asyncio.Event | None) -> bytes | None:
    """Read a line; ``None`` if none comes in time.

    Raises:
        NotInspected: ``stop`` was set before.
    """
    over = asyncio.Event()
    reading = asyncio.ensure_future(out.readline())
    reading.add_done_callback(lambda _: over.set())
    try:
        await first_event(timeout, over, *([stop] if stop is not None else []))
    finally:
        reading.cancel()
    if over.is_set():
        return reading.result()
    if stop is not None and stop.is_set():
        raise NotInspected("the worker is stopping")
    return None
