"""One websocket (RFC 6455), between the core's transport and the application.

Rules of this file: ASGI's websocket over `websockets`' sans-I/O protocol, which knows the frames.
The handshake has been read by protocol.py. Without the package `websockets` there are none: a
client that asks for one is served as any other.

    connecting ──accept──> open ──close, by either side──> closing ──> closed
        └──close, http.response, an error──> answered by HTTP ─────────>┘

One message is taken from the client, then the application takes it, then the next is read: frames
go to the library one by one, because it inflates all that it is given. While the client does not
take what is sent to it, nothing is read from it either: what it sends may have to be answered.

A ping is sent every 20 s, and a connection that does not answer it is ended, so that
`timeout.idle` needs not end any.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from typing import TYPE_CHECKING, Any, cast

from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.frames import Close, Frame, Opcode
from websockets.http11 import Request as HandshakeRequest
from websockets.protocol import State
from websockets.server import ServerProtocol

from fastlisten.handlers.http.exchange import ClientGoneError, shown_target
from fastlisten.handlers.http.response import ResponseError, ResponseHead, field_of, refusal
from fastlisten.handlers.http.transport import client_name
from fastlisten.log_events import log, log_fault

if TYPE_CHECKING:
    from websockets.http11 import Response

    from fastlisten.handlers.base import ConnectionInfo
    from fastlisten.handlers.http.exchange import Message, Scope
    from fastlisten.handlers.http.head import Request
    from fastlisten.handlers.http.service import Service

__all__ = ["WebSocket"]

logger = logging.getLogger("fastlisten.http")

#: Close codes of RFC 6455 7.4.1, and of its registry.
_NORMAL, _NO_CODE, _ABNORMAL, _NOT_TEXT, _FAILED, _RESTARTS = 1000, 1005, 1006, 1007, 1011, 1012

#: Seconds between pings, and seconds in which the answer must come: uvicorn's defaults.
_PING_INTERVAL = _PING_PATIENCE = 20.0

#: Seconds in which a client must answer our Close frame: as long as the library gives a client.
_CLOSE_PATIENCE = 10.0

#: Octets of input that wait to be read, beyond which reading pauses.
_HIGH_WATER = 64 * 1024

#: How long one connection's frames are worked at before others have their turn, in seconds.
_SHARE = 0.002

#: Octets of fields that the library gets of a handshake; it takes no longer ones.
_HANDSHAKE = 8 * 1024

_DEFLATE = ServerPerMessageDeflateFactory(
    # 4 KiB windows and small tables: 64 KiB less memory for a connection, uvicorn's choice.
    server_max_window_bits=12,
    client_max_window_bits=12,
    compress_settings={"memLevel": 5},
)


class _Silent(logging.Logger):
    """What the library logs to: nothing, because all that it says is said here."""

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802 (logging's own name)
        """Return False."""
        return False


_silent = _Silent("fastlisten.http.silent", logging.CRITICAL + 1)


class WebSocket(asyncio.Protocol):
    """Serves one websocket.

    Args:
        service: what is the same for all connections of the listener.
        info: whose connection it is.
        transport: the core's.
    """

    def __init__(
        self, service: Service, info: ConnectionInfo, transport: asyncio.Transport
    ) -> None:
        self.name = client_name(info)
        self.transport = transport
        self._service = service
        self._info = info
        self._loop = asyncio.get_running_loop()
        self._wire = ServerProtocol(
            extensions=[_DEFLATE], max_size=service.max_message, logger=_silent
        )
        self._scope: Scope = {}
        self._response: Response | None = None
        self._head: ResponseHead | None = None  # of a denial
        self._denied = False  # it has been sent
        self._answered = False  # the handshake has its answer, or will have none
        self._draining = self._closed = self._told = False
        self._connected = False  # the application has been told of the connection
        self._buffer = bytearray()
        self._frame_left = 0  # octets of the frame that is being read which have not come
        self._parts: list[bytes] = []
        self._text = False
        self._message: dict[str, Any] | None = None  # what the application is to take next
        self._waiter: asyncio.Future[None] | None = None
        self._drain_waiter: asyncio.Future[None] | None = None
        self._write_paused = self._scheduled = False
        self._reading = True
        self._code, self._reason = _ABNORMAL, ""
        self._ping: bytes | None = None
        self._ping_timer: asyncio.TimerHandle | None = None
        self._end_timer: asyncio.TimerHandle | None = None

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
        if self.transport.is_closing():
            return
        if not self._answered:
            self._refuse(503)
        elif self._wire.state is State.OPEN:
            self._code = _RESTARTS
            self._wire.send_close(_RESTARTS)
            self._flush()
            self.transport.close()
        self._disconnect()

    # -- the handshake

    def begin(self, request: Request, scope: dict[str, Any]) -> None:
        """Answer a handshake, or let the application do it.

        Args:
            request: its head.
            scope: of ASGI.
        """
        self._service.connections.add(self)
        scope["subprotocols"] = [
            one.strip()
            for name, value in request.headers
            if name == b"sec-websocket-protocol"
            for one in value.decode("latin-1").split(",")
        ]
        scope["extensions"] = {"websocket.http.response": {}}
        self._scope = scope
        if self._service.draining:
            self._refuse(503)
            return
        if request.method != b"GET":
            self._refuse(405, b"allow: GET\r\n")
            return
        self._response = self._judge(request)
        if self._response is None or self._response.status_code != 101:
            status = 400 if self._response is None else self._response.status_code
            fields = b"sec-websocket-version: 13\r\n" if status in (400, 426) else b""
            self._refuse(status, fields)
            return
        self._service.run(self._serve())

    def _judge(self, request: Request) -> Response | None:
        """Return the library's answer; None if it is not even a request to it."""
        fields = b"".join(
            b"%b: %b\r\n" % field
            for field in request.headers
            if field[0].startswith(b"sec-websocket-") or field[0] in (b"host", b"origin")
        )
        if len(fields) > _HANDSHAKE:
            return None
        # Of these two it is known what they ask for; the library reads lists of one field only.
        upgrade = b"GET / HTTP/1.1\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
        self._wire.receive_data(upgrade + fields + b"\r\n")
        for event in self._wire.events_received():
            if isinstance(event, HandshakeRequest):
                return self._wire.accept(event)
        return None

    def _refuse(self, status: int, fields: bytes = b"") -> None:
        """Answer the handshake by HTTP."""
        self._answered = True
        self._log(status)
        self.transport.write(refusal(status, head_only=False, fields=fields))
        self.transport.close()

    # -- from the transport

    def data_received(self, data: bytes) -> None:
        """Take what the client sent."""
        self._buffer += data
        self._process()

    def eof_received(self) -> bool:
        """End: a websocket has no half."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the application, forget the rest."""
        self._closed = True
        self._service.connections.discard(self)
        for timer in (self._ping_timer, self._end_timer):
            if timer is not None:
                timer.cancel()
        self._buffer.clear()
        self._disconnect()
        self.resume_writing()

    def pause_writing(self) -> None:
        """Let the application wait, and read nothing: the client takes nothing."""
        self._write_paused = True
        self._pause_or_resume()

    def resume_writing(self) -> None:
        """Go on."""
        self._write_paused = False
        waiter, self._drain_waiter = self._drain_waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
        if not self._closed:
            self._process()

    # -- frames

    def _process(self) -> None:
        """Read frames until there is a message for the application."""
        if self._scheduled or self._wire.state is State.CONNECTING:
            self._pause_or_resume()
            return
        ends = time.monotonic() + _SHARE
        while self._buffer and not self._write_paused and not self._closed:
            # What comes behind a message waits; after our own Close nothing is for it any more.
            if self._message is not None and self._wire.state is State.OPEN:
                break
            if not self._frame_left and not self._next_frame():
                break
            piece = bytes(self._buffer[: self._frame_left])
            del self._buffer[: len(piece)]
            self._frame_left -= len(piece)
            self._wire.receive_data(piece)
            self._take_events()
            if time.monotonic() > ends:
                self._scheduled = True
                self._loop.call_soon(self._take_turn)
                break
        self._pause_or_resume()

    def _take_turn(self) -> None:
        self._scheduled = False
        if not self.transport.is_closing():
            self._process()

    def _next_frame(self) -> bool:
        """Find how long the next frame is (RFC 6455 5.2); tell whether that is known."""
        buffer = self._buffer
        if len(buffer) < 2:
            return False
        length, extended = buffer[1] & 0x7F, 0
        if length > 125:
            extended = 2 if length == 126 else 8
            if len(buffer) < 2 + extended:
                return False
            length = int.from_bytes(buffer[2 : 2 + extended], "big")
        # Whether it may be so long, and masked as it is, is for the library to say.
        self._frame_left = 2 + extended + 4 * (buffer[1] >> 7) + length
        return True

    def _take_events(self) -> None:
        for event in self._wire.events_received():
            frame = cast(Frame, event)
            if frame.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
                if self._wire.state is State.OPEN:
                    self._data(frame)
            elif frame.opcode is Opcode.PONG:
                if frame.data == self._ping:
                    self._ping = None
            elif frame.opcode is Opcode.CLOSE:
                self._note_end(self._wire.close_rcvd)
        if self._wire.parser_exc is not None:
            self._note_end(self._wire.close_sent)
        self._flush()
        if self._wire.state is not State.OPEN and self._code != _ABNORMAL:
            self._disconnect()

    def _note_end(self, close: Close | None) -> None:
        """Note with which code the websocket ends: the first one."""
        if close is not None and self._code == _ABNORMAL:
            self._code, self._reason = int(close.code), close.reason

    def _data(self, frame: Frame) -> None:
        if frame.opcode is not Opcode.CONT:
            self._text = frame.opcode is Opcode.TEXT
        self._parts.append(bytes(frame.data))
        if not frame.fin:
            return
        parts, self._parts = self._parts, []
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        message: dict[str, Any] = {"type": "websocket.receive"}
        if self._text:
            try:
                message["text"] = data.decode()
            except UnicodeDecodeError:
                self._code = _NOT_TEXT
                self._wire.fail(_NOT_TEXT, "not UTF-8")
                self._flush()
                return
        else:
            message["bytes"] = data
        self._message = message
        self._wake()

    def _flush(self) -> None:
        """Send what the library wants to be sent; end the connection if it says so."""
        for data in self._wire.data_to_send():
            if data:
                self.transport.write(data)
            else:
                self.transport.close()

    def _pause_or_resume(self) -> None:
        wanted = not self._write_paused and len(self._buffer) <= _HIGH_WATER
        if wanted is self._reading or self.transport.is_closing():
            return
        self._reading = wanted
        if wanted:
            self.transport.resume_reading()
        else:
            self.transport.pause_reading()

    # -- pings

    def _watch(self) -> None:
        self._ping_timer = self._loop.call_later(_PING_INTERVAL, self._send_ping)

    def _send_ping(self) -> None:
        if self._wire.state is not State.OPEN or self.transport.is_closing():
            return
        self._ping = os.urandom(4)
        self._wire.send_ping(self._ping)
        self._flush()
        self._ping_timer = self._loop.call_later(_PING_PATIENCE, self._judge_ping)

    def _judge_ping(self) -> None:
        # The answer may be behind a message that the application has not taken.
        waits = self._message is not None or self._write_paused
        if self._ping is None or waits:
            self._watch()
            return
        if self._wire.state is State.OPEN:
            self._code, self._reason = _FAILED, "keepalive ping timeout"
            self._wire.fail(self._code, self._reason)
            self._flush()
        self.transport.close()

    # -- the application

    async def _serve(self) -> None:
        try:
            await self._service.app(self._scope, self._receive, self._send)
        except BaseException as error:
            # SystemExit and cancellation, too: they concern this connection and not the process.
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
            if self._answered and self._head is None:
                self._give_up(_NORMAL)
                return
            text = "%s: the application ended without an answer"
            log(logger, logging.ERROR, "application-failed", text, self, **self._info.fields)
            self._give_up(_FAILED)

    def _give_up(self, code: int) -> None:
        """Answer for an application that does not any more."""
        if self._wire.state is State.OPEN:
            self._close(code, "")
        elif not self._answered or (self._head is not None and not self._denied):
            self._refuse(500)
        else:
            # In the middle of a denial.
            self.transport.close()

    @property
    def _over(self) -> bool:
        """Nobody waits for an answer: the client has gone, or the server has ended it."""
        return self._closed or self.transport.is_closing()

    def _disconnect(self) -> None:
        """Let the application hear of the end."""
        self._told = True
        self._wake()

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def _receive(self) -> Message:
        """Return the connection, then messages, then the end."""
        if not self._connected:
            self._connected = True
            return {"type": "websocket.connect"}
        while True:
            message, self._message = self._message, None
            if message is not None:
                self._process()
                return message
            if self._told:
                return {"type": "websocket.disconnect", "code": self._code, "reason": self._reason}
            waiter = self._waiter = self._loop.create_future()
            await waiter

    async def _send(self, message: Message) -> None:
        """Do what the application says.

        Raises:
            ClientGoneError: there is nobody to send it to.
            ResponseError: it must not be sent, or not now.
        """
        kind = message["type"]
        while self._write_paused and not self._over:
            if self._drain_waiter is None or self._drain_waiter.done():
                self._drain_waiter = self._loop.create_future()
            await asyncio.shield(self._drain_waiter)
        if self._told or self._over:
            raise ClientGoneError("the client has gone")
        if not self._answered:
            self._answer(kind, message)
        elif self._head is not None:
            self._deny(kind, message)
        elif self._wire.state is not State.OPEN:
            raise ResponseError(f"{kind!r} stands after websocket.close")
        elif kind == "websocket.send":
            text, data = message.get("text"), message.get("bytes")
            if text is not None:
                self._wire.send_text(text.encode())
            elif data is not None:
                self._wire.send_binary(data)
            else:
                raise ResponseError("websocket.send has neither text nor bytes")
            self._flush()
        elif kind == "websocket.close":
            code = message.get("code", _NORMAL)
            self._close(_NORMAL if code is None else code, message.get("reason") or "")
        else:
            raise ResponseError(f"{kind!r} is not expected now")

    def _answer(self, kind: str, message: Message) -> None:
        """Answer the handshake as the application says."""
        if kind == "websocket.accept":
            self._accept(message)
        elif kind == "websocket.close":
            self._code = _ABNORMAL
            self._refuse(403)
            self._disconnect()
        elif kind == "websocket.http.response.start":
            headers = message.get("headers", ())
            self._head = ResponseHead(message["status"], headers, head_only=False)
            self._answered = True
        else:
            raise ResponseError(f"{kind!r} stands where websocket.accept is expected")

    def _accept(self, message: Message) -> None:
        response = self._response
        assert response is not None
        fields = [field_of(bytes(name), bytes(value)) for name, value in message.get("headers", ())]
        if (chosen := message.get("subprotocol")) is not None:
            if chosen not in self._scope["subprotocols"]:
                raise ResponseError(f"the client has not offered the subprotocol {chosen!r}")
            fields.append((b"sec-websocket-protocol", chosen.encode()))
        for name, value in fields:
            response.headers[name.decode()] = value.decode("latin-1")
        self._answered = True
        self._wire.send_response(response)
        self._log(101)
        self._flush()
        self._watch()
        self._process()

    def _deny(self, kind: str, message: Message) -> None:
        """Send an answer of HTTP that the application gives (websocket.http.response)."""
        if kind != "websocket.http.response.body":
            raise ResponseError(f"{kind!r} stands where websocket.http.response.body is expected")
        head, more = self._head, message.get("more_body", False)
        assert head is not None
        body = b"" if head.bodiless else bytes(message.get("body", b""))
        if not self._denied:
            fields = [b"connection: close\r\n"]
            if not more and head.length is None and not head.bodiless:
                fields.insert(0, b"content-length: %d\r\n" % len(body))
            self._denied = True
            self._log(head.status)
            self.transport.write(head.encode(*fields) + body)
        elif body:
            self.transport.write(body)
        if not more:
            self._disconnect()
            self.transport.close()

    def _close(self, code: int, reason: str) -> None:
        """Begin the closing handshake."""
        self._wire.send_close(code, reason)
        self._code, self._reason = code, reason
        self._flush()
        self._disconnect()
        self._end_timer = self._loop.call_later(_CLOSE_PATIENCE, self.transport.close)
        # Its answer may stand behind what nobody wants any more.
        self._message = None
        self._process()

    def _log(self, status: int) -> None:
        if self._service.access_log:
            info = self._info
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
                target=shown_target(self._scope),
                status=status,
            )

    def __str__(self) -> str:
        return f'{self.name} "websocket {shown_target(self._scope)}"'
