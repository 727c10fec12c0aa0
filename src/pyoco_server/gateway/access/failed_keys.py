"""Failed keys, by address: a limit on how many are looked at, and one line of log a minute."""

import math
from collections import OrderedDict
from dataclasses import dataclass

import structlog

from pyoco_server.model.apikey import Refusal
from pyoco_server.model.existing.api_key import MADE_BY
from pyoco_server.process.reports import Reports

log = structlog.get_logger(__name__)

_EVERY_SEC = 3.0
"""One bad key in so many seconds is looked at."""
_BURST = 20
"""And this many are saved up by not failing."""
_MOST = 4096
_EXPLAINED = {
    Refusal.EXISTING_WRONG: {
        "why": f"{MADE_BY}: the secret is wrong, or PYOCO_AUTH_PEPPER is not what it was made with (or without)",
        "hint": "Start with the pepper of the existing system, or make a new key and revoke this one.",
    },
    Refusal.EXISTING_FORM: {
        "why": f"{MADE_BY}: its record holds nothing that can be checked",
        "hint": "pyoco-server-admin api-key list tells why. Make a new key, and revoke this one.",
    },
}


@dataclass
class _Tries:
    saved: float
    at: float


class Brake:
    """Bounds how often something may be tried by one that has tried in vain; the last such ones are remembered.

    Times are monotonic seconds.

    Args:
        every_sec: One try in so many seconds,
        burst: and this many that were not made are saved up.
    """

    def __init__(self, every_sec: float, burst: int) -> None:
        self._every_sec = every_sec
        self._most_saved = burst * every_sec
        self._known: OrderedDict[str, _Tries] = OrderedDict()

    def wait(self, who: str, now: float) -> int:
        """Return the whole seconds until the next try; 0: now."""
        found = self._known.get(who)
        if found is None:
            return 0
        self._refill(found, now)
        return math.ceil(max(0.0, self._every_sec - found.saved))

    def count(self, who: str, now: float) -> None:
        """Count a try."""
        found = self._known.get(who)
        if found is None:
            found = self._known[who] = _Tries(self._most_saved, now)
            if len(self._known) > _MOST:
                self._known.popitem(last=False)
        self._known.move_to_end(who)
        self._refill(found, now)
        found.saved = max(0.0, found.saved - self._every_sec)

    def forget(self, who: str) -> None:
        """Let go of one that did not try in vain."""
        self._known.pop(who, None)

    def _refill(self, tries: _Tries, now: float) -> None:
        tries.saved = min(self._most_saved, tries.saved + now - tries.at)
        tries.at = now


class FailedKeys:
    """Counts failures per address. A key of 256 random bits is not found by trying: this is for CPU, NATS and the log.

    Times are monotonic seconds.
    """

    def __init__(self) -> None:
        self._brake = Brake(_EVERY_SEC, _BURST)
        self._reports = Reports()

    def wait(self, address: str, now: float) -> int:
        """Return the whole seconds until a bad key from this address is looked at again; 0: now."""
        return self._brake.wait(address, now)

    def failed(self, address: str, reason: Refusal, key_id: str | None, now: float) -> None:
        """Count a failure.

        Args:
            address: From where.
            reason: What was wrong.
            key_id: The id of the key, where such a key exists.
            now: Now.
        """
        self._brake.count(address, now)
        if times := self._reports.due(address, now):
            log.warning(
                "an api key was refused", address=address, reason=reason.value, key_id=key_id, attempts=times,
                **_EXPLAINED.get(reason, {}),
            )  # fmt: skip
