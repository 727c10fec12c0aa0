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
        tenant: str | None = None,
    ) -> dict[str, Any]:
        """Upload a wheel.

        Args:
            filename: Its file name; that of ``path`` when not given.
            data: Its bytes, or a file opened for reading them, which is read a piece at a time.
            path: Where it is, in place of ``data``.
            replace: Without effect; a stored version is never replaced.
            tags: The workers that shall use it; all of them when not given.
            tenant: Whose runs alone shall have it; those of the key's own tenant when not given, or with an operator's
                key everybody's.
        """
        with requests.wheel_file(filename, data, path) as (name, content):
            return cast(dict[str, Any], self._json(requests.upload_wheel(name, content, replace, tags, tenant)))

    def delete_wheel(self, wheel_name: str, *, tenant: str | None = None) -> dict[str, Any]:
        """Delete a wheel.

        Args:
            wheel_name: Its file name.
            tenant: Whose it is, ``""`` for one that all share; when not given, the key's own tenant's and
                then shared ones, or with an operator's key shared ones.
        """
        return cast(dict[str, Any], self._json(requests.delete_wheel(wheel_name, tenant)))

    def pin_wheel(self, wheel: str, *, tenant: str | None = None) -> dict[str, Any]:
        """Make a stored version, ``NAME==VERSION`` or a file name, the one that the workers of its tags use.

        Args:
            wheel: Which.
            tenant: Whose it is, as in ``delete_wheel``.
        """
        return cast(dict[str, Any], self._json(requests.pin(wheel, "POST", tenant)))

    def unpin_wheel(self, wheel: str, *, tenant: str | None = None) -> dict[str, Any]:
        """Take back the pins of a package, a ``NAME==VERSION`` or a file name.

        Args:
            wheel: Which.
            tenant: Whose they are, as in ``delete_wheel``.
        """
        return cast(dict[str, Any], self._json(requests.pin(wheel, "DELETE", tenant)))


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
        tenant: str | None = None,
    ) -> dict[str, Any]:
        """Upload a wheel.

        Args:
            filename: Its file name; that of ``path`` when not given.
            data: Its bytes, or a file opened for reading them, which is read a piece at a time.
            path: Where it is, in place of ``data``.
            replace: Without effect; a stored version is never replaced.
            tags: The workers that shall use it; all of them when not given.
            tenant: Whose runs alone shall have it; those of the key's own tenant when not given, or with an operator's
                key everybody's.
        """
        with requests.wheel_file(filename, data, path) as (name, content):
            return cast(dict[str, Any], await self._json(requests.upload_wheel(name, content, replace, tags, tenant)))

    async def delete_wheel(self, wheel_name: str, *, tenant: str | None = None) -> dict[str, Any]:
        """Delete a wheel.

        Args:
            wheel_name: Its file name.
            tenant: Whose it is, ``""`` for one that all share; when not given, the key's own tenant's and
                then shared ones, or with an operator's key shared ones.
        """
        return cast(dict[str, Any], await self._json(requests.delete_wheel(wheel_name, tenant)))

    async def pin_wheel(self, wheel: str, *, tenant: str | None = None) -> dict[str, Any]:
        """Make a stored version, ``NAME==VERSION`` or a file name, the one that the workers of its tags use.

        Args:
            wheel: Which.
            tenant: Whose it is, as in ``delete_wheel``.
        """
        return cast(dict[str, Any], await self._json(requests.pin(wheel, "POST", tenant)))

    async def unpin_wheel(self, wheel: str, *, tenant: str | None = None) -> dict[str, Any]:
        """Take back the pins of a package, a ``NAME==VERSION`` or a file name.

        Args:
            wheel: Which.
            tenant: Whose they are, as in ``delete_wheel``.
        """
        return cast(dict[str, Any], await self._json(requests.pin(wheel, "DELETE", tenant)))
