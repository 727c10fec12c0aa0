"""Calls of both clients about wheels."""

from pathlib import Path
from typing import Any, BinaryIO, cast

from pyoco_server.client import requests
from pyoco_server.client.requests import Call


class WheelCalls:
    """The calls of the synchronous client."""

    def _json(self, call: Call) -> Any:
        raise NotImplementedError

    def list_wheels(self) -> list[dict[str, Any]]:
        """List uploaded wheels."""
        return cast(list[dict[str, Any]], self._json(requests.wheels()))

    def list_wheel_history(
        self, *, limit: int | None = None, wheel_name: str | None = None, action: str | None = None
    ) -> list[dict[str, Any]]:
        """List uploads and deletions of wheels."""
        call = requests.wheel_history(limit=limit, wheel_name=wheel_name, action=action)
        return cast(list[dict[str, Any]], self._json(call))

    def upload_wheel(
        self,
        *,
        filename: str | None = None,
        data: bytes | BinaryIO | None = None,
        path: str | Path | None = None,
        replace: bool = True,
        tags: list[str] | None = None,
    ) -> dict[str, Any]:
        """Upload a wheel.

        Args:
            filename: Its file name; that of ``path`` when not given.
            data: Its bytes, or a file opened for reading them, which is read a piece at a time.
            path: Where it is, in place of ``data``.
            replace: Without effect; a stored version is never replaced.
            tags: The workers that shall use it; all of them when not given.
        """
        with requests.wheel_file(filename, data, path) as (name, content):
            return cast(dict[str, Any], self._json(requests.upload_wheel(name, content, replace, tags)))

    def delete_wheel(self, wheel_name: str) -> dict[str, Any]:
        """Delete a wheel."""
        return cast(dict[str, Any], self._json(requests.delete_wheel(wheel_name)))

    def pin_wheel(self, wheel: str) -> dict[str, Any]:
        """Make a stored version, ``NAME==VERSION`` or a file name, the one that the workers of its tags use."""
        return cast(dict[str, Any], self._json(requests.pin(wheel, "POST")))

    def unpin_wheel(self, wheel: str) -> dict[str, Any]:
        """Take back the pins of a package, a ``NAME==VERSION`` or a file name."""
        return cast(dict[str, Any], self._json(requests.pin(wheel, "DELETE")))


class AsyncWheelCalls:
    """The calls of the asynchronous client."""

    async def _json(self, call: Call) -> Any:
        raise NotImplementedError

    async def list_wheels(self) -> list[dict[str, Any]]:
        """List uploaded wheels."""
        return cast(list[dict[str, Any]], await self._json(requests.wheels()))

    async def list_wheel_history(
        self, *, limit: int | None = None, wheel_name: str | None = None, action: str | None = None
    ) -> list[dict[str, Any]]:
        """List uploads and deletions of wheels."""
        call = requests.wheel_history(limit=limit, wheel_name=wheel_name, action=action)
        return cast(list[dict[str, Any]], await self._json(call))

    async def upload_wheel(
        self,
        *,
        filename: str | None = None,
        data: bytes | BinaryIO | None = None,
        path: str | Path | None = None,
        replace: bool = True,
        tags: list[str] | None = None,
    ) -> dict[str, Any]:
        """Upload a wheel.

        Args:
            filename: Its file name; that of ``path`` when not given.
            data: Its bytes, or a file opened for reading them, which is read a piece at a time.
            path: Where it is, in place of ``data``.
            replace: Without effect; a stored version is never replaced.
            tags: The workers that shall use it; all of them when not given.
        """
        with requests.wheel_file(filename, data, path) as (name, content):
            return cast(dict[str, Any], await self._json(requests.upload_wheel(name, content, replace, tags)))

    async def delete_wheel(self, wheel_name: str) -> dict[str, Any]:
        """Delete a wheel."""
        return cast(dict[str, Any], await self._json(requests.delete_wheel(wheel_name)))

    async def pin_wheel(self, wheel: str) -> dict[str, Any]:
        """Make a stored version, ``NAME==VERSION`` or a file name, the one that the workers of its tags use."""
        return cast(dict[str, Any], await self._json(requests.pin(wheel, "POST")))

    async def unpin_wheel(self, wheel: str) -> dict[str, Any]:
        """Take back the pins of a package, a ``NAME==VERSION`` or a file name."""
        return cast(dict[str, Any], await self._json(requests.pin(wheel, "DELETE")))
