"""Calls of both clients about what went wrong and who did what: dead letters, and the audit trail."""

from typing import Any, cast

from pyoco_server.client import requests
from pyoco_server.client.requests import Call


class OperatorCalls:
    """The calls of the synchronous client."""

    def _json(self, call: Call) -> Any:
        raise NotImplementedError

    def list_dead_letters(
        self,
        *,
        tag: str | None = None,
        limit: int | None = None,
        before: int | None = None,
        reason: str | None = None,
        run_id: str | None = None,
    ) -> list[dict[str, Any]]:
        """List dead letters, the newest first.

        Args:
            tag: Only this tag.
            limit: How many at most.
            before: ``id`` of the last letter of the page before.
            reason: Only those, such as ``execution_error``.
            run_id: The one that this run has left; nothing else counts then.
        """
        wanted = requests.DEFAULT_LETTERS if limit is None else limit
        items: list[dict[str, Any]] = []
        cursor: str | None = ""
        while cursor is not None and len(items) < wanted:  # a page may be short, and not the last one
            left = wanted - len(items)
            call = requests.dead_letters(
                tag=tag, limit=left, before=before, cursor=cursor, reason=reason, run_id=run_id
            )
            page = requests.as_page(self._json(call))
            items, cursor = items + page["items"], page["next_cursor"]
        return items

    def get_dead_letter(self, letter_id: int) -> dict[str, Any]:
        """Give all of a dead letter."""
        return cast(dict[str, Any], self._json(requests.dead_letter(letter_id)))

    def replay_dead_letter(self, letter_id: int) -> dict[str, Any]:
        """Start a new run of what a dead letter tells, and take the letter out."""
        return cast(dict[str, Any], self._json(requests.dead_letter(letter_id, "POST", "/replay")))

    def delete_dead_letter(self, letter_id: int) -> dict[str, Any]:
        """Take a dead letter out."""
        return cast(dict[str, Any], self._json(requests.dead_letter(letter_id, "DELETE")))

    def list_audit(
        self,
        *,
        limit: int | None = None,
        cursor: str | None = None,
        action: str | None = None,
        actor: str | None = None,
        outcome: str | None = None,
        target: str | None = None,
    ) -> dict[str, Any]:
        """Give a page of the audit trail, the newest first: ``items`` and ``next_cursor``.

        Args:
            limit: How many at most.
            cursor: ``next_cursor`` of the page before.
            action: Only of this kind, such as ``run.cancel``.
            actor: Only of the key with this id.
            outcome: ``done``, ``refused`` or ``unknown``.
            target: Only of things whose id begins so; a page may be short then, and not the last one.

        Raises:
            ApiError: the key is not an admin's.
        """
        call = requests.audit(limit=limit, cursor=cursor, action=action, actor=actor, outcome=outcome, target=target)
        return cast(dict[str, Any], self._json(call))


class AsyncOperatorCalls:
    """The calls of the asynchronous client."""

    async def _json(self, call: Call) -> Any:
        raise NotImplementedError

    async def list_dead_letters(
        self,
        *,
        tag: str | None = None,
        limit: int | None = None,
        before: int | None = None,
        reason: str | None = None,
        run_id: str | None = None,
    ) -> list[dict[str, Any]]:
        """List dead letters, the newest first.

        Args:
            tag: Only this tag.
            limit: How many at most.
            before: ``id`` of the last letter of the page before.
            reason: Only those, such as ``execution_error``.
            run_id: The one that this run has left; nothing else counts then.
        """
        wanted = requests.DEFAULT_LETTERS if limit is None else limit
        items: list[dict[str, Any]] = []
        cursor: str | None = ""
        while cursor is not None and len(items) < wanted:  # a page may be short, and not the last one
            left = wanted - len(items)
            call = requests.dead_letters(
                tag=tag, limit=left, before=before, cursor=cursor, reason=reason, run_id=run_id
            )
            page = requests.as_page(await self._json(call))
            items, cursor = items + page["items"], page["next_cursor"]
        return items

    async def get_dead_letter(self, letter_id: int) -> dict[str, Any]:
        """Give all of a dead letter."""
        return cast(dict[str, Any], await self._json(requests.dead_letter(letter_id)))

    async def replay_dead_letter(self, letter_id: int) -> dict[str, Any]:
        """Start a new run of what a dead letter tells, and take the letter out."""
        return cast(dict[str, Any], await self._json(requests.dead_letter(letter_id, "POST", "/replay")))

    async def delete_dead_letter(self, letter_id: int) -> dict[str, Any]:
        """Take a dead letter out."""
        return cast(dict[str, Any], await self._json(requests.dead_letter(letter_id, "DELETE")))

    async def list_audit(
        self,
        *,
        limit: int | None = None,
        cursor: str | None = None,
        action: str | None = None,
        actor: str | None = None,
        outcome: str | None = None,
        target: str | None = None,
    ) -> dict[str, Any]:
        """Give a page of the audit trail, the newest first: ``items`` and ``next_cursor``."""
        call = requests.audit(limit=limit, cursor=cursor, action=action, actor=actor, outcome=outcome, target=target)
        return cast(dict[str, Any], await self._json(call))
