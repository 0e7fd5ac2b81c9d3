"""The smtp handler: the SMTP engine on a connection, delivering into maildirs.

Rules of this file: the glue between engine, transport and post office, and nothing that one of
them can decide. Greeting, refusals and farewells are bytes that the native core sends.

What stops a connection's engine for a while, each ended by a callback that calls `_run` again:

    a letter is being delivered, or takes no more for now     Letter -> _progress
    the accounts file has changed and is read again           PostOffice.refresh -> _look_up
    the client does not read its replies                      pause_writing / resume_writing
    it has had its share of the loop                          call_soon

Meanwhile input is kept by the engine up to `READ_AHEAD`; then reading stops.
"""

from __future__ import annotations

import asyncio
import datetime
import email.utils
import errno
import logging
import time
from typing import ClassVar, cast

from fastlisten.handlers.base import ConnectionInfo, Handler, HandlerSettings, Reason
from fastlisten.handlers.smtp_engine import Engine, Limits
from fastlisten.handlers.smtp_events import Content, Goodbye, Mail, Recipient, Reset
from fastlisten.handlers.smtp_options import OPTIONS
from fastlisten.handlers.smtp_replies import reply
from fastlisten.mail.accounts import Account
from fastlisten.mail.address import Mailbox
from fastlisten.mail.delivery import Letter, PostOffice
from fastlisten.mail.maildir import unique_name

__all__ = ["SmtpHandler"]

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


class SmtpHandler(Handler):
    """SMTP for one listener (RFC 5321)."""

    name: ClassVar[str] = "smtp"
    default_port: ClassVar[int] = 25
    default_tls_port: ClassVar[int] = 465
    server_speaks_first: ClassVar[bool] = True
    lazy: ClassVar[bool] = True
    options = OPTIONS

    def __init__(self, settings: HandlerSettings) -> None:
        super().__init__(settings)
        values = {row.key: row.default for row in OPTIONS} | dict(settings.options)
        self.limits = Limits(
            hostname=settings.hostname,
            max_message_size=values["max-message-size"],
            max_recipients=values["max-recipients"],
            max_errors=values["max-errors"],
        )
        self.greeting = f"220 {settings.hostname} ESMTP {settings.greeting}".rstrip().encode()
        self.greeting += b"\r\n"
        self._office: PostOffice | None = None
        self._date = (0, "")

    def refusal(self, reason: Reason) -> bytes:
        """Return what a client hears that is not served (RFC 5321 3.1, RFC 3463)."""
        code, status, text = {
            Reason.LIMIT: (421, "4.3.2", "Too many connections; try again later"),
            Reason.OVERLOAD: (421, "4.3.2", "Too busy; try again later"),
            Reason.RATE: (421, "4.7.0", "Too many connections from your address; wait"),
            Reason.ADDRESS: (421, "4.7.0", "Too many connections from your address"),
            Reason.DENIED: (554, "5.7.1", "Your address is not allowed here"),
        }.get(reason, (421, "4.3.2", "Try again later"))
        return reply(code, status, f"{self.settings.hostname} {text}")

    def farewell(self, reason: Reason) -> bytes:
        """Return what a served client hears before the server closes."""
        status, text = {
            Reason.IDLE: ("4.4.2", "Timeout; closing connection"),
            Reason.FIRST_BYTE: ("4.4.2", "Timeout; closing connection"),
        }.get(reason, ("4.3.2", "Shutting down; try again later"))
        return reply(421, status, f"{self.settings.hostname} {text}")

    def notes(self) -> tuple[str, ...]:
        """Return why no mail can be delivered yet, if so."""
        accounts = self.office.accounts
        if accounts.roster is None:
            return (f"{accounts.path} cannot be read or does not exist: all mail must wait",)
        if not accounts.roster.accounts:
            return (f"{accounts.path} has no accounts: all mail will be rejected",)
        return ()

    def connection(self, info: ConnectionInfo) -> asyncio.BaseProtocol:
        """Return the protocol object for one connection."""
        return SmtpConnection(self, info)

    async def start(self) -> None:
        """Open the post office and read the accounts.

        Raises:
            ValueError: there is no data directory to deliver to.
        """
        if not self.settings.data_directory:
            raise ValueError("the smtp handler needs a data directory")
        office = PostOffice.enter(
            self.settings.data_directory, self.settings.extra.get("accounts", "")
        )
        self._office = office
        await asyncio.to_thread(office.accounts.reload)

    async def stop(self) -> None:
        """Leave the post office; what is being delivered is waited for."""
        if self._office is not None:
            office, self._office = self._office, None
            await asyncio.to_thread(office.leave)

    @property
    def office(self) -> PostOffice:
        """The post office.

        Raises:
            RuntimeError: the handler has not been started.
        """
        if self._office is None:
            raise RuntimeError("the handler has not been started")
        return self._office

    def trace(self, info: ConnectionInfo, engine: Engine, name: str) -> bytes:
        """Return the header fields that a message gets on top of it (RFC 5321 4.4).

        Args:
            info: where it comes from.
            engine: the session, with its transaction.
            name: the identifier of the message.
        """
        transaction = engine.transaction
        assert transaction is not None
        client = engine.client_name
        if info.peer:
            peer = info.peer.partition("%")[0]
            client += f" ([IPv6:{peer}])" if ":" in peer else f" ([{peer}])"
        # RFC 3848 and RFC 6531 4.3 name the kinds.
        kind = "UTF8SMTP" if transaction.smtputf8 else "ESMTP" if engine.extended else "SMTP"
        if info.tls and kind != "SMTP":
            kind += "S"
        recipients = transaction.recipients
        receiver = f"\r\n\tfor <{recipients[0]}>" if len(recipients) == 1 else ""
        return (
            f"Return-Path: <{transaction.sender}>\r\n"
            f"Received: from {client}\r\n\tby {self.settings.hostname} with {kind} id {name}"
            f"{receiver};\r\n\t{self._now()}\r\n"
        ).encode()

    def _now(self) -> str:
        """Return the date for a header; made once a second."""
        now = int(time.time())
        if self._date[0] != now:
            moment = datetime.datetime.fromtimestamp(now, datetime.UTC)
            self._date = (now, email.utils.format_datetime(moment))
        return self._date[1]


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
        self._engine = Engine(handler.limits)
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
        """A transaction is in progress: from MAIL accepted until the reply to its end is given."""
        return self._engine.transaction is not None

    @property
    def working(self) -> bool:
        """The server is at work for the client: its silence is not the client's fault."""
        return self._engine.waiting or self._scheduled or self._crammed()

    # --- called by the transport --------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Take what the client sent."""
        self._engine.receive(data)
        self._run()

    def eof_received(self) -> bool:
        """Keep the connection for what the client still waits for."""
        self._eof = True
        return self._at_work()

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
            elif isinstance(event, Goodbye):
                self._forget()
                transport.write(engine.replies())
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
            letter.add(self._handler.trace(self._info, self._engine, self._name))
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
