"""A connection to an SMTP server: octets out, and each reply in its turn.

Rules of this file: when a reply counts, and for what; the commands are in client.py.

A reply counts only in its turn. Input that the server sends unasked is never taken for the reply to
the next command: before each command there must be no input (`check_in_sync`), and a reply that
arrives before the server's host has acknowledged the command belongs to something else. For the
message, where a wrong positive reply would lose mail, this is made certain:

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
import os
import re
from collections.abc import AsyncIterator
from typing import Any, cast

from fastlisten.loop.deadline import PeerTimeout
from fastlisten.mail.relay.kernel_queues import unacknowledged, unread
from fastlisten.mail.relay.own_addresses import add_own_address, remove_own_address
from fastlisten.mail.relay.remote_replies import (
    LONGEST_REPLY,
    MalformedReplyError,
    RemoteReplies,
    RemoteReply,
)

__all__ = ["OutOfSyncError", "RelayConnection", "RemoteClosedError"]

#: Seconds between two polls for acknowledgements: at first, and at most. A host may delay an
#: acknowledgement by 40 ms (Linux) or 200 ms, and there is no event for it.
_FIRST_LOOK = 0.0005
_LAST_LOOK = 0.01

#: How many octets are sent to speed up an acknowledgement, and the pause between two polls from
#: which on. By then a host on the same network has acknowledged, unless it delays that.
_NUDGES = 2
_NUDGE_AFTER = 0.002

#: This many first characters identify a secret that a server repeats in part.
_REPEATED = 8


class RemoteClosedError(ConnectionError):
    """The server has closed the connection, or announced that it will (421)."""


class OutOfSyncError(Exception):
    """The server has sent something that is not a reply to a command."""


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
        self._secrets: list[str] = []  # must not appear in logs or replies
        self._end: Exception | None = None  # why the connection has ended
        self._plain: asyncio.Transport | None = None  # the transport below TLS
        self._socket: Any = None
        self._name = ("", 0)  # our own address
        self._paused = False
        self._waiter: asyncio.Future[None] | None = None

    # --- asyncio's protocol -------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = self._plain = cast(asyncio.Transport, transport)
        self._socket = transport.get_extra_info("socket")
        name = transport.get_extra_info("sockname")
        if isinstance(name, tuple):  # a Unix socket has none
            self._name = (name[0], name[1])
            add_own_address(self._name)
        if self._end is not None:  # `abort` came first
            self.transport.abort()

    def data_received(self, data: bytes) -> None:
        """Store input until a reply is asked for."""
        self._replies.add(data, self._unacknowledged() > 0)
        if self._replies.overfull:
            if self._waiter is None and self.transport is not None:
                self.transport.abort()  # raised by the next call
            self._wake()
        elif b"\n" in data:
            self._wake()

    def eof_received(self) -> None:
        """Close, because SMTP has no half-closed connections."""
        self._end = self._end or RemoteClosedError("the connection was closed")
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wake the waiting code, which gets the reply received last, or the reason."""
        if exc is not None and self._end is None:
            self._read_the_rest()
        self._end = self._end or RemoteClosedError(str(exc) if exc else "the connection was closed")
        self.transport = self._plain = self._socket = None
        remove_own_address(self._name)
        self._wake()

    def _read_the_rest(self) -> None:
        """Read what the kernel received before the connection was lost.

        A server that refuses in the middle of a message and closes resets the connection. If the
        loop writes before it reads, the write fails, and the loop gives up a connection whose last
        reply it has not read. Over TLS it stays lost: the loop has closed the socket already, and
        nobody would check what is read here.
        """
        plain = self._plain
        if plain is None or plain.get_protocol() is not self:
            return
        try:
            data = os.read(self._socket.fileno(), LONGEST_REPLY)
        except (OSError, ValueError):
            return
        if data:
            # The server never gets what could not be written, so this is no reply to it.
            self._replies.add(data, early=True)

    def pause_writing(self) -> None:
        """Stop writing, because the transport's buffer is full."""
        self._paused = True

    def resume_writing(self) -> None:
        """Continue writing."""
        self._paused = False
        self._wake()

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def _wait(self, limit: PeerTimeout) -> None:
        """Wait for input, the end of the connection, space for output, or the next poll.

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

    async def check_in_sync(self) -> None:
        """Check that the server has sent nothing since its last reply.

        Raises:
            RemoteClosedError: it has closed the connection, with a 421 or without.
            OutOfSyncError: it has sent something else.
            TimeoutError: it keeps sending something that is not SMTP.
        """
        # Everything that has arrived is read first; over TLS it need not be application data.
        limit = PeerTimeout(self.timeout)
        while not self._interrupted and self._unread():
            limit.check("it keeps sending data, but no reply")
            await asyncio.sleep(0)  # the loop reads meanwhile
        if self._replies:
            try:
                reply = self._next_reply()
            except MalformedReplyError as error:
                raise OutOfSyncError(str(error)) from None
            if reply is not None and reply.code == 421:
                self.abort()  # RFC 5321 3.8: a server may send 421 at any time
                raise RemoteClosedError(f"421 {reply.text}")
            beginning = self._without_secrets(self._replies.beginning)
            said = beginning if reply is None else f"{reply.code} {reply.text}"
            raise OutOfSyncError(f"unexpected input: {said}")
        if self._end is not None or self.transport is None or self.transport.is_closing():
            raise self._lost_error()

    async def reply(self, within: float) -> RemoteReply:
        """Wait for the next reply, even an early one.

        Raises:
            RemoteClosedError, MalformedReplyError, TimeoutError
        """
        limit = PeerTimeout(within)
        while (reply := self._next_reply()) is None:
            if self._end is not None:
                raise self._lost_error()
            await self._wait(limit)
        return reply

    def _next_reply(self) -> RemoteReply | None:
        """Return the first reply received, if it is complete, without secrets that it repeats."""
        try:
            reply = self._replies.take()
        except MalformedReplyError as error:
            raise MalformedReplyError(self._without_secrets(str(error))) from None
        if reply is None or not self._secrets:
            return reply
        lines = tuple(self._without_secrets(line) for line in reply.lines)
        return RemoteReply(reply.code, lines, reply.early)

    def _without_secrets(self, text: str) -> str:
        """Replace secrets, even partial ones, in a text that is logged or passed on."""
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
            raise self._lost_error()
        try:
            transport.write(data)
        except RuntimeError as error:
            raise self._lost_error() from error

    def _lost_error(self) -> Exception:
        return self._end or RemoteClosedError("the connection was closed")

    # --- the message --------------------------------------------------------------------------

    async def send(self, pieces: AsyncIterator[bytes], within: float) -> tuple[RemoteReply, bool]:
        """Send a message and return the reply to it.

        Args:
            pieces: the pieces of the message; the last one completes it.
            within: seconds to wait for the reply.

        Returns:
            The reply, and whether it is a reply to the whole message; if not, it came before the
            end of the message, and the session cannot be used any more.

        Raises:
            RemoteClosedError, MalformedReplyError, TimeoutError
            Whatever `pieces` raises; then the server does not have the whole message.
        """
        whole, first = False, True
        held = b""
        try:
            async for piece in pieces:
                if held:
                    self.write(held)
                    first = False
                    await self._wait_for_space()
                if self._interrupted:  # servers may refuse in the middle of a message
                    break
                held = piece
            else:
                if first:  # the whole message is one piece
                    self.write(held[:1])
                    held = held[1:]
                held = await self._wait_for_acknowledgement(held)
                if not self._interrupted:
                    self.write(held)
                    whole = True
        except RemoteClosedError:
            pass  # if the server sent a reply before it closed, that is the better error
        # An early reply has begun already, so the rest of it should not take long.
        reply = await self.reply(within if whole else self.timeout)
        return reply, whole and not reply.early

    @property
    def _interrupted(self) -> bool:
        """Whether the server has sent something while we are sending, or has closed."""
        return bool(self._replies) or self._end is not None

    async def _wait_for_space(self) -> None:
        """Wait until more can be written, or the server has sent something.

        Raises:
            TimeoutError: the server accepts no data.
        """
        await asyncio.sleep(0)  # uvloop sends what is written in one iteration as one segment
        # Space comes in large steps: when a third of the kernel's buffer (megabytes) is free.
        before, limit = self._unacknowledged(), PeerTimeout(self.timeout)
        while self._paused and not self._interrupted:
            try:
                await self._wait(limit)
            except TimeoutError:
                left = self._unacknowledged()
                if left >= before:
                    raise
                before, limit = left, PeerTimeout(self.timeout)

    async def _wait_for_acknowledgement(self, last: bytes) -> bytes:
        """Wait until the server's host has acknowledged everything, or the server sends something.

        Linux delays the acknowledgement of a single small segment (by 40 ms or more), but
        acknowledges two segments as soon as the second one is read. So writing one or two more
        octets early avoids the delay.

        Args:
            last: the end of the message; its first octets may be written here.

        Returns:
            The rest of `last`.

        Raises:
            TimeoutError: the server accepts no data.
        """
        before, pause, limit = -1, _FIRST_LOOK, PeerTimeout(self.timeout)
        nudges = _NUDGES if len(last) > 2 * _NUDGES else 0
        while not self._interrupted:
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
        """Return the number of octets received by the kernel and not read yet."""
        return unread(self._socket)
