"""The asyncio protocol around an engine without I/O, as far as it is the same for smtp and imap.

Rules of this file: octets and flow control, TLS within a session, and why a session ended; nothing
of a protocol. Subclasses execute what the client sends, and decide what that is.

What stops an engine for a while; each ends in a call of `run`:

    the session waits for something         up to the subclass
    the client does not read                pause_writing / resume_writing
    the connection has had its turn         call_soon -> _take_turn
    TLS begins                              _begin_tls -> _secured

Meanwhile the engine keeps input up to `READ_AHEAD` octets; then reading is paused. Before the
go-ahead for TLS it is paused at once: what the client sends after STARTTLS stays in the kernel
until the transport is replaced, and is read as part of the handshake.
"""

from __future__ import annotations

import abc
import asyncio
import sys
import time
from typing import TYPE_CHECKING, Protocol, cast

from fastlisten.handlers.session_log import SessionContext
from fastlisten.log_events import new_session

if TYPE_CHECKING:
    from fastlisten._tls import TlsSettings

__all__ = ["READ_AHEAD", "Engine", "EngineConnection"]

#: Octets of pipelined input to keep while nothing can be executed; then reading is paused.
READ_AHEAD = 64 * 1024


class Engine(Protocol):
    """The protocol without I/O."""

    @property
    def encrypted(self) -> bool:
        """Whether the client uses TLS."""

    @property
    def securing(self) -> bool:
        """Whether TLS begins."""

    @property
    def buffered(self) -> int:
        """Octets that have been received and not been executed."""

    def receive(self, data: bytes) -> None:
        """Take octets of the client."""

    def tls_started(self) -> None:
        """Go on over TLS."""


class EngineConnection(asyncio.Protocol, abc.ABC):
    """One connection.

    Args:
        engine: of its protocol.

    Attributes:
        engine: as given.
        session: its number in the log.
        end_reason: why the session ended, once known.
        read_ahead: octets of input to keep; no command may be longer.
    """

    __slots__ = (
        "_began",
        "_eof",
        "_reading",
        "_received",
        "_scheduled",
        "_sent",
        "_tls_version",
        "_transport",
        "_write_paused",
        "end_reason",
        "engine",
        "session",
    )

    engine: Engine
    read_ahead: int = READ_AHEAD

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._transport: asyncio.Transport | None = None
        self._reading = True
        self._write_paused = False
        self._scheduled = False
        self._eof = False
        self.session = new_session()
        self._began = time.monotonic()
        self._received = self._sent = 0  # octets
        self._tls_version = ""
        self.end_reason = ""

    @property
    def transport(self) -> asyncio.Transport | None:
        """The transport; None when the connection is lost."""
        return self._transport

    @property
    def write_paused(self) -> bool:
        """Whether the client does not read what it is sent."""
        return self._write_paused

    @property
    @abc.abstractmethod
    def working(self) -> bool:
        """Whether the client waits for the server, so that timeout.idle must not run out."""

    # --- called by the transport --------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast(asyncio.Transport, transport)
        if self.engine.encrypted:
            self.note_tls()

    def data_received(self, data: bytes) -> None:
        """Execute what the client sent."""
        self._received += len(data)
        self.engine.receive(data)
        self.run()

    def eof_received(self) -> bool:
        """Keep the connection open for replies that are still due, if it can be half closed."""
        self._eof = True
        transport = self._transport
        return self._at_work() and transport is not None and transport.can_write_eof()

    def pause_writing(self) -> None:
        """Stop executing commands: the client does not read."""
        self._write_paused = True

    # --- turns --------------------------------------------------------------------------------

    @abc.abstractmethod
    def run(self) -> None:
        """Execute what can be executed now, and write the replies."""

    def run_later(self) -> None:
        """Continue in the next iteration of the loop."""
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._take_turn)

    def _take_turn(self) -> None:
        self._scheduled = False
        self.run()

    def _at_work(self) -> bool:
        """Return whether something other than the client will call `run` again."""
        return self._write_paused or self.working

    def _wait_for_input(self, transport: asyncio.Transport) -> None:
        """Nothing more can be executed: read on or not, or close what the client has closed."""
        if self._eof:
            if not self._at_work():
                transport.close()
        elif (self.engine.buffered <= self.read_ahead) is not self._reading:
            self._reading = not self._reading
            if self._reading:
                transport.resume_reading()
            else:
                transport.pause_reading()

    # --- the log ------------------------------------------------------------------------------

    @abc.abstractmethod
    def log_context(self) -> SessionContext:
        """Return what a log record says of the session."""

    @abc.abstractmethod
    def _log_tls_failed(self, why: str) -> None:
        """Log that a handshake within the session has failed."""

    def note_tls(self) -> None:
        """Note the TLS version for the log: when the session has ended it cannot be asked for."""
        assert self._transport is not None
        tls = self._transport.get_extra_info("ssl_object")
        self._tls_version = sys.intern((tls is not None and tls.version()) or "TLS")

    def _reason(self, exc: Exception | None) -> str:
        """Return why a session ended, unless the client or the engine ended it in its words."""
        transport = self._transport
        ended_by = None if transport is None else transport.get_extra_info("ended_by")
        if ended_by is not None:
            return str(ended_by)
        if self.engine.securing:
            return "tls-failed"
        if exc is not None:
            return "reset" if isinstance(exc, ConnectionError) else "error"
        return "client-closed" if self._eof else "server-closed"

    # --- TLS ----------------------------------------------------------------------------------

    def _begin_tls(self, transport: asyncio.Transport, settings: TlsSettings) -> None:
        """Start the handshake, when the go-ahead has been written and reading is paused."""
        self._reading = True  # the new transport reads, whatever the old one did
        if not transport.is_closing():  # it is if the client has already gone
            transport.start_tls(settings).add_done_callback(self._secured)  # type: ignore[attr-defined]

    def _secured(self, done: asyncio.Future[asyncio.Transport]) -> None:
        """Continue on the new transport; if the handshake failed, connection_lost follows."""
        if done.cancelled() or done.exception() is not None:
            why = "cancelled" if done.cancelled() else str(done.exception())
            self._log_tls_failed(why or type(done.exception()).__name__)
        elif self._transport is not None and self.engine.securing:
            self._transport = done.result()
            self._write_paused = False
            self.engine.tls_started()
            self.note_tls()
            self._tls_begun()

    def _tls_begun(self) -> None:
        """Go on over TLS."""
