"""A connection to a server of SMTP, as its client: commands out, each reply in its turn.

Rules of this file: the dialogue, TLS and AUTH; what a message needs and what a reply means for it
is in session.py.

A reply counts only in its turn. What the server has said when it was not asked is never taken for
the answer to the next command: before each command nothing may have come (`quiet`), and a reply
whose octets came before the server's host had acknowledged the command is one to something else.
For the message, where a wrong yes would lose mail, this is made certain:

    354 ──> all but the end ──> acknowledged by the server's host, ──> the end ──> reply
             of the message     and nothing has come meanwhile         (final dot, or
                                                                        BDAT's last octet)

Waiting for the acknowledgement costs one round trip. Without it a reply that was sent together with
the 354 cannot be told from one to the message, because the sender's kernel may hold back the
second segment until we have answered the first (RFC 896), or it is on its way yet.

A time that is up is judged when what has come is read (`Patience`). A yes that waited while the
process stood still is one: who takes it for none sends the message twice.

Every write goes through `write`: uvloop raises RuntimeError where the transport has been closed
under it, asyncio's transports drop the octets.
"""

from __future__ import annotations

import array
import asyncio
import base64
import fcntl
import hmac
import re
import ssl
import termios
from collections.abc import AsyncIterator, Iterator
from typing import Any, cast

from fastlisten.loop.deadline import Patience, finish_within
from fastlisten.mail.relay.remote_replies import (
    MalformedReplyError,
    RemoteReplies,
    RemoteReply,
    extensions_of,
)

__all__ = [
    "OutOfSyncError",
    "RemoteClosedError",
    "SmtpClient",
    "UnexpectedReplyError",
    "is_ours",
    "is_yes",
]

# <linux/sockios.h>, which Python's `termios` names as ttys do: octets that the peer's host has not
# acknowledged yet; over a Unix socket, those that the peer has not read (tcp(7), unix(7)).
_SIOCOUTQ = termios.TIOCOUTQ
_SIOCINQ = termios.FIONREAD

#: Seconds between two looks at what is unacknowledged: the first and the longest. A host may
#: delay an acknowledgement for 40 ms (Linux) or 200 ms; no event tells of it.
_FIRST_LOOK = 0.0005
_LAST_LOOK = 0.01

#: How many octets are sent to hasten an acknowledgement, and the seconds between two looks from
#: which on it is done: a host on the same network has answered by then, unless it waits.
_NUDGES = 2
_NUDGE_AFTER = 0.002

#: The loop's own bound on a handshake, in seconds. It would be judged before what has come is read;
#: ours ends the handshake long before.
_LONGEST_HANDSHAKE = 86400.0

_CONTROLS = re.compile(rb"[\x00-\x1f\x7f]")

#: Replies that say something else than that a command or a message has been accepted, although
#: they begin with a 2: to HELP, STAT, the connection, QUIT and AUTH.
_OF_OTHERS = frozenset((211, 214, 220, 221, 235))


# Our ends of the connections that are open, as servers see them: address and port.
_ends: set[tuple[str, int]] = set()


def is_ours(peer: str, port: int) -> bool:
    """Whether a connection that this process serves is one that it has made itself."""
    return (peer, port) in _ends


class RemoteClosedError(ConnectionError):
    """The server has closed the connection, or said that it does (421)."""


class OutOfSyncError(Exception):
    """The server has said something when it was not asked."""


class UnexpectedReplyError(Exception):
    """A reply with which the session cannot go on.

    Attributes:
        reply: as it came.
    """

    def __init__(self, reply: RemoteReply) -> None:
        self.reply = reply
        super().__init__(f"{reply.code} {reply.text}")


#: Characters by which a secret is known that a server repeats in part.
_REPEATED = 8


def _words(mechanism: str, user: str, password: str) -> Iterator[str]:
    """Return the words that a client says in PLAIN (RFC 4616) or LOGIN, in base64."""
    words = [f"\0{user}\0{password}"] if mechanism == "PLAIN" else [user, password]
    return (base64.b64encode(word.encode()).decode() for word in words)


def _cram(user: str, password: str, challenge: str) -> str:
    """Return the answer to a challenge of CRAM-MD5 (RFC 2195).

    Raises:
        ValueError: the challenge is not base64.
    """
    digest = hmac.new(password.encode(), base64.b64decode(challenge), "md5").hexdigest()
    return base64.b64encode(f"{user} {digest}".encode()).decode()


def is_yes(code: int) -> bool:
    """Whether a reply says that something has been accepted."""
    return 200 <= code <= 299 and code not in _OF_OTHERS


class SmtpClient(asyncio.Protocol):
    """A connection.

    Args:
        timeout: seconds to wait for a connection, a reply, or progress.

    Attributes:
        timeout: as given.
        transport: the connection's, None before and after it.
        extensions: what the server offers: parameters by keyword in upper case.
        encrypted: TLS is spoken.
    """

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        self.transport: asyncio.Transport | None = None
        self.extensions: dict[str, str] = {}
        self.encrypted = False
        self._replies = RemoteReplies()
        self._secrets: list[str] = []  # what no log and no client is to see again
        self._end: Exception | None = None  # why nothing more comes
        self._plain: asyncio.Transport | None = None  # the one below TLS
        self._socket: Any = None
        self._name = ("", 0)  # our end's
        self._paused = False
        self._waiter: asyncio.Future[None] | None = None

    # --- asyncio's protocol -------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        self.transport = self._plain = cast(asyncio.Transport, transport)
        self._socket = transport.get_extra_info("socket")
        name = transport.get_extra_info("sockname")
        if isinstance(name, tuple):  # a Unix socket has none
            self._name = (name[0], name[1])
            _ends.add(self._name)
        if self._end is not None:  # `abort` came first
            self.transport.abort()

    def data_received(self, data: bytes) -> None:
        """Keep what the server says until somebody asks for it."""
        self._replies.add(data, self._unacknowledged() > 0)
        if self._replies.overfull:
            if self._waiter is None and self.transport is not None:
                self.transport.abort()  # who will ask next hears of it
            self._wake()
        elif b"\n" in data:
            self._wake()

    def eof_received(self) -> None:
        """Close: nobody says goodbye in SMTP by closing a half."""
        self._end = self._end or RemoteClosedError("the connection was closed")
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        """Let nobody wait any more."""
        self._end = self._end or RemoteClosedError(str(exc) if exc else "the connection was closed")
        self.transport = self._plain = self._socket = None
        _ends.discard(self._name)
        self._wake()

    def pause_writing(self) -> None:
        """The transport has enough."""
        self._paused = True

    def resume_writing(self) -> None:
        """It takes more."""
        self._paused = False
        self._wake()

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def _event(self, patience: Patience) -> None:
        """Wait for a line, the end, room to write, or the moment to look again.

        Raises:
            TimeoutError: the time is up.
        """
        patience.check()
        loop = asyncio.get_running_loop()
        self._waiter = loop.create_future()
        timer = loop.call_at(patience.ends, self._wake)
        try:
            await self._waiter
        finally:
            timer.cancel()
            self._waiter = None

    # --- the connection -----------------------------------------------------------------------

    async def connect(
        self, host: str, port: int, context: ssl.SSLContext | None, hostname: str
    ) -> None:
        """Connect, hear the greeting, and say EHLO.

        Args:
            host: name or address; the path of a Unix socket if `port` is 0.
            port: of TCP.
            context: for TLS from the first byte; None for none.
            hostname: what we call ourselves.

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
        """Ask for TLS and begin it. EHLO has to follow.

        Raises:
            UnexpectedReplyError: the server refuses; the connection goes on without TLS.
        """
        reply = await self.command("STARTTLS")
        if reply.code != 220:
            raise UnexpectedReplyError(reply)
        await self._secure(context, host)

    async def _secure(self, context: ssl.SSLContext, host: str) -> None:
        # What came before in clear text must not pass for something of TLS (CVE-2011-0411).
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
            MalformedReplyError: it offers none of these.
        """
        offered = self.extensions.get("AUTH", "").upper().split()
        for mechanism in ("PLAIN", "LOGIN", "CRAM-MD5"):
            if mechanism in offered:
                break
        else:
            raise MalformedReplyError("it offers no mechanism of AUTH that is known here")
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

    def abort(self) -> None:
        """Close the connection at once."""
        self._end = self._end or RemoteClosedError("closed here")
        if self.transport is not None:
            self.transport.abort()
        self._wake()

    # --- commands and replies -----------------------------------------------------------------

    async def command(self, *words: str, within: float | None = None) -> RemoteReply:
        """Send a command and return its reply.

        Raises:
            ValueError: a word holds a control character.
            RemoteClosedError: the connection ended, or had ended.
            OutOfSyncError: the server said something before it had the command.
            MalformedReplyError: its reply is none.
            TimeoutError: it came too late.
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

    async def quiet(self) -> None:
        """See to it that the server has said nothing since its last reply.

        Raises:
            RemoteClosedError: it has closed the connection, with a 421 or without.
            OutOfSyncError: it has said something else.
            TimeoutError: it goes on sending something that is nothing of SMTP's.
        """
        # What has arrived is read before it is judged; over TLS it may be none of SMTP's.
        patience = Patience(self.timeout)
        while not self._heard and self._unread():
            patience.check("it sends without end, and says nothing")
            await asyncio.sleep(0)  # the loop reads meanwhile
        if self._replies:
            try:
                reply = self._take()
            except MalformedReplyError as error:
                raise OutOfSyncError(str(error)) from None
            if reply is not None and reply.code == 421:
                self.abort()  # RFC 5321 3.8: it may say so at any time
                raise RemoteClosedError(f"421 {reply.text}")
            beginning = self._without_secrets(self._replies.beginning)
            said = beginning if reply is None else f"{reply.code} {reply.text}"
            raise OutOfSyncError(f"{said} - without having been asked")
        if self._end is not None or self.transport is None or self.transport.is_closing():
            raise self._gone()

    async def reply(self, within: float) -> RemoteReply:
        """Wait for the next reply, be it early or not.

        Raises:
            RemoteClosedError, MalformedReplyError, TimeoutError
        """
        patience = Patience(within)
        while (reply := self._take()) is None:
            if self._end is not None:
                raise self._gone()
            await self._event(patience)
        return reply

    def _take(self) -> RemoteReply | None:
        """Return the first reply that has come, without what it repeats of a login."""
        try:
            reply = self._replies.take()
        except MalformedReplyError as error:
            raise MalformedReplyError(self._without_secrets(str(error))) from None
        if reply is None or not self._secrets:
            return reply
        lines = tuple(self._without_secrets(line) for line in reply.lines)
        return RemoteReply(reply.code, lines, reply.early)

    def _without_secrets(self, text: str) -> str:
        """Return text without what it has of a login, whole or cut: it is logged and passed on."""
        for secret in self._secrets:
            if secret:
                text = re.sub(re.escape(secret[:_REPEATED]) + r"\S*", "***", text)
        return text

    def write(self, data: bytes) -> None:
        """Write octets.

        Raises:
            RemoteClosedError: there is no connection any more.
        """
        transport = self.transport
        if transport is None or transport.is_closing():
            raise self._gone()
        try:
            transport.write(data)
        except RuntimeError as error:
            raise self._gone() from error

    def _gone(self) -> Exception:
        return self._end or RemoteClosedError("the connection was closed")

    # --- the message --------------------------------------------------------------------------

    async def send(self, pieces: AsyncIterator[bytes], within: float) -> tuple[RemoteReply, bool]:
        """Send a message and return the reply to it.

        Args:
            pieces: of the message; the last one is its end, without which it is not whole.
            within: seconds to wait for the reply to it.

        Returns:
            The reply, and whether it is one to the whole message: else it came before its end, and
            nothing more can be said in the session.

        Raises:
            RemoteClosedError, MalformedReplyError, TimeoutError
            Whatever `pieces` raises; the message is not whole then.
        """
        whole, first = False, True
        held = b""
        try:
            async for piece in pieces:
                if held:
                    self.write(held)
                    first = False
                    await self._room()
                if self._heard:  # it may refuse before it has the whole message
                    break
                held = piece
            else:
                if first:  # it is all in one piece
                    self.write(held[:1])
                    held = held[1:]
                held = await self._acknowledged(held)
                if not self._heard:
                    self.write(held)
                    whole = True
        except RemoteClosedError:
            pass  # what it said last, if anything, says more
        # What has begun to come early has no reason to take long.
        reply = await self.reply(within if whole else self.timeout)
        return reply, whole and not reply.early

    @property
    def _heard(self) -> bool:
        """Whether the server has said anything that nobody has asked for, or gone."""
        return bool(self._replies) or self._end is not None

    async def _room(self) -> None:
        """Wait until more can be written, or the server has been heard.

        Raises:
            TimeoutError: it takes nothing.
        """
        await asyncio.sleep(0)  # what is written in one iteration, uvloop sends in one segment
        # Room comes in large steps: when a third of the kernel's buffer is free, of megabytes.
        before, patience = self._unacknowledged(), Patience(self.timeout)
        while self._paused and not self._heard:
            try:
                await self._event(patience)
            except TimeoutError:
                left = self._unacknowledged()
                if left >= before:
                    raise
                before, patience = left, Patience(self.timeout)

    async def _acknowledged(self, last: bytes) -> bytes:
        """Wait until the server's host has all that was written, or the server has been heard.

        Linux delays the acknowledgement of a single small segment (40 ms or more), and sends that
        of two when the second one is read. So that one nudge, if need be two, save the delay.

        Args:
            last: what will be written next; its first octets may be before.

        Returns:
            What is left of `last`.

        Raises:
            TimeoutError: it takes nothing.
        """
        before, pause, patience = -1, _FIRST_LOOK, Patience(self.timeout)
        nudges = _NUDGES if len(last) > 2 * _NUDGES else 0
        while not self._heard:
            left = self._unacknowledged()
            if left == 0 and not self._unread():
                break
            if left != before:
                before, patience = left, Patience(self.timeout)
            elif nudges and pause >= _NUDGE_AFTER:
                nudges -= 1
                self.write(last[:1])
                last = last[1:]
                before = -1
            else:
                patience.check("the server takes nothing")
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LAST_LOOK)
        return last

    # --- the kernel's side --------------------------------------------------------------------

    def _unacknowledged(self) -> int:
        """Return the number of octets that the server's host has not acknowledged."""
        transport, plain = self.transport, self._plain
        if transport is None or plain is None or plain.is_closing():
            return 0
        left = plain.get_write_buffer_size() + self._queued(_SIOCOUTQ)
        return left + (transport.get_write_buffer_size() if transport is not plain else 0)

    def _unread(self) -> int:
        """Return the number of octets that have come and have not been read yet."""
        return self._queued(_SIOCINQ)

    def _queued(self, which: int) -> int:
        found = array.array("i", [0])
        try:
            fcntl.ioctl(self._socket.fileno(), which, found)
        except (OSError, ValueError, AttributeError):
            return 0  # it is closed
        return found[0]
