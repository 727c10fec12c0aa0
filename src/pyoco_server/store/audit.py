"""The audit trail: a bounded stream, written by whoever changes something, read from its end."""

import asyncio
import base64
import re
from collections.abc import Collection, Sequence

import nats.errors
import structlog
from nats.js import api
from pydantic import ValidationError

from pyoco_server.model.audit import AuditAction, AuditEntry, AuditOutcome
from pyoco_server.store.nats.connection import REQUEST_TIMEOUT, Connection
from pyoco_server.store.nats.direct import DirectReader, StreamMessage

log = structlog.get_logger(__name__)

_NOBODY = "~"
_LOOKED_AT = 1000
"""Entries that one request looks at for those of one target."""
_PLAIN = re.compile(r"[A-Za-z0-9_-]+")


class AuditTrail:
    """Publishing to ``pyoco.audit.<outcome>.<target's tenant>.<kind>.<change>.<key>``, and reading.

    All that may be asked for is part of the subject, so that nothing is read in vain. And the stream keeps a bounded
    number of messages for each subject: whoever does one thing a million times pushes out nothing else.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._prefix = connection.settings.audit_subject_prefix
        self._reader = DirectReader(connection, connection.settings.audit_stream)

    async def store(self, entry: AuditEntry) -> None:
        """Store an entry; one that is there already is not stored again.

        Raises:
            StoreUnavailable: no acknowledgement; storing it again is safe.
        """
        with self._connection.errors("storing an entry of the audit trail"):
            headers = {api.Header.MSG_ID.value: entry.event_id}
            await self._connection.js.publish(self._subject(entry), entry.to_json(), headers=headers)

    async def store_all(self, entries: Sequence[AuditEntry]) -> None:
        """Store many entries at once.

        Raises:
            StoreUnavailable: not all were acknowledged; storing all of them again is safe.
        """
        with self._connection.errors("storing entries of the audit trail"):
            js = self._connection.js
            sent = [
                await js.publish_async(
                    self._subject(entry), entry.to_json(), headers={api.Header.MSG_ID.value: entry.event_id}
                )
                for entry in entries
            ]
            done, late = await asyncio.wait(sent, timeout=REQUEST_TIMEOUT)
            for acknowledgement in late:
                acknowledgement.cancel()
            refused = [error for error in (one.exception() for one in done) if error is not None]
            if refused:
                raise refused[0]
            if late:
                raise nats.errors.TimeoutError

    async def list(
        self,
        *,
        limit: int,
        before: int | None = None,
        tenants: Collection[str | None] | None = None,
        action: AuditAction | None = None,
        actor: str | None = None,
        outcome: AuditOutcome | None = None,
        target: str | None = None,
    ) -> tuple[list[AuditEntry], int | None]:
        """Give a page of entries, the newest first, and the place before which the next page begins if there is one.

        Args:
            limit: How many at most.
            before: Only those that lie before this place.
            tenants: Only of things of these (``None``: of no tenant); all of them when not given.
            action: Only of this kind.
            actor: Only of this key's id.
            outcome: Only with this outcome.
            target: Only of things whose id begins so. It is no part of the subject: one request looks at a bounded
                number, so there may be fewer entries than ``limit``, or none, and still more to come.

        Raises:
            StoreUnavailable: NATS is away.
        """
        size = limit if target is None else _LOOKED_AT
        owners = ["*"] if tenants is None else [_token(tenant) for tenant in tenants]
        found = []
        for owner in owners:
            parts = [outcome.value if outcome else "*", owner, action.value if action else "*.*", _filter(actor)]
            subject = ".".join([self._prefix, *parts])
            found += await self._reader.newest(before=before, subject=subject, limit=size + 1)
        found.sort(key=lambda message: message.seq, reverse=True)
        entries: list[AuditEntry] = []
        last = None
        for message in found[:size]:
            entry = _read(message)
            if entry is None or (target is not None and not (entry.target.id or "").startswith(target)):
                continue
            if len(entries) == limit:
                return entries, last
            entries.append(entry)
            last = message.seq
        return entries, found[size - 1].seq if len(found) > size else None

    def _subject(self, entry: AuditEntry) -> str:
        owner, key = _token(entry.target.tenant_id), _token(entry.actor.api_key_id)
        return ".".join([self._prefix, entry.outcome.value, owner, entry.action.value, key])


def _read(message: StreamMessage) -> AuditEntry | None:
    try:
        return AuditEntry.from_json(message.data)
    except ValidationError:  # of a newer version, or of another program
        log.warning("an entry of the audit trail cannot be read", seq=message.seq)
        return None


def _filter(key_id: str | None) -> str:
    return "*" if key_id is None else _token(key_id)


def _token(text: str | None) -> str:
    """Give a text as one part of a subject; jobs of other programs may name any tenant."""
    if text is None:
        return _NOBODY
    if _PLAIN.fullmatch(text):
        return text
    return _NOBODY + base64.urlsafe_b64encode(text.encode("utf-8", "replace")).decode().rstrip("=")
