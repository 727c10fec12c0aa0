"""The parts of a running system, and how often each has died: written by whoever keeps them, read by the gateway."""

import signal
import time
from dataclasses import dataclass, field
from typing import Any

LATELY_SEC = 3600.0
"""For so long a death is told of as a warning."""


@dataclass
class Part:
    """One part.

    Args:
        name: For people, such as ``worker cpu-1``.
    """

    name: str
    pid: int | None = None
    deaths: int = 0
    """How often it has ended by itself and not in order."""
    since: float | None = None
    """Unix time of the first of these deaths."""
    last_death: float | None = None
    last_exit: str | None = None
    next_start: float | None = None
    """Unix time at which it is started again; ``None`` while it runs."""

    def died(self, code: int, pause: float) -> None:
        """Note a death.

        Args:
            code: Its exit code, negative for a signal.
            pause: Seconds until it is started again.
        """
        now = time.time()
        self.pid, self.deaths = None, self.deaths + 1
        self.since = self.since or now
        self.last_death, self.last_exit, self.next_start = now, exit_text(code), now + pause

    def runs(self, pid: int) -> None:
        """Note that it runs."""
        self.pid, self.next_start = pid, None

    def told(self) -> dict[str, Any]:
        """Return what ``/ready`` tells."""
        return {
            "part": self.name,
            "running": self.pid is not None,
            "deaths": self.deaths,
            "last_died_at": self.last_death,
            "last_exit": self.last_exit,
            "next_start_at": self.next_start,
        }


@dataclass
class Parts:
    """All parts that are kept running.

    Args:
        known: The parts.
    """

    known: list[Part] = field(default_factory=list)

    def add(self, name: str) -> Part:
        """Add a part."""
        part = Part(name)
        self.known.append(part)
        return part

    def told(self) -> list[dict[str, Any]]:
        """Return what ``/ready`` tells."""
        return [part.told() for part in self.known]

    def warnings(self) -> list[str]:
        """Say which parts do not run, or have died lately."""
        lately = time.time() - LATELY_SEC
        return [
            f"the {part.name} has died ({part.last_exit}; deaths: {part.deaths})"
            + (", and is started again" if part.pid is None else ", and runs again")
            for part in self.known
            if part.last_death and (part.pid is None or part.last_death > lately)
        ]


def exit_text(code: int) -> str:
    """Say how a process ended.

    Args:
        code: Its exit code, negative for a signal.
    """
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"
