"""Timeouts over TLS: idle clients, replies at a timeout, draining; data in flight is not idleness.

Rules of this file: as in test_core_deadlines; a timeout is short enough to wait for, and what must
not happen gets several times as long.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import Any, NamedTuple

import pytest
from support.listener import Echo
from support.loops import LoopFactory, run
from support.raw_client import RawClient
from support.tls_client import handshake_by_hand
from support.tls_contexts import HOST, client_context
from support.tls_listener import TlsListener, tls_listening
from support.waiting import eventually
from support.world import numbers

pytestmark = pytest.mark.usefixtures("descriptors_back")

#: An idle timeout that tests wait for, seconds.
SHORTLY = 0.25
FAREWELL = b"421 bye\r\n"


async def asyncio_client(
    listener: TlsListener,
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Return the streams of a client made with asyncio."""
    return await asyncio.open_connection(
        *listener.address, ssl=client_context(), server_hostname=HOST
    )


class Established(NamedTuple):
    """A client that has done its handshake, and a record that it has not sent yet."""

    tls: ssl.SSLObject
    incoming: ssl.MemoryBIO
    flight: bytes


async def established(client: RawClient) -> Established:
    """Do the handshake by hand, so that nothing is read or answered beyond what a test says."""
    tls, incoming, outgoing = await handshake_by_hand(client)
    tls.write(b"x")
    return Established(tls, incoming, outgoing.read())


async def leave(writer: asyncio.StreamWriter) -> None:
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize("lazy", [False, True], ids=["eager", "lazy"])
def test_idle_timeout_reply_is_encrypted(loop_factory: LoopFactory, lazy: bool) -> None:
    """After the reply comes close_notify."""

    async def main() -> None:
        async with tls_listening(idle=SHORTLY, farewell_idle=FAREWELL, lazy=lazy) as listener:
            reader, writer = await asyncio_client(listener)
            writer.write(b"word")
            assert await reader.readexactly(4) == b"word"
            assert await reader.read() == FAREWELL
            await leave(writer)
            await listener.empty()
            assert listener.count("timed_out") == 1
            assert listener.count("handshake_failures") == 0

    run(loop_factory, main)


def test_slow_reader_is_not_idle(loop_factory: LoopFactory) -> None:
    """One write takes many times the timeout, while the client reads all the time."""
    answer = numbers(3_000_000)

    class Generous(Echo):
        def data_received(self, data: bytes) -> None:
            self.transport.write(answer)

    async def main() -> None:
        async with tls_listening(Generous, idle=SHORTLY) as listener:
            # Otherwise the kernel takes all of it at once.
            listener.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
            client = await listener.connect(receive_buffer=8192)
            talker = await established(client)
            await client.send(talker.flight)
            incoming, tls = talker.incoming, talker.tls
            received = bytearray()
            begin = asyncio.get_running_loop().time()
            while len(received) < len(answer):
                if len(received) < 500_000:
                    # Slowly at first: some kilobytes at a time, never silent for long.
                    await asyncio.sleep(0.02)
                data = await client.read(16_384)
                assert data, "cut off"
                incoming.write(data)
                while True:
                    try:
                        data = tls.read(65536)
                    except ssl.SSLWantReadError:
                        break
                    assert data, f"closed after {len(received)} bytes"
                    received += data
            assert received == answer
            assert asyncio.get_running_loop().time() - begin > SHORTLY * 2
            assert listener.count("timed_out") == 0
            client.close()
            await listener.empty()

    run(loop_factory, main)


@pytest.mark.parametrize("lazy", [False, True], ids=["eager", "lazy"])
def test_drain_over_tls(loop_factory: LoopFactory, lazy: bool) -> None:
    """Open connections get the reply, busy ones go on, handshakes end without it."""
    protocols: list[Any] = []

    class Sometimes(Echo):
        def __init__(self) -> None:
            protocols.append(self)

    async def main() -> None:
        async with tls_listening(Sometimes, farewell_shutdown=FAREWELL, lazy=lazy) as listener:
            idle, idle_writer = await asyncio_client(listener)
            busy, busy_writer = await asyncio_client(listener)
            for writer, reader in ((idle_writer, idle), (busy_writer, busy)):
                writer.write(b"word")
                assert await reader.readexactly(4) == b"word"
            half = await listener.connect(first=b"\x16\x03\x01")
            silent = await listener.connect()
            await eventually(lambda: listener.acceptor.connections == 4)
            await eventually(lambda: listener.settings.in_progress == 1)
            protocols[1].busy = True
            listener.acceptor.pause()
            # All but the busy one are ending now; those that got the reply may still answer.
            assert listener.acceptor.drain() >= 1
            assert await idle.read() == FAREWELL
            await leave(idle_writer)
            await eventually(lambda: listener.acceptor.drain() == 1)
            assert await half.everything() == b""
            assert await silent.everything() == b""
            busy_writer.write(b"still working")
            assert await busy.readexactly(13) == b"still working"
            protocols[1].busy = False
            listener.acceptor.drain()
            assert await busy.read() == FAREWELL
            await leave(busy_writer)
            await eventually(lambda: listener.acceptor.drain() == 0)
            half.close()
            silent.close()
            await listener.empty()

    run(loop_factory, main)


def test_drain_before_the_first_byte(loop_factory: LoopFactory) -> None:
    """After the handshake and before the first byte there is no protocol; the reply is sent."""

    async def main() -> None:
        async with tls_listening(
            lazy=True, greeting=b"hello\r\n", farewell_shutdown=FAREWELL
        ) as listener:
            reader, writer = await asyncio_client(listener)
            assert await reader.readline() == b"hello\r\n"
            listener.acceptor.drain()
            assert await reader.read() == FAREWELL
            assert listener.protocols == []
            await leave(writer)
            await listener.empty()

    run(loop_factory, main)


def test_close_notify_after_the_timeout_reply_is_not_answered(loop_factory: LoopFactory) -> None:
    """The shutdown timeout holds here, too."""

    async def main() -> None:
        async with tls_listening(
            idle=SHORTLY, farewell_idle=FAREWELL, shutdown_timeout=SHORTLY
        ) as listener:
            client = await listener.connect()
            tls = await established(client)
            await client.send(tls.flight)
            # TCP stays open on this side, and close_notify is not answered.
            await listener.empty()
            assert listener.count("timed_out") == 1
            client.close()

    run(loop_factory, main)


@pytest.mark.parametrize("lazy", [False, True], ids=["eager", "lazy"])
@pytest.mark.parametrize("first", [b"", b"\x16\x03"], ids=["silent", "half"])
def test_no_reply_before_the_handshake_is_done(
    loop_factory: LoopFactory, lazy: bool, first: bytes
) -> None:
    """Without a handshake nothing is sent that was meant to be encrypted."""

    async def main() -> None:
        words: dict[str, Any] = {
            "greeting": b"hello\r\n",
            "farewell_first_byte": FAREWELL,
            "farewell_idle": FAREWELL,
            "farewell_shutdown": FAREWELL,
        }
        async with tls_listening(
            **words, lazy=lazy, handshake_timeout=SHORTLY, first_byte=5.0, idle=5.0
        ) as listener:
            late = await listener.connect(first=first)
            assert await late.everything() == b""
            late.close()
            drained = await listener.connect(first=first)
            await eventually(lambda: listener.acceptor.connections == 1)
            await eventually(lambda: listener.settings.in_progress == bool(first))
            listener.acceptor.drain()
            assert await drained.everything() == b""
            drained.close()
            await listener.empty()

    run(loop_factory, main)


@pytest.mark.parametrize("linger", [0.0, 5.0])
def test_linger_over_tls(loop_factory: LoopFactory, linger: float) -> None:
    """With and without it, what was written before the closing handshake ends arrives."""

    class Brief(Echo):
        def data_received(self, data: bytes) -> None:
            self.transport.write(numbers(300_000))
            self.transport.close()

    async def main() -> None:
        async with tls_listening(Brief, linger=linger) as listener:
            reader, writer = await asyncio_client(listener)
            writer.write(b"go")
            assert await reader.read() == numbers(300_000)
            await leave(writer)
            await listener.empty()

    run(loop_factory, main)
