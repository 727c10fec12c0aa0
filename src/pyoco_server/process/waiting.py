"""Waiting for the first of several events, with a deadline."""

import asyncio


async def first_event(timeout: float, *events: asyncio.Event) -> None:
    """Wait until any of the events is set, ``timeout`` seconds at most."""
    if any(event.is_set() for event in events):
        return
    waits = {asyncio.ensure_future(event.wait()) for event in events}
    try:
        await asyncio.wait(waits, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
