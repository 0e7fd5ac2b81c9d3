"""Draining: how listeners are closed.

    stop accepting ─> idle clients get a farewell ─> busy ones finish or run out of time ─> cut

Rules of this file: it decides when connections are closed; a listener knows how. The end of a
server, the drain of one listener on request and the end of a test's server all use `drain`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from fastlisten.runtime.listener import Listener

__all__ = ["STOPPED_FOR", "drain"]

#: Seconds between two checks whether busy connections have become idle, which nothing reports.
#: Short compared with a transaction, long compared with a check (a scan of the table of slots).
_CHECK_INTERVAL = 0.05

#: If a check is late by more than this many seconds, the process itself was stopped, and clients
#: get that time in addition.
STOPPED_FOR = 1.0


async def drain(
    listeners: Sequence[Listener],
    seconds: float,
    *,
    at_once: asyncio.Event | None = None,
    waiting: Callable[[int], object] | None = None,
) -> int:
    """Drain listeners and wait until all of them are closed.

    The sockets are closed, and farewells sent, before this coroutine first suspends.

    Args:
        listeners: listeners of this process.
        seconds: how long busy connections may take to finish. Time during which the process was
            stopped (SIGSTOP, a suspended machine) does not count.
        at_once: an event that ends the wait.
        waiting: called with the number of connections that are still open after the idle ones are
            closed, unless there are none.

    Returns:
        How many connections were closed before they had finished.
    """
    loop = asyncio.get_running_loop()
    checked = loop.time()
    ends = checked + seconds
    left = _still_open(listeners)
    if left:
        # Idle connections are gone after one iteration of the loop.
        await asyncio.sleep(0)
        left = _still_open(listeners)
    if left and waiting is not None:
        waiting(left)
    wakers: list[asyncio.Future[object]] = [asyncio.ensure_future(_all_closed(listeners))]
    if at_once is not None:
        wakers.append(asyncio.ensure_future(at_once.wait()))
    try:
        while left and checked < ends and not (at_once is not None and at_once.is_set()):
            await asyncio.wait(wakers, timeout=_CHECK_INTERVAL, return_when=asyncio.FIRST_COMPLETED)
            now = loop.time()
            late = now - checked - _CHECK_INTERVAL
            if late > STOPPED_FOR:
                ends += late
            checked = now
            left = _still_open(listeners)
    finally:
        for waker in wakers:
            waker.cancel()
    cut = sum(listener.abort() for listener in listeners) if left else 0
    await _all_closed(listeners)
    return cut


def _still_open(listeners: Sequence[Listener]) -> int:
    """Close connections that have become idle; return how many descriptors are left."""
    return sum(listener.drain() for listener in listeners)


async def _all_closed(listeners: Sequence[Listener]) -> None:
    for listener in listeners:
        await listener.closed()
