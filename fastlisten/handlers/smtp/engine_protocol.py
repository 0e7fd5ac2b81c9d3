"""The asyncio protocol around the engine: octets to it, replies to the transport, STARTTLS.

Rules of this file: when commands are executed and when they wait; what events mean is up to the
subclasses (smtp_connection.py, aiosmtpd/aiosmtpd_connection.py). The greeting has been sent (by the
native core, or by pregreet.py) before an object is made, so it is never written here.

What stops the engine for a while; each ends in a callback that calls `_run` again:

    the subclass waits for something        `_held_up`, or an event that waits for its answer
    the client does not read its replies    pause_writing / resume_writing
    the connection has had its turn         call_soon -> _take_turn
    TLS begins                              start_tls -> _secured

Meanwhile the engine keeps input up to `READ_AHEAD` octets; then reading is paused. Before the
go-ahead for TLS it is paused at once: what the client sends after STARTTLS stays in the kernel
until the transport is replaced, and is read as part of the handshake.
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import TYPE_CHECKING, cast

from fastlisten.handlers.smtp.engine.engine import SmtpEngine
from fastlisten.handlers.smtp.engine.replies import NO_TLS_NOW
from fastlisten.handlers.smtp.engine.smtp_events import Event, Flush, Goodbye, StartTls
from fastlisten.handlers.smtp.session_log import LogContext, SessionLog
from fastlisten.log_events import new_session, session_name

if TYPE_CHECKING:
    from fastlisten._tls import TlsSettings

__all__ = ["READ_AHEAD", "EngineProtocol"]

#: Octets of pipelined input to keep while nothing can be executed; then reading is paused.
READ_AHEAD = 64 * 1024

#: How many batches of replies (64 commands, about 100 µs each) a connection may write before it is
#: the turn of others.
SHARE = 8


class EngineProtocol(asyncio.Protocol):
    """One connection; subclasses give the events their meaning.

    Attributes:
        engine: the SMTP session.
    """

    __slots__ = (
        "_began",
        "_end_reason",
        "_eof",
        "_reading",
        "_received",
        "_scheduled",
        "_sent",
        "_session",
        "_tls_version",
        "_transport",
        "_write_paused",
        "engine",
    )

    def __init__(self, engine: SmtpEngine) -> None:
        self.engine = engine
        self._transport: asyncio.Transport | None = None
        self._reading = True
        self._write_paused = False
        self._scheduled = False
        self._eof = False
        self._session = new_session()
        self._began = time.monotonic()
        self._received = self._sent = 0  # octets
        self._tls_version = ""
        self._end_reason = ""  # why the session ended, once known

    # --- what subclasses implement ------------------------------------------------------------

    @property
    def working(self) -> bool:
        """Whether the client waits for the server, so that timeout.idle must not run out."""
        raise NotImplementedError

    @property
    def _tls(self) -> TlsSettings | None:
        """How to start TLS, None where that is not possible."""
        raise NotImplementedError

    def _origin(self) -> tuple[str, str, int]:
        """Return the listener's id, the client's address and its port, for the log."""
        raise NotImplementedError

    @property
    def _session_log(self) -> SessionLog:
        """The log of the listener."""
        raise NotImplementedError

    @property
    def _user_name(self) -> str:
        """The name of the user that has logged in, empty if none has."""
        raise NotImplementedError

    def _held_up(self) -> bool:
        """Return whether the subclass has a reason to execute nothing for now."""
        raise NotImplementedError

    def _handle(self, event: Event) -> None:
        """Handle an event other than Flush, Goodbye and StartTls."""
        raise NotImplementedError

    def _abandon(self) -> None:
        """Drop whatever is in progress: the session has ended."""
        raise NotImplementedError

    def _forget_session(self) -> None:
        """Forget all that the client has said (RFC 3207 4.2): TLS begins."""
        raise NotImplementedError

    def _tls_begun(self) -> None:
        """Go on over TLS."""

    # --- called by the transport --------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast(asyncio.Transport, transport)
        if self.engine.encrypted:
            self._note_tls()

    def data_received(self, data: bytes) -> None:
        """Execute what the client sent."""
        self._received += len(data)
        self.engine.receive(data)
        self._run()

    def eof_received(self) -> bool:
        """Keep the connection open for replies that are still due, if it can be half closed."""
        self._eof = True
        transport = self._transport
        return self._at_work() and transport is not None and transport.can_write_eof()

    def pause_writing(self) -> None:
        """Stop executing commands: the client does not read its replies."""
        self._write_paused = True

    def resume_writing(self) -> None:
        """Go on."""
        self._write_paused = False
        self._run()

    # --- the engine ---------------------------------------------------------------------------

    def _run(self) -> None:
        """Execute what can be executed now, and write the replies."""
        transport, engine = self._transport, self.engine
        if transport is None or transport.is_closing():
            return
        batches = 0
        while not (self._write_paused or self._scheduled or self._held_up()):
            event = engine.next_event()
            if event is None:
                break
            kind = type(event)
            if kind is Flush:
                replies = engine.replies()
                self._sent += len(replies)
                transport.write(replies)
                if engine.refusals is not None:
                    self._log_refusals()
                batches += 1
                if batches == SHARE:
                    self._scheduled = True
                    asyncio.get_running_loop().call_soon(self._take_turn)
            elif kind is Goodbye:
                self._end_reason = "quit" if engine.verb == b"QUIT" else "rejected"
                if engine.refusals is not None:
                    self._log_refusals()
                self._abandon()
                if replies := engine.replies():
                    self._sent += len(replies)
                    transport.write(replies)
                transport.close()
                return
            elif kind is StartTls:
                if self._start_tls(transport):
                    return
            else:
                self._handle(event)
            if transport.is_closing():  # a hook may close it
                return
        if replies := engine.replies():
            self._sent += len(replies)
            transport.write(replies)
            if engine.refusals is not None:
                self._log_refusals()
        if self._eof:
            if not self._at_work():
                transport.close()
        elif (engine.buffered <= READ_AHEAD) is not self._reading:
            self._reading = not self._reading
            if self._reading:
                transport.resume_reading()
            else:
                transport.pause_reading()

    def _take_turn(self) -> None:
        self._scheduled = False
        self._run()

    def _at_work(self) -> bool:
        """Return whether something other than the client will call `_run` again."""
        return self._write_paused or self.working

    # --- the log ------------------------------------------------------------------------------

    def _log_context(self) -> LogContext:
        """Return what a log record says of the session."""
        engine = self.engine
        listener, peer, port = self._origin()
        return LogContext(
            listener,
            peer,
            port,
            session_name(self._session),
            engine.client_name,
            self._tls_version,
            engine.protocol,
            self._user_name,
        )

    def _note_tls(self) -> None:
        """Note the TLS version for the log: when the session has ended it cannot be asked for."""
        assert self._transport is not None
        tls = self._transport.get_extra_info("ssl_object")
        self._tls_version = sys.intern((tls is not None and tls.version()) or "TLS")

    def _log_refusals(self) -> None:
        """Log the negative replies that have been sent."""
        refusals, session_log = self.engine.take_refusals(), self._session_log
        context = None
        for refusal in refusals:
            if session_log.wants(refusal.reason):
                context = context or self._log_context()
                session_log.refused(context, refusal)

    def _log_end(self, exc: Exception | None) -> None:
        """Log the end of the session; `connection_lost` calls it before it forgets anything."""
        engine, session_log = self.engine, self._session_log
        if engine.refusals is not None:
            self._log_refusals()
        reason = self._end_reason or self._reason(exc)
        if session_log.wants_end(reason, bool(engine.taken or self._user_name)):
            session_log.ended(
                self._log_context(),
                reason,
                time.monotonic() - self._began,
                self._received,
                self._sent,
                engine.taken,
                engine.refused,
            )

    def _reason(self, exc: Exception | None) -> str:
        """Return why a session ended that ended neither by QUIT nor by the engine."""
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
        settings = self._tls
        begin = getattr(transport, "start_tls", None)
        if settings is None or begin is None or self._eof:
            self.engine.reject(NO_TLS_NOW)
            return False
        transport.pause_reading()
        self.engine.accept()
        self._forget_session()
        replies = self.engine.replies()
        self._sent += len(replies)
        transport.write(replies)
        self._reading = True  # the new transport reads, whatever the old one did
        if not transport.is_closing():  # it is if the client has already gone
            begin(settings).add_done_callback(self._secured)
        return True

    def _secured(self, done: asyncio.Future[asyncio.Transport]) -> None:
        """Go on over the new transport; if the handshake failed, connection_lost follows."""
        if done.cancelled() or done.exception() is not None:
            why = "cancelled" if done.cancelled() else str(done.exception())
            self._session_log.tls_failed(
                self._log_context(), why or type(done.exception()).__name__
            )
        elif self._transport is not None and self.engine.securing:
            self._transport = done.result()
            self._write_paused = False
            self.engine.tls_started()
            self._note_tls()
            self._tls_begun()
