"""Data in both directions over TLS when one side is slow: nothing lost, repeated or reordered.

Rules of this file: as in test_tls_transport. Minimal socket buffers and many records at once make
OpenSSL unable to send, or decrypt more than is asked for.
"""

from __future__ import annotations

import contextlib
import hashlib
import ssl
from typing import Any

import pytest
from support.loops import LoopFactory
from support.tls_contexts import client_context
from support.tls_world import (
    MUCH,
    SMALL,
    TlsBuffered,
    TlsRecorder,
    TlsWorld,
    on_all_ways,
    play_tls,
    same_tls,
)
from support.world import Hook, numbers

pytestmark = [
    pytest.mark.usefixtures("descriptors_back"),
    on_all_ways,
]


def test_pause_and_resume_writing_at_the_limits(loop_factory: LoopFactory, kind: str) -> None:
    """Paused at the high-water mark, resumed at the low one, each once."""

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
    """32 MiB at once; the size of the buffer goes down as the client reads."""
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


def test_buffer_modified_after_write(loop_factory: LoopFactory, kind: str) -> None:
    """The data is sent as it was at the call, even if OpenSSL has to retry."""

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


def test_pause_reading_holds_decrypted_data(loop_factory: LoopFactory, kind: str) -> None:
    """Pausing inside data_received takes effect at once, whatever is left inside OpenSSL."""
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
def test_pause_reading_with_a_small_buffer(loop_factory: LoopFactory, kind: str, size: int) -> None:
    """Every filled buffer pauses; pending data comes after each resume, without new input."""
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


def test_paused_connection_does_not_read_the_socket(loop_factory: LoopFactory, kind: str) -> None:
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


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_flood_in_both_directions(
    loop_factory: LoopFactory, kind: str, version: ssl.TLSVersion
) -> None:
    """An echo through minimal buffers; the client sends everything before and while it reads."""
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
