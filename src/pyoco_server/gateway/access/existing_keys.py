"""Keys of the existing system at the gateway's door: each is checked once, slowly, and then known by its seal."""

import asyncio
import hmac
import os
import time
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor

import structlog

from pyoco_server.errors import RightMissing, StoreUnavailable, TooManyFailedKeys
from pyoco_server.gateway.access.failed_keys import Brake
from pyoco_server.gateway.access.keyring import KeyRing
from pyoco_server.model.access import Role
from pyoco_server.model.apikey import ApiKey, Pepper, Refusal
from pyoco_server.model.existing.api_key import MADE_BY, ExistingKey, Seal, SlowHash, UnusableKey
from pyoco_server.process.concurrency import ConcurrencyLimit
from pyoco_server.store.keys import KeyStore

log = structlog.get_logger(__name__)

_AT_A_TIME = max(1, min(2, (os.cpu_count() or 1) // 2))
"""So that the loop has a core of its own."""
_WAIT_SEC = 10.0
_EVERY_SEC = 3.0
_BURST = 10
_MOST_REFUSED = 100
_STOP_SEC = 2.0


class ExistingKeys:
    """Knows keys of the existing system.

    The slow hash is made in threads, two at a time at most; requests with the same key share one. A secret that is
    wrong for a key that nobody has used here yet costs as much as the right one, so of each such key ten are tried at
    once and then one in three seconds, whoever sends them: the brake on addresses would hold up whoever shares one.

    Args:
        ring: The keys, as they are known.
        store: Where seals are kept.
        pepper: What seals are made with, and the hashes of the existing system were.
    """

    def __init__(self, ring: KeyRing, store: KeyStore, pepper: Pepper) -> None:
        self._ring = ring
        self._store = store
        self._pepper = pepper
        self._tries = Brake(_EVERY_SEC, _BURST)
        self._places = ConcurrencyLimit(_AT_A_TIME, _WAIT_SEC, "keys of the existing system are checked")
        self._threads = ThreadPoolExecutor(_AT_A_TIME, "slow-hash")
        self._checking: dict[tuple[ApiKey, str], asyncio.Task[Refusal | None]] = {}
        self._storing: set[asyncio.Task[None]] = set()
        self._may_store = True
        self._refused: OrderedDict[str, None] = OrderedDict()

    @property
    def refused(self) -> list[str]:
        """The ids of keys that came with a secret which does not fit their records, and never with a good one."""
        return list(self._refused)

    async def refusal(self, key: ApiKey, record: ExistingKey) -> Refusal | None:
        """Return why a key is refused; ``None`` for a good one.

        Args:
            key: What the caller sent.
            record: What the existing system keeps under its id.

        Raises:
            TooManyFailedKeys: too many wrong secrets of this key came before it.
            StoreUnavailable: too many keys are being checked, or NATS is away.
        """
        now = time.time()
        ended = record.ended(now)
        if ended is not None:
            return ended
        try:
            slow = record.slow_hash()
        except UnusableKey:
            return Refusal.EXISTING_FORM
        seal = await self._ring.seal(key.key_id)
        if seal is not None and seal.seal_of == record.print() and seal.pepper_id == self._pepper.id:
            refused = self._pepper.refusal(key, seal, now)
            if refused is not Refusal.UNKNOWN_FORM:  # of a newer version: the key is checked anew
                return refused
        asked = (key, record.print())
        task = self._checking.get(asked)
        if task is None:
            wait = self._tries.wait(key.key_id, time.monotonic())
            if wait:
                raise TooManyFailedKeys(wait, of_one_key=True)
            self._tries.count(key.key_id, time.monotonic())
            task = self._checking[asked] = asyncio.create_task(self._check(key, record, slow), name="slow-hash")
            task.add_done_callback(lambda done: self._checked(asked, done))
        return await asyncio.shield(task)

    async def close(self) -> None:
        """Let go of everything; a seal that is being stored has a moment."""
        if self._storing:
            await asyncio.wait(self._storing, timeout=_STOP_SEC)
        for task in self._storing:
            task.cancel()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _check(self, key: ApiKey, record: ExistingKey, slow: SlowHash) -> Refusal | None:
        async with self._places.slot():
            loop = asyncio.get_running_loop()
            made = await loop.run_in_executor(self._threads, slow.of, self._pepper.behind(key))
        if not hmac.compare_digest(made, slow.digest):
            self._refused[key.key_id] = None
            if len(self._refused) > _MOST_REFUSED:
                self._refused.popitem(last=False)
            return Refusal.EXISTING_WRONG
        self._tries.forget(key.key_id)
        self._refused.pop(key.key_id, None)
        sealed = self._pepper.seal(
            key, tenant_id=record.tenant_id, role=Role.MEMBER, created_at=record.created_at, expires_at=None
        )
        seal = Seal(**sealed.model_dump(), seal_of=record.print())
        self._ring.keep_seal(seal)
        log.info("an api key of the existing system was checked, and is known from now on", key_id=key.key_id)
        if self._may_store:
            storing = asyncio.create_task(self._keep(seal), name="store-seal")
            self._storing.add(storing)
            storing.add_done_callback(self._storing.discard)
        return None

    def _checked(self, asked: tuple[ApiKey, str], task: "asyncio.Task[Refusal | None]") -> None:
        self._checking.pop(asked, None)
        if not task.cancelled():
            task.exception()  # whoever waits for it is told; perhaps nobody does any more

    async def _keep(self, seal: Seal) -> None:
        try:
            await self._store.store_seal(seal)
        except RightMissing as error:
            self._may_store = False
            log.info(
                "keys of the existing system are checked anew after each start: what is found cannot be kept",
                reason=error.message,
                hint="Let the user of PYOCO_AUTH_NATS_USER publish to $KV.pyoco_auth.sealed.*, "
                "as docs/how-to/secure-nats.md has it.",
            )
        except StoreUnavailable as error:
            log.debug("the seal of an api key was not stored; the key is checked anew after the next start",
                      key_id=seal.key_id, reason=error.message)  # fmt: skip


def tell_of_existing(records: list[ExistingKey]) -> None:
    """Log at the start what an operator must know of keys of the existing system.

    Args:
        records: Those that were not revoked.
    """
    for record in records[:_MOST_REFUSED]:
        if problem := record.problem():
            log.warning("an api key cannot be used", key_id=record.key_id, reason=problem)
    if records:
        log.info(f"api keys {MADE_BY} are taken too, with what a member may", keys=len(records))
