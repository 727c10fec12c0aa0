"""The asynchronous client: the same calls as ``PyocoHttpClient``, awaited."""

import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any, cast

import httpx2
from typing_extensions import Self

from pyoco_server.client import requests
from pyoco_server.client.answers import CannotConnect, check, event
from pyoco_server.client.http import READ_TIMEOUT
from pyoco_server.client.requests import Call


class AsyncPyocoHttpClient:
    """Speaks to a gateway; the arguments are those of ``PyocoHttpClient``."""

    def __init__(
        self, base_url: str, *, api_key: str | None = None, api_key_header: str = "X-API-Key", timeout: float = 10.0
    ) -> None:
        self._url = requests.check_base_url(base_url)
        headers = {api_key_header: api_key} if api_key else {}
        self._client = httpx2.AsyncClient(base_url=self._url, headers=headers, timeout=timeout)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def submit_run(self, flow_name: str, params: dict[str, Any] | None = None, **options: Any) -> dict[str, Any]:
        """Submit a run of a flow that the workers' resolver knows; options: tag, tags, timeout_sec, max_attempts."""
        return cast(dict[str, Any], await self._json(requests.submit(flow_name, params, **options)))

    async def submit_run_yaml(
        self,
        workflow_yaml: str | bytes,
        *,
        flow_name: str,
        params: dict[str, Any] | None = None,
        **options: Any,
    ) -> dict[str, Any]:
        """Submit a run of a flow.yaml; options: tag, timeout_sec, max_attempts."""
        return cast(dict[str, Any], await self._json(requests.submit_yaml(workflow_yaml, flow_name, params, **options)))

    async def get_run(self, run_id: str) -> dict[str, Any]:
        """Give a run's snapshot."""
        return cast(dict[str, Any], await self._json(requests.run(run_id)))

    async def get_run_with_records(self, run_id: str) -> dict[str, Any]:
        """Give a run's snapshot with its task records."""
        return cast(dict[str, Any], await self._json(requests.run(run_id, include="records")))

    async def get_tasks(self, run_id: str) -> dict[str, Any]:
        """Give a run's tasks."""
        return cast(dict[str, Any], await self._json(requests.run(run_id, "/tasks")))

    async def list_runs(self, *, full: bool = False, **query: Any) -> list[dict[str, Any]]:
        """List runs, last updated first; query: status, flow, tag, limit."""
        body = await self._json(requests.list_runs(full=full, **query))
        return cast(list[dict[str, Any]], requests.as_page(body)["items"])

    async def list_runs_vnext(self, *, full: bool = False, **query: Any) -> dict[str, Any]:
        """Give a page of runs; query also: updated_after, cursor, workflow_yaml_sha256."""
        call = requests.list_runs(full=full, **query)
        call.options["params"].setdefault("cursor", "")
        return requests.as_page(await self._json(call))

    async def watch_run(
        self,
        run_id: str,
        *,
        include_records: bool = False,
        since: float | None = None,
        timeout_sec: int | None = None,
        last_event_id: str | None = None,
    ) -> AsyncIterator[dict[str, Any]]:
        """Give a run's events until it ends or the server's window does."""
        call = requests.run(
            run_id, "/watch", include="records" if include_records else None, since=since, timeout_sec=timeout_sec
        )
        headers = {"Last-Event-ID": last_event_id} if last_event_id else {}
        timeout = httpx2.Timeout(READ_TIMEOUT)
        with self._errors():
            async with self._client.stream(
                call.method, call.path, headers=headers, timeout=timeout, **call.options
            ) as response:
                if not response.is_success:
                    await response.aread()
                    check(response)
                async for received in httpx2.EventSource(response, max_event_size=None):
                    yield event(received)

    async def cancel_run(self, run_id: str, *, reason: str | None = None) -> dict[str, Any]:
        """Ask a run to stop."""
        return cast(dict[str, Any], await self._json(requests.cancel(run_id, reason)))

    async def get_workers(self, **query: Any) -> list[dict[str, Any]]:
        """List workers; query: scope, state, include_hidden, limit."""
        return cast(list[dict[str, Any]], await self._json(requests.workers(**query)))

    async def patch_worker_hidden(self, worker_id: str, *, hidden: bool) -> dict[str, Any]:
        """Hide a worker from lists, or show it again."""
        return cast(dict[str, Any], await self._json(requests.patch_worker(worker_id, hidden)))

    async def _json(self, call: Call) -> Any:
        with self._errors():
            return check(await self._client.request(call.method, call.path, **call.options)).json()

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except httpx2.TransportError as error:
            raise CannotConnect(self._url, str(error) or type(error).__name__) from None
