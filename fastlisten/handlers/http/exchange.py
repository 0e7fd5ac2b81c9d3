"""One request and its response: the `receive` and `send` of an ASGI application.

Rules of this file: ASGI's side of a request. If the application does not complete the response, it
is completed or cut off here. The access log is written here. protocol.py handles the connection,
response.py the form of responses.

    waiting ──start──> started ──first body──> sending ──last body──> complete
                       (nothing is sent yet)

The head is sent with the first part of the body, as ASGI requires. This takes one write instead of
two, and if either is invalid the client can still get a 500.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Protocol

from fastlisten.handlers.http.access_log import log_request, shown_target
from fastlisten.handlers.http.asgi import Application, ClientGoneError, Message, Scope
from fastlisten.handlers.http.flow import WriteGate
from fastlisten.handlers.http.response import ResponseError, ResponseHead, octets
from fastlisten.handlers.http.service import begun
from fastlisten.handlers.http.transport import client_name
from fastlisten.log_events import log, log_fault

if TYPE_CHECKING:
    from fastlisten.handlers.base import ConnectionInfo
    from fastlisten.handlers.http.head import Request

__all__ = [
    "Exchange",
    "ExchangeConnection",
]

logger = logging.getLogger("fastlisten.http")

#: After this many messages of a response, other connections have their turn even if the client
#: reads fast: 32 pieces of 64 KiB take about a millisecond.
_SENDS = 32

#: Octets of a part of a response up to which it is copied, so that it is one piece with its head or
#: the lines around it: one `send` costs less than a queue and `sendmsg`, and the copy less still.
_JOINED = 16 * 1024

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_CLOSE = b"connection: close\r\n"
_CHUNKED = b"transfer-encoding: chunked\r\n"


class ExchangeConnection(Protocol):
    """The connection, as an exchange sees it.

    Attributes:
        access_log: each request is logged.
        gate: holds the application back while the client does not read.
        info: what is known of the connection.
        last: the connection closes after the response that begins now.
        loop: the event loop.
        name: the connection, for logs.
        refused: the status that the server answered with instead of the application, or 0.
        running: how many requests' applications run.
        transport: the connection's.
    """

    access_log: bool
    gate: WriteGate
    info: ConnectionInfo
    loop: asyncio.AbstractEventLoop
    name: str
    refused: int
    running: int
    transport: asyncio.Transport

    @property
    def last(self) -> bool: ...  # noqa: D102 (see above)

    def pause_or_resume(self) -> None:
        """The application has taken some of the body, or waits for more."""

    def wrote(self) -> None:
        """The application has sent something."""

    def completed(self, exchange: Exchange) -> None:
        """The whole response has been given to the transport."""

    def ended(self, exchange: Exchange) -> None:
        """The application has returned or failed."""

    def refuse(self, status: int) -> None:
        """Answer instead of the application, and end the connection."""


class Exchange:
    """One request: runs the application, and responds itself if the application does not.

    Args:
        protocol: the connection.
        request: the request's head.
        scope: the scope that the application gets.
        info: where the request comes from.

    Attributes:
        scope: as given.
        task: the one in which the application runs, set by the connection.
        head_only: the request was HEAD.
        more_body: the request's body is not complete.
        held: octets of the body that the application has not received.
        receiving: how many tasks of the application are waiting for more of the body.
        begun: some of the response has been sent.
        complete: all of the response has been given to the transport.
        gone: the client has disconnected, or the server has responded itself.
        close: the connection closes after the response.
    """

    __slots__ = (
        "_chunked",
        "_expects",
        "_head",
        "_info",
        "_logged",
        "_pieces",
        "_protocol",
        "_sends",
        "_size",
        "_started",
        "_status",
        "_told",
        "_waiter",
        "begun",
        "close",
        "complete",
        "gone",
        "head_only",
        "held",
        "more_body",
        "receiving",
        "scope",
        "task",
    )

    def __init__(
        self, protocol: ExchangeConnection, request: Request, scope: Scope, info: ConnectionInfo
    ) -> None:
        self._protocol = protocol
        self._info = info
        self.scope = scope
        self.task: asyncio.Task[None] | None = None
        self.head_only = request.method == b"HEAD"
        self.close = request.close
        self._expects = request.expects
        self.more_body = request.length != 0
        self._pieces: list[bytes] = []
        self.held = 0
        self.receiving = 0
        self._waiter: asyncio.Future[None] | None = None
        self._head: ResponseHead | None = None
        self._started = self.begun = self.complete = self.gone = False
        self._chunked = False
        self._told = False  # the application has received the last part of the body
        self._status = 0
        self._size = 0
        self._sends = 0
        self._logged = False

    # -- called by the connection

    def body_came(self, data: bytes, done: bool) -> None:
        """Take some of the request's body."""
        if done:
            self.more_body = False
        if self.complete:
            return
        if data:
            self._expects = False
            self._pieces.append(data)
            self.held += len(data)
        self._wake()

    def leave(self) -> None:
        """Tell the application that the client has disconnected."""
        self.gone = True
        self._wake()

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    # -- the application

    async def run(self, app: Application) -> None:
        """Run the application to its end."""
        protocol = self._protocol
        protocol.running += 1
        try:
            await begun()
            await app(self.scope, self.receive, self.send)
        except BaseException as error:
            # This includes SystemExit and cancellation, which end the request and not the process.
            ends = isinstance(error, (asyncio.CancelledError, GeneratorExit))
            if ends and (self._over or self.complete):
                # The server is stopping; the client has been cut off, and nothing awaits this task.
                return
            self._failed(error)
        else:
            if self.complete or self._over:
                return
            text = "%s: the application returned without a complete response"
            fields = self._info.fields
            log(logger, logging.ERROR, "application-failed", text, self, **fields)
            self._give_up()
        finally:
            if not self._logged:
                self._log()
            protocol.running -= 1
            protocol.ended(self)

    @property
    def _over(self) -> bool:
        """Whether the client can no longer get a response.

        A failed write closes the transport at once, but `connection_lost` is called only when the
        loop runs again, which an application that just keeps sending may not let it do.
        """
        return self.gone or (self._protocol.transport.is_closing() and not self.complete)

    async def receive(self) -> Message:
        """Return the next part of the request, or http.disconnect."""
        protocol = self._protocol
        if self._expects and not (self._started or self._over):
            self._expects = False
            protocol.transport.write(_CONTINUE)
        while not self._pieces and (self.more_body or self._told) and not self.gone:
            if self.complete:
                break
            protocol.pause_or_resume()
            if self._waiter is None:
                self._waiter = protocol.loop.create_future()
            self.receiving += 1
            try:
                # Shielded: several tasks of an application may wait, and one may be cancelled.
                await asyncio.shield(self._waiter)
            finally:
                self.receiving -= 1
        if self.gone or self.complete:
            return {"type": "http.disconnect"}
        pieces, self._pieces = self._pieces, []
        self.held = 0
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        self._told = not self.more_body
        return {"type": "http.request", "body": body, "more_body": self.more_body}

    async def send(self, message: Message) -> None:
        """Send the next part of the response.

        Raises:
            ClientGoneError: the client has disconnected.
            ResponseError: the message is not allowed, or not at this point; nothing of it was sent.
        """
        protocol = self._protocol
        if self.gone or (protocol.transport.is_closing() and not self.complete):
            raise ClientGoneError("the client has gone")
        kind = message["type"]
        if not self._started:
            if kind != "http.response.start":
                raise ResponseError(f"{kind!r} comes where http.response.start is expected")
            headers = message.get("headers", ())
            self._head = ResponseHead(message["status"], headers, head_only=self.head_only)
            self._started = True
            return
        if kind != "http.response.body" or self.complete:
            when = "after a response" if self.complete else "where http.response.body is expected"
            raise ResponseError(f"{kind!r} comes {when}")
        if protocol.gate.closed:
            await protocol.gate.passed()
            if self._over:
                raise ClientGoneError("the client has gone")
        body = message.get("body", b"")
        if type(body) is not bytes:
            body = octets(body)
        more = bool(message.get("more_body", False))
        self._write(body, more)
        if more:
            protocol.wrote()
        else:
            self.complete = True
            # The application will not receive the rest of the body.
            self._pieces.clear()
            self.held = 0
            if self._waiter is not None:
                self._wake()
            if protocol.access_log:
                self._log()
            protocol.completed(self)
        self._sends += 1
        if self._sends % _SENDS == 0:
            # A fast client never makes the application wait, so other clients would have to.
            await asyncio.sleep(0)

    def _write(self, body: bytes, more: bool) -> None:
        """Write a part of the body, with the head if it is the first."""
        head = self._head
        assert head is not None
        if not self.begun:
            self._choose_framing(head, more)
        head.count(len(body), more=more)
        if head.bodiless:
            body = b""
        self._size += len(body)
        start = end = b""
        if not self.begun:
            self.begun = True
            self._status = head.status
            start = head.encode(*self._fields(head, body, more))
        if self._chunked:
            if body:
                start += b"%x\r\n" % len(body)
                end = b"\r\n"
            if not more:
                end += b"0\r\n\r\n"
        if len(body) <= _JOINED:
            if data := start + body + end:
                self._protocol.transport.write(data)
        elif start or end:
            self._protocol.transport.writelines((start, body, end))
        else:
            self._protocol.transport.write(body)

    def _choose_framing(self, head: ResponseHead, more: bool) -> None:
        """Choose how the client will know where the body ends (RFC 9112 6.3)."""
        if head.bodiless or head.length is not None or not more:
            return
        if self.scope["http_version"] == "1.0":
            self.close = True
        else:
            self._chunked = True

    def _fields(self, head: ResponseHead, body: bytes, more: bool) -> list[bytes]:
        """Return the lines that the server adds to a head."""
        fields = []
        if self._chunked:
            fields.append(_CHUNKED)
        elif head.length is None and not more and not head.bodiless:
            fields.append(b"content-length: %d\r\n" % len(body))
        # A client that got no 100 may or may not send its body, so it is unclear what comes next.
        unasked = self._expects and self.more_body
        if self.close or head.close or unasked or self._protocol.last:
            self.close = True
            fields.append(_CLOSE)
        return fields

    def _failed(self, error: BaseException) -> None:
        if self._over:
            # Not the application's fault. The error is logged as text, so that a record does
            # not keep alive what the error refers to.
            words = f"the client has gone, the application raised {error!r}"
            logger.info("%s: %s", self, words)
            return
        text = "%s: the application failed"
        log_fault(logger, "application-failed", text, self, **self._info.fields)
        if not self.complete:
            self._give_up()

    def _give_up(self) -> None:
        """End a request whose response the application has left incomplete."""
        if self.begun:
            # Only this tells the client that something is missing.
            self.gone = True
            self._protocol.transport.close()
        else:
            self._protocol.refuse(500)

    def refused(self) -> None:
        """Note that the connection has responded instead of the application."""
        self._log()

    def _log(self) -> None:
        if self._logged:
            return
        self._logged = True
        protocol = self._protocol
        if protocol.access_log:
            status = self._status or protocol.refused
            method, target = self.scope["method"][:40], shown_target(self.scope)
            info = self._info
            name = protocol.name if info is protocol.info else client_name(info)
            log_request(name, info, self._line, status, self._size, method, target)

    @property
    def _line(self) -> str:
        scope = self.scope
        return f"{scope['method'][:40]} {shown_target(scope)} HTTP/{scope['http_version']}"

    def __str__(self) -> str:
        return f'{client_name(self._info)} "{self._line}"'
