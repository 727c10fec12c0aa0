"""What a gateway's user of NATS may not do to its streams, done as its administrator."""

from pyoco_server.settings.environment import Settings
from pyoco_server.settings.nats_signer import NatsRole
from pyoco_server.store.nats.connection import connected
from pyoco_server.store.topology import allow_direct_reads, definitions, keys_definition


async def mend_direct_reads(settings: Settings, name: str, timeout: float) -> list[str]:
    """Turn direct reads on for all our streams that another program made without; a log line tells of each.

    Args:
        settings: Where NATS is.
        name: Shown in NATS's own monitoring.
        timeout: Seconds to wait for NATS.

    Returns:
        The streams for which they were turned on.

    Raises:
        StoreUnavailable: NATS is away.
        StoreRefused: it is there, and does not let us in.
    """
    keys = [keys_definition(settings)]
    async with connected(settings, name, timeout, role=NatsRole.ADMIN) as connection:
        mended = await allow_direct_reads(connection, [*definitions(settings), *([] if settings.keys_apart else keys)])
    if settings.keys_apart:
        async with connected(settings, name, timeout, target=settings.keys_target(NatsRole.KEYS_ADMIN)) as connection:
            mended += await allow_direct_reads(connection, keys)
    return mended
