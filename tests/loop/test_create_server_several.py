"""Several servers on one loop: they share one engine, and asyncio's own servers work beside them.

Rules of this file: as in test_create_server.
"""

from __future__ import annotations

import asyncio
import socket

import pytest
from support.loops import LoopFactory
from support.world import Recorder, World, play

import fastlisten
from fastlisten.loop.engines import engine_for

pytestmark = pytest.mark.usefixtures("descriptors_back")


def test_servers_share_an_engine_until_the_last_one_ends(loop_factory: LoopFactory) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        first = await fastlisten.create_server(asyncio.Protocol, "127.0.0.1", 0)
        engine = engine_for(loop)
        second = await fastlisten.create_server(asyncio.Protocol, "127.0.0.1", 0, lazy=True)
        assert engine_for(loop) is engine
        assert engine.census()["listeners"] == 2
        first.close()
        await first.wait_closed()
        assert engine.census()["listeners"] == 1
        _, writer = await asyncio.open_connection(*second.sockets[0].getsockname())
        second.close()
        await asyncio.sleep(0)
        writer.close()
        await writer.wait_closed()
        await asyncio.wait_for(second.wait_closed(), 10)
        assert engine.closed
        # The next server of this loop gets a new one.
        async with await fastlisten.create_server(asyncio.Protocol, "127.0.0.1", 0) as third:
            assert engine_for(loop) is not engine
            assert third.is_serving()

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(main())


def test_servers_created_and_closed_repeatedly(loop_factory: LoopFactory) -> None:
    """Descriptors, listeners and their indexes are reused."""

    async def script(world: World) -> None:
        keep = await world.serve(lambda: Recorder(world, name="kept "))
        address = world.address
        engine = engine_for(world.loop)
        for _ in range(30):
            servers = [await world.serve(lambda: Recorder(world)) for _ in range(10)]
            for server in servers:
                assert await world.reachable(server.sockets[0].getsockname()) == "connected"
            for server in servers:
                server.close()
            for server in servers:
                await world.patience(server.wait_closed())
        world.note("listeners", engine.census()["listeners"], engine.closed)
        world.note("made", world.count("connection_made"), world.count("connection_lost"))
        world.note("reached", await world.reachable(address))
        await world.until("kept connection_lost")
        keep.close()

    log = play(script, loop_factory)
    assert ("listeners", 1, False) in log
    made = next(note for note in log if note[0] == "made")
    assert made[1] == made[2]


def test_asyncio_servers_on_the_same_loop(loop_factory: LoopFactory) -> None:
    """The loop's own servers and transports keep working."""

    async def script(world: World) -> None:
        theirs = await world.loop.create_server(lambda: Recorder(world, name="their "), "127.0.0.1")
        ours = await world.serve(lambda: Recorder(world, name="our "))
        for server in (theirs, ours):
            with socket.create_connection(server.sockets[0].getsockname()) as sock:
                await world.settle()
                sock.sendall(b"hello")
                name = "our " if server is ours else "their "
                await world.until(name + "data_received")
            await world.until(name + "connection_lost")
        theirs.close()
        await theirs.wait_closed()

    log = play(script, loop_factory)
    assert [note[0].split()[0] for note in log] == ["their"] * 4 + ["our"] * 4
