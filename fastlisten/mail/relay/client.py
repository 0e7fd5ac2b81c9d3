"""An SMTP client: EHLO, STARTTLS and AUTH, and one reply to each command.

Rules of this file: how a command is sent. connection.py decides which reply counts, session.py what
a message needs and what a reply means for it.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import re
import ssl
from collections.abc import Iterator

from fastlisten.loop.deadline import finish_within
from fastlisten.mail.relay.connection import OutOfSyncError, RelayConnection
from fastlisten.mail.relay.remote_replies import RemoteReply, extensions_of

__all__ = ["SmtpClient", "UnexpectedReplyError"]

#: The loop's own handshake timeout, in seconds. It may fire before input that has arrived is read,
#: so ours ends the handshake long before.
_LONGEST_HANDSHAKE = 86400.0

_CONTROLS = re.compile(rb"[\x00-\x1f\x7f]")


class UnexpectedReplyError(Exception):
    """The server's reply means that the session cannot continue.

    Attributes:
        reply: the reply.
    """

    def __init__(self, reply: RemoteReply) -> None:
        self.reply = reply
        super().__init__(f"{reply.code} {reply.text}")


def _auth_responses(mechanism: str, user: str, password: str) -> Iterator[str]:
    """Return the responses of a client in PLAIN (RFC 4616) or LOGIN, in base64."""
    words = [f"\0{user}\0{password}"] if mechanism == "PLAIN" else [user, password]
    return (base64.b64encode(word.encode()).decode() for word in words)


def _cram_md5_response(user: str, password: str, challenge: str) -> str:
    """Return the response to a challenge of CRAM-MD5 (RFC 2195).

    Raises:
        ValueError: the challenge is not base64.
    """
    digest = hmac.new(password.encode(), base64.b64decode(challenge), "md5").hexdigest()
    return base64.b64encode(f"{user} {digest}".encode()).decode()


class SmtpClient(RelayConnection):
    """A session with an SMTP server.

    Args:
        timeout: seconds to wait for a connection, a reply, or progress.

    Attributes:
        extensions: what the server offers: parameters by keyword in upper case.
    """

    def __init__(self, timeout: float) -> None:
        super().__init__(timeout)
        self.extensions: dict[str, str] = {}

    # --- the connection -----------------------------------------------------------------------

    async def connect(
        self, host: str, port: int, context: ssl.SSLContext | None, hostname: str
    ) -> None:
        """Connect, wait for the greeting, and send EHLO.

        Args:
            host: name or address; the path of a Unix socket if `port` is 0.
            port: the TCP port, or 0.
            context: for TLS from the first byte; None for plain text.
            hostname: our name for EHLO.

        Raises:
            UnexpectedReplyError: the greeting, or the reply to EHLO, is a refusal.
            RemoteClosedError, OutOfSyncError, MalformedReplyError, OSError (and TimeoutError)
        """
        loop = asyncio.get_running_loop()
        if port:
            await finish_within(loop.create_connection(lambda: self, host, port), self.timeout)
        else:
            await finish_within(loop.create_unix_connection(lambda: self, host), self.timeout)
        if context is not None:
            await self._handshake(context, host if port else "")
        greeting = await self.reply(self.timeout)
        if greeting.code != 220:
            raise UnexpectedReplyError(greeting)
        await self.hello(hostname)

    async def hello(self, hostname: str) -> None:
        """Send EHLO, or HELO if the server does not support EHLO (RFC 5321 3.2).

        Raises:
            UnexpectedReplyError: neither is accepted.
        """
        self.extensions = {}
        reply = await self.command("EHLO", hostname)
        if reply.code in (500, 502):
            reply = await self.command("HELO", hostname)
        elif reply.code == 250:
            self.extensions = extensions_of(reply)
        if reply.code != 250:
            raise UnexpectedReplyError(reply)

    async def start_tls(self, context: ssl.SSLContext, host: str) -> None:
        """Send STARTTLS and do the handshake. EHLO must follow.

        Raises:
            UnexpectedReplyError: the server refuses; the connection stays usable without TLS.
        """
        reply = await self.command("STARTTLS")
        if reply.code != 220:
            raise UnexpectedReplyError(reply)
        await self._handshake(context, host)

    async def _handshake(self, context: ssl.SSLContext, host: str) -> None:
        # Plaintext input must not be taken for input received over TLS (CVE-2011-0411).
        await self.check_in_sync()
        assert self._plain is not None
        handshake = asyncio.get_running_loop().start_tls(
            self._plain,
            self,
            context,
            server_hostname=host,
            ssl_handshake_timeout=_LONGEST_HANDSHAKE,
        )
        transport = await finish_within(handshake, self.timeout)
        if transport is None or self._end is not None:
            raise self._lost_error()
        self.transport = transport
        self.encrypted = True

    async def login(self, user: str, password: str) -> None:
        """Log in (RFC 4954) with the first of PLAIN, LOGIN and CRAM-MD5 that the server offers.

        Raises:
            UnexpectedReplyError: the server refuses.
            ValueError: it offers none of these.
        """
        offered = self.extensions.get("AUTH", "").upper().split()
        for mechanism in ("PLAIN", "LOGIN", "CRAM-MD5"):
            if mechanism in offered:
                break
        else:
            raise ValueError("it offers none of AUTH PLAIN, LOGIN and CRAM-MD5")
        self._secrets = [password, *_auth_responses(mechanism, user, password)]
        words = iter(self._secrets[1:])
        first = f" {next(words)}" if mechanism == "PLAIN" else ""
        reply = await self.command("AUTH", mechanism + first)
        if mechanism == "CRAM-MD5" and reply.code == 334:
            self._secrets.append(_cram_md5_response(user, password, reply.lines[0]))
            reply = await self.command(self._secrets[-1])
        else:
            for word in words:
                if reply.code == 334:
                    reply = await self.command(word)
        if reply.code != 235:
            raise UnexpectedReplyError(reply)

    async def command(self, *words: str, within: float | None = None) -> RemoteReply:
        """Send a command and return its reply.

        Raises:
            ValueError: a word contains a control character.
            RemoteClosedError: the connection is closed.
            OutOfSyncError: the server sent something before it had the command.
            MalformedReplyError: the reply is malformed.
            TimeoutError: there was no reply in time.
        """
        line = " ".join(words).encode()
        if _CONTROLS.search(line):
            raise ValueError("a control character in a command")
        await self.check_in_sync()
        self.write(line + b"\r\n")
        reply = await self.reply(self.timeout if within is None else within)
        if reply.early:
            raise OutOfSyncError(f"reply before it had {words[0][:8]}: {reply.code} {reply.text}")
        return reply
