"""One HTTP/1.1 connection: the asyncio protocol between the core's transport and the application.

Rules of this file: the order of events on a connection, and how it ends. reader.py parses input,
exchange.py runs the application.

    input ──> RequestReader ──> Exchange ──> application

How the server ends a connection:

    response with `Connection: close`           at once if all input has been read, else `linger`
    refusal                                     `linger`: the sending half is closed, and input is
                                                discarded until the client closes its half
    silence between requests or within a body   by the core (`timeout.idle`), nothing is sent
    head that does not end                      408 (`http.header-timeout`)
    drain                                       by the core if idle, else after the response
    drain that takes too long                   503 if no response has begun
"""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from typing import TYPE_CHECKING, cast

from fastlisten.handlers.base import ConnectionInfo
from fastlisten.handlers.http.access_log import log_end, log_request
from fastlisten.handlers.http.exchange import Exchange
from fastlisten.handlers.http.flow import WriteGate
from fastlisten.handlers.http.head import RequestError
from fastlisten.handlers.http.reader import RequestReader
from fastlisten.handlers.http.response import refusal
from fastlisten.handlers.http.scope import make_scope
from fastlisten.handlers.http.transport import client_name, server_address
from fastlisten.loop.deadline import Deadline

if TYPE_CHECKING:
    from fastlisten.handlers.http.head import Request
    from fastlisten.handlers.http.service import Service

__all__ = ["HttpProtocol"]

logger = logging.getLogger("fastlisten.http")

#: Seconds to keep reading after the last response, so that the client can read it before a reset
#: discards it; the same as the core's limit for refused clients.
LINGER = 2.0

#: Seconds in which a response must finish after the client has closed its half of the connection.
#: A client that has gone looks the same, and applications wait for http.disconnect.
HALF_OPEN = 2.0

#: Seconds of work on one connection's input before other connections have their turn. A body in
#: chunks of one octet takes 0.1 s for 256 KiB, which is what the core reads at once.
_SHARE = 0.002

#: Output this many seconds after the client's last input counts as activity too, and restarts the
#: idle time.
_LATER = 1.0

#: Octets of a body that the application has not taken, above which reading pauses.
_HIGH_WATER = 64 * 1024


class HttpProtocol(asyncio.Protocol):
    """Serves the requests of one connection.

    Args:
        service: what the connections of the listener share.
        info: what is known of the connection.

    Attributes:
        access_log: each request is logged.
        exchange: the request that is being read or answered, None between requests.
        gate: holds the application back while the client does not read.
        info: as given.
        loop: the event loop.
        name: the connection, for logs.
        refused: the status that the server answered with instead of the application, or 0.
        running: how many requests' applications run; several, if they go on after a response.
        transport: the core's.
    """

    __slots__ = (
        "_began",
        "_end_timer",
        "_ended",
        "_head_timer",
        "_heard",
        "_reader",
        "_reading",
        "_scheduled",
        "_server",
        "_service",
        "_wrote",
        "access_log",
        "exchange",
        "gate",
        "info",
        "loop",
        "name",
        "refused",
        "running",
        "transport",
    )

    def __init__(self, service: Service, info: ConnectionInfo) -> None:
        self._service = service
        self.info = info
        self.loop = asyncio.get_running_loop()
        self.access_log = service.access_log
        self.name = client_name(info)
        self.transport: asyncio.Transport = cast(asyncio.Transport, None)
        self.exchange: Exchange | None = None
        self.refused = 0
        self.gate = WriteGate()
        self._server: tuple[str, int | None] | None = None
        self._reader = RequestReader(service.heads, service.max_head, service.max_body)
        self._reading = True
        self._scheduled = False
        self.running = 0
        self._ended = False
        self._began = self._heard = self._wrote = self.loop.time()
        self._head_timer: Deadline | None = None
        self._end_timer: asyncio.TimerHandle | None = None

    # -- called by the core

    @property
    def busy(self) -> bool:
        """A request is being answered, or the application is still running after its response."""
        return (self._answering is not None or self.running > 0) and not self._ended

    @property
    def _answering(self) -> Exchange | None:
        exchange = self.exchange
        return None if exchange is None or exchange.complete else exchange

    @property
    def last_words(self) -> bytes:
        """503 for a request that is incomplete, or whose response has not begun."""
        exchange = self._answering
        if self._ended or (exchange.begun if exchange else not self._partial):
            return b""
        return refusal(503, head_only=exchange is not None and exchange.head_only)

    @property
    def _partial(self) -> bool:
        """A head has begun and is not complete."""
        return self.exchange is None and bool(self._reader.buffer)

    @property
    def working(self) -> bool:
        """The client is waiting for the application, or got output from it a short while ago.

        The core asks when the client has neither sent nor taken anything for the idle time.
        """
        later = self._wrote > self._heard + _LATER
        self._heard = max(self._heard, self._wrote)
        if later:
            return True
        exchange = self._answering
        if self.transport.get_write_buffer_size() or self._ended or exchange is None:
            return False
        # Otherwise the application is waiting for the client.
        return not (exchange.receiving and exchange.more_body)

    def drain(self) -> None:
        """Close the connection after the current response."""
        if self.exchange is not None:
            self.exchange.close = True

    # -- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._service.connections.add(self)
        self.transport = cast(asyncio.Transport, transport)
        self._server = server_address(transport)

    def data_received(self, data: bytes) -> None:
        """Take input."""
        if self._ended:
            return
        self._heard = self.loop.time()
        reader = self._reader
        if self.exchange is None and not reader.buffer:
            try:
                request = reader.whole_request(data)
            except RequestError as error:
                self.refuse(error.status)
                return
            if request is not None:
                self._begin(request)
                return
        reader.buffer += data
        self._process()

    def eof_received(self) -> bool:
        """Let a response finish if it does soon; otherwise close."""
        exchange = self._answering
        # The rest of an incomplete request will never come.
        if self._ended or exchange is None or exchange.more_body:
            return False
        if not self.transport.can_write_eof():
            return False
        if self._end_timer is None:
            self._end_timer = self.loop.call_later(HALF_OPEN, self.transport.close)
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the application, and release everything."""
        self._service.connections.discard(self)
        for timer in (self._head_timer, self._end_timer):
            if timer is not None:
                timer.cancel()
        self._reader.buffer.clear()
        if logger.isEnabledFor(logging.DEBUG):
            reason = self.transport.get_extra_info("ended_by") or ("reset" if exc else "closed")
            log_end(self.name, self.info, reason, self.loop.time() - self._began)
        if exchange := self._answering:
            exchange.leave()
        self.gate.open()

    def pause_writing(self) -> None:
        """Make the application wait, because the client does not read."""
        self.gate.close()

    def resume_writing(self) -> None:
        """Let the application continue."""
        self.gate.open()

    # -- requests

    def _process(self) -> None:
        """Read as much as possible now; the next request waits for the current response."""
        if self._scheduled:
            return
        reader = self._reader
        buffer = reader.buffer
        ends = time.monotonic() + _SHARE
        while buffer and not self._ended:
            before = len(buffer)
            try:
                if self.exchange is None:
                    request = reader.next_request()
                    if request is not None:
                        self._begin(request)
                elif reader.body is not None:
                    self._read_body(self.exchange)
                else:
                    break
            except RequestError as error:
                self.refuse(error.status)
                break
            if len(buffer) == before:
                break  # a head, or a line between chunks, is not complete
            if time.monotonic() > ends:
                self._scheduled = True
                self.loop.call_soon(self._take_turn)
                break
        self._watch_head()
        self.pause_or_resume()

    def _take_turn(self) -> None:
        """Continue after other connections have had their turn."""
        self._scheduled = False
        if not self.transport.is_closing():
            self._process()

    def pause_or_resume(self) -> None:
        """Read from the client only what can be used soon."""
        if self._ended:
            wanted = True
        else:
            exchange, reader = self.exchange, self._reader
            # Input that cannot be parsed yet.
            waits = bool(reader.buffer) and (
                self._scheduled or (exchange is not None and reader.body is None)
            )
            wanted = not waits and (exchange is None or exchange.held <= _HIGH_WATER)
        if wanted is self._reading or self.transport.is_closing():
            return
        self._reading = wanted
        if wanted:
            self.transport.resume_reading()
        else:
            self.transport.pause_reading()

    def _watch_head(self) -> None:
        """Limit the time from the first octet of a head to its last."""
        if self._partial and not self._ended:
            if self._head_timer is None:
                timeout = self._service.header_timeout
                late = functools.partial(self.refuse, 408)
                self._head_timer = Deadline(self.loop, timeout, self.transport, late)
        elif self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _begin(self, request: Request) -> None:
        """Pass a request to the application."""
        service = self._service
        info, proxies = self.info, service.proxies
        if proxies is not None:
            info = proxies.sender(info, request.headers)
        if request.websocket and service.websockets:
            self._upgrade(request, info)
            return
        scope = make_scope("http", request, info, self._server, service.shared)
        exchange = self.exchange = Exchange(self, request, scope, info)
        exchange.task = service.run(exchange.run(service.app))

    def ended(self, exchange: Exchange) -> None:
        """Forget the task of a request whose application has ended."""
        if exchange.task is not None:
            self._service.tasks.discard(exchange.task)

    def _read_body(self, exchange: Exchange) -> None:
        data = self._reader.next_data()
        done = self._reader.body is None
        if data or done:
            exchange.body_came(data, done)
        if done and exchange.complete:
            self.exchange = None

    def wrote(self) -> None:
        """Note that the application has sent something."""
        self._wrote = self.loop.time()

    @property
    def last(self) -> bool:
        """The connection closes after the response that begins now."""
        return self._service.draining or self._end_timer is not None

    def completed(self, exchange: Exchange) -> None:
        """Continue with the next request, after a complete response."""
        self._wrote = self.loop.time()
        if self._ended or self.transport.is_closing():
            return
        if exchange.close:
            if self._reader.body is None and not self._reader.buffer:
                self._ended = True
                self.transport.close()
            else:
                # The client may still be sending (a body, or requests that it has pipelined), and
                # a close would reset the connection.
                self.linger()
            return
        if self._reader.body is None:
            self.exchange = None
        if self._reader.buffer:
            self._process()
        elif not self._reading:
            self.pause_or_resume()

    # -- the end

    def linger(self) -> None:
        """Close in such a way that the client can read what was sent to it."""
        self._ended = True
        self._reader.buffer.clear()
        transport = self.transport
        if transport.is_closing():
            return
        self.pause_or_resume()
        if transport.can_write_eof():
            try:
                transport.write_eof()
            except OSError:
                # The client has reset the connection.
                transport.abort()
                return
        if self._end_timer is None:
            self._end_timer = self.loop.call_later(LINGER, transport.close)

    def refuse(self, status: int) -> None:
        """Respond instead of the application, and close the connection.

        Nothing is sent if the application's response has begun or is complete.

        Args:
            status: the response's status: 400, 408, 413, 431, 500, 501 or 505.
        """
        exchange, answering = self.exchange, self._answering
        if answering:
            answering.leave()
        if self.transport.is_closing() or self._ended:
            return
        # The error may be in the rest of a request that has been answered.
        if exchange is None or (answering and not answering.begun):
            head_only = answering is not None and answering.head_only
            self.transport.write(refusal(status, head_only=head_only))
        if answering and not answering.more_body and not self._reader.buffer:
            # The client has sent everything.
            self._ended = True
            self.transport.close()
        else:
            self.linger()
        if answering:
            self.refused = status
            answering.refused()
        if self._service.wants_refusal(status, logged=answering is not None):
            log_request(self.name, self.info, "-", status, 0)

    def _upgrade(self, request: Request, info: ConnectionInfo) -> None:
        """Hand the connection over to a websocket."""
        from fastlisten.handlers.http.websocket import WebSocket

        # A client must wait for the response before it sends frames (RFC 6455 4.1).
        if self._reader.buffer or request.length != 0:
            self.refuse(400)
            return
        self._service.connections.discard(self)
        self._watch_head()
        scope = make_scope("websocket", request, info, self._server, self._service.shared)
        websocket = WebSocket(self._service, info, self.transport, scope)
        self.transport.set_protocol(websocket)
        self._ended = True
        websocket.begin(request)
