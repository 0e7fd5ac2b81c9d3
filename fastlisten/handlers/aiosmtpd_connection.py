"""One SMTP connection whose events go to the hooks of an aiosmtpd handler.

Rules of this file: the transport and the engine; which hook is asked and what its answer means is
in aiosmtpd_dialogue.py. The greeting has been sent when an object is made.

What stops a connection's engine for a while, each ended by a callback that calls `_run` again:

    a hook has suspended                    its task's end -> _hook_ended
    a hook waits for a response to AUTH     nothing: `_run` goes on, and gives it the response
    the client does not read its replies    pause_writing / resume_writing
    it has had its share of the loop        call_soon -> _take_turn
    TLS begins                              start_tls -> _secured

Meanwhile input is kept by the engine up to `READ_AHEAD`; then reading stops.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from typing import TYPE_CHECKING, Any, cast

from fastlisten.handlers.aiosmtpd_dialogue import Dialogue
from fastlisten.handlers.aiosmtpd_server import Server
from fastlisten.handlers.aiosmtpd_types import Envelope, Session
from fastlisten.handlers.base import ConnectionInfo
from fastlisten.handlers.smtp_engine import Engine
from fastlisten.handlers.smtp_events import (
    Auth,
    Command,
    Content,
    Event,
    Goodbye,
    Mail,
    Recipient,
    Reset,
    Response,
    StartTls,
)
from fastlisten.handlers.smtp_replies import NO_TLS_NOW, reply

if TYPE_CHECKING:
    from fastlisten.handlers.aiosmtpd_site import Site

__all__ = ["AiosmtpdConnection"]

logger = logging.getLogger("fastlisten.smtp")

#: Octets of pipelined input that are kept while nothing can be executed, before reading stops.
READ_AHEAD = 64 * 1024

#: Batches of replies that one connection may write before others get their turn.
SHARE = 8

_GIVEN_UP = reply(421, "4.3.0", "The server gave up; try again later")

#: The events that hooks answer as they come.
_ASKED = (Command, Mail, Recipient, Auth)

#: What `Session.ssl` tells, by the names of `asyncio.BaseTransport.get_extra_info`.
_OF_TLS = ("sslcontext", "ssl_object", "peercert", "cipher", "compression")


class AiosmtpdConnection(asyncio.Protocol):
    """One connection.

    Args:
        site: its handler.
        info: where it comes from; None: the transport says.

    Attributes:
        engine: its session.
        server: what hooks get; made with the connection.
        held: what hooks have pushed during an AUTH dialogue; None outside of one.
    """

    __slots__ = (
        "_context",
        "_dialogue",
        "_drained",
        "_eof",
        "_info",
        "_pieces",
        "_reading",
        "_response",
        "_scheduled",
        "_site",
        "_task",
        "_transport",
        "_write_paused",
        "engine",
        "held",
        "server",
    )

    def __init__(self, site: Site, info: ConnectionInfo | None = None) -> None:
        self._site = site
        self._info = info
        self._transport: asyncio.Transport | None = None
        self._context = contextvars.copy_context()
        self._task: asyncio.Task[None] | None = None
        self._response: asyncio.Future[bytes | None] | None = None
        self._drained: asyncio.Future[None] | None = None
        self._pieces = bytearray()  # of the message; a list of small ones would take much more
        self._reading = True
        self._write_paused = False
        self._scheduled = False
        self._eof = False
        self.engine = Engine(site.limits, info is not None and info.tls)
        self.held: bytes | None = None
        self.server = site.server = Server(site, self, asyncio.get_running_loop())
        self._dialogue = Dialogue(site, self)

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
        self._begin_session()

    def data_received(self, data: bytes) -> None:
        """Take what the client sent."""
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
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)
        self._run()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget everything; a hook that is running is cancelled, as in aiosmtpd."""
        self._transport = self.server.transport = None
        self._pieces.clear()
        if self._task is not None:
            self._task.cancel()
        else:
            self._unlink()

    def _unlink(self) -> None:
        """Let go of what holds this object, so that no cycle waits for the collector."""
        self.server.detach()
        del self._dialogue

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
            elif isinstance(event, StartTls):
                if self._dialogue.start_tls() and self._start_tls(transport):
                    return
            elif isinstance(event, Goodbye):
                if replies := engine.replies():
                    transport.write(replies)
                transport.close()
                return
            else:  # Flush
                transport.write(engine.replies())
                batches += 1
                if batches == SHARE:
                    self._scheduled = True
                    asyncio.get_running_loop().call_soon(self._take_turn)
            if transport.is_closing():  # a hook may close it
                return
        if replies := engine.replies():
            transport.write(replies)
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

    def _held_up(self) -> bool:
        """Whether a hook is running that is not waiting for the client's response."""
        return self._task is not None and self._response is None

    def _at_work(self) -> bool:
        """Whether something will call `_run` again without the client's doing."""
        return self._write_paused or self.working

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
        """Have an event answered by hooks."""
        self._step(self._dialogue.answer(event))

    def _step(self, coroutine: Any) -> None:
        steps = self._site.steps(self.server.loop)
        try:
            self._task = steps.run(coroutine, self._context, self._hook_ended)
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
            transport.write(self.engine.replies() + _GIVEN_UP)
            transport.close()

    def push(self, data: bytes) -> None:
        """Send what a hook says before its answer."""
        if self.held is not None:
            self.held += data
        elif self._transport is not None:
            self._transport.write(self.engine.replies() + data)

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
        self.held = b""
        self.engine.challenge(challenge)
        self._response = self.server.loop.create_future()
        if self._transport is not None:
            self._transport.write(said + self.engine.replies())
        try:
            return await self._response
        finally:
            self._response = None

    def _respond(self, data: bytes | None) -> None:
        """Give a hook the client's response."""
        if data is None:
            self._dialogue.over = True
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

    def _start_tls(self, transport: asyncio.Transport) -> bool:
        """Give the go-ahead and begin the handshake; whether that was possible."""
        settings = self._site.tls
        begin = getattr(transport, "start_tls", None)
        if settings is None or begin is None or self._eof:
            self.engine.reject(NO_TLS_NOW)
            return False
        transport.pause_reading()
        self.engine.accept()
        self.forget()
        transport.write(self.engine.replies())
        self._reading = True  # as it will be afterwards, whatever it was before
        if not transport.is_closing():
            begin(settings).add_done_callback(self._secured)
        return True

    def _secured(self, done: asyncio.Future[asyncio.Transport]) -> None:
        """Go on over the new transport; a handshake that failed ends in connection_lost."""
        if done.cancelled() or done.exception() is not None:
            logger.debug("%s: no TLS with %r", self._site.listener, self.server.session.peer)
        elif self._transport is not None and self.engine.securing:
            self._transport = self.server.transport = done.result()
            self._write_paused = False
            self.engine.tls_started()
            self._begin_session()
            if self._dialogue.asks_after_tls:
                self._step(self._dialogue.tls_started())
