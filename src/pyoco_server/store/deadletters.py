"""The stream of dead letters."""

from pyoco_server.model.deadletter import DeadLetter
from pyoco_server.store.connection import Connection


class DeadLetterStore:
    """Publishing to ``pyoco.dlq.<tag>``."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def publish(self, letter: DeadLetter) -> None:
        """Store a dead letter.

        Raises:
            StoreUnavailable: no acknowledgement.
        """
        js = self._connection.js
        subject = f"{self._connection.settings.dlq_subject_prefix}.{letter.tag}"
        with self._connection.errors("publishing a dead letter"):
            await js.publish(subject, letter.to_json())
