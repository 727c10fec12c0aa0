"""Following a run to its end, over the server's windows and over broken connections."""

import time
from collections.abc import Iterator
from typing import Any

from pyoco_server.client.answers import TERMINAL, snapshot_of
from pyoco_server.client.errors import ApiError, CannotConnect, ServerTooOld
from pyoco_server.client.http import PyocoHttpClient
from pyoco_server.client.patience import Patience

EXIT_CODES = {"COMPLETED": 0, "FAILED": 3, "CANCELLED": 8}
_WINDOW_SEC = 600


def follow(
    client: PyocoHttpClient,
    run_id: str,
    *,
    records: bool = False,
    since: float | None = None,
    timeout_sec: float | None = None,
    reached: bool = False,
) -> Iterator[dict[str, Any]]:
    """Give a run's events until the one with its terminal snapshot.

    Args:
        timeout_sec: Seconds for all of it; ``None`` for no limit.
        reached: Whether the server has answered before. If not, a failing first try is the answer: an address that
            never worked is not worth waiting for.

    Raises:
        TimeoutError: the time is over and the run still runs.
        CannotConnect: the server was away for 30 seconds.
        ApiError: there is no such run, or the server refused.
    """
    deadline = None if timeout_sec is None else time.monotonic() + timeout_sec
    patience = Patience(deadline=deadline)
    seen: str | None = None
    while True:
        left = _WINDOW_SEC if deadline is None else deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError(f"run {run_id} has not ended within {timeout_sec:g} s")
        window = max(1, min(_WINDOW_SEC, round(left)))
        opened = time.monotonic()
        try:
            for event in client.watch_run(
                run_id, include_records=records, since=since, timeout_sec=window, last_event_id=seen
            ):
                reached = True
                patience.renew()
                seen = event.get("id", seen)
                yield event
                if snapshot_of(event).get("status") in TERMINAL:
                    return
                if deadline is not None and time.monotonic() >= deadline:
                    break
            # The window is over; with --since the terminal snapshot itself may have been left out.
            if client.get_run(run_id).get("status") in TERMINAL:
                since = seen = None
        except ServerTooOld:
            if seen is None:
                raise
            seen = None  # another gateway, and an older one: it begins with the snapshot as it is now
            continue
        except (CannotConnect, ApiError) as error:
            if not reached:
                raise
            patience.bear(error)
            continue
        if time.monotonic() - opened < 1:
            patience.pause()  # a server that is stopping ends its streams at once


def wait_for_end(client: PyocoHttpClient, run_id: str, timeout_sec: float | None) -> dict[str, Any]:
    """Wait for the end of a run that the server knows; its terminal snapshot is the answer.

    Raises:
        As ``follow`` does.
    """
    snapshot: dict[str, Any] = {}
    for event in follow(client, run_id, timeout_sec=timeout_sec, reached=True):
        snapshot = snapshot_of(event) or snapshot
    return snapshot
