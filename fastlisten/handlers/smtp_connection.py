"""One SMTP connection: the engine between a transport and the post office.

Rules of this file: the transport, TLS, AUTH, and the order of events; what becomes of mail is in
smtp_transactions.py (recipients) and smtp_messages.py. The greeting has been sent when an object
is made (by the native core, or by smtp_early.py), so that it is never written here.

What stops a connection's engine for a while, each ended by a callback that calls `_run` again:

    a letter is being delivered, or takes no more for now     Letter -> _progress
    the accounts file has changed and is read again           PostOffice.refresh -> _looked_up
    a password is being verified, or the relay is asked       _work
    the client does not read its replies                      pause_writing / resume_writing
    it has had its share of the loop                          call_soon -> _take_turn
    TLS begins                                                start_tls -> _secured

Meanwhile input is kept by the engine up to `READ_AHEAD`; then reading stops. Before the go-ahead
for TLS it stops at once: what the client sends then is in the kernel still when the transport is
exchanged, and meets nobody but the handshake.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, cast

from fastlisten.handlers.base import ConnectionInfo
from fastlisten.handlers.smtp_events import (
    Auth,
    Content,
    Flush,
    Goodbye,
    Mail,
    Recipient,
    Reset,
    Response,
    StartTls,
)
from fastlisten.handlers.smtp_refusal import Refused
from fastlisten.handlers.smtp_replies import NO_TLS_NOW, reply
from fastlisten.handlers.smtp_sasl import Credentials, Login, Plain, mechanism
from fastlisten.handlers.smtp_transactions import Transactions
from fastlisten.mail.logins import LoginsBusyError

if TYPE_CHECKING:
    from fastlisten.handlers.smtp import SmtpHandler

__all__ = ["READ_AHEAD", "SmtpConnection"]

logger = logging.getLogger("fastlisten.smtp")

#: Octets of pipelined input that are kept while nothing can be executed, before reading stops.
READ_AHEAD = 64 * 1024

#: Batches of replies (of 64 commands, about 100 µs) that one connection may write before others
#: get their turn.
SHARE = 8

_WRONG_LOGIN = reply(535, "5.7.8", "Name or password is wrong")
_LOGINS_BUSY = reply(454, "4.7.0", "Logins cannot be checked at the moment; try again later")


class SmtpConnection(Transactions):
    """One connection. The native core (or whoever serves it) has sent the greeting."""

    __slots__ = ("_eof", "_reading", "_sasl", "_scheduled", "_write_paused")

    def __init__(self, handler: SmtpHandler, info: ConnectionInfo) -> None:
        super().__init__(handler, info)
        self._sasl: Plain | Login | None = None
        self._reading = True
        self._write_paused = False
        self._scheduled = False
        self._eof = False

    @property
    def busy(self) -> bool:
        """A transaction is in progress: from MAIL accepted until the reply to its end is given.

        Or TLS is beginning: a farewell would be taken for a part of it.
        """
        return self._engine.transaction is not None or self._engine.securing

    @property
    def working(self) -> bool:
        """The server is at work for the client: its silence is not the client's fault."""
        engine = self._engine
        return engine.waiting or engine.securing or self._scheduled or self._crammed()

    # --- called by the transport --------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Take what the client sent."""
        self._engine.receive(data)
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

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget everything; a message that is not whole, or not yet published, is dropped."""
        self._transport = None
        self._forget(gone=True)

    # --- the engine ---------------------------------------------------------------------------

    def _run(self) -> None:
        """Execute what can be executed now, and write the replies at once."""
        transport, engine = self._transport, self._engine
        if transport is None or transport.is_closing():
            return
        batches = 0
        while not (self._write_paused or self._scheduled or self._crammed()):
            event = engine.next_event()
            if event is None:
                break
            if isinstance(event, Content):
                self._content(event)
            elif isinstance(event, Recipient):
                self._look_up(event)
            elif isinstance(event, Mail):
                self._accounts.clear()
                self._homes.clear()
                engine.accept()
            elif isinstance(event, Reset):
                self._forget()
            elif isinstance(event, StartTls):
                if self._start_tls(transport):
                    return
            elif isinstance(event, Goodbye):
                self._forget()
                if replies := engine.replies():
                    transport.write(replies)
                transport.close()
                return
            elif isinstance(event, Flush):
                transport.write(engine.replies())
                batches += 1
                if batches == SHARE:
                    self._scheduled = True
                    asyncio.get_running_loop().call_soon(self._take_turn)
            elif isinstance(event, Auth):
                self._sasl = mechanism(event.mechanism)
                self._step(event.response)
            elif isinstance(event, Response):
                if event.data is None:
                    self._sasl = None
                else:
                    self._step(event.data)
            else:
                raise AssertionError(f"nobody asked for {event}")
        replies = engine.replies()
        if replies:
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

    def _at_work(self) -> bool:
        """Whether something will call `_run` again without the client's doing."""
        return self._write_paused or self.working

    # --- TLS ----------------------------------------------------------------------------------

    def _start_tls(self, transport: asyncio.Transport) -> bool:
        """Give the go-ahead and begin the handshake; whether that was possible."""
        settings = self._handler.settings.tls
        begin = getattr(transport, "start_tls", None)
        if settings is None or begin is None or self._eof:
            self._engine.reject(NO_TLS_NOW)
            return False
        transport.pause_reading()
        self._engine.accept()
        self._forget()
        self._user, self._login = "", None
        transport.write(self._engine.replies())
        self._reading = True  # as it will be afterwards, whatever it was before
        if not transport.is_closing():  # it is, if the client has gone already
            begin(settings).add_done_callback(self._secured)
        return True

    def _secured(self, done: asyncio.Future[asyncio.Transport]) -> None:
        """Go on over the new transport; a handshake that failed ends in connection_lost."""
        if done.cancelled() or done.exception() is not None:
            logger.debug(
                "%s: no TLS with [%s]: %s",
                self._info.listener,
                self._info.peer,
                "cancelled" if done.cancelled() else done.exception(),
            )
        elif self._transport is not None and self._engine.securing:
            self._transport = done.result()
            self._write_paused = False
            self._engine.tls_started()

    def _cipher(self) -> str:
        """Return protocol version and cipher as Postfix words them, empty without TLS."""
        transport = self._transport
        tls = None if transport is None else transport.get_extra_info("ssl_object")
        if tls is None or tls.cipher() is None:
            return ""
        name, _, bits = tls.cipher()
        return f"{tls.version()} with cipher {name} ({bits} bits)"

    # --- AUTH ---------------------------------------------------------------------------------

    def _step(self, response: bytes | None) -> None:
        """Go on with the dialogue of AUTH."""
        assert self._sasl is not None
        try:
            result = self._sasl.step(response)
        except Refused as error:
            self._sasl = None
            self._engine.reject(error.reply)
            return
        if isinstance(result, Credentials):
            self._sasl = None
            self._start(self._check, result)
        else:
            self._engine.challenge(result)

    async def _check(self, credentials: Credentials) -> None:
        """Answer AUTH by whether the password is right."""
        logins = self._handler.office.logins
        try:
            account = await logins.check(credentials.name, credentials.password, self._info.peer)
        except LoginsBusyError as error:
            logger.warning("%s: login from [%s]: %s", self._info.listener, self._info.peer, error)
            self._engine.reject(_LOGINS_BUSY)
            return
        if account is None:
            self._engine.reject(_WRONG_LOGIN)
            return
        self._user, self._login = account.name, account
        logger.info("%s: [%s] is %s", self._info.listener, self._info.peer, account.name)
        self._engine.accept()
