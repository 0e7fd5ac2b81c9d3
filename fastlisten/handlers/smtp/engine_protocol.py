"""The flow of one SMTP connection: octets to the engine, replies to the transport, and TLS.

Rules of this file: when something is executed and when it waits, whatever it is; what events mean
is up to the subclasses (smtp_connection.py, aiosmtpd/aiosmtpd_connection.py). The greeting has been
sent (by the native core, or by pregreet.py) before an object is made, so it is never written here.

What stops a connection's engine for a while, each ended by a callback that calls `_run` again:

    what a subclass waits for               `_held_up`, or an event that waits for its answer
    the client does not read its replies    pause_writing / resume_writing
    it has had its share of the loop        call_soon -> _take_turn
    TLS begins                              start_tls -> _secured

Meanwhile input is kept by the engine up to `READ_AHEAD`; then reading stops. Before the go-ahead
for TLS it stops at once: what the client sends then is in the kernel still when the transport is
exchanged, and meets nobody but the handshake.
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import TYPE_CHECKING, cast

from fastlisten.handlers.smtp.engine.engine import SmtpEngine
from fastlisten.handlers.smtp.engine.events import Event, Flush, Goodbye, StartTls
from fastlisten.handlers.smtp.engine.replies import NO_TLS_NOW
from fastlisten.handlers.smtp.session_log import LogContext, SessionLog
from fastlisten.log_events import new_session, session_name

if TYPE_CHECKING:
    from fastlisten._tls import TlsSettings

__all__ = ["READ_AHEAD", "EngineProtocol"]

#: Octets of pipelined input that are kept while nothing can be executed, before reading stops.
READ_AHEAD = 64 * 1024

#: Batches of replies (of 64 commands, about 100 µs) that one connection may write before others
#: get their turn.
SHARE = 8


class EngineProtocol(asyncio.Protocol):
    """One connection, without what its events mean.

    Attributes:
        engine: its session.
    """

    __slots__ = (
        "_began",
        "_end",
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
        self._end = ""  # why the session ends, once that is known

    # --- what a subclass says -----------------------------------------------------------------

    @property
    def working(self) -> bool:
        """The server is at work for the client: its silence is not the client's fault."""
        raise NotImplementedError

    @property
    def _tls(self) -> TlsSettings | None:
        """How TLS begins, None where it cannot."""
        raise NotImplementedError

    def _whence(self) -> tuple[str, str, int]:
        """Return the listener, the client's address and its port, for a log."""
        raise NotImplementedError

    @property
    def _session_log(self) -> SessionLog:
        """The log of the listener."""
        raise NotImplementedError

    @property
    def _user_name(self) -> str:
        """Who has logged in, empty if nobody has."""
        raise NotImplementedError

    def _held_up(self) -> bool:
        """Whether nothing can be executed now for a reason of the subclass's own."""
        raise NotImplementedError

    def _handle(self, event: Event) -> None:
        """Do what an event asks for: any but Flush, Goodbye and StartTls."""
        raise NotImplementedError

    def _leave(self) -> None:
        """Forget what is under way: the session has ended."""
        raise NotImplementedError

    def _forget_session(self) -> None:
        """Forget all that the client has said: TLS begins."""
        raise NotImplementedError

    def _tls_begun(self) -> None:
        """Go on over TLS."""

    # --- called by the transport --------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast(asyncio.Transport, transport)
        if self.engine.encrypted:
            self._note_tls()

    def data_received(self, data: bytes) -> None:
        """Take what the client sent."""
        self._received += len(data)
        self.engine.receive(data)
        self._run()

    def eof_received(self) -> bool:
        """Keep the connection for what the client still waits for, where its half can end."""
        self._eof = True
        transport = self._transport
        return self._at_work() and transport is not None and transport.can_write_eof()

    def pause_writing(self) -> None:
        """Execute nothing more: the client does not read its replies."""
        self._write_paused = True

    def resume_writing(self) -> None:
        """Go on."""
        self._write_paused = False
        self._run()

    # --- the engine ---------------------------------------------------------------------------

    def _run(self) -> None:
        """Execute what can be executed now, and write the replies at once."""
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
                self._end = "quit" if engine.verb == b"QUIT" else "rejected"
                if engine.refusals is not None:
                    self._log_refusals()
                self._leave()
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
        """Whether something will call `_run` again without the client's doing."""
        return self._write_paused or self.working

    # --- the log ------------------------------------------------------------------------------

    def _log_context(self) -> LogContext:
        """Return whom a record is about."""
        engine = self.engine
        listener, peer, port = self._whence()
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
        """Keep the version of TLS: at the end of the session nobody knows it any more."""
        assert self._transport is not None
        tls = self._transport.get_extra_info("ssl_object")
        self._tls_version = sys.intern((tls is not None and tls.version()) or "TLS")

    def _log_refusals(self) -> None:
        """Log the negative replies that have been given."""
        refusals, session_log = self.engine.take_refusals(), self._session_log
        who = None
        for refusal in refusals:
            if session_log.wants(refusal.reason):
                who = who or self._log_context()
                session_log.refused(who, refusal)

    def _log_end(self, exc: Exception | None) -> None:
        """Log the end of the session; called by `connection_lost` before anything is forgotten."""
        engine, session_log = self.engine, self._session_log
        if engine.refusals is not None:
            self._log_refusals()
        reason = self._end or self._reason(exc)
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
        """Return why a session has ended that did not end in its protocol."""
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
        """Give the go-ahead and begin the handshake; whether that was possible."""
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
        self._reading = True  # as it will be afterwards, whatever it was before
        if not transport.is_closing():  # it is, if the client has gone already
            begin(settings).add_done_callback(self._secured)
        return True

    def _secured(self, done: asyncio.Future[asyncio.Transport]) -> None:
        """Go on over the new transport; a handshake that failed ends in connection_lost."""
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
