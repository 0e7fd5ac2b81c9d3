"""The receiving side of a transport: pausing, resuming, chunk sizes, backpressure.

Rules of this file: as in test_connection_callbacks.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from support.loops import LoopFactory
from support.world import Buffered, Hook, Recorder, World, play, same_as_asyncio

from fastlisten.loop.engines import engine_for

pytestmark = pytest.mark.usefixtures("descriptors_back")


def pause(protocol: Recorder, *_: Any) -> None:
    protocol.transport.pause_reading()


def test_pause_and_resume(loop_factory: LoopFactory) -> None:
    """Nothing arrives while paused; both methods may be called repeatedly."""

    async def script(world: World) -> None:
        await world.serve(lambda: Recorder(world))
        client = await world.connect()
        await world.until("connection_made")
        transport = world.transports[0]
        world.note("reading", transport.is_reading())
        for _ in range(2):
            world.attempt("pause", transport.pause_reading)
            world.note("reading", transport.is_reading())
        await client.send(b"while paused")
        await world.settle()
        for _ in range(2):
            world.attempt("resume", transport.resume_reading)
            world.note("reading", transport.is_reading())
        await world.until("data_received")
        transport.pause_reading()
        transport.resume_reading()
        await client.send(b"after")
        await world.until("data_received", 2)
        transport.pause_reading()
        transport.close()
        world.note("reading", transport.is_reading())
        transport.resume_reading()
        world.note("reading", transport.is_reading())
        await world.until("connection_lost")

    same_as_asyncio(script, loop_factory)


@pytest.mark.parametrize("buffered", [False, True])
def test_pause_in_connection_made(loop_factory: LoopFactory, buffered: bool) -> None:
    async def script(world: World) -> None:
        kind = Buffered if buffered else Recorder
        await world.serve(lambda: kind(world, {"connection_made": pause}))
        client = await world.connect()
        await client.send(b"early")
        client.finish()
        await world.until("connection_made")
        await world.settle()
        world.note("resuming")
        world.transports[0].resume_reading()
        await world.until("connection_lost")

    same_as_asyncio(script, loop_factory)


def test_pause_in_data_received(loop_factory: LoopFactory) -> None:
    """One chunk per resume, however much has arrived."""

    async def script(world: World) -> None:
        await world.serve(lambda: Buffered(world, {"buffer_updated": pause}, size=3))
        client = await world.connect()
        await client.send(b"abcdefgh")
        for count in range(1, 4):
            await world.until("buffer_updated", count)
            await world.settle()
            world.note("resuming")
            world.transports[0].resume_reading()
        client.finish()
        world.transports[0].resume_reading()
        await world.until("connection_lost")

    log = same_as_asyncio(script, loop_factory)
    assert [note[1] for note in log if note[0] == "buffer_updated"] == [3, 3, 2]


def test_eof_waits_while_paused(loop_factory: LoopFactory) -> None:
    async def script(world: World) -> None:
        await world.serve(lambda: Recorder(world))
        client = await world.connect()
        await world.until("connection_made")
        transport = world.transports[0]
        transport.pause_reading()
        client.close()
        await world.settle()
        world.note("resuming", transport.is_closing())
        transport.resume_reading()
        await world.until("connection_lost")

    same_as_asyncio(script, loop_factory)


def test_resume_after_eof(loop_factory: LoopFactory) -> None:
    """A protocol that pauses and resumes after eof_received is called again, as with asyncio."""

    async def script(world: World) -> None:
        answers = [True, True, False]
        hooks: dict[str, Hook] = {"eof_received": lambda p: answers.pop(0)}
        await world.serve(lambda: Recorder(world, hooks))
        client = await world.connect()
        client.finish()
        await world.until("eof_received")
        transport = world.transports[0]
        transport.resume_reading()
        await world.settle()
        for count in (2, 3):
            world.note("reading", transport.is_reading())
            transport.pause_reading()
            await world.settle()
            transport.resume_reading()
            await world.until("eof_received", count)
        await world.until("connection_lost")

    same_as_asyncio(script, loop_factory)


def test_large_input_arrives_complete(loop_factory: LoopFactory) -> None:
    """4 MB in chunks of at most 256 KiB, with pauses in between."""

    async def script(world: World) -> None:
        received = bytearray()
        largest = 0

        class Slow(asyncio.Protocol):
            def connection_made(self, transport: Any) -> None:
                self.transport = transport

            def data_received(self, data: bytes) -> None:
                nonlocal largest
                largest = max(largest, len(data))
                received.extend(data)
                if len(received) % 7 == 0:
                    self.transport.pause_reading()
                    world.loop.call_soon(self.transport.resume_reading)

            def connection_lost(self, exc: BaseException | None) -> None:
                world.note("lost")

        data = bytes(range(256)) * 16384
        await world.serve(Slow, receive_buffer=1 << 20)
        client = await world.connect()
        await client.send(data)
        client.close()
        await world.until("lost")
        world.note("received", received == data, largest <= 262144)

    assert play(script, loop_factory)[-1] == ("received", True, True)


@pytest.mark.parametrize("buffered", [False, True])
def test_paused_connection_blocks_its_client(loop_factory: LoopFactory, buffered: bool) -> None:
    """The kernel's buffers fill up and the client blocks: nothing is read in secret."""

    async def script(world: World) -> None:
        kind = Buffered if buffered else Recorder
        await world.serve(lambda: kind(world, {"connection_made": pause}), receive_buffer=4096)
        client = await world.connect(send_buffer=4096)
        await world.until("connection_made")
        sent = 0
        blocked = 0
        while blocked < 50:
            await asyncio.sleep(0)
            try:
                sent += client.sock.send(bytes(8192))
                blocked = 0
            except BlockingIOError:
                blocked += 1
        world.note("held back", 0 < sent < 1_000_000)

    assert play(script, loop_factory)[-1] == ("held back", True)


def test_paused_connections_do_not_wake_the_loop(loop_factory: LoopFactory) -> None:
    """Neither a hang-up nor a reset of a connection that is not read wakes the loop."""

    async def script(world: World) -> None:
        hooks: dict[str, Hook] = {"connection_made": pause, "eof_received": lambda p: True}
        await world.serve(lambda: Recorder(world, hooks))
        clients = [await world.connect() for _ in range(4)]
        await world.until("connection_made", 4)
        clients[0].reset()
        clients[1].close()
        clients[2].finish()
        half_closed = world.transports[3]
        half_closed.resume_reading()
        clients[3].finish()
        half_closed.write_eof()
        await world.until("eof_received")
        await world.settle()
        # A loop without callbacks, timers and events sleeps; one that spins counts turns.
        before = world.loop.time()
        turns = 0

        def turn() -> None:
            nonlocal turns
            turns += 1

        engine = engine_for(world.loop)
        world.loop.remove_reader(engine.fd)
        world.loop.add_reader(engine.fd, turn)
        await asyncio.sleep(0.02)
        world.loop.remove_reader(engine.fd)
        world.loop.add_reader(engine.fd, engine._wake)
        assert world.loop.time() > before
        world.note("turns", turns)

    assert play(script, loop_factory)[-1] == ("turns", 0)
