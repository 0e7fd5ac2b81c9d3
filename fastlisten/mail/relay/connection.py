"""A connection to an SMTP server: octets out, and each reply in its turn.

Rules of this file: when a reply counts, and for what; the commands are in client.py.

A reply counts only in its turn. What the server says without having been asked is never taken for
the reply to the next command: before each command nothing may have come (`quiet`), and a reply
whose octets came before the server's host had acknowledged the command is a reply to something
else. For the message, where a wrong yes would lose mail, this is made certain:

    354 ──> all but the end ──> acknowledged by the server's host, ──> the end ──> reply
             of the message     and nothing has come meanwhile         (final dot, or
                                                                        BDAT's last octet)

Waiting for the acknowledgement costs one round trip. Without it, a reply sent together with the 354
could not be told from a reply to the message, because it may still be on its way, or the sender's
kernel may hold back the second segment until we have acknowledged the first (RFC 896).

A timeout is enforced only after everything that has arrived is read (`PeerTimeout`). A positive
reply that arrived while the process was stopped counts; otherwise the message would be sent twice.

Everything is written through `write`: if the transport has been closed, uvloop raises RuntimeError,
and asyncio drops the octets.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any, cast

from fastlisten.loop.deadline import PeerTimeout
from fastlisten.mail.relay.kernel_queues import unacknowledged, unread
from fastlisten.mail.relay.own_addresses import add_own, remove_own
from fastlisten.mail.relay.remote_replies import MalformedReplyError, RemoteReplies, RemoteReply

__all__ = ["OutOfSyncError", "RelayConnection", "RemoteClosedError"]

#: Seconds between two looks at what is unacknowledged: at first, and at most. A host may delay an
#: acknowledgement by 40 ms (Linux) or 200 ms, and there is no event for it.
_FIRST_LOOK = 0.0005
_LAST_LOOK = 0.01

#: How many octets are sent to hasten an acknowledgement, and from which pause between two looks on.
#: A host on the same network has acknowledged by then, unless it delays that.
_NUDGES = 2
_NUDGE_AFTER = 0.002

#: Characters that are enough to recognize a secret which a server repeats in part.
_REPEATED = 8


class RemoteClosedError(ConnectionError):
    """The server has closed the connection, or said that it closes it (421)."""


class OutOfSyncError(Exception):
    """The server has said something without having been asked."""


class RelayConnection(asyncio.Protocol):
    """A connection to a server, below its commands.

    Args:
        timeout: seconds to wait for a connection, a reply, or progress.

    Attributes:
        timeout: as given.
        transport: the connection's; None before it is made and after it is lost.
        encrypted: TLS is active.
    """

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        self.transport: asyncio.Transport | None = None
        self.encrypted = False
        self._replies = RemoteReplies()
        self._secrets: list[str] = []  # what no log and no client may see
        self._end: Exception | None = None  # why nothing more comes
        self._plain: asyncio.Transport | None = None  # the transport below TLS
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
            add_own(self._name)
        if self._end is not None:  # `abort` came first
            self.transport.abort()

    def data_received(self, data: bytes) -> None:
        """Keep what the server says until somebody asks for it."""
        self._replies.add(data, self._unacknowledged() > 0)
        if self._replies.overfull:
            if self._waiter is None and self.transport is not None:
                self.transport.abort()  # the next caller gets the error
            self._wake()
        elif b"\n" in data:
            self._wake()

    def eof_received(self) -> None:
        """Close: SMTP knows no half-closed connection."""
        self._end = self._end or RemoteClosedError("the connection was closed")
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wake who waits, with the reason."""
        self._end = self._end or RemoteClosedError(str(exc) if exc else "the connection was closed")
        self.transport = self._plain = self._socket = None
        remove_own(self._name)
        self._wake()

    def pause_writing(self) -> None:
        """The transport has enough."""
        self._paused = True

    def resume_writing(self) -> None:
        """Go on: the transport takes more."""
        self._paused = False
        self._wake()

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def _event(self, limit: PeerTimeout) -> None:
        """Wait for a line, the end, room to write, or the moment to look again.

        Raises:
            TimeoutError: the time is up.
        """
        limit.check()
        loop = asyncio.get_running_loop()
        self._waiter = loop.create_future()
        timer = loop.call_at(limit.ends, self._wake)
        try:
            await self._waiter
        finally:
            timer.cancel()
            self._waiter = None

    # --- replies ------------------------------------------------------------------------------

    def abort(self) -> None:
        """Close the connection at once."""
        self._end = self._end or RemoteClosedError("closed here")
        if self.transport is not None:
            self.transport.abort()
        self._wake()

    async def quiet(self) -> None:
        """Make sure that the server has said nothing since its last reply.

        Raises:
            RemoteClosedError: it has closed the connection, with a 421 or without.
            OutOfSyncError: it has said something else.
            TimeoutError: it keeps sending something that is not SMTP.
        """
        # What has arrived is read before it is judged; over TLS it need not be data of SMTP.
        limit = PeerTimeout(self.timeout)
        while not self._heard and self._unread():
            limit.check("it keeps sending, but no reply")
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
        """Wait for the next reply, whether it is early or not.

        Raises:
            RemoteClosedError, MalformedReplyError, TimeoutError
        """
        limit = PeerTimeout(within)
        while (reply := self._take()) is None:
            if self._end is not None:
                raise self._gone()
            await self._event(limit)
        return reply

    def _take(self) -> RemoteReply | None:
        """Return the first reply that has come, with secrets that it repeats replaced."""
        try:
            reply = self._replies.take()
        except MalformedReplyError as error:
            raise MalformedReplyError(self._without_secrets(str(error))) from None
        if reply is None or not self._secrets:
            return reply
        lines = tuple(self._without_secrets(line) for line in reply.lines)
        return RemoteReply(reply.code, lines, reply.early)

    def _without_secrets(self, text: str) -> str:
        """Replace secrets, whole or cut, in a text that is logged or passed on."""
        for secret in self._secrets:
            if secret:
                text = re.sub(re.escape(secret[:_REPEATED]) + r"\S*", "***", text)
        return text

    def write(self, data: bytes) -> None:
        """Write octets.

        Raises:
            RemoteClosedError: the connection is closed.
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
            pieces: of the message; the last one completes it.
            within: seconds to wait for the reply to it.

        Returns:
            The reply, and whether it is a reply to the whole message; if not, it came before the
            end, and nothing more can be said in the session.

        Raises:
            RemoteClosedError, MalformedReplyError, TimeoutError
            Whatever `pieces` raises; the server does not have the whole message then.
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
            pass  # what it said last, if anything, is more telling
        # A reply that has begun early should not take long.
        reply = await self.reply(within if whole else self.timeout)
        return reply, whole and not reply.early

    @property
    def _heard(self) -> bool:
        """Whether the server has said anything without having been asked, or has closed."""
        return bool(self._replies) or self._end is not None

    async def _room(self) -> None:
        """Wait until more can be written, or the server has said something.

        Raises:
            TimeoutError: the server accepts no data.
        """
        await asyncio.sleep(0)  # uvloop sends what is written in one iteration as one segment
        # Room comes in large steps: when a third of the kernel's buffer of megabytes is free.
        before, limit = self._unacknowledged(), PeerTimeout(self.timeout)
        while self._paused and not self._heard:
            try:
                await self._event(limit)
            except TimeoutError:
                left = self._unacknowledged()
                if left >= before:
                    raise
                before, limit = left, PeerTimeout(self.timeout)

    async def _acknowledged(self, last: bytes) -> bytes:
        """Wait until the server's host has acknowledged everything, or the server says something.

        Linux delays the acknowledgement of a single small segment (by 40 ms or more), but sends
        that of two segments as soon as the second one is read. So one or two octets more, written
        early, save the delay.

        Args:
            last: what will be written next; its first octets may be written here.

        Returns:
            What is left of `last`.

        Raises:
            TimeoutError: the server accepts no data.
        """
        before, pause, limit = -1, _FIRST_LOOK, PeerTimeout(self.timeout)
        nudges = _NUDGES if len(last) > 2 * _NUDGES else 0
        while not self._heard:
            left = self._unacknowledged()
            if left == 0 and not self._unread():
                break
            if left != before:
                before, limit = left, PeerTimeout(self.timeout)
            elif nudges and pause >= _NUDGE_AFTER:
                nudges -= 1
                self.write(last[:1])
                last = last[1:]
                before = -1
            else:
                limit.check("the server accepts no data")
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LAST_LOOK)
        return last

    # --- the kernel's side --------------------------------------------------------------------

    def _unacknowledged(self) -> int:
        """Return the number of octets that the server's host has not acknowledged."""
        transport, plain = self.transport, self._plain
        if transport is None or plain is None or plain.is_closing():
            return 0
        left = plain.get_write_buffer_size() + unacknowledged(self._socket)
        return left + (transport.get_write_buffer_size() if transport is not plain else 0)

    def _unread(self) -> int:
        """Return the number of octets that have come and are not read yet."""
        return unread(self._socket)
