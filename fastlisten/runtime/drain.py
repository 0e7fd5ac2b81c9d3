"""The drain: how listeners come to their end, whoever asks for it.

    stop accepting ─> idle clients get a farewell ─> busy ones finish or run out of time ─> cut

Rules of this file: it decides when, a listener how. The end of a server, the drain of one listener
on request and the end of a test's server all go through `drain`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from fastlisten.runtime.listener import Listener

__all__ = ["STOPPED_FOR", "drain"]

#: How often to check whether busy connections have become idle, in seconds: nothing reports it.
#: Short compared with a transaction, long compared with a check (a scan of the table of slots).
_CHECK_INTERVAL = 0.05

#: A pause that took this many seconds too long: the process itself was stopped, and its clients
#: are not made to pay for that.
STOPPED_FOR = 1.0


async def drain(
    listeners: Sequence[Listener],
    patience: float,
    *,
    at_once: asyncio.Event | None = None,
    waiting: Callable[[int], object] | None = None,
) -> int:
    """Drain listeners and wait until all of them are closed.

    The sockets are closed and idle clients told before the first suspension.

    Args:
        listeners: of this process.
        patience: seconds that busy connections may take to finish. Time during which the process
            was stopped (SIGSTOP, a suspended machine) does not count.
        at_once: ends the wait when it is set.
        waiting: called with the number of connections that are still open, if there are any once
            the idle ones are gone.

    Returns:
        How many connections were cut because they had not finished.
    """
    loop = asyncio.get_running_loop()
    checked = loop.time()
    ends = checked + patience
    left = _still_open(listeners)
    if left:
        # Idle connections are gone after one turn of the loop.
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
    """Drain what has become idle; return how many descriptors are left."""
    return sum(listener.drain() for listener in listeners)


async def _all_closed(listeners: Sequence[Listener]) -> None:
    for listener in listeners:
        await listener.closed()
