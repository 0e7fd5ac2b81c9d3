"""Greetings sent by the core: larger than the buffers, interrupted, answered too early.

Rules of this file: as in test_connection_lazy.
"""

from __future__ import annotations

import random

import pytest
from support.loops import LoopFactory
from support.world import Hook, Recorder, World, play

from fastlisten.loop.engines import engine_for

pytestmark = pytest.mark.usefixtures("descriptors_back")

#: A greeting of the greatest length, which a small send buffer does not take at once.
LONG = random.Random(7).randbytes(65535)


@pytest.mark.parametrize("lazy", [True, False], ids=["lazy", "eager"])
def test_greeting_larger_than_the_buffers(loop_factory: LoopFactory, lazy: bool) -> None:
    """It arrives whole once the client reads, and nothing of it is buffered twice."""

    async def script(world: World) -> None:
        server = await world.serve(
            lambda: Recorder(world), lazy=lazy, greeting=LONG, send_buffer=4096
        )
        client = await world.connect(receive_buffer=2048)
        await world.until(lambda: server.connections == 1)
        await world.settle()
        world.note("made", world.count("connection_made"))
        received = await client.receive(len(LONG))
        world.note("greeting", received == LONG)
        await world.settle()
        world.note("more", client.ended())
        await client.send(b"x")
        await world.until("data_received")

    log = play(script, loop_factory)
    made = ("connection_made",)
    assert [note for note in log if note != made] == [
        ("made", 0 if lazy else 1),
        ("greeting", True),
        ("more", "open"),
        ("data_received", "bytes", b"x"),
    ]


@pytest.mark.parametrize("lazy", [True, False], ids=["lazy", "eager"])
def test_client_speaks_before_the_greeting_is_sent(loop_factory: LoopFactory, lazy: bool) -> None:
    """What the protocol writes follows the greeting, byte for byte."""

    async def script(world: World) -> None:
        hooks: dict[str, Hook] = {
            "connection_made": lambda p, t: t.write(b"made"),
            "data_received": lambda p, data: p.transport.writelines([b"got ", data]),
        }
        await world.serve(
            lambda: Recorder(world, hooks), lazy=lazy, greeting=LONG, send_buffer=4096
        )
        client = await world.connect(receive_buffer=2048)
        await client.send(b"impatient")
        await world.until("data_received")
        transport = world.transports[0]
        world.note("left", transport.get_write_buffer_size() > 0)
        transport.close()
        data, end = await client.rest()
        world.note("client", data == LONG + b"madegot impatient", end)
        await world.until("connection_lost")

    log = play(script, loop_factory)
    assert ("left", True) in log
    assert ("client", True, "eof") in log


def test_client_closes_during_the_greeting(loop_factory: LoopFactory) -> None:
    """The core ends such a connection by itself."""

    async def script(world: World) -> None:
        server = await world.serve(
            lambda: Recorder(world), lazy=True, greeting=LONG, send_buffer=4096
        )
        clients = [await world.connect(receive_buffer=2048) for _ in range(3)]
        await world.until(lambda: server.connections == 3)
        clients[0].close()
        clients[1].reset()
        clients[2].finish()
        await world.until(lambda: server.connections == 0)
        world.note("done", engine_for(world.loop).open)

    assert play(script, loop_factory) == [("done", 0)]
