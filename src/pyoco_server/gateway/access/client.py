"""Whose work it is, and whether they are still there."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from fastapi import Request

from pyoco_server.errors import ClientGone
from pyoco_server.gateway.access.caller import CALLER
from pyoco_server.model.access import Caller

_Result = TypeVar("_Result")


class Client:
    """Who sent a request.

    Args:
        request: The request; its body has been read.
    """

    def __init__(self, request: Request) -> None:
        self._request = request

    @property
    def name(self) -> str:
        """Whom to count its work to: the key, or without keys the address."""
        caller: Caller | None = self._request.scope.get(CALLER)
        if caller is not None and caller.key_id is not None:
            return f"key {caller.key_id}"
        return self._request.client.host if self._request.client is not None else ""

    async def unless_gone(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        """Wait for something as long as the client does.

        Raises:
            ClientGone: it has hung up; the work is cancelled.
        """
        working = asyncio.create_task(work)
        leaving = asyncio.create_task(self._leaves())
        try:
            await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                raise ClientGone("the client has hung up")
            return working.result()
        finally:
            working.cancel()
            leaving.cancel()
            await asyncio.gather(working, leaving, return_exceptions=True)

    async def _leaves(self) -> None:
        while (await self._request.receive())["type"] != "http.disconnect":
            pass
