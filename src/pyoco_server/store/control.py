"""The control channel: a cancel, or the wish that a worker drains, is told to the workers at once.

It is a plain message that may get lost; the record carries the same fact.
"""

from collections.abc import Awaitable, Callable

from nats.aio.msg import Msg

from pyoco_server.store.nats.connection import Connection

_WORKERS = "workers"
"""Stands where a run_id would, so that whoever may hear of runs may hear this; the message names the worker."""


class ControlChannel:
    """Tells workers that a record has changed under them."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._prefix = connection.settings.control_subject_prefix

    async def tell(self, run_id: str) -> None:
        """Ask the worker of a run to look at the run's record.

        Raises:
            StoreUnavailable: NATS is away.
        """
        with self._connection.errors(f"telling the worker of run {run_id}"):
            await self._connection.client.publish(f"{self._prefix}.{run_id}", b"{}")

    async def tell_worker(self, worker_id: str) -> None:
        """Ask a worker to look at its own record.

        Raises:
            StoreUnavailable: NATS is away.
        """
        with self._connection.errors(f"telling the worker {worker_id}"):
            await self._connection.client.publish(f"{self._prefix}.{_WORKERS}", worker_id.encode())

    async def listen(self, on_run: Callable[[str], Awaitable[None]]) -> None:
        """Call ``on_run`` with the run_id of every message from now on; survives reconnects."""

        async def receive(message: Msg) -> None:
            await on_run(message.subject[len(self._prefix) + 1 :])

        with self._connection.errors("listening to the control channel"):
            await self._connection.client.subscribe(f"{self._prefix}.*", cb=receive)

    async def listen_as_worker(self, worker_id: str, on_word: Callable[[], Awaitable[None]]) -> None:
        """Call ``on_word`` whenever a worker shall look at its own record; survives reconnects."""

        async def receive(message: Msg) -> None:
            if message.data == worker_id.encode():
                await on_word()

        with self._connection.errors("listening to the control channel"):
            await self._connection.client.subscribe(f"{self._prefix}.{_WORKERS}", cb=receive)
