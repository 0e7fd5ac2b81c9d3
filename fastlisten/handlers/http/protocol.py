"""One HTTP/1.1 connection: uvicorn's protocol between the core's transport and the application.

Rules of this file: all that leans on uvicorn's protocol class, which is no promised interface, is
here and in websocket.py; tests/http/test_http_uvicorn.py names what it must have. What a request
may look like is framing.py's, what an application may do exchange.py's.

    input --slices--> RequestReader --events--> H11Protocol --cycle--> Exchange --> application
                 (waits while a request is answered)

How a connection ends, besides by its client:

    response with `Connection: close`, all read       closed at once
    the same, or a refusal, not all read              `lingering`: the sending half is closed, what
                                                      comes is thrown away until the client closes
    silent between requests, or within a body         by the core (`timeout.idle`), without a word
    a head that does not end                          408 (`http.header-timeout`)
    the server drains                                 by the core when idle, else after the response
    its time for that has passed                      503, if no response has begun
"""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections import deque
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, cast

import h11
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT, FlowControl
from uvicorn.protocols.http.h11_impl import H11Protocol

from fastlisten.handlers.http.exchange import Exchange
from fastlisten.handlers.http.framing import SLICE, RequestReader
from fastlisten.handlers.http.transport import Lingering, client_name, server_address
from fastlisten.handlers.http.websocket import WebSocket, silent
from fastlisten.log_events import log
from fastlisten.loop.deadline import Deadline

if TYPE_CHECKING:
    from fastlisten.handlers.base import ConnectionInfo
    from fastlisten.handlers.http.service import Service

__all__ = ["HttpProtocol"]

logger = logging.getLogger("fastlisten.http")

#: How long a client that the server has finished with is listened to, in seconds. It must see the
#: response before a reset takes it away: as long as the core waits for those that it refuses.
LINGER = 2.0

#: How long a client that has ended its half of the connection may wait for the rest of a response,
#: in seconds. One that has gone looks the same, and applications wait to be told of it.
HALF_OPEN = 2.0

#: How long one connection's input is worked at before others have their turn, in seconds. A body of
#: chunks of one octet takes 0.7 s for each 256 KiB, which is what the core reads at once.
_SHARE = 0.002

#: Output, or the end of a response, so many seconds after the client's last input counts as
#: activity of its own: then the idle time is given once more.
_LATER = 1.0


class HttpProtocol(H11Protocol):
    """Serves the requests of one connection.

    Args:
        service: what is the same for all connections of the listener.
        info: whose connection it is.

    Attributes:
        access_lines: a line of log is written for each request (by us; `access_log` is uvicorn's).
        info: whose connection it is.
        name: the connection, for logs.
        refused: the status of what was answered instead of the application, 0 before.
    """

    conn: RequestReader

    def __init__(self, service: Service, info: ConnectionInfo) -> None:
        super().__init__(service.config, service.state, service.shared, asyncio.get_running_loop())
        self.conn = RequestReader(service.max_head, service.max_body)
        self.logger = silent
        self.access_log = False
        self.app = self._serve
        self.access_lines = service.access_log
        self.name = client_name(info)
        self._service = service
        self.info = info
        self._input: deque[bytes] = deque()
        self._exchange: Exchange | None = None
        self._scheduled = False
        self._running = 0
        self.refused = 0
        self._ended = False
        self._began = self._heard = self._wrote = self.loop.time()
        self._head_timer: Deadline | None = None
        self._end_timer: asyncio.TimerHandle | None = None

    # -- asked by the core

    @property
    def busy(self) -> bool:
        """A request is being answered, or the application still runs after its response."""
        return (self._answering or self._running > 0) and not self._ended

    @property
    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    @property
    def last_words(self) -> bytes:
        """503 for a request whose response has not begun, and one that has not come whole."""
        cycle = self.cycle if self._answering else None
        if self._ended or (cycle.response_started if cycle else not self.conn.partial):
            return b""
        return self._refusal(503, cycle is not None and cycle.scope["method"] == "HEAD")

    @property
    def working(self) -> bool:
        """The client waits for the application, or was served a short while ago.

        Asked when the client has neither sent nor taken anything for the idle time.
        """
        later = self._wrote > self._heard + _LATER
        self._heard = max(self._heard, self._wrote)
        if later:
            return True
        if self.transport.get_write_buffer_size() or self._ended or not self._answering:
            return False
        # Else it is the client that is waited for.
        return not (self._exchange and self._exchange.receiving and self.cycle.more_body)

    # -- from the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self.connections.add(self)
        self.transport = cast(asyncio.Transport, transport)
        self.flow = FlowControl(self.transport)
        info = self.info
        self.client = (info.peer, info.port) if info.peer else None
        self.server = server_address(transport)
        self.scheme = "https" if info.tls else "http"

    def data_received(self, data: bytes) -> None:
        """Take what the client sent."""
        if self._ended:
            return
        self._heard = self.loop.time()
        if len(data) <= SLICE:
            self._input.append(data)
        else:
            self._input.extend(data[at : at + SLICE] for at in range(0, len(data), SLICE))
        self._feed()

    def eof_received(self) -> bool:  # type: ignore[override]
        """Let a response be finished for a while; any other connection is over."""
        # Of a request that has not come whole there is nothing more to come.
        if self._ended or not self._answering or self.cycle.more_body:
            return False
        if not self.transport.can_write_eof():
            return False
        if self._end_timer is None:
            self._end_timer = self.loop.call_later(HALF_OPEN, self.transport.close)
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the application, forget the rest."""
        for timer in (self._head_timer, self._end_timer):
            if timer is not None:
                timer.cancel()
        self._input.clear()
        if logger.isEnabledFor(logging.DEBUG):
            self._log_end(exc)
        super().connection_lost(exc)

    def _log_end(self, exc: Exception | None) -> None:
        info, duration = self.info, self.loop.time() - self._began
        reason = self.transport.get_extra_info("ended_by") or ("reset" if exc else "closed")
        log(
            logger,
            logging.DEBUG,
            "session-ended",
            "%s ended: %s; %.3f s",
            self.name,
            reason,
            duration,
            listener=info.listener,
            peer=info.peer,
            port=info.port,
            duration=round(duration, 3),
            reason=reason,
        )

    # -- requests

    def _feed(self) -> None:
        """Give h11 what it can use; the next request waits until this one has been answered."""
        ends = time.monotonic() + _SHARE
        while self._input and not self._ended and self.conn.hungry:
            if self._scheduled or time.monotonic() > ends:
                self._take_turn_later()
                break
            piece, portion = self._input.popleft(), self.conn.portion
            if len(piece) > portion:
                self._input.appendleft(piece[portion:])
                piece = piece[:portion]
            self.conn.receive_data(piece)
            self.handle_events()
        if self._input and not self._ended:
            self.flow.pause_reading()

    def _take_turn_later(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self.loop.call_soon(self._take_turn)

    def _take_turn(self) -> None:
        """Go on where a share of the loop's time has ended."""
        self._scheduled = False
        if self.transport.is_closing():
            return
        self._feed()
        # Else it goes on when the application has read what there is.
        waits = self._answering and len(self.cycle.body) > HIGH_WATER_LIMIT
        if not (self._input or waits):
            self.flow.resume_reading()

    def handle_events(self) -> None:
        """Go on with what has been received; watch the time of a head."""
        super().handle_events()
        if self.conn.partial and not self._ended:
            if self._head_timer is None:
                timeout = self._service.header_timeout
                late = functools.partial(self.refuse, 408)
                self._head_timer = Deadline(self.loop, timeout, self.transport, late)
        elif self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    async def _serve(self, scope: Any, receive: Any, send: Any) -> None:
        """Run the application for one request; called by uvicorn's cycle."""
        scope["asgi"]["spec_version"] = "2.4"
        exchange = self._exchange = Exchange(self, self.cycle, scope)
        self._running += 1
        try:
            await exchange.run(self._service.app)
        finally:
            self._running -= 1

    def on_response_complete(self) -> None:
        """Go on with the next request."""
        self.server_state.total_requests += 1
        if self._ended or self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.conn.our_state is h11.DONE and self.conn.their_state is h11.DONE:
            self.conn.start_next_cycle()
            # Of what h11 has already; then of what waits.
            self.handle_events()
            self._feed()

    def wrote(self) -> None:
        """Note that the application has sent something."""
        self._wrote = self.loop.time()

    @property
    def last(self) -> bool:
        """The connection ends with the response that begins now."""
        return self._service.draining or self._end_timer is not None

    # -- the end

    @functools.cached_property
    def lingering(self) -> asyncio.Transport:
        """The transport as a cycle may see it whose client may be sending still."""
        return cast(asyncio.Transport, Lingering(self.transport, self.linger))

    def linger(self) -> None:
        """End the connection so that the client can read what was sent to it."""
        self._ended = True
        self._input.clear()
        transport = self.transport
        if transport.is_closing():
            return
        self.flow.resume_reading()
        if transport.can_write_eof():
            try:
                transport.write_eof()
            except OSError:
                # The client has reset the connection, and there is nobody to wait for.
                transport.abort()
                return
        if self._end_timer is None:
            self._end_timer = self.loop.call_later(LINGER, transport.close)

    def refuse(self, status: int) -> None:
        """Answer instead of the application, and end the connection.

        Where a response has begun there is nothing more to say: it remains unfinished. Nor is
        there where it has been given.

        Args:
            status: of the answer: 400, 408, 413, 431, 500, 501 or 505.
        """
        cycle, active = self.cycle, self._answering
        if active:
            cycle.disconnected = True
            cycle.message_event.set()
        if self.transport.is_closing() or self._ended:
            return
        # What is wrong may also be the rest of a request that has been answered.
        if not (active and cycle.response_started) and self.conn.our_state is not h11.DONE:
            head_only = active and cycle.scope["method"] == "HEAD"
            self.transport.write(self._refusal(status, head_only))
        if active and not cycle.more_body:
            # The client has nothing to send any more.
            self._ended = True
            self.transport.close()
        else:
            self.linger()
        if active:
            self.refused = status
            if self._exchange is not None:
                self._exchange.refused(cycle)
        if self._service.wants_refusal(status, logged=active):
            self.log_request("-", status, 0)

    def log_request(
        self, line: str, status: int, size: int, method: str = "", target: str = ""
    ) -> None:
        """Log a request and its answer.

        Args:
            line: its first line; a hyphen where it has none.
            status: of the answer, 0 if there was none.
            size: bytes of the answer's body.
            method: as the client wrote it.
            target: as it may be shown.
        """
        info = self.info
        log(
            logger,
            logging.INFO,
            "http-request",
            '%s "%s" %s %d',
            self.name,
            line,
            status or "-",
            size,
            listener=info.listener,
            peer=info.peer,
            port=info.port,
            method=method,
            target=target,
            status=status,
            bytes=size,
        )

    def _refusal(self, status: int, head_only: bool) -> bytes:
        phrase = HTTPStatus(status).phrase
        body = f"{phrase}\n".encode()
        lines = [b"HTTP/1.1 %d %s" % (status, phrase.encode())]
        lines += [b"%s: %s" % header for header in self.server_state.default_headers]
        lines.append(b"content-type: text/plain; charset=utf-8")
        lines.append(b"content-length: %d" % len(body))
        lines.append(b"connection: close\r\n\r\n")
        return b"\r\n".join(lines) + (b"" if head_only else body)

    def send_400_response(self, msg: str) -> None:
        """Answer a request that is none; called by uvicorn where h11 raises an error."""
        error = self.conn.error
        assert error is not None
        self.refuse(error.error_status_hint)

    # -- websockets

    def _should_upgrade(self) -> bool:
        """Return whether a websocket is asked for; HTTP/1.0 cannot (RFC 9110 7.8)."""
        return self.scope["http_version"] != "1.0" and super()._should_upgrade()

    def _unsupported_upgrade_warning(self) -> None:
        """Say nothing: a client may ask for what it likes, and is served without."""

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        """Hand the connection over; bytes before the handshake is answered are not allowed."""
        if self.conn.trailing_data[0] or self._input:
            self.refuse(400)
            return
        kind = functools.partial(WebSocket, service=self._service, info=self.info)
        self.ws_protocol_class = kind  # type: ignore[assignment]
        super().handle_websocket_upgrade(event)
