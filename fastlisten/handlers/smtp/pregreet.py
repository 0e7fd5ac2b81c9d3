"""Early talkers: clients that speak before they are greeted (`smtp.greeting-delay`).

Rules of this file: what happens until the greeting. RFC 5321 3.1 has the client wait for it;
programs that only push spam out often do not. Who waits gets the protocol object that it would
have got at once; who speaks hears 554 and is closed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import cast

from fastlisten.handlers.base import ConnectionInfo
from fastlisten.handlers.smtp.engine.events import Refusal
from fastlisten.handlers.smtp.session_log import LogContext, SessionLog
from fastlisten.log_events import new_session, session_name
from fastlisten.loop.deadline import Deadline

__all__ = ["PregreetDelay"]


class PregreetDelay(asyncio.Protocol):
    """A connection until it is greeted.

    Args:
        info: whose.
        delay: seconds until the greeting.
        greeting: to be sent then.
        refusal: what a client hears that does not wait.
        then: makes the protocol object for what follows.
        session_log: the log of the listener.
    """

    __slots__ = (
        "_began",
        "_delay",
        "_greeting",
        "_info",
        "_refusal",
        "_session_log",
        "_then",
        "_timer",
        "_transport",
    )

    #: A drain need not wait for a client that has not even been greeted.
    busy = False
    #: It is the server that lets the client wait.
    working = True

    def __init__(
        self,
        info: ConnectionInfo,
        delay: float,
        greeting: bytes,
        refusal: bytes,
        then: Callable[[], asyncio.Protocol],
        session_log: SessionLog,
    ) -> None:
        self._began = time.monotonic()
        self._info = info
        self._delay = delay
        self._greeting = greeting
        self._refusal = refusal
        self._then = then
        self._session_log = session_log
        self._timer: Deadline | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait."""
        self._transport = cast(asyncio.Transport, transport)
        loop = asyncio.get_running_loop()
        self._timer = Deadline(loop, self._delay, transport, self._greet)

    def data_received(self, data: bytes) -> None:
        """Refuse a client that speaks first."""
        self._stop()
        transport = self._transport
        if transport is not None and not transport.is_closing():
            self._log(transport, len(data))
            transport.write(self._refusal)
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the client."""
        self._stop()
        self._transport = None

    def _log(self, transport: asyncio.Transport, received: int) -> None:
        """Log the refusal, and the end of a session that begins and ends with it."""
        info, session_log = self._info, self._session_log
        tls = transport.get_extra_info("ssl_object")
        version = "" if tls is None else tls.version() or "TLS"
        who = LogContext(
            info.listener, info.peer, info.port, session_name(new_session()), tls=version
        )
        refusal = Refusal(self._refusal, b"CONNECT", "pregreet", None, ())
        session_log.counts.rejection(refusal.reply, refusal.reason)
        if session_log.wants(refusal.reason):
            session_log.refused(who, refusal)
        if session_log.wants_end("rejected"):
            duration = time.monotonic() - self._began
            session_log.ended(who, "rejected", duration, received, len(self._refusal), 0, 1)

    def _greet(self) -> None:
        self._timer = None
        transport = self._transport
        if transport is not None and not transport.is_closing():
            protocol = self._then()
            transport.set_protocol(protocol)
            protocol.connection_made(transport)
            transport.write(self._greeting)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
