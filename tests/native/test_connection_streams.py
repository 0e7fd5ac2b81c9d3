"""Programs written for asyncio's streams, unchanged, on our transports.

Rules of this file: as in test_connection_callbacks; the factory is asyncio.StreamReaderProtocol.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from support.loops import LoopFactory
from support.raw_client import RawClient, describe
from support.world import World, same_as_asyncio

pytestmark = pytest.mark.usefixtures("descriptors_back")

Program = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def serve(world: World, program: Program, limit: int = 65536, **options: Any) -> RawClient:
    """Serve a program and return a client connected to it."""
    done = asyncio.Event()

    async def noted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await program(reader, writer)
        except Exception as exc:
            world.note("raised", describe(exc))
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
            world.note("done")
            done.set()

    def factory() -> asyncio.StreamReaderProtocol:
        reader = asyncio.StreamReader(limit=limit, loop=world.loop)
        return asyncio.StreamReaderProtocol(reader, noted, loop=world.loop)

    await world.serve(factory, **options)
    return await world.connect(receive_buffer=4096 if options else 0)


def test_readline(loop_factory: LoopFactory) -> None:
    async def script(world: World) -> None:
        async def program(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"220 hello\r\n")
            while line := await reader.readline():
                writer.writelines([b"250 ", line])
                await writer.drain()
            world.note("at_eof", reader.at_eof())

        client = await serve(world, program)
        world.note("client", await client.receive(11))
        for line in (b"one\r\n", b"two\r\n", b"three\r\n"):
            for i in range(len(line)):
                await client.send(line[i : i + 1])
            world.note("client", await client.receive(4 + len(line)))
        await client.send(b"no end of line")
        client.finish()
        world.note("client", await client.rest())
        await world.until("done")

    log = same_as_asyncio(script, loop_factory)
    assert ("client", (b"250 no end of line", "eof")) in log


def test_read_readexactly_readuntil(loop_factory: LoopFactory) -> None:
    async def script(world: World) -> None:
        async def program(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            world.note("readexactly", await reader.readexactly(4))
            world.note("readuntil", await reader.readuntil(b"."))
            world.note("read", await reader.read(2))
            try:
                await reader.readuntil(b"!")
            except asyncio.IncompleteReadError as exc:
                world.note("incomplete", exc.partial)
            world.note("rest", await reader.read(-1))

        client = await serve(world, program)
        await client.send(b"ABCDuntil.")
        await world.until("readuntil")
        await client.send(b"xy")
        await world.until("read")
        await client.send(b"no mark")
        client.finish()
        await world.until("done")

    same_as_asyncio(script, loop_factory)


def test_line_longer_than_the_limit(loop_factory: LoopFactory) -> None:
    """The reader pauses the transport at twice its limit and resumes it."""

    async def script(world: World) -> None:
        async def program(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                await reader.readline()
            except ValueError:
                world.note("too long")
            total = 0
            while data := await reader.read(1000):
                total += len(data)
            world.note("total", total > 0)

        client = await serve(world, program, limit=1000)
        await client.send(bytes(500_000))
        client.finish()
        await world.until("done")

    log = same_as_asyncio(script, loop_factory)
    assert ("too long",) in log


def test_drain_waits_for_a_slow_reader(loop_factory: LoopFactory) -> None:
    async def script(world: World) -> None:
        async def program(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(bytes(300_000))
            world.note("draining")
            await writer.drain()
            world.note("drained")
            writer.write_eof()
            world.note("answer", await reader.read(-1))

        client = await serve(world, program, send_buffer=8192)
        await world.until("draining")
        await world.settle()
        world.note("still draining", world.count("drained"))
        world.note("client", await client.rest() == (bytes(300_000), "eof"))
        await client.send(b"thanks")
        client.finish()
        await world.until("done")

    log = same_as_asyncio(script, loop_factory)
    assert ("still draining", 0) in log
    assert ("answer", b"thanks") in log


@pytest.mark.parametrize("waiting", ["reading", "draining"])
def test_reset_raises_in_pending_read_or_drain(loop_factory: LoopFactory, waiting: str) -> None:
    async def script(world: World) -> None:
        async def program(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            world.note("started")
            if waiting == "reading":
                await reader.read(-1)
            else:
                writer.write(bytes(300_000))
                await writer.drain()

        client = await serve(world, program, send_buffer=8192)
        await world.until("started")
        client.reset()
        await world.until("done")

    log = same_as_asyncio(script, loop_factory)
    assert log[1][0] == "raised"
    assert log[1][1].startswith(("ConnectionResetError", "BrokenPipeError"))


def test_writing_to_a_closed_stream(loop_factory: LoopFactory) -> None:
    async def script(world: World) -> None:
        async def program(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(1)
            writer.close()
            world.note("closing", writer.is_closing())
            await writer.wait_closed()
            writer.write(b"late")
            await writer.drain()

        client = await serve(world, program)
        await client.send(b"x")
        await world.until("done")
        world.note("client", await client.rest())

    log = same_as_asyncio(script, loop_factory)
    assert any(note[0] == "raised" for note in log)


def test_stream_get_extra_info(loop_factory: LoopFactory) -> None:
    async def script(world: World) -> None:
        async def program(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(1)
            world.note("own", writer.get_extra_info("sockname") == world.address)
            world.note("peer", writer.get_extra_info("peername") == client.sock.getsockname())
            world.note("can_write_eof", writer.can_write_eof())
            world.note("tls", writer.get_extra_info("sslcontext"))
            world.note("none", writer.get_extra_info("no such thing", "default"))

        client = await serve(world, program)
        await client.send(b"x")
        await world.until("done")

    same_as_asyncio(script, loop_factory)


def test_many_concurrent_streams(loop_factory: LoopFactory) -> None:
    """60 echoes of 20 kB, interleaved; no byte goes astray."""

    async def script(world: World) -> None:
        async def program(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while data := await reader.read(4096):
                writer.write(data)
                await writer.drain()

        def factory() -> asyncio.StreamReaderProtocol:
            async def ended(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                await program(reader, writer)
                writer.close()
                await writer.wait_closed()

            reader = asyncio.StreamReader(loop=world.loop)
            return asyncio.StreamReaderProtocol(reader, ended, loop=world.loop)

        await world.serve(factory)

        async def talk(number: int) -> bool:
            client = await world.connect()
            data = bytes([number % 251]) * 20_000
            await client.send(data)
            client.finish()
            return await client.rest() == (data, "eof")

        world.note("all", all(await asyncio.gather(*map(talk, range(60)))))

    assert same_as_asyncio(script, loop_factory) == [("all", True)]
