"""Finds out who sends a request."""

import time
from collections.abc import AsyncGenerator

import structlog
from sse_starlette.event import ServerSentEvent
from starlette.types import Scope

from pyoco_server.errors import InvalidKey, KeyRequired, StoreUnavailable, TooManyFailedKeys
from pyoco_server.gateway.access.existing_keys import ExistingKeys, tell_of_existing
from pyoco_server.gateway.access.failed_keys import FailedKeys
from pyoco_server.gateway.access.keyring import KeyRing
from pyoco_server.gateway.access.peer_address import source
from pyoco_server.model.access import ANYBODY, Caller, Role
from pyoco_server.model.apikey import ApiKey, Pepper
from pyoco_server.model.existing.api_key import ExistingKey
from pyoco_server.settings.environment import Settings
from pyoco_server.store.keys import KeyStore

log = structlog.get_logger(__name__)


class Authenticator:
    """Reads the key of a request.

    Args:
        settings: Whether keys are asked for, and in which header.
        ring: The keys.
        store: Where they are.
    """

    def __init__(self, settings: Settings, ring: KeyRing, store: KeyStore) -> None:
        self.is_on = settings.http_auth_mode == "api_key"
        self._header = settings.http_api_key_header
        self._raw_header = settings.http_api_key_header.lower().encode()
        self._ring = ring
        self._failed = FailedKeys()
        pepper = settings.auth_pepper
        self._pepper = Pepper(pepper.get_secret_value() if pepper else None)
        self.existing = ExistingKeys(ring, store, self._pepper)

    async def identify(self, scope: Scope) -> Caller:
        """Tell who sends a request; without authentication it is anybody.

        Raises:
            KeyRequired: there is no key.
            InvalidKey: there is a bad one.
            TooManyFailedKeys: and so were too many before it, from this address or of this key.
            StoreUnavailable: NATS is away, so nobody can tell.
        """
        if not self.is_on:
            return ANYBODY
        sent = list({value.strip() for name, value in scope["headers"] if name == self._raw_header})
        if not any(sent):
            raise KeyRequired(self._header)
        key = ApiKey.parse(sent[0].decode("latin-1").strip()) if len(sent) == 1 else None
        address = source(scope["client"][0] if scope.get("client") else None)
        wait = self._failed.wait(address, time.monotonic())
        if wait and (key is None or not self._ring.knows(key.key_id)):
            raise TooManyFailedKeys(wait)
        record = await self._ring.get(key.key_id) if key else None
        if key is not None and isinstance(record, ExistingKey):
            refusal = await self.existing.refusal(key, record)
        else:
            refusal = self._pepper.refusal(key, record, time.time())
        if refusal is not None:
            self._failed.failed(address, refusal, record.key_id if record else None, time.monotonic())
            if wait:
                raise TooManyFailedKeys(wait)
            raise InvalidKey
        assert record is not None  # noqa: S101 - nothing else is without a refusal
        return Caller(record.tenant_id, record.key_id, Role(record.role))

    async def holds(self, caller: Caller) -> bool:
        """Tell whether the key of a caller is still good.

        Raises:
            StoreUnavailable: NATS is away, so nobody can tell.
        """
        if caller.key_id is None:
            return True
        record = await self._ring.get(caller.key_id)
        return record is not None and record.ended(time.time()) is None

    async def while_good(
        self, caller: Caller, events: AsyncGenerator[ServerSentEvent, None]
    ) -> AsyncGenerator[ServerSentEvent, None]:
        """Pass the events of an open stream on until the caller's key is revoked or expires.

        While nobody can tell whether it is, heartbeats go on and tell nothing; the first other event ends the stream.
        """
        try:
            async for event in events:
                try:
                    good = await self.holds(caller)
                except StoreUnavailable:
                    good = event.event == "heartbeat"
                if not good:
                    log.info("an open stream ends: its api key is no longer good", key_id=caller.key_id)
                    return
                yield event
        finally:
            await events.aclose()

    def unusable(self) -> list[str]:
        """Return the ids of keys by whose records no key can be known."""
        return [one.key_id for one in self._ring.records() if isinstance(one, ExistingKey) and one.problem()]

    def tell_of_keys(self) -> None:
        """Log what an operator must know of the keys that are there."""
        records = self._ring.records()
        now = time.time()
        good = [record for record in records if record.ended(now) is None]
        existing = [record for record in good if isinstance(record, ExistingKey)]
        foreign = [record for record in good if record.pepper_id != self._pepper.id and record not in existing]
        tell_of_existing(existing)
        if foreign:
            log.warning(
                "api keys were made with another PYOCO_AUTH_PEPPER (or without one); they are refused",
                keys=len(foreign),
                of=len(good),
                hint="Start with the pepper that they were made with, or make new keys and revoke these.",
            )
        if not good:
            log.info("there is no valid api key yet", hint="pyoco-server-admin api-key create --tenant NAME")
