"""One SMTP connection: the engine between a transport and the post office.

Rules of this file: the glue, and nothing that one of the three can decide. The greeting has been
sent when an object is made (by the native core), so that it is never written here.

What stops a connection's engine for a while, each ended by a callback that calls `_run` again:

    a letter is being delivered, or takes no more for now     Letter -> _progress
    the accounts file has changed and is read again           PostOffice.refresh -> _looked_up
    the client does not read its replies                      pause_writing / resume_writing
    it has had its share of the loop                          call_soon -> _take_turn
    TLS begins                                                start_tls -> _secured

Meanwhile input is kept by the engine up to `READ_AHEAD`; then reading stops. Before the go-ahead
for TLS it stops at once: what the client sends then is in the kernel still when the transport is
exchanged, and meets nobody but the handshake.
"""

from __future__ import annotations

import asyncio
import errno
import logging
from typing import TYPE_CHECKING, cast

from fastlisten.handlers.base import ConnectionInfo
from fastlisten.handlers.smtp_engine import Engine
from fastlisten.handlers.smtp_events import Content, Goodbye, Mail, Recipient, Reset, StartTls
from fastlisten.handlers.smtp_replies import NO_TLS_NOW, reply
from fastlisten.mail.accounts import Account
from fastlisten.mail.address import Mailbox
from fastlisten.mail.delivery import Letter
from fastlisten.mail.maildir import unique_name

if TYPE_CHECKING:
    from fastlisten.handlers.smtp import SmtpHandler

__all__ = ["READ_AHEAD", "SmtpConnection"]

logger = logging.getLogger("fastlisten.smtp")

#: Octets of pipelined input that are kept while nothing can be executed, before reading stops.
READ_AHEAD = 64 * 1024

#: Batches of replies (of 64 commands, about 100 µs) that one connection may write before others
#: get their turn.
SHARE = 8

_UNKNOWN_RECIPIENT = reply(550, "5.1.1", "No such mailbox here")
_NO_ACCOUNTS = reply(451, "4.3.5", "Mailboxes are not known at the moment; try again later")
_NO_SPACE = reply(452, "4.3.1", "Not enough storage; try again later")
_NOT_STORED = reply(451, "4.3.0", "The message could not be stored; try again later")

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


class SmtpConnection(asyncio.Protocol):
    """One connection. The native core (or whoever serves it) has sent the greeting."""

    __slots__ = (
        "_accounts",
        "_engine",
        "_eof",
        "_handler",
        "_info",
        "_letter",
        "_name",
        "_reading",
        "_scheduled",
        "_transport",
        "_write_paused",
    )

    def __init__(self, handler: SmtpHandler, info: ConnectionInfo) -> None:
        self._handler = handler
        self._info = info
        self._engine = Engine(handler.limits, info.tls)
        self._transport: asyncio.Transport | None = None
        self._accounts: dict[str, Account] = {}
        self._letter: Letter | None = None
        self._name = ""
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
        self._forget()

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
                self._look_up(event.mailbox)
            elif isinstance(event, Mail):
                self._accounts.clear()
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
            else:  # Flush
                transport.write(engine.replies())
                batches += 1
                if batches == SHARE:
                    self._scheduled = True
                    asyncio.get_running_loop().call_soon(self._take_turn)
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

    def _crammed(self) -> bool:
        """Whether the letter takes no more for now."""
        return self._letter is not None and self._letter.full

    def _at_work(self) -> bool:
        """Whether something will call `_run` again without the client's doing."""
        return self._write_paused or self.working

    def _forget(self) -> None:
        """Drop what is kept of a transaction."""
        self._accounts.clear()
        if self._letter is not None:
            self._letter.abandon()
            self._letter = None

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

    # --- recipients ---------------------------------------------------------------------------

    def _look_up(self, mailbox: Mailbox) -> None:
        """Answer RCPT, or have the accounts read again first."""
        office = self._handler.office
        if office.accounts.current():
            self._answer_recipient(mailbox)
        else:
            office.refresh(asyncio.get_running_loop(), lambda: self._looked_up(mailbox))

    def _looked_up(self, mailbox: Mailbox) -> None:
        if self._transport is not None:
            self._answer_recipient(mailbox)
            self._run()

    def _answer_recipient(self, mailbox: Mailbox) -> None:
        roster = self._handler.office.accounts.roster
        if roster is None:
            self._engine.reject(_NO_ACCOUNTS)
            return
        account = roster.find(mailbox)
        if account is None:
            self._engine.reject(_UNKNOWN_RECIPIENT)
            return
        self._accounts[account.name] = account
        self._engine.accept()

    # --- the message --------------------------------------------------------------------------

    def _content(self, event: Content) -> None:
        """Add to the letter, and deliver it when it is whole."""
        letter = self._letter
        if letter is None:
            self._name = unique_name()
            letter = self._letter = Letter(
                self._handler.office,
                list(self._accounts.values()),
                self._name,
                asyncio.get_running_loop(),
                self._progress,
            )
            cipher = self._cipher() if self._engine.encrypted else ""
            letter.add(self._handler.trace(self._info, self._engine, self._name, cipher))
        if event.data:
            letter.add(event.data)
        if event.final:
            letter.finish()
            if letter.done:
                self._answer_message(letter)

    def _progress(self) -> None:
        """Go on after a job of the letter has ended."""
        letter = self._letter
        if letter is not None and letter.done and self._transport is not None:
            self._answer_message(letter)
        self._run()

    def _answer_message(self, letter: Letter) -> None:
        """Say what became of the message."""
        transaction = self._engine.transaction
        assert transaction is not None
        self._letter = None
        listener, peer = self._info.listener, self._info.peer
        error = letter.error
        if error is None:
            logger.info(
                "%s: %s from <%s> at [%s] to %s: %d octets delivered",
                listener,
                self._name,
                transaction.sender,
                peer,
                ", ".join(self._accounts),
                letter.size,
            )
            self._engine.accept(b"250 2.0.0 Ok, id " + self._name.encode() + b"\r\n")
        else:
            logger.error(
                "%s: %s from <%s> at [%s] not delivered: %s",
                listener,
                self._name,
                transaction.sender,
                peer,
                error,
            )
            self._engine.reject(_NO_SPACE if error.errno in _FULL else _NOT_STORED)
        self._accounts.clear()
