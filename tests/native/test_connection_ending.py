"""The end of a transport: write_eof, close, abort, a reset, and calls made afterwards.

Rules of this file: as in test_connection_writing.
"""

from __future__ import annotations

import logging
import sys

import pytest
from support.loops import LoopFactory
from support.raw_client import describe
from support.world import MUCH, Hook, Recorder, World, numbers, play, same_as_asyncio, stuffed

pytestmark = pytest.mark.usefixtures("descriptors_back")


@pytest.mark.parametrize("unsent", [False, True], ids=["sent", "unsent"])
def test_write_eof_after_buffered_data(loop_factory: LoopFactory, unsent: bool) -> None:
    """What was written before it arrives, then the end; input continues."""

    async def script(world: World) -> None:
        if unsent:
            client, transport = await stuffed(world)
        else:
            await world.serve(lambda: Recorder(world))
            client = await world.connect()
            await world.until("connection_made")
            transport = world.transports[0]
            transport.write(b"all")
        world.attempt("can_write_eof", transport.can_write_eof)
        world.attempt("write_eof", transport.write_eof)
        world.attempt("write_eof again", transport.write_eof)
        world.attempt("write", transport.write, b"more")
        world.attempt("write nothing", transport.write, b"")
        world.attempt("write a text", transport.write, "text")
        world.note("closing", transport.is_closing(), transport.is_reading())
        data, end = await client.rest()
        world.note("client", data == (numbers(MUCH) if unsent else b"all"), end)
        await client.send(b"I am still here")
        await world.until("data_received")
        transport.close()
        await world.until("connection_lost")

    log = same_as_asyncio(script, loop_factory)
    assert ("client", True, "eof") in log


def test_writelines_after_write_eof(loop_factory: LoopFactory) -> None:
    async def script(world: World) -> None:
        await world.serve(lambda: Recorder(world))
        await world.connect()
        await world.until("connection_made")
        world.transports[0].write_eof()
        world.attempt("writelines", world.transports[0].writelines, [b"more"])

    if sys.version_info >= (3, 12):
        same_as_asyncio(script, loop_factory)
    else:
        # 3.11 hands the list to write(), which names itself.
        assert play(script, loop_factory)[-1] == (
            "writelines",
            "RuntimeError('Cannot call writelines() after write_eof()',)",
        )


def test_write_eof_on_reset_connection(loop_factory: LoopFactory) -> None:
    """The caller sees the kernel's error."""

    async def script(world: World) -> None:
        hooks: dict[str, Hook] = {"connection_made": lambda p, t: t.pause_reading()}
        await world.serve(lambda: Recorder(world, hooks))
        client = await world.connect()
        await world.until("connection_made")
        client.reset()
        await world.settle()
        transport = world.transports[0]
        world.attempt("write_eof", transport.write_eof)
        world.note("closing", transport.is_closing())

    log = same_as_asyncio(script, loop_factory)
    assert log[-2][1].startswith("OSError(107")


@pytest.mark.parametrize("ending", ["close", "abort", "write_eof"])
def test_writes_after_close(
    loop_factory: LoopFactory, ending: str, caplog: pytest.LogCaptureFixture
) -> None:
    """They are dropped; from the fifth on asyncio logs a warning."""

    async def script(world: World) -> None:
        await world.serve(lambda: Recorder(world))
        client = await world.connect()
        await world.until("connection_made")
        transport = world.transports[0]
        getattr(transport, ending)()
        for i in range(8):
            caplog.clear()
            world.attempt("write", transport.write, b"late")
            world.note("warnings", i, [record.getMessage() for record in caplog.records])
            world.attempt("write", transport.write, b"")
            if i == 2 and ending != "write_eof":
                await world.until("connection_lost")
        world.note("left", transport.get_write_buffer_size(), transport.is_closing())
        world.note("client", (await client.rest())[0])

    caplog.set_level(logging.WARNING, "asyncio")
    log = same_as_asyncio(script, loop_factory)
    noisy = [note[1] for note in log if note[0] == "warnings" and note[2]]
    assert noisy == ([] if ending == "write_eof" else [4, 5, 6, 7])


def test_all_methods_after_connection_lost(loop_factory: LoopFactory) -> None:
    """No method of a lost transport fails or does anything."""

    async def script(world: World) -> None:
        await world.serve(lambda: Recorder(world))
        await world.connect()
        await world.until("connection_made")
        transport = world.transports[0]
        transport.close()
        await world.until("connection_lost")
        for method in (
            "close",
            "abort",
            "is_closing",
            "is_reading",
            "pause_reading",
            "resume_reading",
            "write_eof",
            "can_write_eof",
            "get_write_buffer_size",
            "get_write_buffer_limits",
            "get_protocol",
        ):
            world.attempt(method, getattr(transport, method))
        world.attempt("write", transport.write, b"late")
        await world.settle()

    same_as_asyncio(script, loop_factory)


def test_close_with_unsent_data(loop_factory: LoopFactory) -> None:
    """All of it is sent before connection_lost; input is not read meanwhile."""

    async def script(world: World) -> None:
        client, transport = await stuffed(world)
        transport.close()
        world.note("closing", transport.is_closing(), transport.is_reading())
        transport.close()
        world.attempt("write", transport.write, b"and this")
        world.attempt("write_eof", transport.write_eof)
        world.attempt("pause_reading", transport.pause_reading)
        world.attempt("resume_reading", transport.resume_reading)
        await world.settle()
        world.note("client", await client.receive(MUCH) == numbers(MUCH))
        world.note("client", await client.receive(8))
        await world.until("connection_lost")
        world.note("left", transport.get_write_buffer_size())

    log = same_as_asyncio(script, loop_factory)
    assert ("client", b"and this") in log


@pytest.mark.parametrize("closed", [False, True], ids=["open", "closing"])
def test_abort_with_unsent_data(loop_factory: LoopFactory, closed: bool) -> None:
    async def script(world: World) -> None:
        client, transport = await stuffed(world)
        if closed:
            transport.close()
        world.attempt("abort", transport.abort)
        world.note("left", transport.get_write_buffer_size(), transport.is_closing())
        transport.abort()
        await world.until("connection_lost")
        data, _ = await client.rest()
        world.note("client", len(data) < MUCH, numbers(MUCH).startswith(data))

    same_as_asyncio(script, loop_factory)


@pytest.mark.parametrize("closed", [False, True], ids=["open", "closing"])
@pytest.mark.parametrize("paused", [False, True], ids=["reading", "paused"])
def test_reset_with_unsent_data(loop_factory: LoopFactory, closed: bool, paused: bool) -> None:
    async def script(world: World) -> None:
        client, transport = await stuffed(world)
        if paused:
            transport.pause_reading()
        if closed:
            transport.close()
        client.reset()
        await world.until("connection_lost")

    log = same_as_asyncio(script, loop_factory)
    lost = [note[1] for note in log if note[0] == "connection_lost"]
    assert lost[0].startswith(("ConnectionResetError", "BrokenPipeError"))


def test_write_to_a_vanished_peer(loop_factory: LoopFactory) -> None:
    """The second write gets the reset that the first one caused."""

    async def script(world: World) -> None:
        hooks: dict[str, Hook] = {"eof_received": lambda p: True}
        await world.serve(lambda: Recorder(world, hooks))
        client = await world.connect()
        client.close()
        await world.until("eof_received")
        transport = world.transports[0]
        for _ in range(3):
            world.attempt("write", transport.write, b"x")
            await world.settle()
            world.note("closing", transport.is_closing())
        await world.until("connection_lost")

    log = same_as_asyncio(script, loop_factory)
    assert [note[1] for note in log if note[0] == "closing"] == [False, True, True]


def test_writing_inside_connection_lost(loop_factory: LoopFactory) -> None:
    async def script(world: World) -> None:
        def lost(protocol: Recorder, exc: BaseException | None) -> None:
            world.attempt("write", protocol.transport.write, b"too late")
            world.attempt("close", protocol.transport.close)
            world.attempt("abort", protocol.transport.abort)
            world.note("exception", describe(exc), protocol.transport.get_protocol() is protocol)

        await world.serve(lambda: Recorder(world, {"connection_lost": lost}))
        client = await world.connect()
        client.finish()
        await world.until("exception")
        world.note("client", await client.rest())

    same_as_asyncio(script, loop_factory)
