"""The asynchronous client: the same calls as ``PyocoHttpClient``, awaited."""

import contextlib
import time
from collections.abc import AsyncGenerator, Callable
from typing import Any, cast

import anyio
import httpx2
from typing_extensions import Self

from pyoco_server.client import requests
from pyoco_server.client.abilities import Abilities, Asking
from pyoco_server.client.answers import TERMINAL, body_of, check, connection_errors, event, snapshot_of
from pyoco_server.client.errors import ApiError, CannotConnect, ServerTooOld
from pyoco_server.client.http import EARLY_END_PAUSE
from pyoco_server.client.operator_calls import AsyncOperatorCalls
from pyoco_server.client.patience import GIVE_UP_SEC, Patience
from pyoco_server.client.requests import Call
from pyoco_server.client.wheel_calls import AsyncWheelCalls
from pyoco_server.errors import PyocoError


class AsyncPyocoHttpClient(AsyncWheelCalls, AsyncOperatorCalls):
    """Speaks to a gateway; arguments, answers and errors are those of ``PyocoHttpClient``."""

    def __init__(
        self,
        base_url: str,
        *,
        api_key: str | None = None,
        api_key_header: str = "X-API-Key",
        timeout: float = 10.0,
        retry_sec: float = GIVE_UP_SEC,
        on_retry: Callable[[PyocoError], None] = lambda _: None,
    ) -> None:
        options, self._proxy = requests.client_options(base_url, api_key, api_key_header, timeout)
        self._url: str = options["base_url"]
        self._retry_sec = retry_sec
        self._on_retry = on_retry
        self._abilities = Abilities()
        self._client = httpx2.AsyncClient(**options)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def submit_run(
        self,
        flow_name: str,
        params: dict[str, Any] | None = None,
        *,
        tag: str | None = None,
        tags: list[str] | None = None,
        timeout_sec: float | None = None,
        max_attempts: int | None = None,
        idempotency_key: str | None = None,
    ) -> dict[str, Any]:
        """Submit a run of a flow that the workers' resolver knows."""
        call = requests.submit(
            flow_name, params, tag=tag, tags=tags, timeout_sec=timeout_sec,
            max_attempts=max_attempts, idempotency_key=idempotency_key,
        )  # fmt: skip
        return cast(dict[str, Any], await self._submit(call, idempotency_key))

    async def submit_run_yaml(
        self,
        workflow_yaml: str | bytes,
        *,
        flow_name: str,
        tag: str | None = None,
        params: dict[str, Any] | None = None,
        timeout_sec: float | None = None,
        max_attempts: int | None = None,
        idempotency_key: str | None = None,
    ) -> dict[str, Any]:
        """Submit a run of a flow.yaml; ``params`` go over its defaults."""
        call = requests.submit_yaml(
            workflow_yaml, flow_name, params, tag=tag, timeout_sec=timeout_sec, max_attempts=max_attempts,
            idempotency_key=idempotency_key,
        )  # fmt: skip
        return cast(dict[str, Any], await self._submit(call, idempotency_key))

    async def get_run(self, run_id: str) -> dict[str, Any]:
        """Give a run's snapshot."""
        return cast(dict[str, Any], await self._json(requests.run(run_id)))

    async def get_run_with_records(self, run_id: str) -> dict[str, Any]:
        """Give a run's snapshot with its task records."""
        return cast(dict[str, Any], await self._json(requests.run(run_id, include="records")))

    async def get_tasks(self, run_id: str) -> dict[str, Any]:
        """Give a run's tasks."""
        return cast(dict[str, Any], await self._json(requests.run(run_id, "/tasks")))

    async def why_run(self, run_id: str, *, lang: str | None = None) -> dict[str, Any]:
        """Tell why a run is where it is: ``code``, ``message``, ``hint`` and ``details``.

        Args:
            lang: ``en`` or ``ja``; the server's choice when not given.
        """
        return cast(dict[str, Any], await self._json(requests.run(run_id, "/why", lang=lang)))

    async def list_runs(
        self,
        *,
        status: str | None = None,
        flow: str | None = None,
        tag: str | None = None,
        full: bool = False,
        limit: int | None = None,
    ) -> list[dict[str, Any]]:
        """List runs, last updated first."""
        call = requests.list_runs(full=full, status=status, flow=flow, tag=tag, limit=limit)
        return cast(list[dict[str, Any]], requests.as_page(await self._json(call))["items"])

    async def list_runs_vnext(
        self,
        *,
        status: str | None = None,
        flow: str | None = None,
        tag: str | None = None,
        full: bool = False,
        limit: int | None = None,
        updated_after: float | None = None,
        cursor: str | None = None,
        workflow_yaml_sha256: str | None = None,
    ) -> dict[str, Any]:
        """Give a page of runs: ``items`` and ``next_cursor``."""
        call = requests.list_page(
            full=full, status=status, flow=flow, tag=tag, limit=limit, updated_after=updated_after, cursor=cursor,
            workflow_yaml_sha256=workflow_yaml_sha256,
        )  # fmt: skip
        return requests.as_page(await self._json(call))

    async def watch_run(
        self,
        run_id: str,
        *,
        include_records: bool = False,
        since: float | None = None,
        timeout_sec: int | None = None,
        last_event_id: str | None = None,
    ) -> AsyncGenerator[dict[str, Any], None]:
        """Give a run's events, ``{"event", "data"}`` and where known ``"id"``, until it or the server's window ends.

        Args:
            since: Leave out snapshots not newer than this, in unix seconds.
            timeout_sec: Length of the window, 1 to 600 seconds.
            last_event_id: ``id`` of the last event seen, to go on after it.

        Raises:
            ApiError: there is no such run.
            CannotConnect: the connection broke.
        """
        call = requests.watch(
            run_id, include_records=include_records, since=since, timeout_sec=timeout_sec, last_event_id=last_event_id
        )
        async with contextlib.aclosing(self._events(call)) as events:
            async for received in events:
                yield received

    async def get_logs(
        self, run_id: str, *, tail: int | None = None, task: str | None = None, stream: str | None = None
    ) -> dict[str, Any]:
        """Give what a run's tasks have printed: ``lines`` with ``time attempt task stream text``."""
        call = requests.run(run_id, "/logs", tail=tail, task=task, stream=stream)
        return cast(dict[str, Any], await self._json(call))

    async def follow_logs(
        self,
        run_id: str,
        *,
        tail: int | None = None,
        task: str | None = None,
        stream: str | None = None,
        last_event_id: str | None = None,
    ) -> AsyncGenerator[dict[str, Any], None]:
        """Return events with what a run's tasks print; see the other client."""
        call = requests.follow_logs(run_id, tail=tail, task=task, stream=stream, last_event_id=last_event_id)
        async with contextlib.aclosing(self._events(call)) as events:
            async for received in events:
                yield received

    async def cancel_run(
        self, run_id: str, *, wait: bool = False, timeout_sec: int | None = None, reason: str | None = None
    ) -> dict[str, Any]:
        """Ask a run to stop."""
        snapshot = cast(dict[str, Any], await self._json(requests.cancel(run_id, reason)))
        if not wait:
            return snapshot
        deadline = time.monotonic() + (30 if timeout_sec is None else max(1, timeout_sec))
        while snapshot.get("status") not in TERMINAL:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"run {run_id} is still {snapshot.get('status')}")
            # Closed at once when left early: an asynchronous generator would keep its connection until later.
            async with contextlib.aclosing(self.watch_run(run_id, timeout_sec=max(1, min(600, round(left))))) as events:
                async for received in events:
                    snapshot = snapshot_of(received) or snapshot
                    if time.monotonic() > deadline or snapshot.get("status") in TERMINAL:
                        break
                else:
                    await anyio.sleep(min(EARLY_END_PAUSE, left))
        return snapshot

    async def rerun_run(self, run_id: str, *, idempotency_key: str | None = None) -> dict[str, Any]:
        """Start a new run of the same flow and params, whatever became of the old one."""
        call = requests.rerun(run_id, idempotency_key)
        return cast(dict[str, Any], await self._submit(call, idempotency_key))

    async def get_workers(
        self,
        *,
        scope: str | None = None,
        state: str | None = None,
        include_hidden: bool | None = None,
        limit: int | None = None,
        worker_id: str | None = None,
    ) -> list[dict[str, Any]]:
        """List workers.

        Args:
            scope: ``active`` (those that are there) or ``all``.
            state: Only this state.
            include_hidden: Also those that were hidden.
            limit: How many at most.
            worker_id: Only this one.
        """
        call = requests.workers(
            scope=scope, state=state, include_hidden=include_hidden, limit=limit, worker_id=worker_id
        )
        return cast(list[dict[str, Any]], await self._json(call))

    async def patch_worker_hidden(self, worker_id: str, *, hidden: bool) -> dict[str, Any]:
        """Hide a worker from lists, or show it again."""
        return cast(dict[str, Any], await self._json(requests.patch_worker(worker_id, hidden)))

    async def drain_worker(self, worker_id: str, *, reason: str | None = None) -> dict[str, Any]:
        """Ask a worker to take no more runs, and to stop when those that it has have ended.

        Args:
            worker_id: Which worker.
            reason: Kept in its record, and shown by ``why`` to those that wait for it.

        Raises:
            ApiError: there is no such worker (404), or it is stopped or disconnected (409).
            CannotConnect: the server does not answer.
        """
        return cast(dict[str, Any], await self._json(requests.drain_worker(worker_id, reason)))

    async def get_doctor(self, *, lang: str | None = None) -> dict[str, Any]:
        """Tell what the server knows to be wrong: ``findings``, each with ``severity code message hint details``.

        Args:
            lang: ``en`` or ``ja``; the server's choice when not given.
        """
        return cast(dict[str, Any], await self._json(requests.doctor(lang)))

    async def get_metrics(self) -> str:
        """Give the metrics' text."""
        return (await self._send(requests.metrics())).text

    async def _submit(self, call: Call, key: str | None) -> Any:
        patience = Patience(give_up_sec=self._retry_sec)
        failed: PyocoError | None = None
        while True:
            try:
                return await self._json(call)
            except ServerTooOld:
                if failed is None:
                    raise
                raise failed from None  # it may have been carried out, and this server cannot tell a repeat
            except (CannotConnect, ApiError) as error:
                if key is None:  # it may have been carried out: a repeat could make a second run
                    raise
                pause = patience.next_pause(error)
                self._on_retry(error)
                await anyio.sleep(pause)
                failed, call = error, call.as_repeat()

    async def _events(self, call: Call) -> AsyncGenerator[dict[str, Any], None]:
        with connection_errors(self._url, self._proxy):
            async with self._client.stream(call.method, call.path, **call.options) as response:
                if not response.is_success:
                    await response.aread()
                await self._ask(self._abilities.after(call, response))
                check(response, self._proxy)
                async for received in httpx2.EventSource(response, max_event_size=None):
                    yield event(received)

    async def _json(self, call: Call) -> Any:
        return body_of(await self._send(call), self._proxy)

    async def _send(self, call: Call) -> httpx2.Response:
        with connection_errors(self._url, self._proxy):
            await self._ask(self._abilities.before(call))
            response = await self._client.request(call.method, call.path, **call.options)
            await self._ask(self._abilities.after(call, response))
            return check(response, self._proxy)

    async def _ask(self, asking: Asking) -> None:
        """Ask a server what is to be known of it."""
        try:
            question = next(asking)
            while True:
                question = asking.send(await self._client.request(question.method, question.path))
        except StopIteration:
            return
