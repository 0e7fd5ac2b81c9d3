"""The asyncio protocol around the engine: octets to it, responses to the transport, STARTTLS.

Rules of this file: when commands are executed and when they wait; what they mean is up to the
session (session.py), which knows no transport. The greeting has been sent by the native core.

While a command is carried out (`Session.held_up`) nothing is executed; its end calls `resume`. What
else stops the engine for a while is said in handlers/engine_connection.py.
"""

from __future__ import annotations

import asyncio
import logging
import time

from fastlisten.handlers.engine_connection import READ_AHEAD, EngineConnection
from fastlisten.handlers.imap.engine.commands import Goodbye, StartTls
from fastlisten.handlers.imap.engine.engine import ImapEngine
from fastlisten.handlers.imap.rejection import ClientGoneError
from fastlisten.handlers.imap.session import Session
from fastlisten.handlers.session_log import SessionContext
from fastlisten.log_events import log_fault, session_name

__all__ = ["EngineProtocol"]

logger = logging.getLogger("fastlisten.imap")

#: Commands that a connection may have carried out at once before it is the turn of others.
SHARE = 64

#: Octets of a response to collect before they are written.
MOST_PENDING = 64 * 1024

#: Seconds that a command may work before it is the turn of others.
TURN = 0.005


class EngineProtocol(EngineConnection):
    """One connection; implements `Connection`.

    Args:
        user: gives the commands their meaning.

    Attributes:
        engine: the IMAP session.
        session: its number in the log.
        end_reason: why the session ended, once known.
    """

    __slots__ = ("_pending", "_room", "_turn", "_user", "read_ahead")

    engine: ImapEngine

    def __init__(self, user: Session) -> None:
        super().__init__(user.engine)
        self._user = user
        self.read_ahead = max(READ_AHEAD, user.services.limits.max_command)
        self._room: asyncio.Future[None] | None = None  # done when the client reads again
        self._turn = 0.0
        self._pending = 0  # octets that `is_due` has counted

    # --- what the session asks for ------------------------------------------------------------

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

    @property
    def idle_time(self) -> float:
        """Seconds that the client may be silent, 0 for any time."""
        time: float = getattr(self._transport, "idle_time", 0.0)
        return time

    @idle_time.setter
    def idle_time(self, seconds: float) -> None:
        # Other loops' transports have no deadlines.
        if hasattr(self._transport, "idle_time"):
            self._transport.idle_time = seconds  # type: ignore[union-attr]

    def _tls_begun(self) -> None:
        self._user.secured()

    # --- what the runtime asks for ------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """Whether a command is being carried out, or TLS begins."""
        return self._user.busy or self.engine.securing

    @property
    def working(self) -> bool:
        """Whether the client waits for the server, so that timeout.idle must not run out."""
        return self._scheduled or self.engine.securing or self._user.held_up()

    def idle_expired(self) -> bool:
        """Return whether the session goes on though the client has been silent."""
        return self._user.idle_expired()

    # --- called by the transport --------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        super().connection_made(transport)
        self._user.connected(self)

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
                self.run_later()
        self.write()
        self._wait_for_input(transport)

    # --- the log ------------------------------------------------------------------------------

    def log_context(self) -> SessionContext:
        """Return what a log record says of the session."""
        info = self._user.info
        return SessionContext(
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

    def _log_end(self, exc: Exception | None) -> None:
        self._user.session_log.ended(
            self.log_context(),
            self.end_reason or self._reason(exc),
            time.monotonic() - self._began,
            self._received,
            self._sent,
        )

    def _log_tls_failed(self, why: str) -> None:
        self._user.session_log.tls_failed(self.log_context(), why)

    # --- TLS ----------------------------------------------------------------------------------

    def _start_tls(self, transport: asyncio.Transport) -> bool:
        """Send the go-ahead and start the handshake; return whether that was possible."""
        settings = self._user.tls
        if settings is None or not hasattr(transport, "start_tls") or self._eof:
            self.engine.no("TLS is not available now")
            return False
        transport.pause_reading()
        self.engine.ok("Begin TLS negotiation now.")
        self.write()
        if self.engine.closed:  # something had been sent after STARTTLS
            transport.close()
            return True
        self._begin_tls(transport, settings)
        return True
