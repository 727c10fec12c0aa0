"""Following a run to its end, over the server's windows and over broken connections."""

import time
from collections.abc import Iterator
from typing import Any

from pyoco_server.client.answers import ApiError, CannotConnect
from pyoco_server.client.http import TERMINAL, PyocoHttpClient

EXIT_CODES = {"COMPLETED": 0, "FAILED": 3, "CANCELLED": 8}
_GIVE_UP_SEC = 30.0
_LONGEST_PAUSE = 3.0
_WINDOW_SEC = 600
_BUSY = 503


def follow(
    client: PyocoHttpClient, run_id: str, *, records: bool, since: float | None, timeout_sec: float | None
) -> Iterator[dict[str, Any]]:
    """Give a run's events until the one with its terminal snapshot.

    Args:
        timeout_sec: Seconds for all of it; ``None`` for no limit.

    Raises:
        TimeoutError: the time is over and the run still runs.
        CannotConnect: the server was away for 30 seconds.
    """
    deadline = time.monotonic() + timeout_sec if timeout_sec else None
    seen: str | None = None
    away_since: float | None = None
    pause = 0.2
    while True:
        left = deadline - time.monotonic() if deadline else _WINDOW_SEC
        if left <= 0:
            raise TimeoutError(f"run {run_id} has not ended within {timeout_sec:g} s")
        try:
            window = max(1, min(_WINDOW_SEC, round(left)))
            for event in client.watch_run(
                run_id, include_records=records, since=since, timeout_sec=window, last_event_id=seen
            ):
                away_since, pause = None, 0.2
                seen = event.get("id", seen)
                yield event
                if (event["data"].get("snapshot") or {}).get("status") in TERMINAL:
                    return
                if deadline and time.monotonic() > deadline:
                    break
            # The window is over; with --since the terminal snapshot itself may have been left out.
            if client.get_run(run_id)["status"] in TERMINAL:
                since = seen = None
        except (CannotConnect, ApiError) as error:
            if isinstance(error, ApiError) and error.status != _BUSY:
                raise
            away_since = away_since or time.monotonic()
            if time.monotonic() - away_since > _GIVE_UP_SEC:
                raise
            time.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)


def wait_for_end(client: PyocoHttpClient, run_id: str, timeout_sec: float | None) -> dict[str, Any]:
    """Wait for a run's end; its terminal snapshot is the answer."""
    snapshot: dict[str, Any] = {}
    for event in follow(client, run_id, records=False, since=None, timeout_sec=timeout_sec):
        snapshot = event["data"].get("snapshot") or snapshot
    return snapshot
