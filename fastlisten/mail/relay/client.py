"""An SMTP client: EHLO, STARTTLS and AUTH, and one reply to each command.

Rules of this file: how a command is said. Which reply counts is decided in connection.py; what a
message needs, and what a reply means for it, in session.py.
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

#: The loop's own timeout of a handshake, in seconds. It would be judged before everything that has
#: come is read; ours ends the handshake long before.
_LONGEST_HANDSHAKE = 86400.0

_CONTROLS = re.compile(rb"[\x00-\x1f\x7f]")


class UnexpectedReplyError(Exception):
    """A reply with which the session cannot go on.

    Attributes:
        reply: as it came.
    """

    def __init__(self, reply: RemoteReply) -> None:
        self.reply = reply
        super().__init__(f"{reply.code} {reply.text}")


def _words(mechanism: str, user: str, password: str) -> Iterator[str]:
    """Return the responses of a client in PLAIN (RFC 4616) or LOGIN, in base64."""
    words = [f"\0{user}\0{password}"] if mechanism == "PLAIN" else [user, password]
    return (base64.b64encode(word.encode()).decode() for word in words)


def _cram(user: str, password: str, challenge: str) -> str:
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
        """Connect, wait for the greeting, and say EHLO.

        Args:
            host: name or address; the path of a Unix socket if `port` is 0.
            port: the TCP port, or 0.
            context: for TLS from the first byte; None for plain text.
            hostname: the name to give in EHLO.

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
            await self._secure(context, host if port else "")
        greeting = await self.reply(self.timeout)
        if greeting.code != 220:
            raise UnexpectedReplyError(greeting)
        await self.hello(hostname)

    async def hello(self, hostname: str) -> None:
        """Say EHLO, or HELO to a server that does not know EHLO (RFC 5321 3.2).

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
        """Say STARTTLS and do the handshake. EHLO has to follow.

        Raises:
            UnexpectedReplyError: the server refuses; the connection goes on without TLS.
        """
        reply = await self.command("STARTTLS")
        if reply.code != 220:
            raise UnexpectedReplyError(reply)
        await self._secure(context, host)

    async def _secure(self, context: ssl.SSLContext, host: str) -> None:
        # What came in plain text must not be taken for something said over TLS (CVE-2011-0411).
        await self.quiet()
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
            raise self._gone()
        self.transport = transport
        self.encrypted = True

    async def login(self, user: str, password: str) -> None:
        """Log in (RFC 4954), by the first of PLAIN, LOGIN and CRAM-MD5 that the server offers.

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
        self._secrets = [password, *_words(mechanism, user, password)]
        words = iter(self._secrets[1:])
        first = f" {next(words)}" if mechanism == "PLAIN" else ""
        reply = await self.command("AUTH", mechanism + first)
        if mechanism == "CRAM-MD5" and reply.code == 334:
            self._secrets.append(_cram(user, password, reply.lines[0]))
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
            ValueError: a word holds a control character.
            RemoteClosedError: the connection is closed.
            OutOfSyncError: the server said something before it had the command.
            MalformedReplyError: the reply is malformed.
            TimeoutError: there was no reply in time.
        """
        line = " ".join(words).encode()
        if _CONTROLS.search(line):
            raise ValueError("a control character in a command")
        await self.quiet()
        self.write(line + b"\r\n")
        reply = await self.reply(self.timeout if within is None else within)
        if reply.early:
            raise OutOfSyncError(f"{reply.code} {reply.text} - before it had {words[0][:8]}")
        return reply
