"""What a server can do, so that nothing that a client asks of it is left aside in silence.

Our servers say with each answer how much of the interface they have. Only of one that says nothing, or too little, is
more asked, and only for a call that needs more than every server has.
"""

from collections.abc import Generator, Sequence
from typing import Any

import httpx2

from pyoco_server.client.errors import ServerTooOld
from pyoco_server.client.needs import Need
from pyoco_server.client.requests import Call
from pyoco_server.model.level import HEADER, LEVEL

Asking = Generator[Call, httpx2.Response, None]
"""Yields what is to be asked, and is sent the answers."""

_REFUSED = (404, 405, 422)
"""What servers answer to paths, methods and bodies that they do not know."""

_KEYS = (401, 403)
_FAULT = 500


class Abilities:
    """Remembers what one server has shown of itself."""

    def __init__(self) -> None:
        self._known: bool | None = None
        """Whether it can do all that this client may ask."""
        self._document: dict[str, Any] | None = None
        self._asked = False

    def before(self, call: Call) -> Asking:
        """See to it, before a call that changes something, that all of it will be understood.

        Args:
            call: What is to be sent.

        Raises:
            ServerTooOld: it will not.
        """
        if not call.needs or call.reads or call.older_refuse:
            return
        if self._known is None:
            self._note((yield Call("GET", "/health")))
        if self._known is False and (lacking := (yield from self._lacking(call.needs))):
            raise ServerTooOld(self._answer, lacking, self._version, "Nothing was changed.")

    def after(self, call: Call, response: httpx2.Response) -> Asking:
        """Look at an answer: whether it is one to all of the call.

        Args:
            call: What was sent.
            response: The answer.

        Raises:
            ServerTooOld: it is not.
        """
        self._note(response)
        told = response.is_success or response.status_code in _REFUSED
        # Whoever answers well on a path has it.
        needs = [need for need in call.needs if need.option is not None or not response.is_success]
        if not needs or _level(response) >= LEVEL or not told:
            return
        if lacking := (yield from self._lacking(needs, sure=not response.is_success)):
            done = response.is_success and not call.reads
            what = "It was carried out without that." if done else "" if call.reads else "Nothing was changed."
            raise ServerTooOld(response, lacking, self._version, what)

    def _note(self, response: httpx2.Response) -> None:
        if _level(response) >= LEVEL:
            self._known = True
        elif response.is_success:  # a proxy may answer anything else
            self._known = False

    def _lacking(self, needs: Sequence[Need], *, sure: bool = False) -> Generator[Call, httpx2.Response, list[Need]]:
        """Return what a server cannot do; where it does not describe itself, all of it, or if ``sure`` nothing."""
        if not self._asked:
            self._answer = yield Call("GET", "/openapi.json")
            self._document = description(self._answer)
            self._asked = self._answer.status_code < _FAULT
        if self._document is None:
            # What keeps the description from us keeps the call from us too, and says why.
            return [] if sure or self._answer.status_code in _KEYS else list(needs)
        return [need for need in needs if not need.is_met(self._document)]

    @property
    def _version(self) -> str:
        found = (self._document or {}).get("info")
        return str(found.get("version") or "")[:40] if isinstance(found, dict) else ""


def _level(response: httpx2.Response) -> int:
    told = response.headers.get(HEADER, "")
    return int(told) if told.isdecimal() else 0


def description(response: httpx2.Response) -> dict[str, Any] | None:
    """Return the description that a server of runs gives of itself; ``None`` if this is none."""
    try:
        document = response.json() if response.is_success else None
    except ValueError:
        return None
    paths = document.get("paths") if isinstance(document, dict) else None
    return document if isinstance(paths, dict) and "/runs" in paths else None
