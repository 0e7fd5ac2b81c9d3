"""One SMTP connection whose events go to the hooks of an aiosmtpd handler.

Rules of this file: events in their order, and hooks that suspend; hook_dispatch.py says which hook
is asked and what its answer means, smtp/engine_protocol.py when something is executed. The engine
waits for:

    a hook has suspended                    its task's end -> _hook_ended
    a hook waits for a response to AUTH     nothing: `_run` goes on, and gives it the response
"""

from __future__ import annotations

import asyncio
import contextvars
from typing import TYPE_CHECKING, Any, cast

from fastlisten.handlers.base import ConnectionInfo
from fastlisten.handlers.smtp.aiosmtpd.hook_dispatch import HookDispatcher
from fastlisten.handlers.smtp.aiosmtpd.hook_server import HookServer
from fastlisten.handlers.smtp.aiosmtpd.served_handler import ServedHandler
from fastlisten.handlers.smtp.aiosmtpd.types import Envelope, Session
from fastlisten.handlers.smtp.dialogue_log import DialogueEngine
from fastlisten.handlers.smtp.engine.events import (
    Auth,
    Command,
    Content,
    Event,
    Mail,
    Recipient,
    Reset,
    Response,
)
from fastlisten.handlers.smtp.engine.replies import reply
from fastlisten.handlers.smtp.engine_protocol import EngineProtocol
from fastlisten.handlers.smtp.session_log import LogContext, SessionLog
from fastlisten.log_events import session_name

if TYPE_CHECKING:
    from fastlisten._tls import TlsSettings

__all__ = ["AiosmtpdConnection"]

_GIVEN_UP = reply(421, "4.3.0", "The server gave up; try again later")

#: The events that hooks answer as they come.
_ASKED = (Command, Mail, Recipient, Auth)

#: What `Session.ssl` tells, by the names of `asyncio.BaseTransport.get_extra_info`.
_OF_TLS = ("sslcontext", "ssl_object", "peercert", "cipher", "compression")


class AiosmtpdConnection(EngineProtocol):
    """One connection.

    Args:
        served: its handler.
        info: where it comes from; None: the transport says.

    Attributes:
        server: what hooks get; made with the connection.
        held: what hooks have pushed during an AUTH dialogue; None outside of one.
    """

    __slots__ = (
        "_context",
        "_dispatcher",
        "_drained",
        "_info",
        "_pieces",
        "_response",
        "_served",
        "_task",
        "held",
        "server",
    )

    def __init__(self, served: ServedHandler, info: ConnectionInfo | None = None) -> None:
        super().__init__(served.engine_kind(served.limits, info is not None and info.tls))
        self._served = served
        self._info = info
        self._context = contextvars.copy_context()
        self._task: asyncio.Task[None] | None = None
        self._response: asyncio.Future[bytes | None] | None = None
        self._drained: asyncio.Future[None] | None = None
        self._pieces = bytearray()  # of the message; a list of small ones would take much more
        self.held: bytes | None = None
        self.server = HookServer(served, self, asyncio.get_running_loop())
        self._dispatcher = HookDispatcher(served, self)

    @property
    def busy(self) -> bool:
        """A transaction is in progress, a hook is running, or TLS is beginning.

        A hook that waits for the client's response to AUTH does not count.
        """
        engine = self.engine
        return engine.transaction is not None or engine.securing or self._held_up()

    @property
    def working(self) -> bool:
        """The server is at work for the client: its silence is not the client's fault."""
        return self._held_up() or self.engine.securing or self._scheduled

    # --- called by the transport --------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = self.server.transport = cast(asyncio.Transport, transport)
        if transport.get_extra_info("sslcontext") is not None:
            self.engine.encrypted = True
            self._note_tls()
        self._begin_session()
        if isinstance(self.engine, DialogueEngine):
            self.engine.tell = self._served.transcript(self.server.session.peer, self.session_name)

    def resume_writing(self) -> None:
        """Go on, and let a hook go on that waits for it."""
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget everything; a hook that is running is cancelled, as in aiosmtpd."""
        self._log_end(exc)
        self._transport = self.server.transport = None
        self._pieces.clear()
        if self._task is not None:
            self._task.cancel()
        else:
            self._unlink()

    def _unlink(self) -> None:
        """Let go of what holds this object, so that no cycle waits for the collector."""
        self.server.detach()
        del self._dispatcher

    # --- events -------------------------------------------------------------------------------

    def _handle(self, event: Event) -> None:
        """Do what an event asks for."""
        if isinstance(event, _ASKED):
            self._ask(event)
        elif isinstance(event, Content):
            self._pieces += event.data
            if event.final:
                self._ask(event)
        elif isinstance(event, Response):
            self._respond(event.data)
        elif isinstance(event, Reset):
            self.forget()
        else:
            raise AssertionError(f"nobody asked for {event}")

    def _leave(self) -> None:
        """Keep all: the session's end is known when the connection's is."""

    def _held_up(self) -> bool:
        """Whether a hook is running that is not waiting for the client's response."""
        return self._task is not None and self._response is None

    def forget(self) -> None:
        """Drop what is kept of a transaction."""
        self._pieces.clear()
        self.server.envelope = Envelope()

    def content(self) -> bytes:
        """Return the message, and forget it."""
        content = bytes(self._pieces)
        self._pieces.clear()
        return content

    # --- hooks --------------------------------------------------------------------------------

    def _ask(self, event: Event) -> None:
        """Have an event answered, by hooks where there are any for it."""
        if not self._dispatcher.answer_unasked(event):
            self._run_hook(self._dispatcher.answer(event))

    def _run_hook(self, coroutine: Any) -> None:
        tasks = self._served.eager_tasks(self.server.loop)
        try:
            self._task = tasks.run(coroutine, self._context, self._hook_ended)
        except asyncio.CancelledError:
            self.give_up()

    def _hook_ended(self, task: asyncio.Task[None]) -> None:
        """Go on after a hook that suspended."""
        self._task = self._response = None
        transport = self._transport
        if transport is None:
            self._unlink()
        elif not task.cancelled():
            task.result()  # raises what no hook may raise: SystemExit and the like
            self._run()
        elif not transport.is_closing():
            self.give_up()

    def give_up(self) -> None:
        """End a connection that an answer cannot be given on."""
        transport = self._transport
        if transport is not None:
            self.engine.note(_GIVEN_UP)
            self._end = "error"
            self._say(transport, _GIVEN_UP)
            transport.close()

    def _say(self, transport: asyncio.Transport, words: bytes = b"") -> None:
        """Write the engine's replies, and more."""
        said = self.engine.replies() + words
        self.engine.show(words)
        self._sent += len(said)
        transport.write(said)

    def push(self, data: bytes) -> None:
        """Send what a hook says before its answer; nothing behind a farewell."""
        if self.held is not None:
            self.held += data
        elif self._transport is not None and not self._transport.is_closing():
            self._say(self._transport, data)

    async def drained(self) -> None:
        """Wait until the client reads."""
        while self._write_paused and self._transport is not None:
            if self._drained is None or self._drained.done():
                self._drained = self.server.loop.create_future()
            await self._drained

    async def challenge(self, challenge: bytes) -> bytes | None:
        """Send a challenge of AUTH and wait for the response; None: the dialogue is over.

        Raises:
            RuntimeError: no AUTH command is being executed.
        """
        if self.held is None:
            raise RuntimeError("a challenge belongs to AUTH, and no AUTH is being executed")
        said = self.engine.replies() + self.held
        self.engine.show(self.held)
        self.held = b""
        self.engine.challenge(challenge)
        self._response = self.server.loop.create_future()
        if self._transport is not None:
            self._sent += len(said)
            self._transport.write(said)
            self._say(self._transport)
        try:
            return await self._response
        finally:
            self._response = None

    def _respond(self, data: bytes | None) -> None:
        """Give a hook the client's response."""
        if data is None:
            self._dispatcher.over = True
        response, self._response = self._response, None
        if response is not None and not response.done():
            response.set_result(data)
        elif data is not None:
            # The hook did not wait for it.
            self.give_up()

    # --- TLS ----------------------------------------------------------------------------------

    def _begin_session(self) -> None:
        """Make session and envelope for a transport."""
        transport, server = self._transport, self.server
        assert transport is not None
        session = server.session = Session(server.loop)
        session.peer = peer = transport.get_extra_info("peername")
        info = self._info
        if info is not None and info.peer and (not peer or peer[0] != info.peer):
            session.peer = (info.peer, info.port)
        if self.engine.encrypted:
            session.ssl = {name: transport.get_extra_info(name) for name in _OF_TLS}
        self.forget()

    @property
    def _tls(self) -> TlsSettings | None:
        """How TLS begins."""
        return self._served.tls

    def _start_tls(self, transport: asyncio.Transport) -> bool:
        """Give the go-ahead, if the handler has nothing against it, and begin the handshake."""
        return self._dispatcher.start_tls() and super()._start_tls(transport)

    def _forget_session(self) -> None:
        """Forget the transaction; the session is made anew when TLS has begun."""
        self.forget()

    def _tls_begun(self) -> None:
        """Begin anew, and tell the handler."""
        self.server.transport = self._transport
        self._begin_session()
        if self._dispatcher.asks_after_tls:
            self._run_hook(self._dispatcher.tls_started())

    def _whence(self) -> tuple[str, str, int]:
        """Return the listener, the client's address and its port."""
        peer = self.server.session.peer
        listener = self._served.session_log.listener
        if not isinstance(peer, tuple) or len(peer) < 2:
            return listener, "", 0
        return listener, str(peer[0]), int(peer[1])

    @property
    def _session_log(self) -> SessionLog:
        """The log of the listener."""
        return self._served.session_log

    @property
    def _user_name(self) -> str:
        """Who has logged in, as far as the authenticator says so."""
        session = self.server.session
        if not session.authenticated:
            return ""
        # Of what else an authenticator keeps nobody knows whether it is secret.
        login = getattr(session.auth_data, "login", "somebody")
        return login.decode(errors="replace") if isinstance(login, bytes) else str(login)

    @property
    def session_name(self) -> str:
        """What the session is called in the log."""
        return session_name(self._session)

    @property
    def log_context(self) -> LogContext:
        """Whom a record is about."""
        return self._log_context()
