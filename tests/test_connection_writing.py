"""The sending half of a transport: write, writelines, write_eof, limits, close with unsent bytes.

Rules of this file: like test_connection_callbacks. How many bytes the kernel takes at once is its
own affair and noted nowhere; that something is left unsent is arranged by small buffers.
"""

from __future__ import annotations

import array
import asyncio
import logging
import random
import sys
from typing import Any

import pytest
from helpers_connection import (
    Hook,
    LoopFactory,
    Recorder,
    World,
    describe,
    play,
    same_as_asyncio,
)

pytestmark = pytest.mark.usefixtures("descriptors_back")

#: More than the kernel takes from a server with `send_buffer=8192` for a client that does not
#: read and has a receive buffer of 4096, and more than the default high-water mark.
MUCH = 300_000


def numbers(size: int, seed: int = 1) -> bytes:
    """Return bytes in which a missing or repeated part shows."""
    return random.Random(seed).randbytes(size)


async def stuffed(world: World, hooks: dict[str, Hook] | None = None) -> tuple[Any, Any]:
    """Return (client, transport) of which the transport holds `MUCH` bytes, mostly unsent."""
    await world.serve(lambda: Recorder(world, hooks), send_buffer=8192)
    client = await world.connect(receive_buffer=4096)
    await world.until("connection_made")
    transport = world.transports[0]
    transport.write(numbers(MUCH))
    assert transport.get_write_buffer_size() > 65536
    return client, transport


def test_types_that_can_be_written(loop_factory: LoopFactory) -> None:
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


def test_a_sliced_view_is_written_in_its_order(loop_factory: LoopFactory) -> None:
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
def test_data_changed_after_the_call(loop_factory: LoopFactory, kind: Any) -> None:
    """The bytes of the moment of the call are sent. (asyncio, since 3.12, sends the later ones.)"""

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


def test_a_released_view(loop_factory: LoopFactory) -> None:
    """Unsent bytes do not keep the caller's buffer exported."""

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


def test_many_small_writes_against_a_slow_reader(loop_factory: LoopFactory) -> None:
    async def script(world: World) -> None:
        client, transport = await stuffed(world)
        expected = bytearray(numbers(MUCH))
        for i in range(3000):
            piece = b"%d " % i
            transport.write(piece)
            expected += piece
            if i % 500 == 0:
                part = await client.receive(20_000)
                assert part == expected[:20_000]
                del expected[:20_000]
        world.note("client", await client.receive(len(expected)) == expected)
        await world.settle()
        world.note("left", transport.get_write_buffer_size())

    log = same_as_asyncio(script, loop_factory)
    assert log[-2:] == [("client", True), ("left", 0)]


def test_megabytes_both_ways(loop_factory: LoopFactory) -> None:
    """An echo of 4 MB, the reader slower than the writer, flow control doing its work."""

    async def script(world: World) -> None:
        class Echo(asyncio.Protocol):
            transport: Any

            def connection_made(self, transport: Any) -> None:
                self.transport = transport

            def data_received(self, data: bytes) -> None:
                self.transport.write(data)

            def pause_writing(self) -> None:
                world.note("paused")
                self.transport.pause_reading()

            def resume_writing(self) -> None:
                self.transport.resume_reading()

        data = numbers(4_000_000)
        await world.serve(Echo, send_buffer=65536)
        client = await world.connect(receive_buffer=16384)

        async def send() -> None:
            await client.send(data)
            client.finish()

        task = asyncio.create_task(send())
        received = bytearray()
        while part := await client.receive(50_000):
            received += part
        await task
        world.note("client", received == data)

    log = play(script, loop_factory)
    assert ("paused",) in log
    assert log[-1] == ("client", True)


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


def test_writelines_of_a_generator(loop_factory: LoopFactory) -> None:
    async def script(world: World) -> None:
        await world.serve(lambda: Recorder(world))
        client = await world.connect()
        await world.until("connection_made")
        world.transports[0].writelines(b"%d " % i for i in range(5))
        world.note("client", await client.receive(10))

    assert ("client", b"0 1 2 3 4 ") in same_as_asyncio(script, loop_factory)


def test_writelines_pauses_the_protocol(loop_factory: LoopFactory) -> None:
    """(CPython 3.12 and 3.13 forgot to, up to 3.12.8 and 3.13.1.)"""

    async def script(world: World) -> None:
        await world.serve(lambda: Recorder(world), send_buffer=8192)
        client = await world.connect(receive_buffer=4096)
        await world.until("connection_made")
        pieces = [numbers(1000, seed) for seed in range(400)]
        world.transports[0].writelines(pieces)
        await world.until("pause_writing")
        world.transports[0].writelines(pieces[:3])
        received = await client.receive(403_000)
        world.note("client", received == b"".join(pieces + pieces[:3]))
        await world.until("resume_writing")

    log = play(script, loop_factory)
    assert [note for note in log if note[0] != "client"] == [
        ("connection_made",),
        ("pause_writing",),
        ("resume_writing",),
    ]
    assert ("client", True) in log


@pytest.mark.parametrize("unsent", [False, True], ids=["sent", "unsent"])
def test_write_eof(loop_factory: LoopFactory, unsent: bool) -> None:
    """What was written before arrives, then the end; input goes on."""

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


def test_write_eof_to_a_reset_connection(loop_factory: LoopFactory) -> None:
    """The kernel's answer is the caller's to see."""

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
def test_writes_after_the_end(
    loop_factory: LoopFactory, ending: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Dropped; from the fifth on asyncio logs a warning."""

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


def test_everything_after_the_end(loop_factory: LoopFactory) -> None:
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
    """All of it is sent, then connection_lost; input is not read meanwhile."""

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


def test_a_peer_that_is_gone_when_we_write(loop_factory: LoopFactory) -> None:
    """The second write meets the reset that the first one caused."""

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


@pytest.mark.parametrize(
    "limits",
    [
        {},
        {"high": 100_000},
        {"low": 50_000},
        {"high": 100_000, "low": 99_999},
        {"high": 0},
        {"high": 1, "low": 0},
        {"high": 4, "low": 5},
        {"high": -1},
        {"low": -1},
        {"high": 10, "low": -1},
    ],
    ids=str,
)
def test_flow_control(loop_factory: LoopFactory, limits: dict[str, int]) -> None:
    """pause_writing above the high mark, resume_writing at the low one, each once."""

    async def script(world: World) -> None:
        def resumed(protocol: Recorder) -> None:
            transport = protocol.transport
            low, _ = transport.get_write_buffer_limits()
            world.note("resumed at or below low", transport.get_write_buffer_size() <= low)

        await world.serve(lambda: Recorder(world, {"resume_writing": resumed}), send_buffer=8192)
        client = await world.connect(receive_buffer=4096)
        await world.until("connection_made")
        transport = world.transports[0]
        world.attempt("limits", transport.get_write_buffer_limits)
        world.attempt("set", lambda: transport.set_write_buffer_limits(**limits))
        world.attempt("limits", transport.get_write_buffer_limits)
        for _ in range(3):
            # The first fills the kernel's buffers, with a rest of our own.
            transport.write(bytes(60_000))
            assert transport.get_write_buffer_size() > 0
            await world.settle()
        transport.write(bytes(60_000))
        world.note("client", await client.receive(240_000) == bytes(240_000))
        await world.settle()
        world.note("left", transport.get_write_buffer_size())

    same_as_asyncio(script, loop_factory)


def test_limits_set_below_what_waits(loop_factory: LoopFactory) -> None:
    async def script(world: World) -> None:
        await world.serve(lambda: Recorder(world), send_buffer=8192)
        client = await world.connect(receive_buffer=4096)
        await world.until("connection_made")
        transport = world.transports[0]
        transport.set_write_buffer_limits(high=1_000_000)
        transport.write(bytes(MUCH))
        world.note("nothing yet")
        transport.set_write_buffer_limits(high=1000)
        world.note("after")
        transport.set_write_buffer_limits(high=900)
        await client.receive(MUCH)
        await world.until("resume_writing")

    log = same_as_asyncio(script, loop_factory)
    assert log.index(("nothing yet",)) < log.index(("pause_writing",)) < log.index(("after",))


def test_writing_inside_resume_writing(loop_factory: LoopFactory) -> None:
    """Bytes written there follow the others; close() there ends the connection after them."""

    async def script(world: World) -> None:
        rounds = 0

        def resumed(protocol: Recorder) -> None:
            nonlocal rounds
            rounds += 1
            if rounds <= 4:
                protocol.transport.write(b"%d" % rounds + bytes(100_000))
            if rounds == 4:
                protocol.transport.close()

        client, _ = await stuffed(world, {"resume_writing": resumed})
        data, end = await client.rest()
        expected = numbers(MUCH) + b"".join(b"%d" % i + bytes(100_000) for i in range(1, 5))
        world.note("client", data == expected, end)
        await world.until("connection_lost")

    log = same_as_asyncio(script, loop_factory)
    assert ("client", True, "eof") in log


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
