"""One websocket, between the core's transport and the application.

Rules of this file: ASGI's side of a websocket. protocol.py reads the handshake, websocket_wire.py
handles frames. Without the package `websockets` this module is not imported, and a request for a
websocket is served like any other request.

    connecting ──accept──> open ──close, by either side──> closing ──> closed
        └──close, http.response, an error──> answered by HTTP ─────────>┘

The next message is read only after the application has received the previous one. While the client
does not read what is sent to it, nothing is read from it either, because answers would pile up.

Pings detect clients that have gone, so `timeout.idle` does not apply to websockets.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any

from fastlisten.handlers.http.access_log import log_request, shown_target
from fastlisten.handlers.http.asgi import ClientGoneError
from fastlisten.handlers.http.denial import Denial
from fastlisten.handlers.http.flow import WriteGate
from fastlisten.handlers.http.pings import Pings
from fastlisten.handlers.http.response import ResponseError, field_of, octets, refusal
from fastlisten.handlers.http.service import Service, begun
from fastlisten.handlers.http.transport import client_name
from fastlisten.handlers.http.websocket_wire import WebSocketWire
from fastlisten.log_events import log, log_fault

if TYPE_CHECKING:
    from websockets.http11 import Response

    from fastlisten.handlers.base import ConnectionInfo
    from fastlisten.handlers.http.asgi import Message
    from fastlisten.handlers.http.head import Request


__all__ = ["WebSocket"]

logger = logging.getLogger("fastlisten.http")

#: Close codes of RFC 6455 7.4.1, and of its registry.
_NORMAL, _FAILED, _RESTARTS = 1000, 1011, 1012

#: Seconds in which a client must answer our Close frame; the library's default for servers.
_CLOSE_PATIENCE = 10.0

#: Response fields that are up to the server; an application's are left out.
_OWN_FIELDS = frozenset((b"connection", b"upgrade", b"content-length", b"transfer-encoding"))

#: Octets of unread input above which reading pauses.
_HIGH_WATER = 64 * 1024

#: Seconds of work on one connection's frames before other connections have their turn.
_SHARE = 0.002


class WebSocket(asyncio.Protocol):
    """Serves one websocket.

    Args:
        service: what the connections of the listener share.
        info: where the request comes from.
        transport: the core's transport.
        scope: the scope of the handshake.

    Attributes:
        name: the connection, for logs.
        transport: as given.
    """

    def __init__(
        self,
        service: Service,
        info: ConnectionInfo,
        transport: asyncio.Transport,
        scope: dict[str, Any],
    ) -> None:
        self.name = client_name(info)
        self.transport = transport
        self._service = service
        self._info = info
        self._loop = asyncio.get_running_loop()
        self._wire = WebSocketWire(service.max_message)
        self._scope = scope
        self._response: Response | None = None
        self._denial: Denial | None = None
        self._answered = False  # the handshake has been answered, or never will be
        self._draining = self._closed = self._told = False
        self._connected = False  # the application has been told of the connection
        self._buffer = bytearray()
        self._waiter: asyncio.Future[None] | None = None
        self._gate = WriteGate()
        self._scheduled = False
        self._reading = True
        self._pings: Pings | None = None
        self._end_timer: asyncio.TimerHandle | None = None

    # -- called by the core

    @property
    def busy(self) -> bool:
        """A drain begins its closing handshake, and waits for that."""
        return not self._draining

    @property
    def working(self) -> bool:
        """Always, unless the client does not read; pings detect clients that have gone."""
        return not self.transport.get_write_buffer_size()

    def drain(self) -> None:
        """Close with 1012, and tell the application."""
        self._draining = True
        if self.transport.is_closing():
            return
        if not self._answered:
            self._refuse(503)
        elif self._wire.open:
            self._wire.close(_RESTARTS)
            self._flush()
            self.transport.close()
        self._disconnect()

    # -- the handshake

    def begin(self, request: Request) -> None:
        """Refuse a handshake, or let the application answer it.

        Args:
            request: its head.
        """
        self._service.connections.add(self)
        self._scope["subprotocols"] = [
            one.strip()
            for name, value in request.headers
            if name == b"sec-websocket-protocol"
            for one in value.decode("latin-1").split(",")
        ]
        self._scope["extensions"] = {"websocket.http.response": {}}
        if self._service.draining:
            self._refuse(503)
            return
        if request.method != b"GET":
            self._refuse(405, b"allow: GET\r\n")
            return
        self._response = self._wire.judge(request)
        if self._response is None or self._response.status_code != 101:
            status = 400 if self._response is None else self._response.status_code
            fields = b"sec-websocket-version: 13\r\n" if status in (400, 426) else b""
            self._refuse(status, fields)
            return
        task = self._service.run(self._serve())
        task.add_done_callback(self._service.tasks.discard)

    def _refuse(self, status: int, fields: bytes = b"") -> None:
        """Refuse the handshake with an HTTP response."""
        self._answered = True
        self._log(status)
        self.transport.write(refusal(status, head_only=False, fields=fields))
        self.transport.close()

    # -- asyncio.Protocol

    def data_received(self, data: bytes) -> None:
        """Take input."""
        self._buffer += data
        self._process()

    def eof_received(self) -> bool:
        """Close, because a websocket cannot be half-closed."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the application, and release everything."""
        self._closed = True
        self._service.connections.discard(self)
        if self._pings is not None:
            self._pings.stop()
        if self._end_timer is not None:
            self._end_timer.cancel()
        self._buffer.clear()
        self._disconnect()
        self._gate.open()

    def pause_writing(self) -> None:
        """Make the application wait and stop reading, because the client does not read."""
        self._gate.close()
        self._pause_or_resume()

    def resume_writing(self) -> None:
        """Go on."""
        self._gate.open()
        if not self._closed:
            self._process()

    def _process(self) -> None:
        """Read frames until there is a message for the application."""
        wire, buffer = self._wire, self._buffer
        if self._scheduled or wire.connecting:
            self._pause_or_resume()
            return
        ends = time.monotonic() + _SHARE
        while buffer and not self._gate.closed and not self._closed:
            # What follows a message waits; after our own Close nothing is for the application.
            if wire.message is not None and wire.open:
                break
            if not wire.read(buffer):
                break
            self._flush()
            if wire.message is not None:
                self._wake()
            if wire.ended:
                self._disconnect()
            if time.monotonic() > ends:
                self._scheduled = True
                self._loop.call_soon(self._take_turn)
                break
        self._pause_or_resume()

    def _take_turn(self) -> None:
        """Continue after other connections have had their turn."""
        self._scheduled = False
        if not self.transport.is_closing():
            self._process()

    def _flush(self) -> None:
        """Send pending output; close the connection if the websocket is closed."""
        for data in self._wire.output():
            if data:
                self.transport.write(data)
            else:
                self.transport.close()

    def _pause_or_resume(self) -> None:
        wanted = not self._gate.closed and len(self._buffer) <= _HIGH_WATER
        if wanted is self._reading or self.transport.is_closing():
            return
        self._reading = wanted
        if wanted:
            self.transport.resume_reading()
        else:
            self.transport.pause_reading()

    # -- pings

    def _send_ping(self) -> bool:
        if not self._wire.open or self.transport.is_closing():
            return False
        self._wire.ping()
        self._flush()
        return True

    def _ping_answered(self) -> bool:
        # The answer may be behind a message that the application has not received.
        unread = self._wire.message is not None or self._gate.closed
        return self._wire.ping_answered or unread

    def _ping_lost(self) -> None:
        self._wire.fail(_FAILED, "keepalive ping timeout")
        self._flush()
        self.transport.close()

    # -- the application

    async def _serve(self) -> None:
        try:
            await begun()
            await self._service.app(self._scope, self._receive, self._send)
        except BaseException as error:
            # This includes SystemExit and cancellation, which must end this connection, not the
            # process.
            if isinstance(error, (asyncio.CancelledError, GeneratorExit)) and self._over:
                return
            if self._told or self._over:
                line = f"the client has gone, the application raised {error!r}"
                logger.info("%s: %s", self, line)
                return
            text = "%s: the application failed"
            log_fault(logger, "application-failed", text, self, **self._info.fields)
            self._give_up(_FAILED)
        else:
            if self._over or self._told:
                return
            if self._answered and self._denial is None:
                self._give_up(_NORMAL)
                return
            text = "%s: the application returned without answering the handshake"
            log(logger, logging.ERROR, "application-failed", text, self, **self._info.fields)
            self._give_up(_FAILED)

    def _give_up(self, code: int) -> None:
        """Close a websocket that the application has left open or unanswered."""
        if self._wire.open:
            self._close(code, "")
        elif not self._answered or (self._denial is not None and not self._denial.begun):
            self._refuse(500)
        else:
            # In the middle of a denial.
            self.transport.close()

    @property
    def _over(self) -> bool:
        """The client has gone, or the server has ended the connection."""
        return self._closed or self.transport.is_closing()

    def _disconnect(self) -> None:
        """Let the application receive the disconnect."""
        self._told = True
        self._wake()

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def _receive(self) -> Message:
        """Return websocket.connect, then the messages, then websocket.disconnect."""
        if not self._connected:
            self._connected = True
            return {"type": "websocket.connect"}
        wire = self._wire
        while True:
            message, wire.message = wire.message, None
            if message is not None:
                self._process()
                return message
            if self._told:
                return {"type": "websocket.disconnect", "code": wire.code, "reason": wire.reason}
            if self._waiter is None:
                self._waiter = self._loop.create_future()
            # Shielded: several tasks of an application may wait, and one may be cancelled.
            await asyncio.shield(self._waiter)

    async def _send(self, message: Message) -> None:
        """Handle a message of the application.

        Raises:
            ClientGoneError: the client has disconnected.
            ResponseError: the message is not allowed, or not at this point.
        """
        kind = message["type"]
        if self._gate.closed:
            await self._gate.passed()
        if self._told or self._over:
            raise ClientGoneError("the client has gone")
        if not self._answered:
            self._answer(kind, message)
        elif self._denial is not None:
            self._deny(self._denial, message)
        elif not self._wire.open:
            raise ResponseError(f"{kind!r} comes after websocket.close")
        elif kind == "websocket.send":
            text, data = message.get("text"), message.get("bytes")
            if text is None and data is None:
                raise ResponseError("websocket.send has neither text nor bytes")
            self._wire.send(octets(data) if text is None else text)
            self._flush()
        elif kind == "websocket.close":
            code = message.get("code", _NORMAL)
            self._close(_NORMAL if code is None else code, message.get("reason") or "")
        else:
            raise ResponseError(f"{kind!r} is not expected now")

    def _answer(self, kind: str, message: Message) -> None:
        """Accept or refuse the handshake, as the application says."""
        if kind == "websocket.accept":
            self._accept(message)
        elif kind == "websocket.close":
            self._refuse(403)
            self._disconnect()
        elif kind == "websocket.http.response.start":
            self._denial = Denial(message)
            self._answered = True
        else:
            raise ResponseError(f"{kind!r} comes where websocket.accept is expected")

    def _accept(self, message: Message) -> None:
        assert self._response is not None
        fields = [field_of(name, value) for name, value in message.get("headers", ())]
        fields = [field for field in fields if field[0] not in _OWN_FIELDS]
        if any(name.startswith(b"sec-websocket-") for name, _ in fields):
            raise ResponseError("Sec-WebSocket-* headers are set by the server")
        if (chosen := message.get("subprotocol")) is not None:
            if chosen not in self._scope["subprotocols"]:
                raise ResponseError(f"the client did not offer the subprotocol {chosen!r}")
            fields.append((b"sec-websocket-protocol", chosen.encode()))
        self._answered = True
        self._wire.accept(self._response, fields)
        self._log(101)
        self._flush()
        self._pings = Pings(self._loop, self._send_ping, self._ping_answered, self._ping_lost)
        self._process()

    def _deny(self, denial: Denial, message: Message) -> None:
        """Send a part of the application's HTTP response."""
        begun = denial.begun
        last = denial.send(message, self.transport)
        if not begun:
            self._log(denial.status)
        if last:
            self._disconnect()
            self.transport.close()

    def _close(self, code: int, reason: str) -> None:
        """Begin the closing handshake."""
        self._wire.close(code, reason)
        self._flush()
        self._disconnect()
        self._end_timer = self._loop.call_later(_CLOSE_PATIENCE, self.transport.close)
        # The client's Close may be behind messages that will never be received.
        self._wire.message = None
        self._process()

    def _log(self, status: int) -> None:
        if self._service.access_log:
            target = shown_target(self._scope)
            line = f"websocket {target}"
            log_request(self.name, self._info, line, status, None, "websocket", target)

    def __str__(self) -> str:
        return f'{self.name} "websocket {shown_target(self._scope)}"'
