"""One request and its response: what the application is given as `receive` and `send`.

Rules of this file: ASGI's side of a request. It adds to uvicorn's cycle what that does not do:
it tells an application that sends to a client that is gone (ASGI 2.4), answers for one that fails,
and writes the line of the access log. The connection is protocol.py's.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any, TypeAlias

import h11

from fastlisten.log_events import log, log_fault

if TYPE_CHECKING:
    from uvicorn.protocols.http.h11_impl import RequestResponseCycle

    from fastlisten.handlers.http.protocol import HttpProtocol

__all__ = ["Application", "ClientGoneError", "Exchange", "Message", "Scope", "shown_target"]

logger = logging.getLogger("fastlisten.http")

Message: TypeAlias = MutableMapping[str, Any]
Scope: TypeAlias = MutableMapping[str, Any]
#: An ASGI 3 application.
Application: TypeAlias = Callable[
    [Scope, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]],
    Awaitable[None],
]

#: Messages of one response after which others have their turn, also when none had to wait: 32
#: pieces of 64 KiB take about a millisecond.
_SENDS = 32

#: Parameters of a query that hold what nobody else may know (RFC 6750 2.3 has access_token). Names
#: have a bound, so that a long query takes no longer than its length.
_SECRET = re.compile(
    rb"((?:^|[&;])[^=&;]{0,40}(?:token|passw|passphrase|secret|api_?-?key|signature)[^=&;]{0,40}=)[^&;]*",
    re.IGNORECASE,
)

#: Characters of a target that one line of log shows.
_SHOWN = 1024


class ClientGoneError(OSError):
    """The application sends to a client that has gone (ASGI 2.4 wants an OSError)."""


def shown_target(scope: Scope) -> str:
    """Return path and query as the client wrote them, fit to stand between quotes in a log.

    They are printable ASCII as they come, h11 takes nothing else. What a parameter holds that is
    called like a secret is left out: a log is read by more people than a password.
    """
    raw: bytes = scope.get("raw_path") or b""
    if scope["query_string"]:
        raw += b"?" + _SECRET.sub(rb"\1***", scope["query_string"])
    text = raw.decode("ascii", "backslashreplace").replace('"', "%22")
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."


class Exchange:
    """One request: runs the application and answers for it where it does not.

    Args:
        protocol: of the connection.
        cycle: uvicorn's record of the request.
        scope: as the application gets it.
    """

    __slots__ = (
        "_cycle",
        "_logged",
        "_protocol",
        "_scope",
        "_sends",
        "_size",
        "_status",
        "receiving",
    )

    def __init__(self, protocol: HttpProtocol, cycle: RequestResponseCycle, scope: Scope) -> None:
        self._protocol = protocol
        self._cycle = cycle
        self._scope = scope
        self._status = 0
        self._size = 0
        self._sends = 0
        self._logged = False
        #: The application waits for more of the request.
        self.receiving = False

    async def run(self, app: Application) -> None:
        """Run the application to its end."""
        cycle = self._cycle
        try:
            await app(self._scope, self.receive, self.send)
        except BaseException as error:
            # SystemExit and cancellation, too: uvicorn would answer them, and log nothing here.
            ends = isinstance(error, (asyncio.CancelledError, GeneratorExit))
            if ends and (self._gone or cycle.response_complete):
                # The server ends; the client has been cut already, and nobody waits for this task.
                return
            self._failed(error)
        else:
            if self._gone or cycle.response_complete:
                return
            text = "%s: the application ended without a whole response"
            log(
                logger,
                logging.ERROR,
                "application-failed",
                text,
                self,
                **self._protocol.info.fields,
            )
            self._give_up()
        finally:
            self._log()

    @property
    def _gone(self) -> bool:
        """There is nobody to answer any more.

        A write that fails closes the transport at once, but the loop tells of it only when it runs
        again: an application that does nothing but send would never let it.
        """
        cycle = self._cycle
        closed = self._protocol.transport.is_closing() and not cycle.response_complete
        return cycle.disconnected or closed

    async def receive(self) -> Message:
        """Return the next part of the request, or that the client is gone."""
        self.receiving = True
        try:
            return await self._cycle.receive()  # type: ignore[return-value]
        finally:
            self.receiving = False

    async def send(self, message: Message) -> None:
        """Send the next part of the response.

        Raises:
            ClientGoneError: there is nobody to send it to.
        """
        cycle = self._cycle
        if self._gone:
            raise ClientGoneError("the client has gone")
        kind = message["type"]
        if kind == "http.response.start" and not cycle.response_started:
            self._status = message["status"]
            message = {**message, "headers": self._completed(message.get("headers", ()))}
        elif kind == "http.response.body" and cycle.response_started:
            self._size += len(message.get("body", b""))
            if not message.get("more_body", False) and cycle.more_body:
                # The client may be sending still: closing would take the response from it.
                cycle.transport = self._protocol.lingering
        complete = cycle.response_complete
        try:
            await cycle.send(message)  # type: ignore[arg-type]
        except Exception:
            # Not a byte of this message was sent; what uvicorn noted of it before is not so.
            first = kind == "http.response.start"
            if first and self._protocol.conn.our_state is not h11.SEND_BODY:
                cycle.response_started = False
            cycle.response_complete = complete
            raise
        self._protocol.wrote()
        if cycle.response_complete:
            self._log()
        self._sends += 1
        if self._sends % _SENDS == 0:
            # A client that is fast never lets the application wait; the other clients would.
            await asyncio.sleep(0)

    def _completed(self, headers: Any) -> list[tuple[bytes, bytes]]:
        """Return the headers of a response with what the server has to add."""
        cycle = self._cycle
        completed = [(bytes(name).lower(), bytes(value)) for name, value in headers]
        names = [name for name, _ in completed]
        if b"date" in names:
            cycle.default_headers = []
        # A client that was not asked for its body may send it or not: nobody can tell what follows.
        unasked = cycle.waiting_for_100_continue and cycle.more_body
        if (unasked or self._protocol.last) and (b"connection", b"close") not in completed:
            completed.append((b"connection", b"close"))
        return completed

    def _failed(self, error: BaseException) -> None:
        cycle = self._cycle
        if self._gone:
            # What applications and frameworks raise then is no fault of theirs. In words: who keeps
            # the record shall not keep what the error holds on to.
            words = f"the client has gone, the application raised {error!r}"
            logger.info("%s: %s", self, words)
            return
        text = "%s: the application failed"
        log_fault(logger, "application-failed", text, self, **self._protocol.info.fields)
        if not cycle.response_complete:
            self._give_up()

    def _give_up(self) -> None:
        """End a request that the application has left without a whole response."""
        cycle = self._cycle
        if cycle.response_started:
            # Nothing else tells the client that there is something missing.
            cycle.disconnected = True
            self._protocol.transport.close()
        else:
            self._protocol.refuse(500)

    def refused(self, cycle: RequestResponseCycle) -> None:
        """Note that the connection has answered for the application, if it is this request."""
        if cycle is self._cycle:
            self._log()

    def _log(self) -> None:
        if self._logged:
            return
        self._logged = True
        protocol = self._protocol
        if protocol.access_lines:
            size = 0 if self._scope["method"] == "HEAD" else self._size
            status = (self._cycle.response_started and self._status) or protocol.refused
            method, target = self._scope["method"][:40], shown_target(self._scope)
            protocol.log_request(self._line, status, size, method, target)

    @property
    def _line(self) -> str:
        scope = self._scope
        return f"{scope['method'][:40]} {shown_target(scope)} HTTP/{scope['http_version']}"

    def __str__(self) -> str:
        return f'{self._protocol.name} "{self._line}"'
