"""What can be written to a transport, and that it arrives as it was at the time of the call.

Rules of this file: as in test_connection_callbacks. How many bytes the kernel takes at once is not
noted; small buffers see to it that something is left unsent.
"""

from __future__ import annotations

import array
import asyncio
import sys
from typing import Any

import pytest
from support.loops import LoopFactory
from support.world import MUCH, Recorder, World, numbers, play, same_as_asyncio

pytestmark = pytest.mark.usefixtures("descriptors_back")


def test_accepted_types(loop_factory: LoopFactory) -> None:
    async def script(world: World) -> None:
        await world.serve(lambda: Recorder(world))
        client = await world.connect()
        await world.until("connection_made")
        transport = world.transports[0]
        for data in (
            b"bytes",
            bytearray(b"array"),
            memoryview(b"xviewx")[1:-1],
            memoryview(bytearray(b"mutable")),
            b"",
            bytearray(),
            memoryview(b""),
        ):
            world.attempt("write", transport.write, data)
            world.note("left", transport.get_write_buffer_size())
        world.note("client", await client.receive(21))
        for wrong in ("text", None, 5, [b"a"], object, array.array("b", [1, 2])):
            world.attempt("write", transport.write, wrong)
        world.attempt("writelines", transport.writelines, ["text"])
        world.note("closing", transport.is_closing())

    if sys.version_info >= (3, 12):
        same_as_asyncio(script, loop_factory)
        return
    # CPython 3.11 joins the list and says so in the TypeError; ours says what 3.12 says.
    oracle = play(script, asyncio.SelectorEventLoop, native=False)
    ours = play(script, loop_factory)
    strange = [i for i, note in enumerate(oracle) if note[0] == "writelines"]
    assert len(strange) == 1
    assert oracle.pop(strange[0])[1].startswith("TypeError")
    assert ours.pop(strange[0])[1].startswith("TypeError")
    assert ours == oracle


def test_noncontiguous_view(loop_factory: LoopFactory) -> None:
    """A view need not be contiguous, nor of bytes."""

    async def script(world: World) -> None:
        await world.serve(lambda: Recorder(world))
        client = await world.connect()
        await world.until("connection_made")
        transport = world.transports[0]
        transport.write(memoryview(b"a-b-c-d-")[::2])
        transport.write(memoryview(array.array("H", [0x4142, 0x4344])))
        transport.writelines([memoryview(b"xyz")[::-1], array.array("b", [50, 51])])
        world.note("client", await client.receive(13))

    expected = b"abcd" + array.array("H", [0x4142, 0x4344]).tobytes() + b"zyx23"
    assert ("client", expected) in play(script, loop_factory)


@pytest.mark.parametrize("kind", [bytearray, lambda data: memoryview(bytearray(data))])
def test_buffer_modified_after_write(loop_factory: LoopFactory, kind: Any) -> None:
    """The bytes are sent as they were at the call. (asyncio since 3.12 sends the modified ones.)"""

    async def script(world: World) -> None:
        await world.serve(lambda: Recorder(world), send_buffer=8192)
        client = await world.connect(receive_buffer=4096)
        await world.until("connection_made")
        transport = world.transports[0]
        data = kind(numbers(MUCH))
        transport.write(data)
        data[:] = bytes(MUCH)
        more = kind(b"more")
        transport.write(more)
        more[:] = b"less"
        lines = [kind(b"some"), kind(b"more")]
        transport.writelines(lines)
        lines[0][:] = b"xxxx"
        lines.clear()
        received = await client.receive(MUCH + 12)
        world.note("client", received == numbers(MUCH) + b"moresomemore")

    assert ("client", True) in play(script, loop_factory)


def test_buffer_is_released_after_write(loop_factory: LoopFactory) -> None:
    """Unsent data does not keep the caller's buffer exported."""

    async def script(world: World) -> None:
        await world.serve(lambda: Recorder(world), send_buffer=8192)
        client = await world.connect(receive_buffer=4096)
        await world.until("connection_made")
        data = bytearray(numbers(MUCH))
        with memoryview(data) as view:
            world.transports[0].write(view)
        data.clear()
        world.note("client", await client.receive(MUCH) == numbers(MUCH))

    assert ("client", True) in play(script, loop_factory)


@pytest.mark.parametrize(
    "pieces",
    [
        [],
        [b""],
        [b"one"],
        [b"one", b"", bytearray(b"two"), memoryview(b"three")],
        [b"%d," % i for i in range(300)],
        (b"tu", b"ple"),
    ],
    ids=["none", "empty", "one", "mixed", "many", "tuple"],
)
def test_writelines(loop_factory: LoopFactory, pieces: Any) -> None:
    async def script(world: World) -> None:
        await world.serve(lambda: Recorder(world))
        client = await world.connect()
        await world.until("connection_made")
        transport = world.transports[0]
        world.attempt("writelines", transport.writelines, pieces)
        size = sum(map(len, pieces))
        world.note("client", await client.receive(size), transport.get_write_buffer_size())

    same_as_asyncio(script, loop_factory)


def test_writelines_with_a_generator(loop_factory: LoopFactory) -> None:
    async def script(world: World) -> None:
        await world.serve(lambda: Recorder(world))
        client = await world.connect()
        await world.until("connection_made")
        world.transports[0].writelines(b"%d " % i for i in range(5))
        world.note("client", await client.receive(10))

    assert ("client", b"0 1 2 3 4 ") in same_as_asyncio(script, loop_factory)
