"""One session with the relay, for the recipients elsewhere of one message.

Rules of this file: the commands sent to a relay, and what its replies mean. client.py sends them,
session_start.py begins a session. It knows nothing of accounts or deliveries. Addresses and
parameters are passed on exactly as the client wrote them.

    recipient()   if necessary connect, EHLO, STARTTLS, EHLO, AUTH, MAIL; RCPT
    send()        DATA or BDAT, and the message
    quit()        QUIT, in the background
    abort()       at any time: close the connection at once

If a relay closes the connection before it gets the message (relays wait for some minutes, and our
client may be slow), we connect once more and repeat all commands. If the message turns out to need
more extensions than its sender declared (extensions.py), the transaction is restarted with RSET and
a second MAIL.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

from fastlisten.mail.envelope import Envelope, EnvelopeRecipient
from fastlisten.mail.relay.client import SmtpClient, UnexpectedReplyError
from fastlisten.mail.relay.connection import OutOfSyncError, RemoteClosedError
from fastlisten.mail.relay.extensions import (
    RequiredExtensions,
    check_envelope,
    check_message,
    mail_parameters,
    rcpt_parameters,
    required_extensions,
)
from fastlisten.mail.relay.message_source import MessageSource, pieces
from fastlisten.mail.relay.relay import Relay
from fastlisten.mail.relay.relay_error import (
    LOST,
    OUT_OF_SYNC,
    TOO_MANY_SESSIONS,
    UNREACHABLE,
    RelayError,
    quoted,
    refusal,
)
from fastlisten.mail.relay.relay_log import log_relay, log_relay_failure
from fastlisten.mail.relay.remote_replies import MalformedReplyError, RemoteReply, is_yes
from fastlisten.mail.relay.session_start import begin_session
from fastlisten.mail.reply import Reply

__all__ = ["RelaySession"]

logger = logging.getLogger("fastlisten.smtp")

#: Seconds that a relay gets to answer QUIT. It has the message already.
_QUIT_TIMEOUT = 5.0


class RelaySession:
    """A session with the relay.

    Attributes:
        recipients: those that the relay has accepted, in order.
        relays_dsn: the relay has the DSN extension (RFC 3461).
    """

    __slots__ = (
        "_acquired",
        "_ended",
        "_envelope",
        "_mailed",
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
        self._required = RequiredExtensions()  # known once the message has been received
        self._smtp: SmtpClient | None = None
        self._mailed: list[str] = []  # the parameters of MAIL that the relay has accepted
        self._acquired = False
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
        async with self._errors_as_replies(UNREACHABLE):
            smtp = await self._ready()
            await self._rcpt(smtp, recipient)
        self.recipients.append(recipient)

    async def send(self, content: MessageSource) -> str:
        """Send the message.

        Args:
            content: the message.

        Returns:
            The text of the relay's reply.

        Raises:
            RelayError: with the reply to our client. The relay does not have the message, or has
                not confirmed it.
        """
        async with self._errors_as_replies(LOST):
            self._required = await required_extensions(content)
            smtp = await self._ready()
            check_message(self._envelope, self._required, content.size, smtp.extensions)
            wait = 10 * self._relay.settings.timeout  # RFC 5321 4.5.3.2.6
            if self._mail_parameters(smtp) != self._mailed:
                await self._restart_transaction(smtp)
            if self._envelope.body == "BINARYMIME":
                command = f"BDAT {content.size} LAST\r\n".encode()
                await smtp.check_in_sync()
                reply, whole = await smtp.send(_command_and_message(command, content), wait)
            else:
                reply = await smtp.command("DATA")
                if reply.code != 354:
                    if reply.code < 400:
                        self._close()  # out of sync: a QUIT could be taken for the message
                    else:
                        await self._confirm_refusal(smtp)
                    raise refusal(reply.code, reply.text)
                reply, whole = await smtp.send(pieces(content, stuffed=True), wait)
            return self._accepted_text(reply, whole)

    def quit(self) -> None:
        """Send QUIT in the background."""
        if self._smtp is None or self._smtp.transport is None:
            self.abort()
        else:
            self._relay.quit_later(self._say_quit(self._smtp), self._close)

    def abort(self) -> None:
        """Close the connection at once; cancel the code that waits for it."""
        self._ended = True
        self._close()

    # --- the session --------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def _errors_as_replies(self, lost: Reply) -> AsyncIterator[None]:
        """Turn errors into replies to our client, and close the connection if it has failed.

        Args:
            lost: the reply for a connection that is lost or cannot be made.
        """
        try:
            yield
        except RelayError as error:
            # Other refusals are logged when they are passed on to the client.
            if error.reply in (UNREACHABLE, LOST, TOO_MANY_SESSIONS):
                log_relay_failure(self._relay.settings, str(error))
            raise
        except (
            OutOfSyncError,
            MalformedReplyError,
            UnexpectedReplyError,
            OSError,
            ValueError,
        ) as error:
            # OSError includes timeouts and TLS; ValueError unusable octets.
            self._close()
            if isinstance(error, UnexpectedReplyError):
                reason = f"{error.reply.code} {quoted(error.reply.text)}"
            elif isinstance(error, OutOfSyncError):
                reason = f"out of sync: {quoted(str(error))}"
            else:
                reason = quoted(str(error) or type(error).__name__)
            log_relay_failure(self._relay.settings, reason)
            answer = OUT_OF_SYNC if isinstance(error, OutOfSyncError) else lost
            raise RelayError(answer, reason) from error
        except BaseException:
            self._close()
            raise

    async def _ready(self) -> SmtpClient:
        """Return a session in which the relay knows MAIL and all recipients accepted so far."""
        if self._smtp is not None:
            try:
                await self._smtp.check_in_sync()
            except RemoteClosedError as error:
                log_relay(
                    self._relay.settings,
                    "relay-connected-again",
                    "connecting again",
                    error=quoted(str(error)),
                )
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
        try:
            await self._relay.acquire_session(self._user)
        except TimeoutError as error:
            reason = str(error) or "too many sessions with relays"
            raise RelayError(TOO_MANY_SESSIONS, reason) from error
        self._acquired = True
        smtp = self._smtp = SmtpClient(self._relay.settings.timeout)
        await begin_session(smtp, self._relay, lambda: self._check_not_aborted(smtp))
        self.relays_dsn = "DSN" in smtp.extensions
        return smtp

    def _check_not_aborted(self, smtp: SmtpClient) -> None:
        """Stop if `abort` was called before there was a connection to close."""
        if self._ended:
            smtp.abort()
            raise asyncio.CancelledError

    # --- the envelope -------------------------------------------------------------------------

    def _mail_parameters(self, smtp: SmtpClient) -> list[str]:
        authenticated = bool(self._relay.settings.user)
        return mail_parameters(self._envelope, self._required, smtp.extensions, authenticated)

    async def _mail(self, smtp: SmtpClient) -> None:
        check_envelope(self._envelope, smtp.extensions)
        words = self._mail_parameters(smtp)
        await self._command(smtp, "MAIL", words)
        self._mailed = words

    async def _rcpt(self, smtp: SmtpClient, recipient: EnvelopeRecipient) -> None:
        await self._command(smtp, "RCPT", rcpt_parameters(recipient, smtp.extensions))

    async def _command(self, smtp: SmtpClient, verb: str, words: list[str]) -> None:
        reply = await smtp.command(verb, *words)
        self._check_not_aborted(smtp)
        if not is_yes(reply.code):
            if reply.code < 400:
                self._close()  # out of sync, so the session is useless
            raise refusal(reply.code, reply.text)

    async def _restart_transaction(self, smtp: SmtpClient) -> None:
        """Send RSET, and MAIL again with the parameters that the message turned out to need."""
        reply = await smtp.command("RSET")
        if not is_yes(reply.code):
            return  # RFC 5321 4.1.1.5 allows no refusal; go on with the first MAIL's parameters
        await self._mail(smtp)
        await self._rcpt_again(smtp)

    async def _rcpt_again(self, smtp: SmtpClient) -> None:
        """Send RCPT again for all recipients that the relay has accepted.

        A refusal now concerns one recipient, which we have told the client is accepted, so it must
        not become a permanent refusal of the message. The client gets 4xx, and the new reply when
        it retries.
        """
        try:
            for recipient in self.recipients:
                await self._rcpt(smtp, recipient)
        except RelayError as error:
            self._close()
            raise RelayError(LOST, str(error)) from error

    # --- the message --------------------------------------------------------------------------

    async def _confirm_refusal(self, smtp: SmtpClient) -> None:
        """Make sure that a negative reply to DATA is not a late reply to a RCPT.

        Raises:
            OutOfSyncError: the relay is waiting for the message.
        """
        with contextlib.suppress(RemoteClosedError, MalformedReplyError, TimeoutError):
            reply = await smtp.command("RSET", within=_QUIT_TIMEOUT)
            if reply.code < 400 and not is_yes(reply.code):
                raise OutOfSyncError(f"reply to RSET after DATA: {reply.code} {reply.text}")

    def _accepted_text(self, reply: RemoteReply, whole: bool) -> str:
        """Return the text of the reply to the message if the relay has accepted it.

        A refusal counts whenever it comes: many relays refuse as soon as they have seen enough.

        Args:
            reply: the reply to the message.
            whole: the relay had the whole message when it replied.
        """
        if not whole:
            self._close()  # any command would be taken for the rest of the message
            if reply.code < 400:
                raise OutOfSyncError(f"reply before it had the message: {reply.code} {reply.text}")
        if not is_yes(reply.code):
            if reply.code < 400:
                self._close()
            raise refusal(reply.code, reply.text)
        return quoted(reply.text)

    # --- the end ------------------------------------------------------------------------------

    async def _say_quit(self, smtp: SmtpClient) -> None:
        try:
            await smtp.command("QUIT", within=_QUIT_TIMEOUT)
        except (OutOfSyncError, MalformedReplyError, OSError) as error:
            logger.debug("relay %s: at QUIT: %s", self, error)

    def _close(self) -> None:
        """Close the connection, if there is one, and release the session."""
        smtp, self._smtp = self._smtp, None
        if smtp is not None:
            smtp.abort()
        if self._acquired:
            self._acquired = False
            self._relay.release_session(self._user)


async def _command_and_message(command: bytes, content: MessageSource) -> AsyncIterator[bytes]:
    yield command
    async for piece in pieces(content, stuffed=False):
        yield piece
