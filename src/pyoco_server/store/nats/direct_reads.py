"""Direct reads: of one message or of many, answered by any server that keeps the stream, without JetStream's API.

A stream takes them if its definition has ``allow_direct``. Ours have it; those that other programs made often have
not, and a user of NATS may lack the right to ask that way. What is read then is read by the API, message by message.
"""

import time

import nats.errors

from pyoco_server.errors import StoreUnavailable

OFF_HINT = "Turn them on: pyoco-server check --mend"
_AGAIN_SEC = 10.0
"""Somebody may have turned them on meanwhile."""
_DENIED = '"$js.api.direct.get.'


class DirectReads:
    """What one connection knows of streams that cannot be read directly."""

    def __init__(self) -> None:
        self._not_before: dict[str, float] = {}
        self._denied: set[str] = set()
        self.told: set[str] = set()
        """Streams of which the log has told that they are read by the API."""

    def may_be_asked(self, stream: str) -> bool:
        """Return whether a direct read is worth a try."""
        if not self._not_before and not self._denied:
            return True
        return time.monotonic() >= self._not_before.get(stream, 0.0) and stream.lower() not in self._denied

    def failed(self, stream: str, error: StoreUnavailable) -> bool:
        """Return whether a direct read failed because there are none of this stream, and note it.

        Args:
            stream: The stream.
            error: How the read failed.
        """
        if isinstance(error.__cause__, nats.errors.NoRespondersError):
            self._not_before[stream] = time.monotonic() + _AGAIN_SEC
            return True
        return stream.lower() in self._denied

    def note_on(self, stream: str) -> None:
        """Note that direct reads are answered."""
        self._not_before.pop(stream, None)

    def note_denied(self, text: str) -> None:
        """Note that our user has no right to a direct read.

        Args:
            text: NATS's words, in lower case.
        """
        _, found, rest = text.partition(_DENIED)
        if found:
            self._denied.add(rest.partition('"')[0].partition(".")[0])

    def forget(self) -> None:
        """Forget what is known: rights and streams may be others after NATS's return."""
        self._not_before.clear()
        self._denied.clear()
