"""The sessions of a listener that are in IDLE: they end when their account has been changed.

Rules of this file: on the loop. Other sessions are looked at with their next command. The accounts
file is looked at in the post office's threads, now and then, and only while somebody is in IDLE.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

__all__ = ["LOOK_EVERY", "IdleSession", "IdleSessions"]

#: Seconds after which is looked whether accounts have changed.
LOOK_EVERY = 10.0

#: Sessions that are asked before it is the turn of others: 2 ms.
_AT_ONCE = 500


class IdleSession(Protocol):
    """A session in IDLE."""

    def end_if_changed(self) -> None:
        """End, if nobody could log in any more as this session has."""


class IdleSessions:
    """The sessions in IDLE.

    Args:
        refresh: reads the accounts again if their file has changed, then calls back on the loop.
        version: returns what is another object once they have changed.
    """

    __slots__ = ("_refresh", "_sessions", "_timer", "_version", "_version_seen")

    def __init__(
        self,
        refresh: Callable[[asyncio.AbstractEventLoop, Callable[[], None]], None],
        version: Callable[[], object],
    ) -> None:
        self._refresh = refresh
        self._version = version
        self._version_seen: object = None
        self._sessions: set[IdleSession] = set()
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._sessions)

    def add(self, session: IdleSession) -> None:
        """Begin to look after a session."""
        if not self._sessions:
            self._version_seen = None  # its account may have changed since its command was read
        self._sessions.add(session)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(LOOK_EVERY, self._look)

    def discard(self, session: IdleSession) -> None:
        """End that."""
        self._sessions.discard(session)

    def close(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._sessions.clear()

    def _look(self) -> None:
        self._timer = None
        if self._sessions:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(LOOK_EVERY, self._look)
            self._refresh(loop, self._compare)

    def _compare(self) -> None:
        version = self._version()
        if version is not self._version_seen:
            self._version_seen = version
            self._ask(list(self._sessions))

    def _ask(self, sessions: list[IdleSession]) -> None:
        for session in sessions[:_AT_ONCE]:
            if session in self._sessions:
                session.end_if_changed()
        if rest := sessions[_AT_ONCE:]:
            asyncio.get_running_loop().call_soon(self._ask, rest)
