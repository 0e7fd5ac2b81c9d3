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
from support.waiting import PATIENCE, eventually, until

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


@pytest.mark.parametrize("loop", LOOPS)
def test_reset_ends_the_wait_for_a_reply(loop: str) -> None:
    async def main() -> None:
        with relay() as (listening, address):
            _, connection = await asyncio.get_running_loop().create_connection(
                lambda: RelayConnection(PATIENCE), *address
            )
            theirs, _ = listening.accept()
            connection.write(b"NOOP\r\n")
            waiting = asyncio.create_task(connection.reply(3600))
            await eventually(lambda: unread(theirs), "the command")
            theirs.close()  # with unread octets: a reset
            with pytest.raises(RemoteClosedError):
                await asyncio.wait_for(waiting, PATIENCE)

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(main())


def test_reply_in_the_kernel_keeps_the_end_from_being_sent() -> None:
    """All but the end is acknowledged, and the loop has not read yet what the relay has said."""

    async def main() -> None:
        with relay() as (listening, address):

            class Connection(RelayConnection):
                def _unacknowledged(self) -> int:
                    if not said and self.transport is not None:
                        until(lambda: unread(theirs) >= 5, "all but the end")
                        theirs.sendall(b"250 2.0.0 queued\r\n")
                        said.append(True)
                        until(lambda: unread(self._socket), "the reply")
                        until(lambda: not super(Connection, self)._unacknowledged(), "the rest")
                        return 0
                    return super()._unacknowledged()

            async def message() -> AsyncIterator[bytes]:
                yield b"first"
                said.clear()  # from here on
                yield b".\r\n"

            said = [True]
            _, connection = await asyncio.get_running_loop().create_connection(
                lambda: Connection(PATIENCE), *address
            )
            theirs, _ = listening.accept()
            with theirs:
                reply, whole = await connection.send(message(), PATIENCE)
                assert (reply.code, whole) == (250, False)
                connection.abort()
                await eventually(lambda: connection.transport is None, "the end")
                octets = b""
                with contextlib.suppress(ConnectionResetError):
                    while data := theirs.recv(100):
                        octets += data
                assert octets == b"first"

    asyncio.run(main())


def test_relay_that_accepts_nothing_more() -> None:
    """The message is in our kernel, but the relay's has no room for all of it."""

    async def main() -> None:
        with relay() as (listening, address):
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            _, connection = await asyncio.get_running_loop().create_connection(
                lambda: RelayConnection(0.1), *address
            )
            theirs, _ = listening.accept()
            with theirs:
                assert connection.transport is not None
                sock = connection.transport.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1_000_000)

                async def message() -> AsyncIterator[bytes]:
                    for _ in range(30):
                        yield bytes(1000)

                with pytest.raises(TimeoutError, match="accepts no data"):
                    await asyncio.wait_for(connection.send(message(), PATIENCE), 2 * PATIENCE)
                connection.abort()

    asyncio.run(main())
