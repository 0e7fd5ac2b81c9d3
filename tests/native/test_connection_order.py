"""When callbacks run: relative to call_soon and to each other, never inside the call that causes
them.

Rules of this file: as in test_connection_callbacks. One order is ours and not asyncio's: a callback
that the factory schedules runs after connection_made, because that is called at accept.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from support.loops import LoopFactory
from support.world import Hook, Recorder, World, same_as_asyncio

pytestmark = pytest.mark.usefixtures("descriptors_back")


def soon(world: World, what: str) -> None:
    """Make a note in the next turn of the loop."""
    world.loop.call_soon(world.note, "soon", what)


def test_call_soon_in_connection_made_comes_before_input(loop_factory: LoopFactory) -> None:
    async def script(world: World) -> None:
        hooks: dict[str, Hook] = {"connection_made": lambda p, t: soon(world, "made")}
        await world.serve(lambda: Recorder(world, hooks))
        client = await world.connect()
        await client.send(b"already there")
        await world.until("data_received")

    log = same_as_asyncio(script, loop_factory)
    assert log[1] == ("soon", "made")


def test_eof_is_reported_one_turn_after_data(loop_factory: LoopFactory) -> None:
    async def script(world: World) -> None:
        hooks: dict[str, Hook] = {
            "data_received": lambda p, data: soon(world, "data"),
            "eof_received": lambda p: soon(world, "eof"),
        }
        await world.serve(lambda: Recorder(world, hooks))
        client = await world.connect()
        await world.until("connection_made")
        client.sock.send(b"words")
        client.close()
        await world.until("connection_lost")

    log = same_as_asyncio(script, loop_factory)
    assert [note[0] for note in log] == [
        "connection_made",
        "data_received",
        "soon",
        "eof_received",
        "soon",
        "connection_lost",
    ]


@pytest.mark.parametrize("method", ["close", "abort"])
def test_connection_lost_is_never_called_inside_close(
    loop_factory: LoopFactory, method: str
) -> None:
    """connection_lost takes its turn among the callbacks scheduled before and after it."""

    async def script(world: World) -> None:
        def end(protocol: Recorder, data: bytes) -> None:
            soon(world, "before")
            getattr(protocol.transport, method)()
            soon(world, "after")
            world.note("returned")

        await world.serve(lambda: Recorder(world, {"data_received": end}))
        client = await world.connect()
        await client.send(b"x")
        await world.until("soon", 2)

    log = same_as_asyncio(script, loop_factory)
    assert [note[-1] for note in log[2:]] == ["returned", "before", "none", "after"]


def test_failed_write_is_reported_in_a_later_turn(loop_factory: LoopFactory) -> None:
    async def script(world: World) -> None:
        hooks: dict[str, Hook] = {"connection_made": lambda p, t: t.pause_reading()}
        await world.serve(lambda: Recorder(world, hooks))
        client = await world.connect()
        await world.until("connection_made")
        client.reset()
        await world.settle()
        transport = world.transports[0]
        soon(world, "before")
        transport.write(b"fails")
        world.note("closing", transport.is_closing())
        soon(world, "after")
        await world.until("soon", 2)

    log = same_as_asyncio(script, loop_factory)
    assert [note[0] for note in log[1:]] == ["closing", "soon", "connection_lost", "soon"]


def test_pause_writing_is_called_inside_write(loop_factory: LoopFactory) -> None:
    async def script(world: World) -> None:
        await world.serve(lambda: Recorder(world), send_buffer=8192)
        client = await world.connect(receive_buffer=4096)
        await world.until("connection_made")
        world.note("writing")
        world.transports[0].write(bytes(300_000))
        world.note("written")
        await client.receive(300_000)
        await world.until("resume_writing")

    log = same_as_asyncio(script, loop_factory)
    assert log[1:4] == [("writing",), ("pause_writing",), ("written",)]


def test_resume_writing_and_connection_lost_after_the_last_byte(loop_factory: LoopFactory) -> None:
    """After close(), both come when the rest is sent."""

    async def script(world: World) -> None:
        hooks: dict[str, Hook] = {
            "resume_writing": lambda p: soon(world, "resumed"),
            "connection_lost": lambda p, exc: soon(world, "lost"),
        }
        await world.serve(lambda: Recorder(world, hooks), send_buffer=8192)
        client = await world.connect(receive_buffer=4096)
        await world.until("connection_made")
        world.transports[0].write(bytes(300_000))
        world.transports[0].close()
        await client.rest()
        await world.until("soon", 2)

    same_as_asyncio(script, loop_factory)


def test_closing_in_connection_made_prevents_input(loop_factory: LoopFactory) -> None:
    async def script(world: World) -> None:
        def made(protocol: Recorder, transport: Any) -> None:
            transport.write(b"bye")
            transport.close()

        await world.serve(lambda: Recorder(world, {"connection_made": made}))
        client = await world.connect()
        await world.until("connection_lost")
        world.note("client", await client.rest())

    log = same_as_asyncio(script, loop_factory)
    assert [note[0] for note in log] == ["connection_made", "connection_lost", "client"]


def test_tasks_start_before_the_first_input(loop_factory: LoopFactory) -> None:
    """This holds for tasks started in connection_made."""

    async def script(world: World) -> None:
        tasks = set()

        async def work(transport: Any) -> None:
            world.note("task", transport.is_closing())
            await asyncio.sleep(0)
            transport.write(b"hello")

        def made(protocol: Recorder, transport: Any) -> None:
            tasks.add(world.loop.create_task(work(transport)))

        await world.serve(lambda: Recorder(world, {"connection_made": made}))
        client = await world.connect()
        await client.send(b"early")
        world.note("client", await client.receive(5))
        await world.until("data_received")

    log = same_as_asyncio(script, loop_factory)
    assert log[:2] == [("connection_made",), ("task", False)]
