"""All consumers of a stream: NATS lists them in pages, and a cluster leaves out those that have no leader yet."""

from nats.js import api
from nats.js.errors import NotFoundError

from pyoco_server.errors import StoreUnavailable
from pyoco_server.store.connection import Connection


async def consumers_of(connection: Connection, stream: str) -> list[api.ConsumerInfo]:
    """Give the consumers of a stream; none if there is no such stream.

    Raises:
        StoreUnavailable: NATS is away, or cannot tell of all of them yet.
    """
    what = f"looking at the consumers of {stream}"
    with connection.errors(what, missing=True):
        try:
            expected = (await connection.js.stream_info(stream)).state.consumer_count
            found: list[api.ConsumerInfo] = []
            while page := await connection.js.consumers_info(stream, offset=len(found)):
                found += page
        except NotFoundError:
            return []
    if len(found) < expected:
        raise StoreUnavailable(f"{what}: {len(found)} of {expected} answer", hint="Try again.")
    return found
