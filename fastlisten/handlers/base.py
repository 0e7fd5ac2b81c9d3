"""The base class of handlers: code that speaks one protocol on the connections of one listener.

Rules of this file: no I/O and no configuration. There is one handler per listener and worker. It
provides what is the same for all connections (greeting, refusals, farewells) as bytes, which the
native core sends without running Python; only `connection` is called for each connection.
"""

from __future__ import annotations

import asyncio
import dataclasses
import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from fastlisten.errors import SettingError
from fastlisten.option import Option

if TYPE_CHECKING:
    from fastlisten._tls import TlsSettings
    from fastlisten.mail.counts import Counts

__all__ = ["ConnectionInfo", "Handler", "HandlerSettings", "Reason", "SettingError"]


class Reason(enum.Enum):
    """Why a connection is refused or closed; the handler puts it into its protocol's reply."""

    LIMIT = "limit"  # max-connections or server.total-connections is reached
    OVERLOAD = "overload"  # the process is out of descriptors or memory
    RATE = "rate"  # this address connects too often
    ADDRESS = "address"  # this address holds too many connections
    DENIED = "denied"  # this address is not allowed here
    FIRST_BYTE = "first-byte"  # the client sent nothing within timeout.first-byte
    IDLE = "idle"  # the client sent nothing within timeout.idle
    SHUTDOWN = "shutdown"  # the server is draining


@dataclass(frozen=True, slots=True)
class HandlerSettings:
    """What a handler knows about the listener that it serves.

    Attributes:
        listener: id of the listener.
        protocol: name of its protocol, in lower case.
        hostname: the name in the greeting, from `server.hostname` or the listener.
        greeting: the text after the host name, from `server.greeting` or the listener.
        tls_implicit: the listener uses TLS from the first byte, so STARTTLS is not offered.
        tls_available: STARTTLS can be offered.
        tls: the argument for `Connection.start_tls`, None if TLS is not available.
        port: the first bound port, 0 for a Unix socket; some defaults depend on it, such as smtp's
            role.
        data_directory: where mail and accounts are stored.
        options: the values of the protocol's own rows for this listener, typed, by key without the
            protocol's prefix: ``relay`` for ``smtp.relay``.
        extra: other things that the server provides: ``control`` (its `runtime.control.Control`),
            ``accounts`` (the path of the file), ``postmaster`` (the name of an account), ``quota``
            (the `Quota` of mail/accounts/quota.py for every account) and ``app``. Programs that use
            a handler as a library may put anything here.
        kept: what the handler leaves to its successor. If a reload makes a new handler for a
            listener because settings have changed, and it is of the same class, it begins with a
            copy of what its predecessor has put here, such as counters.
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
    kept: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)


# Not frozen: each connection makes one, and setting the attributes of a frozen class takes four
# times as long.
@dataclass(slots=True, unsafe_hash=True)
class ConnectionInfo:
    """What is known about a connection before its first byte is read; do not change it.

    Attributes:
        listener: id of the listener.
        peer: the client's address; IPv4-mapped addresses appear as IPv4. Empty on Unix sockets.
        port: the client's port, 0 on Unix sockets.
        tls: the connection is already encrypted.
    """

    listener: str
    peer: str
    port: int
    tls: bool = False

    @property
    def fields(self) -> dict[str, object]:
        """The fields of its log records (log_events.py)."""
        return {"listener": self.listener, "peer": self.peer, "port": self.port}


class Handler:
    """Base class of handlers.

    One instance serves one listener in one worker process. If a reload changes the listener's
    settings, a new instance is started for new connections, and the former one is stopped when its
    last connection has ended. A subclass overrides `connection`;
    everything else has a usable default. The class variables up to `options` describe the protocol
    if there is no `Protocol` object for it (handlers/protocol.py).

    Attributes:
        name: the name of the protocol in the configuration.
        default_port: the port of a bind without one.
        default_tls_port: the same with `tls.implicit`; 0 if the protocol has no separate TLS port.
        server_speaks_first: the server greets, and clients wait for it.
        lazy: Python objects are created at the client's first byte instead of at accept.
        starttls: the protocol can switch to TLS within a connection, so the listener needs a
            certificate even if TLS does not start with the first byte.
        alpn: protocol names for TLS ALPN (RFC 7301).
        options: the protocol's rows of the option table.
        counts: counters for the metrics on mail; None if the handler has none.
        greeting: sent natively as soon as the connection is ready (after PROXY and TLS); the
            protocol object must not send it again. Empty: nothing is sent.
        settings: as given, with the defaults of rows in `options` that they leave out.
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
        defaults = {row.key: row.default for row in self.options}
        if not defaults.keys() <= settings.options.keys():
            # Programs give only the options that they want to change; configurations give all.
            settings = dataclasses.replace(settings, options={**defaults, **settings.options})
        self.settings = settings

    def refusal(self, reason: Reason) -> bytes:
        """Return the reply sent to a refused client; empty to close without one.

        It is not sent with implicit TLS, because there has been no handshake yet.
        """
        return b""

    def farewell(self, reason: Reason) -> bytes:
        """Return what is sent to an idle client before the server closes the connection."""
        return b""

    def notes(self) -> tuple[str, ...]:
        """Return what an administrator should know at startup, one sentence each."""
        return ()

    def connection(self, info: ConnectionInfo) -> asyncio.BaseProtocol:
        """Return the protocol object for one connection.

        The object may have two boolean attributes. While ``busy`` is true, a drain lets the
        connection finish what it is doing, until the shutdown timeout; a connection without this
        attribute counts as idle. While ``working`` is true, the client is waiting for the server
        and `timeout.idle` does not run; without this attribute, ``busy`` is used. A third
        attribute, ``last_words``, may hold bytes to send instead of the farewell for
        `Reason.SHUTDOWN` when the server closes the connection. A protocol that sets the
        transport's ``idle_time`` needs a method ``idle_expired``.
        """
        raise NotImplementedError(f"{type(self).__name__} does not implement connection()")

    async def start(self) -> None:
        """Get ready before the listener accepts; runs on the worker's loop."""

    def drain(self) -> None:
        """Called once, on the loop, when the listener stops accepting.

        Idle connections are closed afterwards, without the handler. Busy ones may finish what they
        are doing, and should start nothing new.
        """

    async def stop(self) -> None:
        """Release what `start` acquired; runs after the last connection is closed."""
