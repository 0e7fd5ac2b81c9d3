"""The asyncio protocol around the engine: octets to it, replies to the transport, STARTTLS.

Rules of this file: when commands are executed and when they wait; what events mean is up to the
engine's user (smtp_session.py, aiosmtpd/aiosmtpd_session.py), which knows no transport. The
greeting has been sent (by the native core, or by pregreet.py) before an object is made, so it is
never written here.

While the user waits for something nothing is executed (`held_up`, or an event that waits for its
answer); the user calls `run` then. What else stops the engine for a while is said in
handlers/engine_connection.py.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from fastlisten.handlers.engine_connection import EngineConnection
from fastlisten.handlers.smtp.engine.engine import SmtpEngine
from fastlisten.handlers.smtp.engine.replies import NO_TLS_NOW
from fastlisten.handlers.smtp.engine.smtp_events import Flush, Goodbye, StartTls
from fastlisten.handlers.smtp.engine_user import EngineUser
from fastlisten.handlers.smtp.session_log import LogContext
from fastlisten.log_events import log_fault, session_name

__all__ = ["EngineProtocol"]

logger = logging.getLogger("fastlisten.smtp")

#: How many batches of replies (64 commands, about 100 µs each) a connection may write before it is
#: the turn of others.
SHARE = 8


class EngineProtocol(EngineConnection):
    """One connection.

    Args:
        user: gives the events their meaning.

    Attributes:
        engine: the SMTP session.
        session: its number in the log.
        end_reason: why the session ended, once known.
    """

    __slots__ = ("_user",)

    engine: SmtpEngine

    def __init__(self, user: EngineUser) -> None:
        super().__init__(user.engine)
        self._user = user

    # --- what the engine's user asks for ------------------------------------------------------

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
        super().connection_made(transport)
        self._user.connected(self)

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
        self._wait_for_input(transport)

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
            self._tls_version,
            self._user.user_name,
            engine.client_name,
            engine.protocol,
        )

    def log_fault(self) -> None:
        """Log the exception that is being handled, an unexpected one."""
        context, text = self.log_context(), "%s: %s: internal error"
        values = (context.listener, context.address)
        log_fault(logger, "internal-error", text, *values, **context.fields)

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

    def _log_tls_failed(self, why: str) -> None:
        self._user.session_log.tls_failed(self.log_context(), why)

    # --- TLS ----------------------------------------------------------------------------------

    def _start_tls(self, transport: asyncio.Transport) -> bool:
        """Send the go-ahead and start the handshake; return whether that was possible."""
        user = self._user
        if not user.admits_tls():
            return False
        settings = user.tls
        if settings is None or not hasattr(transport, "start_tls") or self._eof:
            self.engine.reject(NO_TLS_NOW)
            return False
        transport.pause_reading()
        self.engine.accept()
        user.forget_session()
        replies = self.engine.replies()
        self._sent += len(replies)
        transport.write(replies)
        self._begin_tls(transport, settings)
        return True

    def _tls_begun(self) -> None:
        self._user.tls_begun()
