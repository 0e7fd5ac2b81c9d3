"""Lazy connections: the core greets them, makes a protocol at the first byte, and ends silent ones.

Rules of this file: asyncio has no such thing, so the tests themselves say what is right. From the
first byte on, a lazy connection is like any other; only what may differ is tested here.
"""

from __future__ import annotations

import gc
import socket
import sys
from typing import Any

import pytest
from support.loops import LoopFactory
from support.raw_client import RawClient
from support.world import Buffered, Hook, Note, Recorder, World, play

from fastlisten.loop.engines import engine_for

pytestmark = pytest.mark.usefixtures("descriptors_back")


def census(world: World) -> dict[str, int]:
    """Return the engine's count of slots by state."""
    return engine_for(world.loop).census()


def names(log: list[Note]) -> list[str]:
    """Return the first word of each note."""
    return [note[0] for note in log]


def test_protocol_is_created_at_the_first_byte(loop_factory: LoopFactory) -> None:
    async def script(world: World) -> None:
        def factory() -> Recorder:
            world.note("factory")
            return Recorder(world)

        server = await world.serve(factory, lazy=True, greeting=b"220 hello\r\n")
        client = await world.connect()
        world.note("client", await client.receive(11))
        await world.settle()
        counts = census(world)
        world.note("census", counts["lazy"], counts["served"], counts["endpoints"])
        world.note("connections", server.connections)
        await client.send(b"EHLO")
        await world.until("data_received")
        counts = census(world)
        world.note("census", counts["lazy"], counts["served"], counts["endpoints"])
        peername = world.transports[0].get_extra_info("peername")
        world.note("peername", peername == client.sock.getsockname())
        client.close()
        await world.until("connection_lost")

    assert play(script, loop_factory) == [
        ("client", b"220 hello\r\n"),
        ("census", 1, 0, 0),
        ("connections", 1),
        ("factory",),
        ("connection_made",),
        ("data_received", "bytes", b"EHLO"),
        ("census", 0, 1, 1),
        ("peername", True),
        ("eof_received",),
        ("connection_lost", "none"),
    ]


def test_silent_connections_create_no_python_objects(loop_factory: LoopFactory) -> None:
    async def script(world: World) -> None:
        server = await world.serve(lambda: Recorder(world), lazy=True, greeting=b"hello\r\n")
        clients = []

        async def batch() -> None:
            for _ in range(100):
                sock = socket.socket()
                sock.connect(world.address)
                clients.append(sock)
            await world.until(lambda: server.connections == len(clients))

        await batch()
        gc.collect()
        blocks, objects = sys.getallocatedblocks(), len(gc.get_objects())
        for _ in range(3):
            await batch()
        gc.collect()
        # Each client costs one block: its socket object (extras of the list are not tracked).
        # A server's connection would be two or more.
        world.note("blocks", (sys.getallocatedblocks() - blocks) / 300)
        world.note("objects", (len(gc.get_objects()) - objects) / 300)
        for sock in clients:
            sock.close()
        await world.until(lambda: server.connections == 0)

    (_, blocks), (_, objects) = play(script, loop_factory)
    assert blocks < 2.5
    assert objects < 1.5


@pytest.mark.parametrize("ending", ["eof", "reset", "half-close"])
@pytest.mark.parametrize("greeting", [b"", b"220 hello\r\n"], ids=["mute", "greeted"])
def test_client_ends_before_the_first_byte(
    loop_factory: LoopFactory, ending: str, greeting: bytes
) -> None:
    """The core ends it: no factory is called, nothing is left."""

    async def script(world: World) -> None:
        server = await world.serve(lambda: Recorder(world), lazy=True, greeting=greeting)
        client = await world.connect()
        await world.until(lambda: server.connections == 1)
        if ending == "eof":
            client.close()
        elif ending == "reset":
            client.reset()
        else:
            client.finish()
            world.note("client", await client.rest())
        await world.until(lambda: server.connections == 0)
        counts = census(world)
        world.note("census", counts["lazy"], counts["open"], counts["endpoints"])

    log = play(script, loop_factory)
    assert log[-1] == ("census", 0, 0, 0)
    assert log[:-1] == ([("client", (greeting, "eof"))] if ending == "half-close" else [])


@pytest.mark.parametrize("ending", ["close", "finish"])
def test_data_and_eof_together(loop_factory: LoopFactory, ending: str) -> None:
    """Bytes that come together with the end of input are not taken for silence."""

    async def script(world: World) -> None:
        server = await world.serve(lambda: Recorder(world), lazy=True)
        server.pause_accepting()
        client = await world.connect()
        await client.send(b"QUIT\r\n")
        getattr(client, ending)()
        server.resume_accepting()
        await world.until("connection_lost")

    assert play(script, loop_factory) == [
        ("connection_made",),
        ("data_received", "bytes", b"QUIT\r\n"),
        ("eof_received",),
        ("connection_lost", "none"),
    ]


def test_data_and_reset_together(loop_factory: LoopFactory) -> None:
    async def script(world: World) -> None:
        server = await world.serve(lambda: Recorder(world), lazy=True)
        server.pause_accepting()
        client = await world.connect()
        await client.send(b"QUIT\r\n")
        client.reset()
        server.resume_accepting()
        await world.until(lambda: server.statistics()["accepted"] == 1)
        await world.until(lambda: server.connections == 0)
        world.note("balance", world.count("connection_made") == world.count("connection_lost"))

    assert play(script, loop_factory)[-1] == ("balance", True)


@pytest.mark.parametrize("kind", [Recorder, Buffered])
def test_pausing_in_connection_made(loop_factory: LoopFactory, kind: Any) -> None:
    """The first bytes wait in the kernel until reading is resumed."""

    async def script(world: World) -> None:
        hooks: dict[str, Hook] = {"connection_made": lambda p, t: t.pause_reading()}
        await world.serve(lambda: kind(world, hooks), lazy=True)
        client = await world.connect()
        await client.send(b"early")
        await world.until("connection_made")
        await client.send(b" bird")
        await world.settle()
        world.note("resuming")
        world.transports[0].resume_reading()
        await world.until(lambda: len(world.log) > 2)
        client.close()
        await world.until("connection_lost")

    log = play(script, loop_factory)
    assert names(log)[:2] == ["connection_made", "resuming"]
    assert log[2][-1] == b"early bird"


@pytest.mark.parametrize("method", ["close", "abort"])
def test_close_in_connection_made(loop_factory: LoopFactory, method: str) -> None:
    async def script(world: World) -> None:
        hooks: dict[str, Hook] = {"connection_made": lambda p, t: getattr(t, method)()}
        server = await world.serve(lambda: Recorder(world, hooks), lazy=True)
        client = await world.connect()
        await client.send(b"never delivered")
        await world.until("connection_lost")
        await world.until(lambda: server.connections == 0)

    assert names(play(script, loop_factory)) == ["connection_made", "connection_lost"]


def test_set_protocol_in_connection_made(loop_factory: LoopFactory) -> None:
    async def script(world: World) -> None:
        second = Buffered(world, name="second ", size=3)
        hooks: dict[str, Hook] = {"connection_made": lambda p, t: t.set_protocol(second)}
        await world.serve(lambda: Recorder(world, hooks), lazy=True)
        client = await world.connect()
        await client.send(b"abcde")
        await world.until("second buffer_updated", 2)
        client.close()
        await world.until("second connection_lost")

    log = play(script, loop_factory)
    assert log[1:3] == [("second buffer_updated", 3, b"abc"), ("second buffer_updated", 2, b"de")]


def test_buffered_protocol_stops_during_the_first_bytes(loop_factory: LoopFactory) -> None:
    """Here too nothing is delivered after close() or while paused."""

    async def script(world: World) -> None:
        def stop(protocol: Recorder, size: int) -> None:
            if world.count("buffer_updated") == 1:
                protocol.transport.pause_reading()
            else:
                protocol.transport.close()

        await world.serve(lambda: Buffered(world, {"buffer_updated": stop}, size=2), lazy=True)
        client = await world.connect()
        await client.send(b"abcdefgh")
        await world.until("buffer_updated")
        await world.settle()
        world.note("resuming")
        world.transports[0].resume_reading()
        await world.until("connection_lost")

    log = play(script, loop_factory)
    assert [note[2] for note in log if note[0] == "buffer_updated"] == [b"ab", b"cd"]
    assert log[2] == ("resuming",)


class Oops(Exception):
    """Raised on purpose."""


@pytest.mark.parametrize("callback", ["factory", "connection_made", "data_received"])
def test_exception_at_the_first_byte(loop_factory: LoopFactory, callback: str) -> None:
    """As with eager connections: connection_made's is only reported, the others end it."""

    async def script(world: World) -> None:
        def broken(*_: Any) -> None:
            raise Oops

        def factory() -> Recorder:
            if callback == "factory":
                broken()
            return Recorder(world, {callback: broken})

        server = await world.serve(factory, lazy=True)
        client = await world.connect()
        await client.send(b"first")
        await world.until("handler")
        await world.settle()
        client.finish()
        await client.rest()
        await world.until(lambda: server.connections == 0)

    log = play(script, loop_factory)
    assert (
        names(log)
        == {
            "factory": ["handler"],
            "connection_made": [
                "connection_made",
                "handler",
                "data_received",
                "eof_received",
                "connection_lost",
            ],
            "data_received": ["connection_made", "data_received", "handler", "connection_lost"],
        }[callback]
    )


def test_many_first_bytes_in_one_turn(loop_factory: LoopFactory) -> None:
    """Clients that speak, stay silent or have gone, all in one batch of events."""

    async def script(world: World) -> None:
        server = await world.serve(lambda: Recorder(world), lazy=True, greeting=b"hello\r\n")
        clients: list[RawClient] = [await world.connect() for _ in range(150)]
        await world.until(lambda: server.connections == 150)
        for number, client in enumerate(clients):
            if number % 3 == 0:
                client.sock.send(b"%d" % number)
            elif number % 3 == 1:
                client.close() if number % 2 else client.reset()
        await world.until(lambda: server.connections == 100)
        await world.until("data_received", 50)
        counts = census(world)
        world.note("census", counts["lazy"], counts["served"], counts["open"])

    log = play(script, loop_factory)
    assert log[-1] == ("census", 50, 50, 100)
    received = sorted(int(note[2]) for note in log if note[0] == "data_received")
    assert received == list(range(0, 150, 3))
