"""The pregreet delay (`smtp.greeting-delay`): clients that talk before the greeting are refused.

Rules of this file: what happens until the greeting. RFC 5321 3.1 requires a client to wait for it;
programs that only send spam often don't. A client that waits gets the protocol object it would
otherwise have got at once. One that talks first gets 554, and the connection is closed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import cast

from fastlisten.handlers.base import ConnectionInfo
from fastlisten.handlers.smtp.engine.smtp_events import Refusal
from fastlisten.handlers.smtp.session_log import LogContext, SessionLog
from fastlisten.log_events import new_session, session_name
from fastlisten.loop.deadline import Deadline

__all__ = ["PregreetDelay"]


class PregreetDelay(asyncio.Protocol):
    """A connection until the greeting is sent.

    Args:
        info: about the connection.
        delay: seconds until the greeting.
        greeting: to send then.
        refusal: the reply to a client that does not wait.
        then: makes the protocol object that takes over.
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

    #: A drain need not wait for a client that has not been greeted.
    busy = False
    #: The client waits for the server, so that timeout.idle must not run out.
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
        """Start the delay."""
        self._transport = cast(asyncio.Transport, transport)
        loop = asyncio.get_running_loop()
        self._timer = Deadline(loop, self._delay, transport, self._greet)

    def data_received(self, data: bytes) -> None:
        """Refuse a client that talks first."""
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
        """Log the refusal, and the end of the session, which consists of nothing else."""
        info, session_log = self._info, self._session_log
        tls = transport.get_extra_info("ssl_object")
        version = "" if tls is None else tls.version() or "TLS"
        context = LogContext(
            info.listener, info.peer, info.port, session_name(new_session()), tls=version
        )
        refusal = Refusal(self._refusal, b"CONNECT", "pregreet", None, ())
        session_log.counts.rejection(refusal.reply, refusal.reason)
        if session_log.wants(refusal.reason):
            session_log.refused(context, refusal)
        if session_log.wants_end("rejected"):
            duration = time.monotonic() - self._began
            session_log.ended(context, "rejected", duration, received, len(self._refusal), 0, 1)

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
