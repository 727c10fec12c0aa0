"""The consumers of a stream: all of them, and whether they know of all that it holds.

NATS lists them in pages, and a cluster leaves out those that have no leader yet.
"""

from nats.js import api
from nats.js.errors import NotFoundError

from pyoco_server.errors import StoreUnavailable
from pyoco_server.store.nats.connection import Connection


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


async def behind(connection: Connection, stream: str) -> list[str]:
    """Name the durable consumers of a work queue that do not know yet of all that is there for them.

    In a cluster a consumer may be led by a server that is still fetching the stream's messages. Until it has them they
    are not counted, and a request that does not wait gets none of them.

    Raises:
        StoreUnavailable: NATS is away, or cannot tell of all of them yet.
    """
    late = []
    for consumer in await consumers_of(connection, stream):
        if consumer.config.durable_name:
            with connection.errors(f"looking at the subjects of {stream}"):
                info = await connection.js.stream_info(stream, subjects_filter=consumer.config.filter_subject or ">")
            stored = sum((info.state.subjects or {}).values())
            if (consumer.num_pending or 0) + (consumer.num_ack_pending or 0) < stored:
                late.append(consumer.name)
    return late
