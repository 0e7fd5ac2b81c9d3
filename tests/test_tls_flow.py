"""Bytes in both directions over TLS when one side is slow: nothing lost, repeated or reordered.

Rules of this file: as in test_tls_transport. That OpenSSL wants to write while it reads, or to
read while it writes, is brought about by the least socket buffers and by key updates (RFC 8446,
4.6.3), which the client asks for through OpenSSL's own function, found by ctypes.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import hashlib
import random
import ssl
from typing import Any

import pytest
from helpers_connection import Hook, LoopFactory, numbers
from helpers_tls import (
    KINDS,
    WAY_NAMES,
    WAYS,
    TlsBuffered,
    TlsClient,
    TlsRecorder,
    TlsWorld,
    openssl_function,
    play_tls,
    same_tls,
)
from helpers_tls_certificates import client_context, server_context
from hypothesis import given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.usefixtures("descriptors_back")

#: The least that the kernel gives; it doubles what is asked for.
SMALL: dict[str, Any] = {"send_buffer": 4096, "receive_buffer": 4096}
#: More than all buffers between the two sides hold, and than the high-water mark of 512 KiB.
MUCH = 1_500_000


@pytest.fixture(params=WAYS, ids=WAY_NAMES)
def way(request: pytest.FixtureRequest) -> tuple[LoopFactory, str]:
    """Return a loop and how OpenSSL is reached."""
    value: tuple[LoopFactory, str] = request.param
    return value


@pytest.fixture
def loop_factory(way: tuple[LoopFactory, str]) -> LoopFactory:
    """Return what makes the event loop."""
    return way[0]


@pytest.fixture
def kind(way: tuple[LoopFactory, str]) -> str:
    """Return how OpenSSL is reached."""
    return way[1]


def key_update(client: TlsClient, *, answer: bool) -> bytes:
    """Return the record of a key update that does or does not ask for one in return."""
    assert openssl_function("SSL_key_update", ctypes.c_int)(client.tls, int(answer)) == 1
    # OpenSSL sends it with the next write; an empty one makes a record of no bytes behind it.
    client.tls.write(b"")
    return client.flight()


# -- out


def test_limits_and_pausing(loop_factory: LoopFactory, kind: str) -> None:
    """Paused at the high-water mark, resumed at the low one; each once."""

    async def script(world: TlsWorld) -> None:
        await world.serve(lambda: TlsRecorder(world), send_buffer=4096)
        client, transport = await world.made(receive_buffer=4096)
        transport.set_write_buffer_limits(200_000, 100_000)
        transport.write(bytes(100_000))
        world.note("written")
        transport.write(bytes(150_000))
        transport.write(bytes(250_000))
        transport.write(bytes(250_000))
        world.note("size", transport.get_write_buffer_size() > 200_000)
        world.note("client", await client.receive(750_000) == bytes(750_000))
        await world.until("resume_writing")
        world.note("size", transport.get_write_buffer_size() <= 100_000)
        await client.notify()
        await world.until("connection_lost")

    log = same_tls(script, loop_factory, kind=kind)
    assert [note[0] for note in log if "writing" in note[0]] == ["pause_writing", "resume_writing"]


@pytest.mark.parametrize("method", ["write", "writelines"])
def test_huge_writes_to_a_slow_reader(loop_factory: LoopFactory, kind: str, method: str) -> None:
    """32 MiB at once; the size of the buffer goes down with what was read."""
    size = 32 << 20
    data = numbers(1 << 20) * 32

    async def script(world: TlsWorld) -> None:
        await world.serve(lambda: TlsRecorder(world))
        client, transport = await world.made()
        if method == "write":
            transport.write(data)
        else:
            transport.writelines([data[i : i + 300_001] for i in range(0, size, 300_001)])
        before = transport.get_write_buffer_size()
        assert before > 16 << 20
        digest = hashlib.sha256(await client.receive(size // 2))
        await world.settle()
        after = transport.get_write_buffer_size()
        world.note("less", before - after > 8 << 20)
        transport.close()
        rest, end = await client.rest()
        digest.update(rest)
        world.note("client", digest.digest() == hashlib.sha256(data).digest(), end)
        await client.notify()
        await world.until("connection_lost")

    log = play_tls(script, loop_factory, kind=kind)
    assert ("less", True) in log
    assert ("client", True, "close_notify") in log
    assert [note[0] for note in log].count("pause_writing") == 1


def test_data_changed_after_the_call(loop_factory: LoopFactory, kind: str) -> None:
    """The bytes of the moment of the call are sent, also where OpenSSL has to retry."""

    async def script(world: TlsWorld) -> None:
        await world.serve(lambda: TlsRecorder(world), send_buffer=4096)
        client, transport = await world.made(receive_buffer=4096)
        data = bytearray(numbers(MUCH))
        transport.write(data)
        data[:] = bytes(MUCH)
        with memoryview(bytearray(b"more")) as view:
            transport.write(view)
            view[:] = b"less"
        world.note("client", await client.receive(MUCH + 4) == numbers(MUCH) + b"more")

    assert ("client", True) in play_tls(script, loop_factory, kind=kind)


@settings(max_examples=15)
@given(
    sizes=st.lists(
        st.one_of(st.integers(0, 40), st.integers(16_000, 17_000), st.integers(0, 200_000)),
        min_size=1,
        max_size=12,
    ),
    seed=st.integers(0, 1000),
    version=st.sampled_from([ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]),
    kind=st.sampled_from(KINDS),
)
def test_chunks_of_any_size(
    sizes: list[int], seed: int, version: ssl.TLSVersion, kind: str
) -> None:
    """What is written in chunks arrives whole, the reader now slow, now quick."""
    chunks = [numbers(size, seed + i) for i, size in enumerate(sizes)]
    total = sum(sizes)

    async def script(world: TlsWorld) -> None:
        chance = random.Random(seed)
        await world.serve(lambda: TlsRecorder(world), send_buffer=4096)
        client, transport = await world.made(
            receive_buffer=4096, context=client_context(version=version)
        )
        received = bytearray()
        for i, chunk in enumerate(chunks):
            if chance.random() < 0.5:
                transport.write(chunk)
            else:
                cut = chance.randrange(len(chunk) + 1)
                transport.writelines([chunk[:cut], chunk[cut:]])
            if chance.random() < 0.5:
                done = min(sum(sizes[: i + 1]), len(received) + chance.randrange(1, 60_000))
                received += await client.receive(done - len(received))
        received += await client.receive(total - len(received))
        assert received == b"".join(chunks)
        world.note("left", transport.get_write_buffer_size())

    log = play_tls(script, asyncio.SelectorEventLoop, kind=kind)
    assert log[-1] == ("left", 0)


# -- in


def test_paused_reading_holds_what_is_decrypted(loop_factory: LoopFactory, kind: str) -> None:
    """Pausing inside data_received stops at once, whatever else waits inside OpenSSL."""
    records = [numbers(size, size) for size in (10, 16_384, 1, 300, 16_000, 5)]
    sent = b"".join(records)

    async def script(world: TlsWorld) -> None:
        received = bytearray()

        def pause(protocol: Any, data: bytes) -> None:
            received.extend(data)
            protocol.transport.pause_reading()

        await world.serve(lambda: TlsRecorder(world, {"data_received": pause}))
        client, transport = await world.made()
        await client.raw.send(b"".join(client.sealed(record) for record in records))
        count = 0
        while len(received) < len(sent):
            await world.until("data_received", count + 1)
            await world.settle()
            count = world.count("data_received")
            size = len(received)
            await world.settle()
            assert len(received) == size
            assert not transport.is_reading()
            transport.resume_reading()
        world.note("received", bytes(received) == sent)
        await client.notify()
        await world.until("connection_lost")

    log = play_tls(script, loop_factory, kind=kind)
    assert ("received", True) in log
    assert [note[0] for note in log[-2:]] == ["eof_received", "connection_lost"]


@pytest.mark.parametrize("size", [3, 700])
def test_pausing_with_a_small_buffer(loop_factory: LoopFactory, kind: str, size: int) -> None:
    """Every filled buffer pauses; what is pending comes after each resume, without new input."""
    sent = numbers(size * 40)

    async def script(world: TlsWorld) -> None:
        received = bytearray()

        def pause(protocol: Any, count: int) -> None:
            received.extend(protocol.buffer[:count])
            protocol.transport.pause_reading()
            world.loop.call_soon(protocol.transport.resume_reading)

        await world.serve(lambda: TlsBuffered(world, {"buffer_updated": pause}, size=size))
        client, _ = await world.made()
        await client.send(sent)
        await world.until(lambda: len(received) == len(sent))
        world.note("received", bytes(received) == sent)

    assert play_tls(script, loop_factory, kind=kind)[-1] == ("received", True)


def test_a_paused_connection_reads_nothing_from_the_socket(
    loop_factory: LoopFactory, kind: str
) -> None:
    """The client's kernel holds back, so a paused protocol bounds memory."""

    async def script(world: TlsWorld) -> None:
        hooks: dict[str, Hook] = {"connection_made": lambda p, t: t.pause_reading()}
        await world.serve(lambda: TlsRecorder(world, hooks), receive_buffer=8192)
        client, transport = await world.made(send_buffer=8192)
        data = client.sealed(bytes(4_000_000))
        sent = 0
        for _ in range(50):
            with contextlib.suppress(BlockingIOError):
                sent += client.sock.send(data[sent : sent + 65536])
            await world.settle()
        world.note("held back", sent < 1_500_000)
        transport.resume_reading()
        await client.raw.send(data[sent:])
        await world.until(
            lambda: (
                sum(len(note[2]) for note in world.log if note[0] == "data_received") == 4_000_000
            )
        )

    assert ("held back", True) in play_tls(script, loop_factory, kind=kind)


# -- both


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_both_sides_flood(loop_factory: LoopFactory, kind: str, version: ssl.TLSVersion) -> None:
    """An echo through the least buffers, the client sending all before and while it reads."""
    sent = numbers(400_000)

    async def script(world: TlsWorld) -> None:
        hooks: dict[str, Hook] = {"data_received": lambda p, data: p.transport.write(data)}
        await world.serve(lambda: TlsRecorder(world, hooks), **SMALL)
        client, _ = await world.made(context=client_context(version=version), **SMALL)
        sending = world.loop.create_task(client.raw.send(client.sealed(sent)))
        received = await client.receive(len(sent))
        await sending
        world.note("client", received == sent)

    assert ("client", True) in play_tls(script, loop_factory, kind=kind)


@pytest.mark.parametrize("answer", [False, True], ids=["told", "asked"])
def test_key_updates_between_records(loop_factory: LoopFactory, kind: str, answer: bool) -> None:
    async def script(world: TlsWorld) -> None:
        hooks: dict[str, Hook] = {"data_received": lambda p, data: p.transport.write(data)}
        await world.serve(lambda: TlsRecorder(world, hooks))
        client, _ = await world.made()
        for i in range(5):
            await client.raw.send(key_update(client, answer=answer))
            await client.send(b"%3d" % i)
            world.note("client", await client.receive(3))
        await client.notify()
        await world.until("connection_lost")

    log = same_tls(script, loop_factory, kind=kind)
    assert ("client", b"  4") in log


def test_a_key_update_while_our_queue_is_full(loop_factory: LoopFactory, kind: str) -> None:
    """The answer waits behind what is unsent; reading and writing go on."""

    async def script(world: TlsWorld) -> None:
        received = bytearray()
        hooks: dict[str, Hook] = {"data_received": lambda p, data: received.extend(data)}
        await world.serve(lambda: TlsRecorder(world, hooks), **SMALL)
        client, transport = await world.made(receive_buffer=4096)
        transport.write(numbers(MUCH))
        assert transport.get_write_buffer_size() > 1_000_000
        await client.raw.send(key_update(client, answer=True) + client.sealed(b"one"))
        await world.until(lambda: bytes(received) == b"one")
        await client.send(b"two")
        await world.until(lambda: bytes(received) == b"onetwo")
        world.note("client", await client.receive(MUCH) == numbers(MUCH))
        transport.write(b"and on")
        world.note("client", await client.receive(6))
        await client.notify()
        await world.until("connection_lost")

    log = [
        note
        for note in play_tls(script, loop_factory, kind=kind)
        if note[0] not in ("data_received", "pause_writing", "resume_writing")
    ]
    assert log == [
        ("connection_made",),
        ("client", True),
        ("client", b"and on"),
        ("eof_received",),
        ("connection_lost", "none"),
    ]


def test_a_flood_of_key_updates_that_nobody_reads(loop_factory: LoopFactory, kind: str) -> None:
    """A client that asks and asks and does not read: memory is bounded and nothing is left.

    (From the second on OpenSSL wants to answer, cannot because a record is half sent, and says
    BAD_LENGTH: a clean end, of which the protocol is told.)
    """

    async def script(world: TlsWorld) -> None:
        await world.serve(lambda: TlsRecorder(world), **SMALL)
        client, transport = await world.made(receive_buffer=4096)
        transport.write(bytes(300_000))
        flood = b"".join(key_update(client, answer=True) for _ in range(2000))
        sent = 0
        for _ in range(100):
            with contextlib.suppress(OSError):
                sent += client.sock.send(flood[sent : sent + 8192])
            await world.settle()
            assert transport.get_write_buffer_size() < 400_000
        client.reset()
        await world.until("connection_lost")
        await world.nothing_left()
        world.note("sent", sent > 0)

    log = play_tls(script, loop_factory, kind=kind)
    assert log[-1] == ("sent", True)
    assert log[-2][1].startswith(("SSLError(BAD_LENGTH", "ConnectionResetError", "BrokenPipe"))


def test_writing_that_wants_to_read(loop_factory: LoopFactory, kind: str) -> None:
    """While a handshake is renewed, which under TLS 1.2 a server may ask for, OpenSSL sends no data
    before it has read the client's part of it."""

    async def script(world: TlsWorld) -> None:
        context = server_context(newest=ssl.TLSVersion.TLSv1_2)
        context.options &= ~ssl.OP_NO_RENEGOTIATION
        received = bytearray()
        hooks: dict[str, Hook] = {"data_received": lambda p, data: received.extend(data)}
        await world.serve(lambda: TlsRecorder(world, hooks), context=context)
        client, transport = await world.made()
        renew = openssl_function("SSL_renegotiate")
        expected = b""
        for i in range(3):
            assert renew(transport.get_extra_info("ssl_object")) == 1
            transport.write(b"%d" % i)
            # The client meets the request and answers with a ClientHello.
            got = hello = b""
            while not (got and hello):
                try:
                    got += client.tls.read(1)
                except ssl.SSLWantReadError:
                    hello += client.flight()
                    if not (got and hello):
                        await client.feed()
            assert got == b"%d" % i
            assert len(hello) > 100
            await client.raw.send(hello)
            await world.settle()
            transport.write(numbers(200_000, i))
            await world.settle()
            # Nothing of it goes out before the client has done its part.
            world.note("waiting", transport.get_write_buffer_size())
            world.note("client", await client.receive(200_000) == numbers(200_000, i))
            await client.send(b"and back")
            expected += b"and back"
            await world.until(lambda: len(received) == len(expected))  # noqa: B023
        world.note("server", bytes(received) == expected)
        await client.notify()
        await world.until("connection_lost")

    log = play_tls(script, loop_factory, kind=kind)
    assert [note for note in log if note[0] in ("waiting", "client", "server")] == [
        *[("waiting", 200_000), ("client", True)] * 3,
        ("server", True),
    ]
    assert log[-2:] == [("eof_received",), ("connection_lost", "none")]
