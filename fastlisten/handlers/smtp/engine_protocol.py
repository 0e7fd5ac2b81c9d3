"""The asyncio protocol around the engine: octets to it, replies to the transport, STARTTLS.

Rules of this file: when commands are executed and when they wait; what events mean is up to the
engine's user (smtp_session.py, aiosmtpd/aiosmtpd_session.py), which knows no transport. The
greeting has been sent (by the native core, or by pregreet.py) before an object is made, so it is
never written here.

What stops the engine for a while; each ends in a callback that calls `run` again:

    the user waits for something            `held_up`, or an event that waits for its answer
    the client does not read its replies    pause_writing / resume_writing
    the connection has had its turn         call_soon -> _take_turn
    TLS begins                              start_tls -> _secured

Meanwhile the engine keeps input up to `READ_AHEAD` octets; then reading is paused. Before the
go-ahead for TLS it is paused at once: what the client sends after STARTTLS stays in the kernel
until the transport is replaced, and is read as part of the handshake.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Callable
from typing import cast

from fastlisten.handlers.smtp.engine.replies import NO_TLS_NOW
from fastlisten.handlers.smtp.engine.smtp_events import Flush, Goodbye, StartTls
from fastlisten.handlers.smtp.engine_user import EngineUser
from fastlisten.handlers.smtp.session_log import LogContext
from fastlisten.log_events import log_fault, new_session, session_name

__all__ = ["READ_AHEAD", "EngineProtocol"]

logger = logging.getLogger("fastlisten.smtp")

#: Octets of pipelined input to keep while nothing can be executed; then reading is paused.
READ_AHEAD = 64 * 1024

#: How many batches of replies (64 commands, about 100 µs each) a connection may write before it is
#: the turn of others.
SHARE = 8


class EngineProtocol(asyncio.Protocol):
    """One connection.

    Args:
        user: gives the events their meaning.

    Attributes:
        engine: the SMTP session.
        session: its number in the log.
        end_reason: why the session ended, once known.
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
        "_user",
        "_write_paused",
        "end_reason",
        "engine",
        "session",
    )

    def __init__(self, user: EngineUser) -> None:
        self.engine = user.engine
        self._user = user
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

    # --- what the engine's user asks for ------------------------------------------------------

    @property
    def transport(self) -> asyncio.Transport | None:
        """The transport; None when the connection is lost."""
        return self._transport

    @property
    def write_paused(self) -> bool:
        """Whether the client does not read its replies."""
        return self._write_paused

    def resume(self, step: Callable[[], None] | None = None) -> None:
        """Continue after an asynchronous step has ended, if the client is still connected.

        Args:
            step: called first; if it raises, the connection is aborted.
        """
        transport = self._transport
        if transport is None:
            return
        try:
            if step is not None:
                step()
            self.run()
        except Exception:
            self.log_fault()
            self.end_reason = "error"
            transport.abort()

    def run_later(self) -> None:
        """Continue in the next iteration of the loop."""
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._take_turn)

    def write(self, more: bytes = b"") -> None:
        """Write the engine's replies, and then what is given."""
        data = self.engine.replies() + more
        if more:
            self.engine.show(more)
        if self._transport is not None and data:
            self._sent += len(data)
            self._transport.write(data)

    # --- what the runtime asks for ------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """Whether a transaction is in progress: from an accepted MAIL until its last reply.

        Or TLS is starting: a farewell would be taken for part of the handshake.
        """
        return self._user.busy or self.engine.securing

    @property
    def working(self) -> bool:
        """Whether the client waits for the server, so that timeout.idle must not run out."""
        return self._scheduled or self.engine.securing or self._user.waits

    # --- called by the transport --------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast(asyncio.Transport, transport)
        if self.engine.encrypted:
            self.note_tls()
        self._user.connected(self)

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
        """Stop executing commands: the client does not read its replies."""
        self._write_paused = True

    def resume_writing(self) -> None:
        """Go on."""
        self._write_paused = False
        self._user.write_resumed()
        self.run()

    def connection_lost(self, exc: Exception | None) -> None:
        """Drop everything; a message that is incomplete or not yet published is not delivered."""
        self._log_end(exc)
        self._transport = None
        self._user.disconnected()

    # --- the engine ---------------------------------------------------------------------------

    def run(self) -> None:
        """Execute what can be executed now, and write the replies."""
        transport, engine, user = self._transport, self.engine, self._user
        if transport is None or transport.is_closing():
            return
        batches = 0
        while not (self._write_paused or self._scheduled or user.held_up()):
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
                    self.run_later()
            elif kind is Goodbye:
                self.end_reason = "quit" if engine.verb == b"QUIT" else "rejected"
                if engine.refusals is not None:
                    self._log_refusals()
                user.farewell_said()
                if replies := engine.replies():
                    self._sent += len(replies)
                    transport.write(replies)
                transport.close()
                return
            elif kind is StartTls:
                if self._start_tls(transport):
                    return
            else:
                user.handle(event)
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
        self.run()

    def _at_work(self) -> bool:
        """Return whether something other than the client will call `run` again."""
        return self._write_paused or self.working

    # --- the log ------------------------------------------------------------------------------

    def log_context(self) -> LogContext:
        """Return what a log record says of the session."""
        engine = self.engine
        listener, peer, port = self._user.origin()
        return LogContext(
            listener,
            peer,
            port,
            session_name(self.session),
            engine.client_name,
            self._tls_version,
            engine.protocol,
            self._user.user_name,
        )

    def log_fault(self) -> None:
        """Log the exception that is being handled, an unexpected one."""
        context, text = self.log_context(), "%s: %s: internal error"
        values = (context.listener, context.address)
        log_fault(logger, "internal-error", text, *values, **context.fields)

    def note_tls(self) -> None:
        """Note the TLS version for the log: when the session has ended it cannot be asked for."""
        assert self._transport is not None
        tls = self._transport.get_extra_info("ssl_object")
        self._tls_version = sys.intern((tls is not None and tls.version()) or "TLS")

    def _log_refusals(self) -> None:
        """Log the negative replies that have been sent."""
        refusals, session_log = self.engine.take_refusals(), self._user.session_log
        context = None
        for refusal in refusals:
            if session_log.wants(refusal.reason):
                context = context or self.log_context()
                session_log.refused(context, refusal)

    def _log_end(self, exc: Exception | None) -> None:
        """Log the end of the session, before anything is forgotten."""
        engine, session_log = self.engine, self._user.session_log
        if engine.refusals is not None:
            self._log_refusals()
        reason = self.end_reason or self._reason(exc)
        if session_log.wants_end(reason, bool(engine.taken or self._user.user_name)):
            session_log.ended(
                self.log_context(),
                reason,
                time.monotonic() - self._began,
                self._received,
                self._sent,
                engine.taken,
                engine.refused,
            )

    def _reason(self, exc: Exception | None) -> str:
        """Return why a session ended, unless the client's QUIT or the engine ended it."""
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
        user = self._user
        if not user.admits_tls():
            return False
        settings = user.tls
        begin = getattr(transport, "start_tls", None)
        if settings is None or begin is None or self._eof:
            self.engine.reject(NO_TLS_NOW)
            return False
        transport.pause_reading()
        self.engine.accept()
        user.forget_session()
        replies = self.engine.replies()
        self._sent += len(replies)
        transport.write(replies)
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
            self.note_tls()
            self._user.tls_begun()
