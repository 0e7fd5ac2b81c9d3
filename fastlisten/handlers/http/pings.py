"""Pings that find out whether a websocket's client is still there.

Rules of this file: it sends pings and reports a client that does not answer; the caller decides
what to do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

__all__ = ["Pings"]

#: Seconds between pings, and seconds for an answer; uvicorn's defaults.
_INTERVAL = _PATIENCE = 20.0


class Pings:
    """Sends pings periodically.

    Args:
        loop: the running loop.
        send: sends a ping; returns whether it could.
        answered: returns whether the last ping was answered, or the answer may still be unread.
        lost: called once if it was not.
    """

    __slots__ = ("_answered", "_loop", "_lost", "_send", "_timer")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        send: Callable[[], bool],
        answered: Callable[[], bool],
        lost: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._send = send
        self._answered = answered
        self._lost = lost
        self._timer = loop.call_later(_INTERVAL, self._ping)

    def stop(self) -> None:
        """Send no more."""
        self._timer.cancel()

    def _ping(self) -> None:
        if self._send():
            self._timer = self._loop.call_later(_PATIENCE, self._check)

    def _check(self) -> None:
        if self._answered():
            self._timer = self._loop.call_later(_INTERVAL, self._ping)
        else:
            self._lost()
