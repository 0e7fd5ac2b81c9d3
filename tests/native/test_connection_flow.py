"""Flow control: limits, pause_writing and resume_writing, large transfers to slow readers.

Rules of this file: as in test_connection_writing.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from support.loops import LoopFactory
from support.world import MUCH, Recorder, World, numbers, play, same_as_asyncio, stuffed

pytestmark = pytest.mark.usefixtures("descriptors_back")


def test_large_echo_with_slow_reader(loop_factory: LoopFactory) -> None:
    """An echo of 4 MB with a reader slower than the writer."""

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
    """pause_writing above the high-water mark, resume_writing at the low one, each once."""

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
            # The first write fills the kernel's buffers and leaves a rest in ours.
            transport.write(bytes(60_000))
            assert transport.get_write_buffer_size() > 0
            await world.settle()
        transport.write(bytes(60_000))
        world.note("client", await client.receive(240_000) == bytes(240_000))
        await world.settle()
        world.note("left", transport.get_write_buffer_size())

    same_as_asyncio(script, loop_factory)


def test_limits_set_below_buffered_size(loop_factory: LoopFactory) -> None:
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
    """Data written there follows the buffered data; close() there takes effect after both."""

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


def test_writelines_pauses_the_protocol(loop_factory: LoopFactory) -> None:
    """(CPython did not, up to 3.12.8 and 3.13.1.)"""

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
