"""The asyncio protocol around the engine: octets to it, responses to the transport, STARTTLS.

Rules of this file: when commands are executed and when they wait; what they mean is up to the
session (session.py), which knows no transport. The greeting has been sent by the native core.

What stops the engine for a while; each ends in a call of `run`:

    a command is being carried out           Session.held_up; `resume`
    the client does not read                 pause_writing / resume_writing
    the connection has had its turn          call_soon -> _take_turn
    TLS begins                               start_tls -> _secured

Meanwhile the engine keeps input up to `READ_AHEAD` octets; then reading is paused.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from typing import cast

from fastlisten.handlers.imap.engine.commands import Goodbye, StartTls
from fastlisten.handlers.imap.rejection import ClientGoneError
from fastlisten.handlers.imap.session import Session
from fastlisten.handlers.imap.session_log import LogContext
from fastlisten.log_events import log_fault, new_session, session_name

__all__ = ["READ_AHEAD", "EngineProtocol"]

logger = logging.getLogger("fastlisten.imap")

#: Octets of pipelined input to keep while a command is carried out; then reading is paused.
READ_AHEAD = 64 * 1024

#: Commands that a connection may have carried out at once before it is the turn of others.
SHARE = 64

#: Octets of a response to collect before they are written.
MOST_PENDING = 64 * 1024

#: Seconds that a command may work before it is the turn of others.
TURN = 0.005


class EngineProtocol(asyncio.Protocol):
    """One connection; implements `Connection`.

    Args:
        user: gives the commands their meaning.

    Attributes:
        engine: the IMAP session.
        session: its number in the log.
        end_reason: why the session ended, once known.
    """

    __slots__ = (
        "_began",
        "_eof",
        "_pending",
        "_reading",
        "_received",
        "_room",
        "_scheduled",
        "_sent",
        "_tls_version",
        "_transport",
        "_turn",
        "_user",
        "_write_paused",
        "end_reason",
        "engine",
        "session",
    )

    def __init__(self, user: Session) -> None:
        self.engine = user.engine
        self._user = user
        self._transport: asyncio.Transport | None = None
        self._reading = True
        self._write_paused = False
        self._room: asyncio.Future[None] | None = None  # done when the client reads again
        self._scheduled = False
        self._eof = False
        self._turn = 0.0
        self._pending = 0  # octets that `is_due` has counted
        self.session = new_session()
        self._began = time.monotonic()
        self._received = self._sent = 0  # octets
        self._tls_version = ""
        self.end_reason = ""

    # --- what the session asks for ------------------------------------------------------------

    @property
    def transport(self) -> asyncio.Transport | None:
        """The transport; None when the connection is lost."""
        return self._transport

    @property
    def write_paused(self) -> bool:
        """Whether the client does not read what it is sent."""
        return self._write_paused

    def write(self) -> None:
        """Write the engine's output."""
        data = self.engine.output()
        if data and self._transport is not None:
            self._sent += len(data)
            self._transport.write(data)

    async def flush(self) -> None:
        """Write the engine's output; wait until the client has read enough, and let others work."""
        self._pending = 0
        self.write()
        if self._write_paused:
            self._room = asyncio.get_running_loop().create_future()
            await self._room
            self._turn = time.monotonic()
        elif time.monotonic() - self._turn > TURN:
            await asyncio.sleep(0)
            self._turn = time.monotonic()
        if self._transport is None:
            raise ClientGoneError

    def is_due(self, octets: int) -> bool:
        """Count octets that the engine has been given; return whether it is time for `flush`."""
        self._pending += octets
        return self._pending >= MOST_PENDING or time.monotonic() - self._turn > TURN

    def resume(self) -> None:
        """Go on after something that the session waited for."""
        if self._transport is not None:
            self.run()

    def abort(self, reason: str) -> None:
        """Close the connection at once."""
        self.end_reason = reason
        if self._transport is not None:
            self._transport.abort()

    # --- what the runtime asks for ------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """Whether a command is being carried out, or TLS begins."""
        return self._user.busy or self.engine.securing

    @property
    def working(self) -> bool:
        """Whether the client waits for the server, so that timeout.idle must not run out."""
        return self._scheduled or self.engine.securing or self._user.held_up()

    # --- called by the transport --------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast(asyncio.Transport, transport)
        if self.engine.encrypted:
            self._note_tls()
        self._user.connected(self)

    def data_received(self, data: bytes) -> None:
        """Execute what the client sent."""
        self._received += len(data)
        self.engine.receive(data)
        self.run()

    def eof_received(self) -> bool:
        """Keep the connection open for responses that are still due, if it can be half closed."""
        self._eof = True
        transport = self._transport
        return self._at_work() and transport is not None and transport.can_write_eof()

    def pause_writing(self) -> None:
        """Stop executing commands: the client does not read."""
        self._write_paused = True

    def resume_writing(self) -> None:
        """Go on."""
        self._write_paused = False
        self._make_room()
        self._user.write_resumed()
        self.run()

    def _make_room(self) -> None:
        room, self._room = self._room, None
        if room is not None and not room.done():
            room.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """Drop everything; what has not been answered may or may not have been done."""
        self._log_end(exc)
        self._transport = None
        self._make_room()
        self._user.disconnected()

    # --- the engine ---------------------------------------------------------------------------

    def run(self) -> None:
        """Execute what can be executed now, and write the responses."""
        transport, engine, user = self._transport, self.engine, self._user
        if transport is None or transport.is_closing():
            return
        commands = 0
        while not (self._write_paused or self._scheduled or user.held_up()):
            event = engine.next_event()
            if event is None:
                break
            kind = type(event)
            if kind is Goodbye:
                if not self.end_reason:
                    self.end_reason = "quit" if engine.name == "LOGOUT" else "rejected"
                user.end()
                self.write()
                transport.close()
                return
            if kind is StartTls:
                if self._start_tls(transport):
                    return
                continue
            self._turn = time.monotonic()
            user.handle(event)
            commands += 1
            if commands == SHARE:
                self._run_later()
        self.write()
        if self._eof:
            if not self._at_work():
                transport.close()
        elif (engine.buffered <= READ_AHEAD) is not self._reading:
            self._reading = not self._reading
            if self._reading:
                transport.resume_reading()
            else:
                transport.pause_reading()

    def _run_later(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._take_turn)

    def _take_turn(self) -> None:
        self._scheduled = False
        self.run()

    def _at_work(self) -> bool:
        """Return whether something other than the client will call `run` again."""
        return self._write_paused or self.working

    # --- the log ------------------------------------------------------------------------------

    def log_context(self) -> LogContext:
        """Return what a log record says of the session."""
        info = self._user.info
        return LogContext(
            info.listener,
            info.peer,
            info.port,
            session_name(self.session),
            self._tls_version,
            self._user.user_name,
        )

    def log_fault(self) -> None:
        """Log the exception that is being handled, an unexpected one."""
        context = self.log_context()
        values = (context.listener, context.address)
        log_fault(logger, "internal-error", "%s: %s: internal error", *values, **context.fields)

    def _note_tls(self) -> None:
        """Note the TLS version for the log: when the session has ended it cannot be asked for."""
        assert self._transport is not None
        tls = self._transport.get_extra_info("ssl_object")
        self._tls_version = sys.intern((tls is not None and tls.version()) or "TLS")

    def _log_end(self, exc: Exception | None) -> None:
        self._user.session_log.ended(
            self.log_context(),
            self.end_reason or self._reason(exc),
            time.monotonic() - self._began,
            self._received,
            self._sent,
        )

    def _reason(self, exc: Exception | None) -> str:
        """Return why a session ended, unless LOGOUT or the engine ended it."""
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

    def _start_tls(self, transport: asyncio.Transport) -> bool:
        """Send the go-ahead and start the handshake; return whether that was possible."""
        settings = self._user.tls
        begin = getattr(transport, "start_tls", None)
        if settings is None or begin is None or self._eof:
            self.engine.no("TLS is not available now")
            return False
        transport.pause_reading()
        self.engine.ok("Begin TLS negotiation now.")
        self.write()
        if self.engine.closed:  # something had been sent after STARTTLS
            transport.close()
            return True
        self._reading = True  # the new transport reads, whatever the old one did
        if not transport.is_closing():  # it is if the client has already gone
            begin(settings).add_done_callback(self._secured)
        return True

    def _secured(self, done: asyncio.Future[asyncio.Transport]) -> None:
        """Continue on the new transport; if the handshake failed, connection_lost follows."""
        if done.cancelled() or done.exception() is not None:
            why = "cancelled" if done.cancelled() else str(done.exception())
            self._user.session_log.tls_failed(
                self.log_context(), why or type(done.exception()).__name__
            )
        elif self._transport is not None and self.engine.securing:
            self._transport = done.result()
            self._write_paused = False
            self.engine.tls_started()
            self._note_tls()
