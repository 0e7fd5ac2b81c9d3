"""After its handshake a connection is no handshake any more: it has its own timeouts, and room.

Rules of this file: what must not happen is seen to have had its time by another connection, to
which it does happen.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from support.listener import Echo
from support.loops import LoopFactory, run
from support.raw_client import RawClient
from support.tls_client import TlsClient
from support.tls_listener import TlsListener, client_hello, tls_listening
from support.waiting import eventually

from fastlisten._tls import TlsSettings

pytestmark = pytest.mark.usefixtures("descriptors_back")

GREETING = b"220 hi\r\n"


async def joined(listener: TlsListener, **options: Any) -> TlsClient:
    """Return a client after its handshake."""
    return await TlsClient(await RawClient.connect(listener.address, **options)).handshake()


async def connected(listener: TlsListener) -> Any:
    """Return the transport of the first connection once its protocol has it."""
    await eventually(lambda: listener.protocols and listener.protocols[0].transport)
    return listener.protocols[0].transport


def test_it_makes_room_for_the_next_handshake(loop_factory: LoopFactory) -> None:
    async def main() -> None:
        async with tls_listening(handshakes=1) as listener:
            clients = []
            for _ in range(3):
                clients.append(await joined(listener))
                await eventually(lambda: listener.settings.in_progress == 0)
            assert listener.count("handshake_failures") == 0
            for client in clients:
                await client.send(b"ping")
                assert await client.receive(4) == b"ping"
                await client.close()

    run(loop_factory, main)


@pytest.mark.parametrize("lazy", [False, True], ids=["eager", "lazy"])
def test_the_handshakes_time_is_over(loop_factory: LoopFactory, lazy: bool) -> None:
    async def main() -> None:
        async with tls_listening(lazy=lazy, handshake_timeout=0.5) as listener:
            done = await joined(listener)
            half = await listener.connect(first=client_hello()[:100])
            await eventually(lambda: listener.count("handshake_failures") == 1)
            half.close()
            assert listener.count("timed_out") == 0
            await done.send(b"ping")
            assert await done.receive(4) == b"ping"
            await done.close()

    run(loop_factory, main)


@pytest.mark.parametrize("lazy", [False, True], ids=["eager", "lazy"])
def test_the_time_for_the_first_byte_begins(loop_factory: LoopFactory, lazy: bool) -> None:
    async def main() -> None:
        async with tls_listening(
            lazy=lazy, first_byte=0.3, farewell_first_byte=b"421 silent\r\n"
        ) as listener:
            client = await joined(listener)
            assert await client.receive(12) == b"421 silent\r\n"
            assert listener.count("timed_out") == 1
            await client.close()

    run(loop_factory, main)


@pytest.mark.parametrize("lazy", [False, True], ids=["eager", "lazy"])
def test_the_greeting_is_encrypted(loop_factory: LoopFactory, lazy: bool) -> None:
    async def main() -> None:
        async with tls_listening(lazy=lazy, greeting=GREETING) as listener:
            client = await listener.connect()
            await eventually(lambda: listener.acceptor.connections == 1)
            await asyncio.sleep(0)
            assert client.at_hand() is None
            tls = await TlsClient(client).handshake()
            assert await tls.receive(len(GREETING)) == GREETING
            await tls.close()

    run(loop_factory, main)


def test_what_came_with_a_pause_is_kept(loop_factory: LoopFactory) -> None:
    """A lazy protocol that pauses when it is made gets its first bytes when it resumes."""

    class Pausing(Echo):
        received = b""

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            self.transport.pause_reading()

        def data_received(self, data: bytes) -> None:
            assert self.transport.is_reading()
            self.received += data

    async def main() -> None:
        async with tls_listening(Pausing, lazy=True) as listener:
            client = await joined(listener)
            await client.send(b"first")
            await eventually(lambda: listener.protocols)
            (protocol,) = listener.protocols
            await asyncio.sleep(0)
            assert protocol.received == b""
            protocol.transport.resume_reading()
            await eventually(lambda: protocol.received == b"first")
            await client.close()

    run(loop_factory, main)


def test_a_pause_is_the_kernels_business(loop_factory: LoopFactory) -> None:
    """epoll is not asked for input: otherwise a client that sends would keep the loop awake."""
    wanted_input = 1  # EPOLLIN

    def events(listener: TlsListener, fd: int) -> int:
        lines = Path(f"/proc/self/fdinfo/{listener.engine.fd}").read_text().splitlines()
        found = [line.split() for line in lines if line.startswith("tfd:")]
        return next((int(words[3], 16) for words in found if int(words[1]) == fd), 0)

    async def main() -> None:
        async with tls_listening() as listener:
            client = await joined(listener)
            transport = await connected(listener)
            fd = transport.get_extra_info("socket").fileno()
            assert events(listener, fd) & wanted_input
            transport.pause_reading()
            assert not events(listener, fd) & wanted_input
            transport.resume_reading()
            assert events(listener, fd) & wanted_input
            await client.close()

    run(loop_factory, main)


def test_the_protocol_is_paused_at_the_limit(loop_factory: LoopFactory) -> None:
    """As asyncio does it under TLS: not only above."""
    told: list[str] = []

    class Told(Echo):
        def pause_writing(self) -> None:
            told.append("pause")

        def resume_writing(self) -> None:
            told.append("resume")

    async def main() -> None:
        async with tls_listening(Told) as listener:
            client = await joined(listener, receive_buffer=2048)
            transport = await connected(listener)
            transport.set_write_buffer_limits(high=100_000_000)
            while not transport.get_write_buffer_size():
                transport.write(bytes(65536))
            size = transport.get_write_buffer_size()
            transport.set_write_buffer_limits(high=size + 10)
            transport.write(b"123456789")
            assert told == []
            transport.write(b"0")
            assert transport.get_write_buffer_size() == size + 10
            assert told == ["pause"]
            transport.abort()
            client.raw.close()

    run(loop_factory, main)


def test_pieces_that_wait_share_a_record(loop_factory: LoopFactory) -> None:
    async def main() -> None:
        async with tls_listening() as listener:
            client = await joined(listener)
            (await connected(listener)).writelines([b"x" * 10] * 100)
            stream = b""
            while len(stream) < 1000:
                stream += await client.raw.read()
            records, at = 0, 0
            while at < len(stream):
                records += 1
                at += 5 + int.from_bytes(stream[at + 3 : at + 5])
            assert records < 10
            client.incoming.write(stream)
            assert await client.receive(1000) == b"x" * 1000
            await client.close()

    run(loop_factory, main)


@pytest.mark.parametrize("context", [None, object(), "context"])
def test_settings_take_a_context_only(context: Any) -> None:
    with pytest.raises(TypeError, match="expected to be an instance of"):
        TlsSettings(context)
