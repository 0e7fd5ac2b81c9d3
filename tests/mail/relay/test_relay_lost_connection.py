"""The last reply of a relay that closes while our client is still sending.

Rules of this file: a relay that closes a TCP socket with unread octets resets the connection. The
tests make that happen between two writes, while the loop does not run, so that the loop writes to a
connection that is lost before it reads what arrived before.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator

import pytest
from support.loops import LOOPS
from support.waiting import PATIENCE, until

from fastlisten.mail.relay.connection import RelayConnection, RemoteClosedError
from fastlisten.mail.relay.kernel_queues import unread
from fastlisten.mail.relay.remote_replies import RemoteReply

#: Of <netinet/tcp.h>: the state of a socket whose connection was reset.
TCP_CLOSE = 7

#: A message. Nobody reads it, so all but the end is acknowledged by the kernel alone.
PIECES = (b"first", b"second", b"third", b".\r\n")


@contextlib.contextmanager
def relay() -> Iterator[tuple[socket.socket, tuple[str, int]]]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(PATIENCE)
        yield listening, listening.getsockname()


def reset(ours: socket.socket, theirs: socket.socket, said: bytes) -> None:
    """Make the relay say something and close with unread octets; return when that has arrived."""
    until(lambda: unread(theirs), "the octets that the relay does not read")
    theirs.sendall(said)
    theirs.close()
    info = (socket.IPPROTO_TCP, socket.TCP_INFO, 1)
    until(lambda: ours.getsockopt(*info)[0] == TCP_CLOSE, "the reset")


async def send(loop: str, said: bytes, before: bytes) -> tuple[RemoteReply, bool]:
    """Send a message; return the reply to it, and whether it is one to the whole message.

    Args:
        said: what the relay says before it closes.
        before: which octets of the message are written just after that.
    """

    class Connection(RelayConnection):
        def write(self, data: bytes) -> None:
            if data.endswith(before):
                assert self.transport is not None
                reset(self.transport.get_extra_info("socket"), theirs, said)
            super().write(data)

    async def message() -> AsyncIterator[bytes]:
        for piece in PIECES:
            yield piece

    with relay() as (listening, address):
        running = asyncio.get_running_loop()
        _, connection = await running.create_connection(lambda: Connection(PATIENCE), *address)
        theirs, _ = listening.accept()
        try:
            return await connection.send(message(), PATIENCE)
        finally:
            connection.abort()


@pytest.mark.parametrize("loop", LOOPS)
def test_refusal_before_a_reset_is_read(loop: str) -> None:
    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        reply, whole = runner.run(send(loop, b"552 5.3.4 enough\r\n", PIECES[1]))
    assert (reply.code, reply.text, whole) == (552, "5.3.4 enough", False)


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("before", PIECES[1:])
def test_positive_reply_before_a_reset_acknowledges_nothing(loop: str, before: bytes) -> None:
    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        reply, whole = runner.run(send(loop, b"250 2.0.0 queued\r\n", before))
    assert (reply.code, whole) == (250, False)


@pytest.mark.parametrize("loop", LOOPS)
def test_reset_without_a_reply(loop: str) -> None:
    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner, pytest.raises(RemoteClosedError):
        runner.run(send(loop, b"", PIECES[1]))
