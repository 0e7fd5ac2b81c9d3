"""What a handler is: the code that speaks one protocol on the connections of one listener.

Rules of this file: no I/O and no configuration. A handler is made once per listener and worker;
everything that is fixed for the listener (greeting, refusals, farewells) it gives as bytes, which
the native core sends without running Python; only `connection` runs once per connection.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from fastlisten.errors import SettingError
from fastlisten.option import Option

if TYPE_CHECKING:
    from fastlisten._tls import TlsSettings
    from fastlisten.handlers.smtp.engine.counts import Counts

__all__ = ["ConnectionInfo", "Handler", "HandlerSettings", "Reason", "SettingError"]


class Reason(enum.Enum):
    """Why a connection is refused or ended; the handler words it in its protocol."""

    LIMIT = "limit"  # no place left under max-connections
    OVERLOAD = "overload"  # the process has no descriptor or memory left
    RATE = "rate"  # this address connects too often
    ADDRESS = "address"  # this address holds too many connections
    DENIED = "denied"  # this address is not allowed here
    FIRST_BYTE = "first-byte"  # said nothing within timeout.first-byte
    IDLE = "idle"  # said nothing within timeout.idle
    SHUTDOWN = "shutdown"  # the server drains


@dataclass(frozen=True, slots=True)
class HandlerSettings:
    """What a handler is told of the listener that it serves.

    Attributes:
        listener: id of the listener.
        protocol: its `protocol`, in lower case.
        hostname: the name the server greets with, `server.hostname` or the listener's own.
        greeting: the text after the host name, `server.greeting` or the listener's own.
        tls_implicit: the listener speaks TLS from the first byte; STARTTLS is not offered then.
        tls_available: STARTTLS can be offered.
        tls: what `Connection.start_tls` takes to carry it out, None where it is not available.
        port: the first bound port, 0 for a Unix socket; fixes defaults such as smtp's role.
        data_directory: where mail and accounts live.
        options: the handler's own rows, resolved for this listener: key without the protocol's
            prefix (``relay`` for ``smtp.relay``) to typed value.
        extra: what else a server gives: ``control`` (its `runtime.control.Control`), ``accounts``
            (the file's name), ``postmaster`` (an account's name) and ``app``; free for programs
            that use a handler as a library.
    """

    listener: str
    protocol: str
    hostname: str
    greeting: str = ""
    tls_implicit: bool = False
    tls_available: bool = False
    tls: TlsSettings | None = None
    port: int = 0
    data_directory: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ConnectionInfo:
    """What is known of a connection before its first byte is read.

    Attributes:
        listener: id of the listener.
        peer: the client's address, an IPv4-mapped address written as IPv4; empty on Unix sockets.
        port: the client's port, 0 on Unix sockets.
        tls: the connection is encrypted already.
    """

    listener: str
    peer: str
    port: int
    tls: bool = False

    @property
    def fields(self) -> dict[str, object]:
        """What records about it have for programs (log_events.py)."""
        return {"listener": self.listener, "peer": self.peer, "port": self.port}


class Handler:
    """Base class of handlers.

    One instance serves one listener in one worker process. A subclass sets the class variables
    and overrides `connection`; the rest has workable defaults.

    Attributes:
        name: the word for `protocol` in the configuration.
        default_port: the port of a bind that names none.
        default_tls_port: the same with `tls.implicit`, 0 where the protocol has no such port.
        server_speaks_first: the server greets; clients wait for it.
        lazy: Python objects are made at the client's first byte, not at accept.
        starttls: going over to TLS within a connection is a part of the protocol, so that a
            certificate is needed although TLS does not begin with the first byte.
        alpn: protocol names for TLS ALPN (RFC 7301).
        options: the handler's rows of the option table.
        counts: what is counted of its mail, for the metrics; None where there is none.
        greeting: sent natively as soon as the connection is ready (after PROXY and TLS); the
            protocol object must not send it again. Empty: nothing is sent.
        settings: as given.
    """

    name: ClassVar[str] = ""
    default_port: ClassVar[int] = 0
    default_tls_port: ClassVar[int] = 0
    server_speaks_first: ClassVar[bool] = False
    lazy: ClassVar[bool] = False
    starttls: ClassVar[bool] = False
    alpn: ClassVar[tuple[str, ...]] = ()
    options: ClassVar[tuple[Option, ...]] = ()

    greeting: bytes = b""
    counts: Counts | None = None

    def __init__(self, settings: HandlerSettings) -> None:
        self.settings = settings

    def refusal(self, reason: Reason) -> bytes:
        """Return what a client hears that is not served; empty to close without a word.

        Where TLS begins with the first byte it is not sent: there has been no handshake yet.
        """
        return b""

    def farewell(self, reason: Reason) -> bytes:
        """Return what a served but idle client hears before the server closes."""
        return b""

    def notes(self) -> tuple[str, ...]:
        """Return what an administrator should know at start, a sentence each."""
        return ()

    def connection(self, info: ConnectionInfo) -> asyncio.BaseProtocol:
        """Return the protocol object for one connection.

        The object may have two boolean attributes. While ``busy`` is true, a drain lets the
        connection finish what it is doing (until the shutdown timeout); without it a connection
        counts as idle. While ``working`` is true, the client waits for the server, and
        `timeout.idle` does not run out; without it ``busy`` is asked. A third one may hold bytes:
        ``last_words`` is what the client hears when the server ends the connection, instead of
        the farewell for `Reason.SHUTDOWN`.
        """
        raise NotImplementedError(f"{type(self).__name__} does not implement connection()")

    async def start(self) -> None:
        """Make ready before the listener accepts; runs on the worker's loop."""

    def drain(self) -> None:
        """Learn that the listener accepts no more; called once, on the loop.

        Idle connections are closed after this, without the handler; busy ones may finish what
        they are at, and should begin nothing more.
        """

    async def stop(self) -> None:
        """Release what `start` took; runs after the last connection has ended."""
