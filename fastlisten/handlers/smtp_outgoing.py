"""One session with the relay, for the foreign recipients of one transaction.

Rules of this file: SMTP as a client, over aiosmtplib; no accounts and no letters. Addresses and
parameters are passed on as the client wrote them, octet by octet; that is why commands are made
here and not by aiosmtplib's `mail` and `rcpt`, which parse addresses anew.

    recipient()   connect, EHLO, STARTTLS, EHLO, AUTH, MAIL if need be; RCPT
    send()        DATA or BDAT, and the message
    finish()      QUIT, in the background
    abort()       at any time: the connection is closed at once

A relay that closes the connection before it gets the message (they wait some minutes, and our
client may be slow) is connected to once more, and hears everything again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable
from typing import TYPE_CHECKING

import aiosmtplib

from fastlisten.handlers.smtp_events import Recipient, Transaction
from fastlisten.handlers.smtp_relay_replies import (
    LOST,
    NO_BINARY,
    NO_EIGHT_BITS,
    NO_PLACE,
    NO_UTF8,
    OUT_OF_STEP,
    UNREACHABLE,
    RelayRefused,
    quoted,
    refusal,
)
from fastlisten.handlers.smtp_source import Source, pieces

if TYPE_CHECKING:
    from fastlisten.handlers.smtp_relay import Relay

__all__ = ["Outgoing"]

logger = logging.getLogger("fastlisten.smtp")

#: Seconds that a relay gets to answer QUIT. The message is its own already.
_GOODBYE_TIMEOUT = 5.0


class Outgoing:
    """A session with the relay.

    Attributes:
        recipients: those that the relay has accepted, in order.
        relays_dsn: the relay takes the parameters of RFC 3461.
    """

    __slots__ = (
        "_ended",
        "_placed",
        "_relay",
        "_smtp",
        "_transaction",
        "_user",
        "_writer",
        "recipients",
        "relays_dsn",
    )

    def __init__(self, relay: Relay, transaction: Transaction, user: str) -> None:
        self._relay = relay
        self._transaction = transaction
        self._user = user
        self._smtp: aiosmtplib.SMTP | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._placed = False
        self._ended = False
        self.recipients: list[Recipient] = []
        self.relays_dsn = False

    def __str__(self) -> str:
        return str(self._relay.settings)

    @property
    def host(self) -> str:
        """The relay's name or address."""
        return self._relay.settings.host

    async def recipient(self, recipient: Recipient) -> None:
        """Ask the relay for a recipient.

        Raises:
            RelayRefused: with the reply to our client.
        """
        async with self._errors(UNREACHABLE):
            smtp = await self._ready()
            await self._rcpt(smtp, recipient)
        self.recipients.append(recipient)

    async def send(self, content: Source) -> str:
        """Hand the message over.

        Args:
            content: gives it.

        Returns:
            The relay's words about it.

        Raises:
            RelayRefused: with the reply to our client; the relay does not have the message, or
                has not said so.
        """
        async with self._errors(LOST):
            smtp = await self._ready()
            if self._transaction.body == "BINARYMIME":
                return await self._send(smtp, f"BDAT {content.size} LAST".encode(), content)
            code, text = await smtp.execute_command(b"DATA")
            if code != 354:
                if code < 400:
                    self._close()  # out of step: a QUIT could be taken for the message
                raise refusal(code, text)
            return await self._send(smtp, b"", content)

    def finish(self) -> None:
        """Take leave, without waiting for it."""
        if self._smtp is None or not self._smtp.is_connected:
            self.abort()
        else:
            self._relay.end_later(self._goodbye(self._smtp))

    def abort(self) -> None:
        """Close the connection at once; who waits for it is to be cancelled."""
        self._ended = True
        self._close()

    # --- the session --------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def _errors(self, lost: bytes) -> AsyncIterator[None]:
        """Turn what can go wrong into what the client hears, and close where that was the end.

        Args:
            lost: the reply for a connection that breaks or cannot be made.
        """
        try:
            yield
        except RelayRefused as error:
            logger.info("relay %s: %s", self, error)
            raise
        except (aiosmtplib.SMTPException, OSError, ValueError) as error:
            # OSError includes timeouts and TLS; ValueError is aiosmtplib's for odd octets.
            self._close()
            if isinstance(error, aiosmtplib.SMTPResponseException):
                reason = f"{error.code} {quoted(error.message)}"
            else:
                reason = quoted(f"{type(error).__name__}: {error}")
            logger.warning("relay %s: %s", self, reason)
            raise RelayRefused(lost, reason) from error
        except BaseException:
            self._close()
            raise

    async def _ready(self) -> aiosmtplib.SMTP:
        """Return a session in which the relay knows all that it has accepted so far."""
        smtp = self._smtp
        if smtp is not None and smtp.is_connected:
            return smtp
        self._close()
        smtp = await self._connect()
        try:
            await self._mail(smtp)
            for recipient in self.recipients:
                await self._rcpt(smtp, recipient)
        except RelayRefused as error:
            self._close()
            if self.recipients:
                # It had said otherwise before. The client asks again, and hears the new answer.
                raise RelayRefused(LOST, str(error)) from error
            raise
        return smtp

    async def _connect(self) -> aiosmtplib.SMTP:
        settings = self._relay.settings
        try:
            await self._relay.take_place(self._user)
        except TimeoutError as error:
            reason = str(error) or "no place for another session"
            raise RelayRefused(NO_PLACE, reason) from error
        self._placed = True
        smtp = self._smtp = aiosmtplib.SMTP(
            hostname=settings.host if settings.port else None,
            port=settings.port or None,
            socket_path=None if settings.port else settings.host,
            local_hostname=settings.hostname,
            timeout=settings.timeout,
            use_tls=settings.tls == "implicit",
            start_tls=False,  # done below, where a refusal of it can be judged
            tls_context=self._relay.context,
        )
        await self._done(smtp, smtp.connect())
        await self._done(smtp, smtp.ehlo())
        if settings.tls in ("verify", "may"):
            await self._start_tls(smtp)
        if settings.user:
            encrypted = smtp.get_transport_info("sslcontext") is not None
            if not (encrypted or settings.near):
                raise aiosmtplib.SMTPException("no TLS, so that the password is kept back")
            await self._done(smtp, smtp.login(settings.user, settings.password))
        self.relays_dsn = smtp.supports_extension("dsn")
        if smtp.transport is None or smtp.protocol is None:
            raise aiosmtplib.SMTPServerDisconnected("gone after its greeting")
        # For its `drain`. It is kept as long as the transport: it closes that when it goes.
        self._writer = asyncio.StreamWriter(
            smtp.transport,  # type: ignore[arg-type]  # BaseTransport by its annotation
            smtp.protocol,
            None,
            asyncio.get_running_loop(),
        )
        return smtp

    async def _start_tls(self, smtp: aiosmtplib.SMTP) -> None:
        needed = self._relay.settings.tls == "verify"
        if not smtp.supports_extension("starttls"):
            if needed:
                raise aiosmtplib.SMTPException("it does not offer STARTTLS")
            return
        try:
            await self._done(smtp, smtp.starttls(tls_context=self._relay.context))
        except aiosmtplib.SMTPResponseException as error:
            if needed:
                raise
            logger.info("relay %s: no TLS: %d %s", self, error.code, quoted(error.message))
            return
        await self._done(smtp, smtp.ehlo())

    async def _done(self, smtp: aiosmtplib.SMTP, step: Awaitable[object]) -> None:
        """Wait for a step; stop here if `abort` came meanwhile.

        It may have come before there was a connection to close. And `asyncio.wait_for` of Python
        3.11 loses a cancellation that comes in the moment in which what it waits for is done.
        """
        await step
        self._go_on(smtp)

    def _go_on(self, smtp: aiosmtplib.SMTP) -> None:
        if self._ended:
            _drop(smtp)
            raise asyncio.CancelledError

    async def _mail(self, smtp: aiosmtplib.SMTP) -> None:
        transaction = self._transaction
        words = [f"FROM:<{transaction.sender}>"]
        if transaction.body == "BINARYMIME":
            if not (smtp.supports_extension("binarymime") and smtp.supports_extension("chunking")):
                raise RelayRefused(NO_BINARY)
            words.append("BODY=BINARYMIME")
        elif transaction.body == "8BITMIME":
            if not smtp.supports_extension("8bitmime"):
                raise RelayRefused(NO_EIGHT_BITS)
            words.append("BODY=8BITMIME")
        if transaction.smtputf8:
            if not smtp.supports_extension("smtputf8"):
                raise RelayRefused(NO_UTF8)
            words.append("SMTPUTF8")
        if transaction.size and smtp.supports_extension("size"):
            words.append(f"SIZE={transaction.size}")
        if self.relays_dsn:
            if transaction.ret:
                words.append(f"RET={transaction.ret}")
            if transaction.envid:
                words.append(f"ENVID={transaction.envid}")
        if transaction.auth and self._relay.settings.user and smtp.supports_extension("auth"):
            # RFC 4954 5: we do not vouch for what the client says of its message's origin.
            words.append("AUTH=<>")
        await self._command(smtp, "MAIL", words)

    async def _rcpt(self, smtp: aiosmtplib.SMTP, recipient: Recipient) -> None:
        words = [f"TO:<{recipient.mailbox.text}>"]
        if self.relays_dsn:
            if recipient.notify:
                words.append(f"NOTIFY={recipient.notify}")
            if recipient.orcpt:
                words.append(f"ORCPT={recipient.orcpt}")
        await self._command(smtp, "RCPT", words)

    async def _command(self, smtp: aiosmtplib.SMTP, verb: str, words: list[str]) -> None:
        code, text = await smtp.execute_command(verb.encode(), *(word.encode() for word in words))
        self._go_on(smtp)
        if not 200 <= code <= 299:
            raise refusal(code, text)

    # --- the message --------------------------------------------------------------------------

    async def _send(self, smtp: aiosmtplib.SMTP, chunk: bytes, content: Source) -> str:
        """Write the message and return the relay's words.

        Args:
            smtp: ready for it.
            chunk: the BDAT command to write first; empty after DATA.
            content: gives the message.
        """
        protocol, writer = smtp.protocol, self._writer
        if protocol is None or writer is None:
            raise aiosmtplib.SMTPServerDisconnected("gone before the message")
        timeout = self._relay.settings.timeout
        # It is read from now on: a relay may refuse before it has the whole message.
        answer = asyncio.ensure_future(protocol.read_response())
        whole = False
        try:
            if chunk:
                writer.write(chunk + b"\r\n")
            async for piece in pieces(content, stuffed=not chunk):
                if answer.done():
                    break
                try:
                    writer.write(piece)
                    async with asyncio.timeout(timeout):
                        await writer.drain()
                except (ConnectionError, RuntimeError):
                    # RuntimeError: uvloop's `write` to a transport that has been closed.
                    break  # what it said last, if anything, says more
            else:
                whole = True
            await asyncio.wait((answer,), timeout=10 * timeout)
            if not answer.done():
                raise TimeoutError("no reply to the whole message")
            code, text = answer.result()
        finally:
            answer.cancel()
            if not whole:
                self._close()  # what is said now would be taken for the rest of the message
        if not 200 <= code <= 299:
            raise refusal(code, text)
        if not whole:
            raise RelayRefused(OUT_OF_STEP, f"{code} {quoted(text)}, before it had the message")
        return quoted(text)

    # --- the end ------------------------------------------------------------------------------

    async def _goodbye(self, smtp: aiosmtplib.SMTP) -> None:
        try:
            await smtp.quit(timeout=_GOODBYE_TIMEOUT)
        except (aiosmtplib.SMTPException, OSError) as error:
            logger.debug("relay %s: at QUIT: %s", self, error)
        finally:
            self._close()

    def _close(self) -> None:
        """Close the connection, if there is one, and give its place back."""
        smtp, self._smtp = self._smtp, None
        if smtp is not None:
            _drop(smtp)
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.transport.abort()
        if self._placed:
            self._placed = False
            self._relay.give_place_back(self._user)


def _drop(smtp: aiosmtplib.SMTP) -> None:
    """Close a connection at once."""
    transport = smtp.transport
    smtp.close()
    if transport is not None:
        transport.abort()  # type: ignore[attr-defined]  # BaseTransport by its annotation
