"""One session with the relay, for the foreign recipients of one envelope.

Rules of this file: what is said to a relay and what its replies mean; how it is said is in
client.py. No accounts and no letters. Addresses and parameters are passed on as the client
wrote them, octet by octet.

    recipient()   connect, EHLO, STARTTLS, EHLO, AUTH, MAIL if need be; RCPT
    send()        DATA or BDAT, and the message
    finish()      QUIT, in the background
    abort()       at any time: the connection is closed at once

A relay that closes the connection before it gets the message (they wait some minutes, and our
client may be slow) is connected to once more, and hears everything again.

What a message needs is what it holds, not what its sender has declared: a relay without 8BITMIME
gets no octet beyond ASCII, and one that has it is told, be it by RSET and a second MAIL. ASCII that
was declared to be more is no reason to refuse. Only BINARYMIME goes by the declaration: a bare CR
or LF is in no other message.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

from fastlisten.log_events import log
from fastlisten.mail.envelope import Envelope, EnvelopeRecipient
from fastlisten.mail.relay.client import (
    OutOfSyncError,
    RemoteClosedError,
    SmtpClient,
    UnexpectedReplyError,
    is_yes,
)
from fastlisten.mail.relay.message_source import (
    MessageSource,
    RequiredExtensions,
    pieces,
    required_extensions,
)
from fastlisten.mail.relay.relay import Relay
from fastlisten.mail.relay.relay_error import (
    LOST,
    NO_BINARY,
    NO_EIGHT_BITS,
    NO_PLACE,
    NO_UTF8_HEADER,
    NO_UTF8_RECIPIENT,
    NO_UTF8_SENDER,
    OUT_OF_STEP,
    TOO_LARGE,
    UNREACHABLE,
    RelayError,
    quoted,
    refusal,
)
from fastlisten.mail.relay.remote_replies import MalformedReplyError, RemoteReply
from fastlisten.mail.reply import Reply

__all__ = ["RelaySession"]

logger = logging.getLogger("fastlisten.smtp")

#: Seconds that a relay gets to answer QUIT. The message is its own already.
_GOODBYE_TIMEOUT = 5.0


class RelaySession:
    """A session with the relay.

    Attributes:
        recipients: those that the relay has accepted, in order.
        relays_dsn: the relay takes the parameters of RFC 3461.
    """

    __slots__ = (
        "_ended",
        "_envelope",
        "_mailed",
        "_placed",
        "_relay",
        "_required",
        "_smtp",
        "_user",
        "recipients",
        "relays_dsn",
    )

    def __init__(self, relay: Relay, envelope: Envelope, user: str = "") -> None:
        self._relay = relay
        self._envelope = envelope
        self._user = user
        self._required = RequiredExtensions()  # of the message, once it is there
        self._smtp: SmtpClient | None = None
        self._mailed: list[str] = []  # the words of MAIL that the relay has accepted
        self._placed = False
        self._ended = False
        self.recipients: list[EnvelopeRecipient] = []
        self.relays_dsn = False

    def __str__(self) -> str:
        return str(self._relay.settings)

    @property
    def host(self) -> str:
        """The relay's name or address."""
        return self._relay.settings.host

    async def recipient(self, recipient: EnvelopeRecipient) -> None:
        """Ask the relay for a recipient.

        Raises:
            RelayError: with the reply to our client.
        """
        async with self._errors(UNREACHABLE):
            smtp = await self._ready()
            await self._rcpt(smtp, recipient)
        self.recipients.append(recipient)

    async def send(self, content: MessageSource) -> str:
        """Hand the message over.

        Args:
            content: gives it.

        Returns:
            The relay's words about it.

        Raises:
            RelayError: with the reply to our client; the relay does not have the message, or
                has not said so.
        """
        async with self._errors(LOST):
            self._required = await required_extensions(content)
            smtp = await self._ready()
            self._check(smtp, content.size)
            wait = 10 * self._relay.settings.timeout  # RFC 5321 4.5.3.2.6
            if self._words_of_mail(smtp) != self._mailed:
                await self._begin_again(smtp)
            if self._envelope.body == "BINARYMIME":
                command = f"BDAT {content.size} LAST\r\n".encode()
                await smtp.quiet()
                reply, whole = await smtp.send(_behind(command, content), wait)
            else:
                reply = await smtp.command("DATA")
                if reply.code != 354:
                    if reply.code < 400:
                        self._close()  # out of step: a QUIT could be taken for the message
                    else:
                        await self._confirm(smtp)
                    raise refusal(reply.code, reply.text)
                reply, whole = await smtp.send(pieces(content, stuffed=True), wait)
            return self._judge(reply, whole)

    def finish(self) -> None:
        """Take leave, without waiting for it."""
        if self._smtp is None or self._smtp.transport is None:
            self.abort()
        else:
            self._relay.end_later(self._goodbye(self._smtp))

    def abort(self) -> None:
        """Close the connection at once; who waits for it is to be cancelled."""
        self._ended = True
        self._close()

    # --- the log ------------------------------------------------------------------------------

    def _log_failure(self, why: str) -> None:
        """Log that the relay cannot be used, which no client is to blame for."""
        relay = str(self)
        log(
            logger,
            logging.WARNING,
            "relay-failed",
            "relay %s: %s",
            relay,
            why,
            relay=relay,
            error=why,
        )

    def _log(self, event: str, what: str, **why: str) -> None:
        """Log something that is worth knowing of the relay, and why it is so."""
        relay, (reason,) = str(self), why.values()
        log(
            logger, logging.INFO, event, "relay %s: %s: %s", relay, what, reason, relay=relay, **why
        )

    # --- the session --------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def _errors(self, lost: Reply) -> AsyncIterator[None]:
        """Turn what can go wrong into what the client hears, and close where that was the end.

        Args:
            lost: the reply for a connection that breaks or cannot be made.
        """
        try:
            yield
        except RelayError as error:
            # A refusal that the client hears is logged as its own.
            if error.reply in (UNREACHABLE, LOST, NO_PLACE):
                self._log_failure(str(error))
            raise
        except (
            OutOfSyncError,
            MalformedReplyError,
            UnexpectedReplyError,
            OSError,
            ValueError,
        ) as error:
            # OSError includes timeouts and TLS; ValueError is for odd octets.
            self._close()
            if isinstance(error, UnexpectedReplyError):
                reason = f"{error.reply.code} {quoted(error.reply.text)}"
            elif isinstance(error, OutOfSyncError):
                reason = f"answers out of turn: {quoted(str(error))}"
            else:
                reason = quoted(f"{type(error).__name__}: {error}")
            self._log_failure(reason)
            answer = OUT_OF_STEP if isinstance(error, OutOfSyncError) else lost
            raise RelayError(answer, reason) from error
        except BaseException:
            self._close()
            raise

    async def _ready(self) -> SmtpClient:
        """Return a session in which the relay knows all that it has accepted so far."""
        if self._smtp is not None:
            try:
                await self._smtp.quiet()
            except RemoteClosedError as error:
                self._log("relay-connected-again", "connecting again", error=quoted(str(error)))
            else:
                return self._smtp
        self._close()
        smtp = await self._connect()
        try:
            await self._mail(smtp)
        except RelayError as error:
            self._close()
            if self.recipients:
                raise RelayError(LOST, str(error)) from error  # as in `_rcpt_again`
            raise
        await self._rcpt_again(smtp)
        return smtp

    async def _connect(self) -> SmtpClient:
        settings = self._relay.settings
        try:
            await self._relay.take_place(self._user)
        except TimeoutError as error:
            reason = str(error) or "no place for another session"
            raise RelayError(NO_PLACE, reason) from error
        self._placed = True
        smtp = self._smtp = SmtpClient(settings.timeout)
        implicit = self._relay.context if settings.tls == "implicit" else None
        await smtp.connect(settings.host, settings.port, implicit, settings.hostname)
        self._go_on(smtp)
        if settings.tls in ("verify", "may"):
            await self._start_tls(smtp)
        if settings.user:
            if not (smtp.encrypted or settings.near):
                raise ValueError("no TLS, so that the password is kept back")
            await smtp.login(settings.user, settings.password)
        self._go_on(smtp)
        self.relays_dsn = "DSN" in smtp.extensions
        return smtp

    async def _start_tls(self, smtp: SmtpClient) -> None:
        settings = self._relay.settings
        needed = settings.tls == "verify"
        if "STARTTLS" not in smtp.extensions:
            if needed:
                raise ValueError("it does not offer STARTTLS")
            return
        assert self._relay.context is not None
        try:
            await smtp.start_tls(self._relay.context, settings.host if settings.port else "")
        except UnexpectedReplyError as error:
            if needed or error.reply.code < 400:
                raise
            reply = f"{error.reply.code} {quoted(error.reply.text)}"
            self._log("relay-without-tls", "no TLS", reply=reply)
            return
        await smtp.hello(settings.hostname)

    def _go_on(self, smtp: SmtpClient) -> None:
        """Stop here if `abort` came while there was no connection to close yet."""
        if self._ended:
            smtp.abort()
            raise asyncio.CancelledError

    # --- the envelope -------------------------------------------------------------------------

    def _words_of_mail(self, smtp: SmtpClient) -> list[str]:
        """Return the parameters of MAIL, as far as the relay knows them."""
        envelope, offered = self._envelope, smtp.extensions
        words = [f"FROM:<{envelope.sender}>"]
        if envelope.body == "BINARYMIME":
            words.append("BODY=BINARYMIME")
        elif "8BITMIME" in offered and (envelope.body == "8BITMIME" or self._required.eight_bits):
            words.append("BODY=8BITMIME")
        if "SMTPUTF8" in offered and (envelope.smtputf8 or self._required.utf8_header):
            words.append("SMTPUTF8")
        if envelope.size and "SIZE" in offered:
            words.append(f"SIZE={envelope.size}")
        if self.relays_dsn:
            if envelope.ret:
                words.append(f"RET={envelope.ret}")
            if envelope.envid:
                words.append(f"ENVID={envelope.envid}")
        if envelope.auth and self._relay.settings.user and "AUTH" in offered:
            # RFC 4954 5: we do not vouch for what the client says of its message's origin.
            words.append("AUTH=<>")
        return words

    async def _mail(self, smtp: SmtpClient) -> None:
        envelope, offered = self._envelope, smtp.extensions
        if envelope.body == "BINARYMIME" and not offered.keys() >= {"BINARYMIME", "CHUNKING"}:
            raise RelayError(NO_BINARY)
        if not envelope.sender.isascii() and "SMTPUTF8" not in offered:
            raise RelayError(NO_UTF8_SENDER)
        if envelope.size and envelope.size > _largest(smtp):
            raise RelayError(TOO_LARGE)
        words = self._words_of_mail(smtp)
        await self._command(smtp, "MAIL", words)
        self._mailed = words

    async def _rcpt(self, smtp: SmtpClient, recipient: EnvelopeRecipient) -> None:
        words = [f"TO:<{recipient.mailbox.text}>"]
        if self.relays_dsn:
            if recipient.notify:
                words.append(f"NOTIFY={recipient.notify}")
            if recipient.orcpt:
                words.append(f"ORCPT={recipient.orcpt}")
        if "SMTPUTF8" not in smtp.extensions and not all(word.isascii() for word in words):
            raise RelayError(NO_UTF8_RECIPIENT)
        await self._command(smtp, "RCPT", words)

    async def _command(self, smtp: SmtpClient, verb: str, words: list[str]) -> None:
        reply = await smtp.command(verb, *words)
        self._go_on(smtp)
        if not is_yes(reply.code):
            if reply.code < 400:
                self._close()  # it is out of step, and stays so
            raise refusal(reply.code, reply.text)

    async def _begin_again(self, smtp: SmtpClient) -> None:
        """Say MAIL once more, with what the message has turned out to need."""
        reply = await smtp.command("RSET")
        if not is_yes(reply.code):
            return  # RFC 5321 4.1.1.5 knows no refusal; it has what it needs, and is not told so
        await self._mail(smtp)
        await self._rcpt_again(smtp)

    async def _rcpt_again(self, smtp: SmtpClient) -> None:
        """Name the recipients that the relay has accepted once more.

        A refusal now must not be the verdict on the message: it is about one recipient, and the
        client has heard otherwise. The client asks again, and hears the new answer.
        """
        try:
            for recipient in self.recipients:
                await self._rcpt(smtp, recipient)
        except RelayError as error:
            self._close()
            raise RelayError(LOST, str(error)) from error

    # --- the message --------------------------------------------------------------------------

    def _check(self, smtp: SmtpClient, size: int) -> None:
        """Find out whether the relay can carry the message.

        Raises:
            RelayError: it lacks what the message needs.
        """
        offered = smtp.extensions
        if self._required.utf8_header and "SMTPUTF8" not in offered:
            raise RelayError(NO_UTF8_HEADER)
        binary = self._envelope.body == "BINARYMIME"
        if self._required.eight_bits and not binary and "8BITMIME" not in offered:
            raise RelayError(NO_EIGHT_BITS)
        if size > _largest(smtp):
            raise RelayError(TOO_LARGE)

    async def _confirm(self, smtp: SmtpClient) -> None:
        """Make sure that a refusal of DATA is one, and not a late word about a recipient.

        Raises:
            OutOfSyncError: the relay is ready for the message after all.
        """
        with contextlib.suppress(RemoteClosedError, MalformedReplyError, TimeoutError):
            reply = await smtp.command("RSET", within=_GOODBYE_TIMEOUT)
            if reply.code < 400 and not is_yes(reply.code):
                raise OutOfSyncError(
                    f"{reply.code} {reply.text} - to RSET, after it had refused DATA"
                )

    def _judge(self, reply: RemoteReply, whole: bool) -> str:
        """Return the relay's words about the message if it has taken it.

        A refusal holds whenever it comes: many relays refuse as soon as they have seen enough.

        Args:
            reply: to the message.
            whole: it came when the relay had all of it.
        """
        if not whole:
            self._close()  # what is said now would be taken for the rest of the message
            if reply.code < 400:
                raise OutOfSyncError(f"{reply.code} {reply.text} - before it had the message")
        if not is_yes(reply.code):
            if reply.code < 400:
                self._close()
            raise refusal(reply.code, reply.text)
        return quoted(reply.text)

    # --- the end ------------------------------------------------------------------------------

    async def _goodbye(self, smtp: SmtpClient) -> None:
        try:
            await smtp.command("QUIT", within=_GOODBYE_TIMEOUT)
        except (OutOfSyncError, MalformedReplyError, OSError) as error:
            logger.debug("relay %s: at QUIT: %s", self, error)
        finally:
            self._close()

    def _close(self) -> None:
        """Close the connection, if there is one, and give its place back."""
        smtp, self._smtp = self._smtp, None
        if smtp is not None:
            smtp.abort()
        if self._placed:
            self._placed = False
            self._relay.give_place_back(self._user)


def _largest(smtp: SmtpClient) -> float:
    """Return the octets that a message may have for a relay (RFC 1870 3), infinity if any."""
    limit = smtp.extensions.get("SIZE", "")
    return int(limit) if limit.isascii() and limit.isdecimal() and int(limit[:20]) else float("inf")


async def _behind(command: bytes, content: MessageSource) -> AsyncIterator[bytes]:
    yield command
    async for piece in pieces(content, stuffed=False):
        yield piece
