"""A client's bytes split at every position: sent in two parts, one by one, or cut off there.

Rules of this file: a client sends two flights of the handshake, a record of data and a
close_notify; a position is an index into all of it. At each one the client goes on, closes or
resets; afterwards no slot, place or transport is left.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

import pytest
from support.loops import LoopFactory, run
from support.raw_client import RawClient
from support.tls_contexts import HOST, client_context
from support.tls_listener import TlsListener, tls_listening
from support.tls_world import kind_of_api, no_session_left

pytestmark = pytest.mark.usefixtures("descriptors_back")

WORD = b"the word"
#: Clients at a time.
BATCH = 40
#: Places: those of clients that are gone are freed some time later.
LIMIT = 2000
#: Turns of the loop in which the server takes what was sent.
TURNS = 4

both_versions = pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])


class Witness(asyncio.Protocol):
    """Notes all callbacks."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.notes.append("made")

    def data_received(self, data: bytes) -> None:
        self.received += data

    def eof_received(self) -> None:
        self.notes.append("eof")

    def connection_lost(self, exc: BaseException | None) -> None:
        self.notes.append("lost")


class Talker:
    """A client: OpenSSL between two buffers, and a socket."""

    def __init__(self, client: RawClient, context: ssl.SSLContext) -> None:
        self.client = client
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname=HOST)

    async def flights(self) -> AsyncIterator[bytes]:
        """Yield what this client sends between two replies; finally its data and its end."""
        done = False
        while not done:
            with contextlib.suppress(ssl.SSLWantReadError):
                self.tls.do_handshake()
                done = True
            if done:
                self.tls.write(WORD)
                with contextlib.suppress(ssl.SSLWantReadError):
                    self.tls.unwrap()
            if self.outgoing.pending:
                yield self.outgoing.read()
            else:
                self.incoming.write(await self.client.read())

    async def wait_for_close(self) -> None:
        """Wait for the server's close_notify and the end of TCP."""
        while data := await self.client.read():
            self.incoming.write(data)
        # The server has answered: shutdown is complete.
        self.tls.unwrap()


async def turns() -> None:
    """Give the server time to take what was sent."""
    for _ in range(TURNS):
        await asyncio.sleep(0)


async def pause_at(listener: TlsListener, context: ssl.SSLContext, position: int) -> None:
    """Pause at a position, then go on to the end."""
    client = await listener.connect()
    talker = Talker(client, context)
    async for flight in talker.flights():
        for part in (flight[: max(position, 0)], flight[max(position, 0) :]):
            if part:
                await client.send(part)
                await turns()
        position -= len(flight)
    await talker.wait_for_close()
    client.close()


async def end_at(
    listener: TlsListener, context: ssl.SSLContext, position: int, ending: str
) -> None:
    """Close or reset at a position."""
    client = await listener.connect()
    async for flight in Talker(client, context).flights():
        await client.send(flight[:position])
        position -= len(flight)
        if position <= 0:
            break
    if ending == "reset at once":
        client.reset()
        return
    await turns()
    if ending == "reset":
        client.reset()
    else:
        client.close()


async def bytes_sent(listener: TlsListener, context: ssl.SSLContext) -> int:
    """Return how many bytes a client sends in all."""
    client = await listener.connect()
    talker = Talker(client, context)
    total = 0
    async for flight in talker.flights():
        total += len(flight)
        await client.send(flight)
    await talker.wait_for_close()
    client.close()
    return total


async def run_in_batches(positions: Iterable[int], work: Callable[[int], Awaitable[None]]) -> None:
    """Call it for all positions, in batches."""
    waiting = list(positions)
    while waiting:
        await asyncio.gather(*(work(position) for position in waiting[:BATCH]))
        del waiting[:BATCH]


@both_versions
def test_handshake_byte_by_byte(loop_factory: LoopFactory, version: ssl.TLSVersion) -> None:
    async def main() -> None:
        context = client_context(version=version)
        async with tls_listening(Witness) as listener:
            client = await listener.connect()
            talker = Talker(client, context)
            async for flight in talker.flights():
                for i in range(len(flight)):
                    await client.send(flight[i : i + 1])
                    await turns()
            await talker.wait_for_close()
            client.close()
            await listener.empty()
            (protocol,) = listener.protocols
            assert protocol.notes == ["made", "eof", "lost"]
            assert protocol.received == WORD
            assert listener.count("handshake_failures") == listener.count("truncated") == 0

    with no_session_left():
        run(loop_factory, main)


@both_versions
@pytest.mark.parametrize("kind", ["socket", "memory"])
def test_handshake_split_at_every_position(version: ssl.TLSVersion, kind: str) -> None:
    async def main() -> None:
        context = client_context(version=version)
        async with tls_listening(Witness) as listener:
            total = await bytes_sent(listener, context)
            positions = range(1, total, 1 if kind == "socket" else 7)
            await run_in_batches(positions, lambda position: pause_at(listener, context, position))
            await listener.empty()
            assert len(listener.protocols) == len(positions) + 1
            for protocol in listener.protocols:
                assert protocol.notes == ["made", "eof", "lost"]
                assert protocol.received == WORD
            assert listener.count("handshake_failures") == listener.count("truncated") == 0

    with no_session_left(), kind_of_api(kind):
        run(asyncio.SelectorEventLoop, main)


@both_versions
@pytest.mark.parametrize("ending", ["close", "reset", "reset at once"])
@pytest.mark.parametrize("lazy", [False, True], ids=["eager", "lazy"])
def test_connection_ends_at_every_position(
    loop_factory: LoopFactory, version: ssl.TLSVersion, ending: str, lazy: bool
) -> None:
    async def main() -> None:
        context = client_context(version=version)
        async with tls_listening(Witness, limit=LIMIT, lazy=lazy) as listener:
            total = await bytes_sent(listener, context)
            await listener.empty()
            made = len(listener.protocols)
            # Every position once; the variants, which differ in few instructions, for a sample.
            positions = range(0, total, 1 if ending == "close" and not lazy else 3)
            await run_in_batches(
                positions, lambda position: end_at(listener, context, position, ending)
            )
            await listener.empty()
            assert listener.count("accepted") == len(positions) + 1
            for protocol in listener.protocols[made:]:
                # Either it never knew of the connection, or it was told of its end once.
                assert protocol.notes in ([], ["made", "lost"], ["made", "eof", "lost"])
                assert WORD.startswith(protocol.received)
            shaken = sum(bool(protocol.notes) for protocol in listener.protocols)
            failed = listener.count("handshake_failures")
            if lazy:
                assert shaken + failed <= len(positions) + 1
            elif ending != "reset at once":
                # A client that came and went silently is not a failure.
                assert len(positions) <= shaken + failed <= len(positions) + 1
            assert failed > len(positions) // 4

    with no_session_left():
        run(loop_factory, main)
