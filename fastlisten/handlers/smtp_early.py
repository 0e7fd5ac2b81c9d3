"""Early talkers: clients that speak before they are greeted (`smtp.greeting-delay`).

Rules of this file: what happens until the greeting. RFC 5321 3.1 has the client wait for it;
programs that only push spam out often do not. Who waits gets the protocol object that it would
have got at once; who speaks hears 554 and is closed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import cast

from fastlisten.handlers.base import ConnectionInfo

__all__ = ["Anteroom"]

logger = logging.getLogger("fastlisten.smtp")


class Anteroom(asyncio.Protocol):
    """A connection until it is greeted.

    Args:
        info: whose.
        delay: seconds until the greeting.
        greeting: to be sent then.
        refusal: what a client hears that does not wait.
        then: makes the protocol object for what follows.
    """

    __slots__ = ("_delay", "_greeting", "_info", "_refusal", "_then", "_timer", "_transport")

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
    ) -> None:
        self._info = info
        self._delay = delay
        self._greeting = greeting
        self._refusal = refusal
        self._then = then
        self._timer: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait."""
        self._transport = cast(asyncio.Transport, transport)
        self._timer = asyncio.get_running_loop().call_later(self._delay, self._greet)

    def data_received(self, data: bytes) -> None:
        """Refuse a client that speaks first."""
        self._stop()
        transport = self._transport
        if transport is not None and not transport.is_closing():
            logger.info("%s: [%s] spoke before its greeting", self._info.listener, self._info.peer)
            transport.write(self._refusal)
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the client."""
        self._stop()
        self._transport = None

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
