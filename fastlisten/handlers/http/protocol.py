"""One HTTP/1.1 connection, between the core's transport and the application.

Rules of this file: what happens on a connection, in which order, and how it ends. What the octets
mean is head.py's and body.py's, what an application may do exchange.py's.

    input ──> head ──> body ──> (waits while the request is answered) ──> next head
               │        │
               └────────┴──> Exchange ──> application

Input stays octets until its turn: of requests that are sent before the one before them has been
answered, nothing is read. How a connection ends, besides by its client:

    response with `Connection: close`, all read       closed at once
    the same, or a refusal, not all read              `linger`: the sending half is closed, what
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
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote

from fastlisten.handlers.base import ConnectionInfo
from fastlisten.handlers.http.body import Body, ChunkedBody, CountedBody
from fastlisten.handlers.http.exchange import Exchange
from fastlisten.handlers.http.head import RequestError, find_end, read_head
from fastlisten.handlers.http.response import refusal
from fastlisten.handlers.http.transport import client_name, server_address
from fastlisten.log_events import log
from fastlisten.loop.deadline import Deadline

if TYPE_CHECKING:
    from fastlisten.handlers.http.head import Request
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
#: chunks of one octet takes 0.1 s for each 256 KiB, which is what the core reads at once.
_SHARE = 0.002

#: Output, or the end of a response, so many seconds after the client's last input counts as
#: activity of its own: then the idle time is given once more.
_LATER = 1.0

#: Octets of a body that the application has not taken, beyond which reading pauses.
_HIGH_WATER = 64 * 1024


class HttpProtocol(asyncio.Protocol):
    """Serves the requests of one connection.

    Args:
        service: what is the same for all connections of the listener.
        info: whose connection it is.

    Attributes:
        access_log: a line of log is written for each request.
        exchange: the request that is being read or answered, or None between requests.
        info: whose connection it is.
        loop: the event loop.
        name: the connection, for logs.
        refused: the status of what was answered instead of the application, 0 before.
        transport: the core's.
        write_paused: the client does not take what is sent.
    """

    __slots__ = (
        "_began",
        "_body",
        "_buffer",
        "_drain_waiter",
        "_end_timer",
        "_ended",
        "_head_timer",
        "_heard",
        "_looked",
        "_reading",
        "_running",
        "_scheduled",
        "_server",
        "_service",
        "_wrote",
        "access_log",
        "exchange",
        "info",
        "loop",
        "name",
        "refused",
        "transport",
        "write_paused",
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
        self.write_paused = False
        self._drain_waiter: asyncio.Future[None] | None = None
        self._server: tuple[str, int | None] | None = None
        self._buffer = bytearray()
        self._looked = 0  # octets of the buffer in which no head ends
        self._body: Body | None = None
        self._reading = True
        self._scheduled = False
        self._running = 0
        self._ended = False
        self._began = self._heard = self._wrote = self.loop.time()
        self._head_timer: Deadline | None = None
        self._end_timer: asyncio.TimerHandle | None = None

    # -- asked by the core

    @property
    def busy(self) -> bool:
        """A request is being answered, or the application still runs after its response."""
        return (self._answering is not None or self._running > 0) and not self._ended

    @property
    def _answering(self) -> Exchange | None:
        exchange = self.exchange
        return None if exchange is None or exchange.complete else exchange

    @property
    def last_words(self) -> bytes:
        """503 for a request whose response has not begun, and one that has not come whole."""
        exchange = self._answering
        if self._ended or (exchange.begun if exchange else not self._partial):
            return b""
        return refusal(503, head_only=exchange is not None and exchange.head_only)

    @property
    def _partial(self) -> bool:
        """A head has begun and is not complete."""
        return self.exchange is None and bool(self._buffer)

    @property
    def working(self) -> bool:
        """The client waits for the application, or was served a short while ago.

        Asked when the client has neither sent nor taken anything for the idle time.
        """
        later = self._wrote > self._heard + _LATER
        self._heard = max(self._heard, self._wrote)
        if later:
            return True
        exchange = self._answering
        if self.transport.get_write_buffer_size() or self._ended or exchange is None:
            return False
        # Else it is the client that is waited for.
        return not (exchange.receiving and exchange.more_body)

    def drain(self) -> None:
        """Let the connection end with the response that it is at."""
        if self.exchange is not None:
            self.exchange.close = True

    # -- from the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._service.connections.add(self)
        self.transport = cast(asyncio.Transport, transport)
        self._server = server_address(transport)

    def data_received(self, data: bytes) -> None:
        """Take what the client sent."""
        if self._ended:
            return
        self._heard = self.loop.time()
        if (
            not self._buffer
            and self.exchange is None
            and data.endswith(b"\r\n\r\n")
            and find_end(data, 0) == len(data)
        ):
            # One whole head and nothing else, as most requests come.
            self._begin(data)
            return
        self._buffer += data
        self._process()

    def eof_received(self) -> bool:
        """Let a response be finished for a while; any other connection is over."""
        exchange = self._answering
        # Of a request that has not come whole there is nothing more to come.
        if self._ended or exchange is None or exchange.more_body:
            return False
        if not self.transport.can_write_eof():
            return False
        if self._end_timer is None:
            self._end_timer = self.loop.call_later(HALF_OPEN, self.transport.close)
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the application, forget the rest."""
        self._service.connections.discard(self)
        for timer in (self._head_timer, self._end_timer):
            if timer is not None:
                timer.cancel()
        self._buffer.clear()
        if logger.isEnabledFor(logging.DEBUG):
            self._log_end(exc)
        if exchange := self._answering:
            exchange.leave()
        self.resume_writing()

    def pause_writing(self) -> None:
        """Let the application wait: the client does not take what is sent."""
        self.write_paused = True

    def resume_writing(self) -> None:
        """Let the application go on."""
        self.write_paused = False
        waiter, self._drain_waiter = self._drain_waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def drained(self) -> None:
        """Return when the client has taken enough of what was sent, or is gone."""
        while self.write_paused:
            if self._drain_waiter is None or self._drain_waiter.done():
                self._drain_waiter = self.loop.create_future()
            # Shielded: an application may send from several tasks, of which one is cancelled.
            await asyncio.shield(self._drain_waiter)

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

    def _process(self) -> None:
        """Read what can be read now; the next request waits until this one has been answered."""
        if self._scheduled:
            return
        ends = time.monotonic() + _SHARE
        while self._buffer and not self._ended:
            before = len(self._buffer)
            if self.exchange is None:
                self._read_head()
            elif self._body is not None:
                self._read_body(self._body)
            else:
                break
            if len(self._buffer) == before:
                break  # the rest of a head, or of a line between chunks, has not come
            if time.monotonic() > ends:
                self._scheduled = True
                self.loop.call_soon(self._take_turn)
                break
        self._watch_head()
        self._pause_or_resume()

    def _take_turn(self) -> None:
        """Go on where a share of the loop's time has ended."""
        self._scheduled = False
        if not self.transport.is_closing():
            self._process()

    def read_on(self) -> None:
        """The application waits for more of the body."""
        self._pause_or_resume()

    def _pause_or_resume(self) -> None:
        """Read from the client only what can be used soon."""
        if self._ended:
            wanted = True
        else:
            exchange = self.exchange
            # What has come and cannot be read before something else has happened.
            waits = bool(self._buffer) and (
                self._scheduled or (exchange is not None and self._body is None)
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
        """Watch the time that a head takes, from its first octet to its last."""
        if self._partial and not self._ended:
            if self._head_timer is None:
                timeout = self._service.header_timeout
                late = functools.partial(self.refuse, 408)
                self._head_timer = Deadline(self.loop, timeout, self.transport, late)
        elif self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _read_head(self) -> None:
        buffer = self._buffer
        end = find_end(buffer, self._looked)
        if (end if end > 0 else len(buffer)) > self._service.max_head:
            self.refuse(431)
        elif end > 0:
            head = bytes(buffer[:end])
            del buffer[:end]
            self._looked = 0
            self._begin(head)
        elif not 0x21 <= buffer[0] <= 0x7E:
            # Not the beginning of a method: TLS, an empty line.
            self.refuse(400)
        else:
            self._looked = len(buffer)

    def _begin(self, head: bytes) -> None:
        """Give a request to the application."""
        service = self._service
        try:
            if len(head) > service.max_head:
                raise RequestError(431, "the head is too large")
            request = read_head(head)
            if (
                request.length
                and service.max_body is not None
                and request.length > service.max_body
            ):
                raise RequestError(413, "the body is too large")
        except RequestError as error:
            self.refuse(error.status)
            return
        if request.websocket and service.websockets:
            self._upgrade(request)
            return
        info = self._client_of(request)
        scope = self.scope_of(request, "http", info)
        exchange = self.exchange = Exchange(self, request, scope, info)
        if request.length is None:
            self._body = ChunkedBody(service.max_body, service.max_head)
        elif request.length:
            self._body = CountedBody(request.length)
        service.run(self._serve(exchange))

    def _client_of(self, request: Request) -> ConnectionInfo:
        """Return who a request comes from: the client, or whom a trusted proxy names."""
        info, proxies = self.info, self._service.proxies
        if proxies is None or not proxies.trusts(info.peer):
            return info
        told = proxies.client(request.headers)
        if told is None:
            return info
        client, tls = told
        peer, port = client or (info.peer, info.port)
        return ConnectionInfo(info.listener, peer, port, info.tls if tls is None else tls)

    def scope_of(self, request: Request, kind: str, info: ConnectionInfo) -> dict[str, Any]:
        """Return the scope of ASGI for a request.

        Args:
            request: its head.
            kind: ``http`` or ``websocket``.
            info: who it comes from.
        """
        raw_path, _, query = request.target.partition(b"?")
        path = raw_path.decode("ascii")
        return {
            "type": kind,
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": request.version,
            "server": self._server,
            "client": (info.peer, info.port) if info.peer else None,
            "scheme": _SCHEMES[kind, info.tls],
            "method": request.method.decode("ascii"),
            "root_path": "",
            "path": unquote(path) if "%" in path else path,
            "raw_path": raw_path,
            "query_string": query,
            "headers": request.headers,
            "state": self._service.shared.copy(),
        }

    async def _serve(self, exchange: Exchange) -> None:
        self._running += 1
        try:
            await exchange.run(self._service.app)
        finally:
            self._running -= 1

    def _read_body(self, body: Body) -> None:
        exchange = self.exchange
        assert exchange is not None
        try:
            data = body.read(self._buffer)
        except RequestError as error:
            self.refuse(error.status)
            return
        if body.done:
            self._body = None
        if data or body.done:
            exchange.body_came(data, body.done)
        if body.done and exchange.complete:
            self.exchange = None

    def wrote(self) -> None:
        """Note that the application has sent something."""
        self._wrote = self.loop.time()

    @property
    def last(self) -> bool:
        """The connection ends with the response that begins now."""
        return self._service.draining or self._end_timer is not None

    def completed(self, exchange: Exchange) -> None:
        """Go on with the next request: a response has been given to the transport."""
        if self._ended or self.transport.is_closing():
            return
        if exchange.close:
            if self._body is None:
                self._ended = True
                self.transport.close()
            else:
                # The client may be sending still: closing would take the response from it.
                self.linger()
            return
        if self._body is None:
            self.exchange = None
        if self._buffer:
            self._process()
        else:
            self._pause_or_resume()

    # -- the end

    def linger(self) -> None:
        """End the connection so that the client can read what was sent to it."""
        self._ended = True
        self._buffer.clear()
        transport = self.transport
        if transport.is_closing():
            return
        self._pause_or_resume()
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
        exchange, answering = self.exchange, self._answering
        if answering:
            answering.leave()
        if self.transport.is_closing() or self._ended:
            return
        # What is wrong may also be the rest of a request that has been answered.
        if exchange is None or (answering and not answering.begun):
            head_only = answering is not None and answering.head_only
            self.transport.write(refusal(status, head_only=head_only))
        if answering and not answering.more_body:
            # The client has nothing to send any more.
            self._ended = True
            self.transport.close()
        else:
            self.linger()
        if answering:
            self.refused = status
            answering.refused()
        if self._service.wants_refusal(status, logged=answering is not None):
            self.log_request(self.info, "-", status, 0)

    def log_request(
        self,
        info: ConnectionInfo,
        line: str,
        status: int,
        size: int,
        method: str = "",
        target: str = "",
    ) -> None:
        """Log a request and its answer.

        Args:
            info: who it comes from.
            line: its first line; a hyphen where it has none.
            status: of the answer, 0 if there was none.
            size: bytes of the answer's body.
            method: as the client wrote it.
            target: as it may be shown.
        """
        log(
            logger,
            logging.INFO,
            "http-request",
            '%s "%s" %s %d',
            self.name if info is self.info else client_name(info),
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

    # -- websockets

    def _upgrade(self, request: Request) -> None:
        """Hand the connection over; bytes before the handshake is answered are not allowed."""
        from fastlisten.handlers.http.websocket import WebSocket

        if self._buffer or request.length != 0:
            self.refuse(400)
            return
        self._service.connections.discard(self)
        self._watch_head()
        info = self._client_of(request)
        websocket = WebSocket(self._service, info, self.transport)
        self.transport.set_protocol(websocket)
        self._ended = True
        websocket.begin(request, self.scope_of(request, "websocket", info))


_SCHEMES = {
    ("http", False): "http",
    ("http", True): "https",
    ("websocket", False): "ws",
    ("websocket", True): "wss",
}
