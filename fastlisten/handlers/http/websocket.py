"""One websocket: uvicorn's protocol between the core's transport and the application.

Rules of this file: as in protocol.py, which hands the connection over. Without the package
`websockets` there are none: a client that asks for one is served as any other.

uvicorn sends a ping every 20 s and ends a connection that does not answer it, so that
`timeout.idle` needs not end any.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any, cast

from fastlisten.handlers.http.exchange import shown_target
from fastlisten.handlers.http.transport import client_name, server_address
from fastlisten.log_events import log, log_fault

if TYPE_CHECKING:
    from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

    from fastlisten.handlers.base import ConnectionInfo
    from fastlisten.handlers.http.service import Service

    AVAILABLE = True
else:
    try:
        from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
    except ImportError:
        WebSocketsSansIOProtocol = asyncio.Protocol
        AVAILABLE = False
    else:
        AVAILABLE = True

__all__ = ["AVAILABLE", "WebSocket", "silent"]

logger = logging.getLogger("fastlisten.http")

#: The close codes of RFC 6455 7.4.1: the server has failed.
_INTERNAL_ERROR = 1011

_BAD_HANDSHAKE = (
    b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain; charset=utf-8\r\n"
    b"content-length: 12\r\nconnection: close\r\n\r\nBad Request\n"
)


class _Silent(logging.Logger):
    """What uvicorn's protocols log to: nothing, because all that it says is said here."""

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802 (logging's own name)
        """Return False."""
        return False


silent = _Silent("fastlisten.http.silent", logging.CRITICAL + 1)


class WebSocket(WebSocketsSansIOProtocol):
    """Serves one websocket.

    Args:
        service: what is the same for all connections of the listener.
        info: whose connection it is.
        options: what uvicorn gives to its own class.
    """

    def __init__(self, *, service: Service, info: ConnectionInfo, **options: Any) -> None:
        super().__init__(**options)
        self.logger = self.conn.logger = silent
        self.app = self._serve
        self.name = client_name(info)
        self._service = service
        self._info = info
        self._draining = False

    # -- asked by the core

    @property
    def busy(self) -> bool:
        """It ends by its own closing handshake, which a drain begins."""
        return not self._draining

    @property
    def working(self) -> bool:
        """Pings find out whether the client is there; only one that does not read is idle."""
        return not self.transport.get_write_buffer_size()

    def drain(self) -> None:
        """Tell both sides that the server ends (1012)."""
        self._draining = True
        if not self.transport.is_closing():
            self.shutdown()

    # -- from the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin; the request for it is given to `data_received` next."""
        self.connections.add(self)
        self.transport = cast(asyncio.Transport, transport)
        info = self._info
        self.client = (info.peer, info.port) if info.peer else None
        self.server = server_address(transport)
        self.scheme = "wss" if info.tls else "ws"
        if self._service.draining:
            self.loop.call_soon(self.drain)

    def data_received(self, data: bytes) -> None:
        """Take what the client sent; the first time, the whole of its handshake."""
        super().data_received(data)
        if self.handshake_initiated or self.transport.is_closing():
            return
        # The library has limits of its own for a head (lines of 8 KiB, 128 fields), and uvicorn
        # does not look whether it was read.
        answer = b"".join(self.conn.data_to_send()) or _BAD_HANDSHAKE
        self._log(int(answer[9:12]))
        self.transport.write(answer)
        self.transport.close()

    def handle_connect(self, event: Any) -> None:
        """Begin, or refuse what is no handshake; called by uvicorn."""
        super().handle_connect(event)
        if self.response.status_code != 101:
            self._log(self.response.status_code)

    def handle_parser_exception(self) -> None:
        """End what is no websocket; called by uvicorn."""
        if self.conn.close_sent is not None:
            super().handle_parser_exception()
            return
        # Not even the handshake was one that the library reads; uvicorn does not expect it.
        self._log(400)
        self.transport.write(_BAD_HANDSHAKE)
        self.transport.close()

    # -- the application

    async def _serve(self, scope: Any, receive: Any, send: Any) -> None:
        """Run the application; called by uvicorn in place of it."""

        async def watched(message: Any) -> None:
            before = self.handshake_complete or self.initial_response is not None
            await send(message)
            if not before:
                self._log(_status(message))

        try:
            await self._service.app(scope, receive, watched)
        except BaseException as error:
            # SystemExit and cancellation, too: see exchange.py.
            if isinstance(error, (asyncio.CancelledError, GeneratorExit)) and self._over:
                return
            if self.disconnected:
                line = f"the client has gone, the application raised {error!r}"
                logger.info("%s: %s", self, line)
                return
            text = "%s: the application failed"
            log_fault(logger, "application-failed", text, self, **self._info.fields)
            if self.handshake_complete and not self.close_sent:
                with contextlib.suppress(Exception):
                    # Whatever comes of it, the transport is closed after this.
                    await send({"type": "websocket.close", "code": _INTERNAL_ERROR})
        else:
            if self.handshake_complete or self.initial_response or self.disconnected:
                return
            text = "%s: the application ended without an answer"
            log(logger, logging.ERROR, "application-failed", text, self, **self._info.fields)
        if not (self.handshake_complete or self.initial_response):
            self.send_500_response()
            self.handshake_complete = True
            self._log(500)

    @property
    def _over(self) -> bool:
        """Nobody waits for an answer: the client has gone, or the server has ended it."""
        return bool(self.disconnected or self.transport.is_closing())

    def _log(self, status: int) -> None:
        if self._service.access_log:
            info, scope = self._info, getattr(self, "scope", None)
            log(
                logger,
                logging.INFO,
                "http-request",
                "%s %d",
                self,
                status,
                listener=info.listener,
                peer=info.peer,
                port=info.port,
                method="websocket",
                target=shown_target(scope) if scope else "",
                status=status,
            )

    def __str__(self) -> str:
        scope: Any = getattr(self, "scope", None)
        line = f"websocket {shown_target(scope)}" if scope else "websocket"
        return f'{self.name} "{line}"'


def _status(message: Any) -> int:
    """Return the status of HTTP that a first message amounts to."""
    if message["type"] == "websocket.http.response.start":
        return int(message["status"])
    return 101 if message["type"] == "websocket.accept" else 403
