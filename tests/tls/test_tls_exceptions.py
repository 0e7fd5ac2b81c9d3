"""Exceptions in a protocol over TLS: how they are reported, and how the connection ends.

Rules of this file: as in test_tls_transport.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from support.loops import LoopFactory
from support.tls_world import (
    TlsBuffered,
    TlsClient,
    TlsRecorder,
    TlsWorld,
    on_all_ways,
    play_tls,
    same_tls,
)

pytestmark = [
    pytest.mark.usefixtures("descriptors_back"),
    on_all_ways,
]


class Oops(Exception):
    """Raised by hooks; a class that neither asyncio nor the package knows."""


def fail(*_: Any) -> None:
    raise Oops("on purpose")


@pytest.mark.parametrize("callback", ["data_received", "eof_received"])
@pytest.mark.parametrize("error", [Oops, OSError], ids=["error", "os-error"])
def test_exception_in_callback(
    loop_factory: LoopFactory, kind: str, callback: str, error: type[Exception]
) -> None:
    """It ends the connection; an OSError is not reported."""

    async def script(world: TlsWorld) -> None:
        def broken(*_: Any) -> None:
            raise error(5, "on purpose")

        await world.serve(lambda: TlsRecorder(world, {callback: broken}))
        client, _ = await world.made()
        await client.send(b"data")
        await world.until("data_received")
        await world.settle()
        if callback == "eof_received":
            await client.notify()
        await world.until("connection_lost")
        await world.settle()
        world.note("client", await client.rest())

    log = same_tls(script, loop_factory, kind=kind)
    assert any(note[0] == "handler" for note in log) == (error is not OSError)


def test_exception_in_connection_made(loop_factory: LoopFactory, kind: str) -> None:
    """It ends the connection, as in asyncio, whose message names its own callback."""

    async def script(world: TlsWorld) -> None:
        await world.serve(lambda: TlsRecorder(world, {"connection_made": fail}))
        client = await world.join()
        await world.until("connection_lost")
        await world.settle()
        world.note("client", (await client.rest())[0])

    expected = play_tls(script, asyncio.SelectorEventLoop, native=False)
    found = play_tls(script, loop_factory, kind=kind)
    for log in (expected, found):
        assert log[1][0] == "handler"
        log[1] = (log[1][0], *log[1][2:])
    assert found == expected


@pytest.mark.parametrize("ending", ["close", "abort", "peer"])
def test_exception_in_connection_lost(loop_factory: LoopFactory, kind: str, ending: str) -> None:
    async def script(world: TlsWorld) -> None:
        await world.serve(lambda: TlsRecorder(world, {"connection_lost": fail}))
        client, transport = await world.made()
        if ending == "close":
            transport.close()
            world.note("client", await client.rest())
            await client.notify()
        elif ending == "abort":
            transport.abort()
        else:
            await client.notify()
        await world.until("connection_lost")
        await world.until("handler")
        await world.nothing_left()

    same_tls(script, loop_factory, kind=kind)


@pytest.mark.parametrize("callback", ["pause_writing", "resume_writing"])
def test_exception_in_flow_control_callback(
    loop_factory: LoopFactory, kind: str, callback: str
) -> None:
    """It is reported, and the connection goes on."""

    async def script(world: TlsWorld) -> None:
        await world.serve(lambda: TlsRecorder(world, {callback: fail}), send_buffer=8192)
        client, transport = await world.made(receive_buffer=4096)
        # Twice, because asyncio hands the first to its transport below, whatever its size.
        world.attempt("write", transport.write, bytes(200_000))
        world.attempt("write", transport.write, bytes(1_800_000))
        world.note("client", await client.receive(2_000_000) == bytes(2_000_000))
        await world.until("resume_writing")
        await world.settle()
        world.attempt("write", transport.write, b"more")
        world.note("client", await client.receive(4), transport.is_closing())

    log = same_tls(script, loop_factory, kind=kind)
    assert ("client", b"more", False) in log
    assert any(note[0] == "handler" for note in log)


@pytest.mark.parametrize("callback", ["get_buffer", "buffer_updated"])
def test_exception_in_buffered_protocol(
    loop_factory: LoopFactory, kind: str, callback: str
) -> None:
    async def script(world: TlsWorld) -> None:
        await world.serve(lambda: TlsBuffered(world, {callback: fail}))
        client = await world.join()
        await client.send(b"abc")
        await world.until("connection_lost")
        await world.settle()

    # asyncio asks for a buffer before there is input, so the order of connection_made differs.
    log = play_tls(script, loop_factory, kind=kind)
    assert [note[0] for note in log if note[0] != "buffer_updated"] == [
        "connection_made",
        "handler",
        "connection_lost",
    ]
    assert log[-1] == ("connection_lost", "Oops('on purpose',)")


def test_exception_in_factory(loop_factory: LoopFactory, kind: str) -> None:
    """The client is closed without a handshake; other clients are served."""

    async def script(world: TlsWorld) -> None:
        made = 0

        def factory() -> TlsRecorder:
            nonlocal made
            made += 1
            if made == 1:
                raise Oops("no protocol for you")
            return TlsRecorder(world)

        await world.serve(factory)
        first = TlsClient(await world.connect())
        try:
            await first.handshake()
        except OSError:
            world.note("first", "failed")
        second, _ = await world.made()
        await second.send(b"hello")
        await world.until("data_received")

    log = [note for note in play_tls(script, loop_factory, kind=kind) if note[0] != "handler"]
    assert log == [("first", "failed"), ("connection_made",), ("data_received", "bytes", b"hello")]
