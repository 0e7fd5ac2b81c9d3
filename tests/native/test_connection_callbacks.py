"""A protocol's callbacks: which, in what order and with what arguments, compared with asyncio.

Rules of this file: every test plays one script on asyncio's server and on ours, and the logs must
be equal. The asserts inside a script only check that it reached the situation it is about.
"""

from __future__ import annotations

import gc
import warnings
from typing import Any

import pytest
from support.loops import LoopFactory
from support.world import Buffered, Hook, Recorder, World, same_as_asyncio

pytestmark = pytest.mark.usefixtures("descriptors_back")


class Oops(Exception):
    """Raised by hooks; a class that neither asyncio nor the package knows."""


def fail(*_: Any) -> None:
    raise Oops("on purpose")


@pytest.mark.parametrize("unix", [False, True], ids=["tcp", "unix"])
def test_requests_and_replies(loop_factory: LoopFactory, unix: bool) -> None:
    async def script(world: World) -> None:
        hooks: dict[str, Hook] = {
            "connection_made": lambda p, transport: transport.write(b"hello\r\n"),
            "data_received": lambda p, data: p.transport.write(data.upper()),
        }
        await world.serve(lambda: Recorder(world, hooks), unix=unix)
        client = await world.connect()
        world.note("client", await client.receive(7))
        for word in (b"one", b"two", b"three"):
            await client.send(word)
            world.note("client", await client.receive(len(word)))
        client.close()
        await world.until("connection_lost")

    log = same_as_asyncio(script, loop_factory)
    assert log[-2:] == [("eof_received",), ("connection_lost", "none")]


@pytest.mark.parametrize("answer", [None, False, True, 1, "yes", 0, ""])
def test_eof_received_result_decides_on_closing(loop_factory: LoopFactory, answer: object) -> None:
    """Any true result keeps our side open, whatever its type."""

    async def script(world: World) -> None:
        await world.serve(lambda: Recorder(world, {"eof_received": lambda p: answer}))
        client = await world.connect()
        await client.send(b"last words")
        client.finish()
        await world.until("eof_received")
        await world.settle()
        transport = world.transports[0]
        world.note("closing", transport.is_closing(), transport.is_reading(), client.ended())
        world.attempt("write", transport.write, b"answer")
        world.note("client", await client.receive(6))
        transport.close()
        world.note("client", await client.rest())
        await world.until("connection_lost")

    log = same_as_asyncio(script, loop_factory)
    assert ("closing", not answer, bool(answer), "open" if answer else "eof") in log


def test_data_and_eof_together(loop_factory: LoopFactory) -> None:
    async def script(world: World) -> None:
        await world.serve(lambda: Recorder(world))
        client = await world.connect()
        await client.send(b"all of it")
        client.close()
        await world.until("connection_lost")

    same_as_asyncio(script, loop_factory)


@pytest.mark.parametrize("made", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("reading", [True, False], ids=["reading", "paused"])
def test_reset_by_the_peer(loop_factory: LoopFactory, made: bool, reading: bool) -> None:
    """Noticed by a connection that reads; a paused one notices it at its next write."""

    async def script(world: World) -> None:
        hooks: dict[str, Hook] = {}
        if not reading:
            hooks["connection_made"] = lambda p, transport: transport.pause_reading()
        await world.serve(lambda: Recorder(world, hooks))
        client = await world.connect()
        if made:
            await world.until("connection_made")
        client.reset()
        await world.until("connection_made")
        await world.settle()
        transport = world.transports[0]
        world.note("closing", transport.is_closing())
        for _ in range(3):
            world.attempt("write", transport.write, b"anyone there?")
            await world.settle()
        await world.until("connection_lost")

    log = same_as_asyncio(script, loop_factory)
    assert ("closing", reading) in log


def test_reset_with_unread_input(loop_factory: LoopFactory) -> None:
    async def script(world: World) -> None:
        await world.serve(lambda: Recorder(world))
        client = await world.connect()
        await client.send(b"words")
        client.reset()
        await world.until("connection_lost")

    same_as_asyncio(script, loop_factory)


@pytest.mark.parametrize("callback", ["connection_made", "data_received", "eof_received"])
@pytest.mark.parametrize(
    "error",
    [Oops("on purpose"), OSError(5, "not of the socket"), BaseException("bare")],
    ids=["error", "os-error", "base"],
)
def test_exception_in_callback(
    loop_factory: LoopFactory, callback: str, error: BaseException
) -> None:
    """Only reported if raised in connection_made; in the other callbacks it ends the connection."""

    async def script(world: World) -> None:
        def broken(*_: Any) -> None:
            raise error

        await world.serve(lambda: Recorder(world, {callback: broken}))
        client = await world.connect()
        await world.until("connection_made")
        await world.settle()
        await client.send(b"data")
        await world.until("data_received")
        await world.settle()
        if callback != "data_received":
            client.finish()
        await world.until("connection_lost")
        await world.settle()
        world.note("client", await client.rest())

    same_as_asyncio(script, loop_factory)


@pytest.mark.parametrize("ending", ["close", "abort", "peer", "flushed"])
def test_exception_in_connection_lost(loop_factory: LoopFactory, ending: str) -> None:
    async def script(world: World) -> None:
        await world.serve(lambda: Recorder(world, {"connection_lost": fail}), send_buffer=8192)
        client = await world.connect(receive_buffer=4096)
        await world.until("connection_made")
        transport = world.transports[0]
        if ending == "close":
            transport.close()
        elif ending == "abort":
            transport.abort()
        elif ending == "peer":
            client.finish()
        else:
            transport.write(bytes(200_000))
            assert transport.get_write_buffer_size()
            transport.close()
            await world.settle()
            world.note("still open", world.count("connection_lost"))
            world.note("client", await client.receive(200_000) == bytes(200_000))
        await world.until("connection_lost")
        world.note("client", await client.rest())
        await world.until("handler")

    same_as_asyncio(script, loop_factory)


@pytest.mark.parametrize("callback", ["pause_writing", "resume_writing"])
def test_exception_in_flow_control_callback(loop_factory: LoopFactory, callback: str) -> None:
    """It is reported, and the connection goes on."""

    async def script(world: World) -> None:
        await world.serve(lambda: Recorder(world, {callback: fail}), send_buffer=8192)
        client = await world.connect(receive_buffer=4096)
        await world.until("connection_made")
        transport = world.transports[0]
        world.attempt("write", transport.write, bytes(500_000))
        world.note("client", await client.receive(500_000) == bytes(500_000))
        await world.until("resume_writing")
        await world.settle()
        world.attempt("write", transport.write, b"more")
        world.note("client", await client.receive(4))
        world.note("closing", transport.is_closing())

    log = same_as_asyncio(script, loop_factory)
    assert ("client", b"more") in log
    assert any(note[0] == "handler" for note in log)


def test_exception_in_factory(loop_factory: LoopFactory) -> None:
    """The client is closed, others are served. (asyncio reports it only in debug mode.)"""

    async def script(world: World) -> None:
        made = 0

        def factory() -> Recorder:
            nonlocal made
            made += 1
            if made == 1:
                raise Oops("no protocol for you")
            return Recorder(world)

        await world.serve(factory)
        first = await world.connect()
        await world.until("handler")
        # asyncio leaves the socket to the garbage collector.
        gc.collect()
        world.note("first", await first.rest())
        second = await world.connect()
        await second.send(b"hello")
        await world.until("data_received")

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        log = same_as_asyncio(script, loop_factory, debug=True)
    assert ("first", (b"", "eof")) in log


def test_set_protocol_between_callbacks(loop_factory: LoopFactory) -> None:
    """Each callback goes to the protocol that is set at that moment."""

    async def script(world: World) -> None:
        second = Recorder(world, name="second ")
        third = Buffered(world, name="third ", size=4)
        fourth = Recorder(world, name="fourth ", hooks={"eof_received": lambda p: True})

        def change(protocol: Recorder, data: bytes) -> None:
            protocol.transport.set_protocol(second)
            world.note("get_protocol", protocol.transport.get_protocol() is second)

        await world.serve(lambda: Recorder(world, {"data_received": change}))
        client = await world.connect()
        await client.send(b"for the first")
        await world.until("data_received")
        await client.send(b"for the second")
        await world.until("second data_received")
        transport = world.transports[0]
        transport.set_protocol(third)
        await client.send(b"for the third")
        await world.until("third buffer_updated", 4)
        transport.set_protocol(fourth)
        await client.send(b"for the fourth")
        await world.until("fourth data_received")
        client.finish()
        await world.until("fourth eof_received")
        transport.set_protocol(second)
        transport.close()
        world.note("get_protocol", transport.get_protocol() is second)
        await world.until("second connection_lost")
        world.note("get_protocol", transport.get_protocol())

    log = same_as_asyncio(script, loop_factory)
    assert log[-1] == ("get_protocol", None)


def test_buffered_protocol(loop_factory: LoopFactory) -> None:
    async def script(world: World) -> None:
        await world.serve(lambda: Buffered(world, size=5))
        client = await world.connect()
        await world.until("connection_made")
        await client.send(b"twelve bytes")
        await world.until("buffer_updated", 3)
        client.finish()
        await world.until("connection_lost")

    log = same_as_asyncio(script, loop_factory)
    assert ("buffer_updated", 2, b"es") in log


@pytest.mark.parametrize(
    "answer",
    [b"", b"read-only", bytearray(), memoryview(bytearray(3)), None, 17, memoryview(b"const")],
    ids=["empty", "constant", "empty-array", "view", "none", "number", "constant-view"],
)
def test_get_buffer_returns_unusable_objects(loop_factory: LoopFactory, answer: Any) -> None:
    async def script(world: World) -> None:
        def get_buffer(protocol: Buffered, sizehint: int) -> Any:
            world.note("get_buffer", sizehint)
            return answer

        await world.serve(lambda: Buffered(world, {"get_buffer": get_buffer}))
        client = await world.connect()
        await world.until("connection_made")
        await client.send(b"abc")
        await world.until(lambda: world.count("buffer_updated") or world.count("connection_lost"))

    same_as_asyncio(script, loop_factory)


@pytest.mark.parametrize("callback", ["get_buffer", "buffer_updated", "eof_received"])
def test_exception_in_buffered_protocol(loop_factory: LoopFactory, callback: str) -> None:
    async def script(world: World) -> None:
        await world.serve(lambda: Buffered(world, {callback: fail}))
        client = await world.connect()
        await world.until("connection_made")
        await client.send(b"abc")
        await world.settle()
        client.finish()
        await world.until("connection_lost")

    same_as_asyncio(script, loop_factory)
