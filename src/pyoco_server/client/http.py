"""The synchronous client."""

import time
from collections.abc import Callable, Iterator
from typing import Any, cast

import httpx2
from typing_extensions import Self

from pyoco_server.client import requests
from pyoco_server.client.abilities import Abilities, Asking
from pyoco_server.client.answers import TERMINAL, body_of, check, connection_errors, event, snapshot_of
from pyoco_server.client.errors import ApiError, CannotConnect, ServerTooOld
from pyoco_server.client.operator_calls import OperatorCalls
from pyoco_server.client.patience import GIVE_UP_SEC, Patience
from pyoco_server.client.requests import Call
from pyoco_server.client.wheel_calls import WheelCalls
from pyoco_server.errors import PyocoError

EARLY_END_PAUSE = 0.2
"""Seconds before a stream that the server ended is opened anew."""


class PyocoHttpClient(WheelCalls, OperatorCalls):
    """Speaks to a gateway.

    Every call may raise ``ApiError`` (the server refused), ``CannotConnect`` (it cannot be reached, or the connection
    broke) and ``InvalidInput`` (an argument that cannot be sent).

    Args:
        base_url: Such as ``http://127.0.0.1:8000``; http or https, without a password.
        api_key: Sent with every request, if given.
        api_key_header: In this header.
        timeout: Seconds to wait for a connection, and for each part of an answer.
        retry_sec: For so many seconds after its first failure a submission with an idempotency key is repeated while
            the server cannot be reached, or answers 502, 503 or 504; 0 for never. Nothing else is repeated.
        on_retry: Told why, before each repeat.
    """

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
        self._client = httpx2.Client(**options)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def submit_run(
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
        """Submit a run of a flow that the workers' resolver knows.

        Args:
            tag: Which workers may take it; the server's default when not given.
            tags: Free labels.
            timeout_sec: Seconds that the run may take.
            max_attempts: How many workers may start it, one after the other.
            idempotency_key: Names the run: repeating the call with the same key and arguments gives the same run.
                With it the call repeats itself while the server is away.
        """
        call = requests.submit(
            flow_name, params, tag=tag, tags=tags, timeout_sec=timeout_sec,
            max_attempts=max_attempts, idempotency_key=idempotency_key,
        )  # fmt: skip
        return cast(dict[str, Any], self._submit(call, idempotency_key))

    def submit_run_yaml(
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
        return cast(dict[str, Any], self._submit(call, idempotency_key))

    def get_run(self, run_id: str) -> dict[str, Any]:
        """Give a run's snapshot."""
        return cast(dict[str, Any], self._json(requests.run(run_id)))

    def get_run_with_records(self, run_id: str) -> dict[str, Any]:
        """Give a run's snapshot with its task records."""
        return cast(dict[str, Any], self._json(requests.run(run_id, include="records")))

    def get_tasks(self, run_id: str) -> dict[str, Any]:
        """Give a run's tasks."""
        return cast(dict[str, Any], self._json(requests.run(run_id, "/tasks")))

    def why_run(self, run_id: str, *, lang: str | None = None) -> dict[str, Any]:
        """Tell why a run is where it is: ``code``, ``message``, ``hint`` and ``details``.

        Args:
            lang: ``en`` or ``ja``; the server's choice when not given.
        """
        return cast(dict[str, Any], self._json(requests.run(run_id, "/why", lang=lang)))

    def list_runs(
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
        return cast(list[dict[str, Any]], requests.as_page(self._json(call))["items"])

    def list_runs_vnext(
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
        return requests.as_page(self._json(call))

    def watch_run(
        self,
        run_id: str,
        *,
        include_records: bool = False,
        since: float | None = None,
        timeout_sec: int | None = None,
        last_event_id: str | None = None,
    ) -> Iterator[dict[str, Any]]:
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
        return self._events(call)

    def get_logs(
        self, run_id: str, *, tail: int | None = None, task: str | None = None, stream: str | None = None
    ) -> dict[str, Any]:
        """Give what a run's tasks have printed: ``lines`` with ``time attempt task stream text``.

        Args:
            tail: Only so many of the last lines.
            task: Only lines of this task (and notices).
            stream: Only ``stdout``, ``stderr`` or ``notice``.
        """
        call = requests.run(run_id, "/logs", tail=tail, task=task, stream=stream)
        return cast(dict[str, Any], self._json(call))

    def follow_logs(
        self,
        run_id: str,
        *,
        tail: int | None = None,
        task: str | None = None,
        stream: str | None = None,
        last_event_id: str | None = None,
    ) -> Iterator[dict[str, Any]]:
        """Return events with what a run's tasks print: ``log`` with ``lines``, ``heartbeat``, and ``end`` as the last.

        Where ``live`` is among an event's data, it is a list of lines that may still change, such as progress bars. It
        takes the place of the list before it.

        Args:
            tail: Begin with so many of the last lines; 0 for none.
            task: Only lines of this task (and notices).
            stream: Only ``stdout``, ``stderr`` or ``notice``.
            last_event_id: ``id`` of the last event seen, to go on after it.
        """
        call = requests.follow_logs(run_id, tail=tail, task=task, stream=stream, last_event_id=last_event_id)
        return self._events(call)

    def cancel_run(
        self, run_id: str, *, wait: bool = False, timeout_sec: int | None = None, reason: str | None = None
    ) -> dict[str, Any]:
        """Ask a run to stop.

        Args:
            wait: Wait until it has.
            timeout_sec: For so many seconds (30 by default).

        Raises:
            TimeoutError: it did not stop in time.
        """
        snapshot = cast(dict[str, Any], self._json(requests.cancel(run_id, reason)))
        if not wait:
            return snapshot
        deadline = time.monotonic() + (30 if timeout_sec is None else max(1, timeout_sec))
        while snapshot.get("status") not in TERMINAL:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"run {run_id} is still {snapshot.get('status')}")
            for received in self.watch_run(run_id, timeout_sec=max(1, min(600, round(left)))):
                snapshot = snapshot_of(received) or snapshot
                if time.monotonic() > deadline or snapshot.get("status") in TERMINAL:
                    break
            else:
                time.sleep(min(EARLY_END_PAUSE, left))
        return snapshot

    def rerun_run(self, run_id: str, *, idempotency_key: str | None = None) -> dict[str, Any]:
        """Start a new run of the same flow and params, whatever became of the old one."""
        call = requests.rerun(run_id, idempotency_key)
        return cast(dict[str, Any], self._submit(call, idempotency_key))

    def get_workers(
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
        return cast(list[dict[str, Any]], self._json(call))

    def patch_worker_hidden(self, worker_id: str, *, hidden: bool) -> dict[str, Any]:
        """Hide a worker from lists, or show it again."""
        return cast(dict[str, Any], self._json(requests.patch_worker(worker_id, hidden)))

    def drain_worker(self, worker_id: str, *, reason: str | None = None) -> dict[str, Any]:
        """Ask a worker to take no more runs, and to stop when those that it has have ended.

        Args:
            worker_id: Which worker.
            reason: Kept in its record, and shown by ``why`` to those that wait for it.

        Raises:
            ApiError: there is no such worker (404), or it is stopped or disconnected (409).
            CannotConnect: the server does not answer.
        """
        return cast(dict[str, Any], self._json(requests.drain_worker(worker_id, reason)))

    def get_doctor(self, *, lang: str | None = None) -> dict[str, Any]:
        """Tell what the server knows to be wrong: ``findings``, each with ``severity code message hint details``.

        Args:
            lang: ``en`` or ``ja``; the server's choice when not given.
        """
        return cast(dict[str, Any], self._json(requests.doctor(lang)))

    def get_metrics(self) -> str:
        """Give the metrics' text."""
        return self._send(requests.metrics()).text

    def _submit(self, call: Call, key: str | None) -> Any:
        patience = Patience(give_up_sec=self._retry_sec)
        failed: PyocoError | None = None
        while True:
            try:
                return self._json(call)
            except ServerTooOld:
                if failed is None:
                    raise
                raise failed from None  # it may have been carried out, and this server cannot tell a repeat
            except (CannotConnect, ApiError) as error:
                if key is None:  # it may have been carried out: a repeat could make a second run
                    raise
                pause = patience.next_pause(error)
                self._on_retry(error)
                time.sleep(pause)
                failed, call = error, call.as_repeat()

    def _events(self, call: Call) -> Iterator[dict[str, Any]]:
        with (
            connection_errors(self._url, self._proxy),
            self._client.stream(call.method, call.path, **call.options) as response,
        ):
            if not response.is_success:
                response.read()
            self._ask(self._abilities.after(call, response))
            check(response, self._proxy)
            for received in httpx2.EventSource(response, max_event_size=None):
                yield event(received)

    def _json(self, call: Call) -> Any:
        return body_of(self._send(call), self._proxy)

    def _send(self, call: Call) -> httpx2.Response:
        with connection_errors(self._url, self._proxy):
            self._ask(self._abilities.before(call))
            response = self._client.request(call.method, call.path, **call.options)
            self._ask(self._abilities.after(call, response))
            return check(response, self._proxy)

    def _ask(self, asking: Asking) -> None:
        """Ask a server what is to be known of it."""
        try:
            question = next(asking)
            while True:
                question = asking.send(self._client.request(question.method, question.path))
        except StopIteration:
            return


__all__ = ["TERMINAL", "ApiError", "CannotConnect", "PyocoHttpClient"]
