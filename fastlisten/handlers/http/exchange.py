"""One request and its response: what the application is given as `receive` and `send`.

Rules of this file: ASGI's side of a request: it answers for an application that does not, and
writes the line of the access log. The connection is protocol.py's, the form of responses
response.py's.

    waiting ──start──> started ──first body──> sending ──last body──> complete
                       (nothing is sent yet)

The head goes out with the first part of the body (ASGI: not before): one write instead of two, and
what is wrong with either can still be answered by 500.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Protocol

from fastlisten.handlers.http.access_log import log_request, shown_target
from fastlisten.handlers.http.asgi import Application, ClientGoneError, Message, Scope
from fastlisten.handlers.http.flow import WriteGate
from fastlisten.handlers.http.response import ResponseError, ResponseHead, octets
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

#: Messages of one response after which others have their turn, also when none had to wait: 32
#: pieces of 64 KiB take about a millisecond.
_SENDS = 32

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_CLOSE = b"connection: close\r\n"
_CHUNKED = b"transfer-encoding: chunked\r\n"


class ExchangeConnection(Protocol):
    """What an exchange needs of its connection.

    Attributes:
        access_log: each request is logged.
        gate: holds the application back while the client does not read.
        info: what is known of the connection.
        last: the connection ends with the response that begins now.
        loop: the event loop.
        name: the connection, for logs.
        refused: the status that the server answered with instead of the application, or 0.
        transport: the connection's.
    """

    access_log: bool
    gate: WriteGate
    info: ConnectionInfo
    loop: asyncio.AbstractEventLoop
    name: str
    refused: int
    transport: asyncio.Transport

    @property
    def last(self) -> bool: ...  # noqa: D102 (see above)

    def pause_or_resume(self) -> None:
        """The application has taken some of the body, or waits for more."""

    def wrote(self) -> None:
        """The application has sent something."""

    def completed(self, exchange: Exchange) -> None:
        """The whole response has been given to the transport."""

    def refuse(self, status: int) -> None:
        """Answer instead of the application, and end the connection."""


class Exchange:
    """One request: runs the application and answers for it where it does not.

    Args:
        protocol: of the connection.
        request: its head.
        scope: as the application gets it.
        info: who it comes from.

    Attributes:
        scope: as given.
        head_only: the request was HEAD.
        more_body: some of the request's body has not come.
        held: octets of the body that the application has not taken.
        receiving: the application waits for more of the body.
        begun: some of the response has been sent.
        complete: all of the response has been given to the transport.
        gone: the client is gone, or has been told something else: nobody is there to answer to.
        close: the connection ends with the response.
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
    )

    def __init__(
        self, protocol: ExchangeConnection, request: Request, scope: Scope, info: ConnectionInfo
    ) -> None:
        self._protocol = protocol
        self._info = info
        self.scope = scope
        self.head_only = request.method == b"HEAD"
        self.close = request.close
        self._expects = request.expects
        self.more_body = request.length != 0
        self._pieces: list[bytes] = []
        self.held = 0
        self.receiving = False
        self._waiter: asyncio.Future[None] | None = None
        self._head: ResponseHead | None = None
        self._started = self.begun = self.complete = self.gone = False
        self._chunked = False
        self._told = False  # the application has got the last of the body
        self._status = 0
        self._size = 0
        self._sends = 0
        self._logged = False

    # -- from the connection

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
        """Tell the application that nobody is there any more."""
        self.gone = True
        self._wake()

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    # -- the application

    async def run(self, app: Application) -> None:
        """Run the application to its end."""
        try:
            await app(self.scope, self.receive, self.send)
        except BaseException as error:
            # SystemExit and cancellation, too: they concern this request and not the process.
            ends = isinstance(error, (asyncio.CancelledError, GeneratorExit))
            if ends and (self._nobody or self.complete):
                # The server ends; the client has been cut already, and nobody waits for this task.
                return
            self._failed(error)
        else:
            if self._nobody or self.complete:
                return
            text = "%s: the application ended without a whole response"
            fields = self._info.fields
            log(logger, logging.ERROR, "application-failed", text, self, **fields)
            self._give_up()
        finally:
            self._log()

    @property
    def _nobody(self) -> bool:
        """There is nobody to answer any more.

        A write that fails closes the transport at once, but the loop tells of it only when it runs
        again: an application that does nothing but send would never let it.
        """
        return self.gone or (self._protocol.transport.is_closing() and not self.complete)

    async def receive(self) -> Message:
        """Return the next part of the request, or that the client is gone."""
        protocol = self._protocol
        if self._expects and not (self._started or self._nobody):
            self._expects = False
            protocol.transport.write(_CONTINUE)
        while not self._pieces and (self.more_body or self._told) and not self.gone:
            if self.complete:
                break
            protocol.pause_or_resume()
            self.receiving = True
            waiter = self._waiter = protocol.loop.create_future()
            try:
                await waiter
            finally:
                self.receiving = False
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
            ClientGoneError: there is nobody to send it to.
            ResponseError: it must not be sent, or not now; not an octet of it was.
        """
        protocol = self._protocol
        if self._nobody:
            raise ClientGoneError("the client has gone")
        kind = message["type"]
        if not self._started:
            if kind != "http.response.start":
                raise ResponseError(f"{kind!r} stands where http.response.start is expected")
            headers = message.get("headers", ())
            self._head = ResponseHead(message["status"], headers, head_only=self.head_only)
            self._started = True
            return
        if kind != "http.response.body" or self.complete:
            when = "after a response" if self.complete else "where http.response.body is expected"
            raise ResponseError(f"{kind!r} stands {when}")
        if protocol.gate.closed:
            await protocol.gate.passed()
            if self._nobody:
                raise ClientGoneError("the client has gone")
        body = message.get("body", b"")
        if type(body) is not bytes:
            body = octets(body)
        more = bool(message.get("more_body", False))
        self._write(body, more)
        protocol.wrote()
        if not more:
            self.complete = True
            # What the application has left of the body is nobody's any more.
            self._pieces.clear()
            self.held = 0
            self._wake()
            self._log()
            protocol.completed(self)
        self._sends += 1
        if self._sends % _SENDS == 0:
            # A client that is fast never lets the application wait; the other clients would.
            await asyncio.sleep(0)

    def _write(self, body: bytes, more: bool) -> None:
        """Give a part of the body to the transport, with the head if it is the first."""
        head = self._head
        assert head is not None
        if not self.begun:
            self._choose_framing(head, more)
        head.count(len(body), more=more)
        if head.bodiless:
            body = b""
        self._size += len(body)
        pieces = []
        if not self.begun:
            self.begun = True
            self._status = head.status
            pieces.append(head.encode(*self._fields(head, body, more)))
        if self._chunked:
            if body:
                pieces += (b"%x\r\n" % len(body), body, b"\r\n")
            if not more:
                pieces.append(b"0\r\n\r\n")
        elif body:
            pieces.append(body)
        if len(pieces) == 1:
            self._protocol.transport.write(pieces[0])
        elif pieces:
            self._protocol.transport.writelines(pieces)

    def _choose_framing(self, head: ResponseHead, more: bool) -> None:
        """Find how the client learns where the body ends (RFC 9112 6.3)."""
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
        # A client that was not asked for its body may send it or not: nobody can tell what follows.
        unasked = self._expects and self.more_body
        if self.close or head.close or unasked or self._protocol.last:
            self.close = True
            fields.append(_CLOSE)
        return fields

    def _failed(self, error: BaseException) -> None:
        if self._nobody:
            # What applications and frameworks raise then is no fault of theirs. In words: who keeps
            # the record shall not keep what the error holds on to.
            words = f"the client has gone, the application raised {error!r}"
            logger.info("%s: %s", self, words)
            return
        text = "%s: the application failed"
        log_fault(logger, "application-failed", text, self, **self._info.fields)
        if not self.complete:
            self._give_up()

    def _give_up(self) -> None:
        """End a request that the application has left without a whole response."""
        if self.begun:
            # Nothing else tells the client that there is something missing.
            self.gone = True
            self._protocol.transport.close()
        else:
            self._protocol.refuse(500)

    def refused(self) -> None:
        """Note that the connection has answered for the application."""
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
