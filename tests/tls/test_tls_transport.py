"""A protocol over TLS: its callbacks, their order, and its transport's methods.

Rules of this file: a test plays one script on asyncio's server and on ours, through both ways to
reach OpenSSL; the logs must be equal, except for the sizes of data_received. Where asyncio's
transport fails (most methods after close, in CPython up to 3.13), the test says what ours does.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from typing import Any

import pytest
from support.loops import LoopFactory
from support.tls_contexts import client_context
from support.tls_world import TlsClient, TlsRecorder, TlsWorld, on_all_ways, play_tls, same_tls
from support.world import Hook

pytestmark = [
    pytest.mark.usefixtures("descriptors_back"),
    on_all_ways,
]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("unix", [False, True], ids=["tcp", "unix"])
def test_requests_and_replies(
    loop_factory: LoopFactory, kind: str, unix: bool, version: ssl.TLSVersion
) -> None:
    async def script(world: TlsWorld) -> None:
        hooks: dict[str, Hook] = {
            "connection_made": lambda p, transport: transport.write(b"hello\r\n"),
            "data_received": lambda p, data: p.transport.write(data.upper()),
        }
        await world.serve(lambda: TlsRecorder(world, hooks), unix=unix)
        client = await world.connect()
        await world.settle()
        world.note("before the handshake", world.count("connection_made"))
        tls = await TlsClient(client, client_context(version=version)).handshake()
        world.note("client", await tls.receive(7), tls.tls.version())
        for word in (b"one", b"two", b"three"):
            await tls.send(word)
            world.note("client", await tls.receive(len(word)))
        await tls.notify()
        await world.until("connection_lost")
        world.note("client", await tls.rest())
        await world.nothing_left()

    log = same_tls(script, loop_factory, kind=kind)
    assert log[0] == ("before the handshake", 0)
    assert log[-3:] == [
        ("eof_received",),
        ("connection_lost", "none"),
        ("client", (b"", "close_notify")),
    ]


def test_handshake_data_and_close_in_one_segment(loop_factory: LoopFactory, kind: str) -> None:
    """The last flight of the handshake, three records and close_notify."""

    async def script(world: TlsWorld) -> None:
        await world.serve(lambda: TlsRecorder(world))
        client = TlsClient(await world.connect())
        flight = await client.last_flight() + client.sealed(b"one") + client.sealed(b"two")
        await client.raw.send(flight + client.sealed(b"three") + client.notice())
        await world.until("connection_lost")

    log = same_tls(script, loop_factory, kind=kind)
    assert log == [
        ("connection_made",),
        ("data_received", "bytes", b"onetwothree"),
        ("eof_received",),
        ("connection_lost", "none"),
    ]


def test_methods_of_an_open_transport(loop_factory: LoopFactory, kind: str) -> None:
    async def script(world: TlsWorld) -> None:
        await world.serve(lambda: TlsRecorder(world))
        client, transport = await world.made()
        world.attempt("write_eof", transport.write_eof)
        world.attempt("can_write_eof", transport.can_write_eof)
        for wrong in ("text", None, 5, [b"a"], object):
            world.attempt("write", transport.write, wrong)
        world.attempt("write", transport.write, b"")
        world.attempt("write", transport.write, memoryview(b"xviewx")[1:-1])
        world.attempt("write", transport.write, bytearray(b"array"))
        world.attempt("writelines", transport.writelines, [])
        world.attempt("writelines", transport.writelines, [b"a", b"", memoryview(b"bc")])
        world.attempt("writelines", transport.writelines, (b"%d" % i for i in range(4)))
        world.note("client", await client.receive(16))
        world.note("limits", transport.get_write_buffer_limits())
        world.attempt("limits", transport.set_write_buffer_limits, 5, 10)
        world.attempt("limits", transport.set_write_buffer_limits, -1)
        for high, low in ((None, 10), (10, None), (100, 50), (None, None)):
            world.attempt("limits", transport.set_write_buffer_limits, high, low)
            world.note("limits", transport.get_write_buffer_limits())
        for method in (
            "is_reading",
            "pause_reading",
            "pause_reading",
            "is_reading",
            "resume_reading",
            "resume_reading",
            "is_reading",
            "is_closing",
            "get_write_buffer_size",
        ):
            world.attempt(method, getattr(transport, method))
        world.note("protocol", transport.get_protocol() is not None)

    log = same_tls(script, loop_factory, kind=kind)
    assert ("client", b"viewarrayabc0123") in log


def test_methods_of_a_lost_transport(
    loop_factory: LoopFactory, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """None fails or does anything (many of asyncio's raise AttributeError)."""

    async def script(world: TlsWorld) -> None:
        await world.serve(lambda: TlsRecorder(world))
        client, transport = await world.made()
        await client.notify()
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
        for _ in range(8):
            world.attempt("write", transport.write, b"late")
            world.attempt("writelines", transport.writelines, [b"late"])
        await world.settle()

    caplog.set_level(logging.WARNING, "asyncio")
    log = play_tls(script, loop_factory, kind=kind)
    assert [note for note in log[3:] if note[1] is not None] == [
        ("is_closing", True),
        ("is_reading", False),
        ("write_eof", "NotImplementedError()"),
        ("can_write_eof", False),
        ("get_write_buffer_size", 0),
        ("get_write_buffer_limits", (131072, 524288)),
    ]
    # As with asyncio, from the fifth write on.
    assert 8 <= len(caplog.records) <= 12
    assert {record.name for record in caplog.records} == {"asyncio"}


def test_methods_inside_connection_lost(loop_factory: LoopFactory, kind: str) -> None:
    async def script(world: TlsWorld) -> None:
        def lost(protocol: Any, exc: BaseException | None) -> None:
            transport = protocol.transport
            world.attempt("closing", transport.is_closing)
            world.attempt("write", transport.write, b"too late")
            world.attempt("close", transport.close)
            world.attempt("abort", transport.abort)
            world.note("cipher", transport.get_extra_info("cipher") is not None)
            world.note("version", transport.get_extra_info("ssl_object").version())
            world.note("protocol", transport.get_protocol() is protocol)

        await world.serve(lambda: TlsRecorder(world, {"connection_lost": lost}))
        client, _ = await world.made()
        await client.notify()
        await world.until("protocol")
        world.note("client", await client.rest())

    log = play_tls(script, loop_factory, kind=kind)
    assert log[2:] == [
        ("connection_lost", "none"),
        ("closing", True),
        ("write", None),
        ("close", None),
        ("abort", None),
        ("cipher", True),
        ("version", "TLSv1.3"),
        ("protocol", True),
        ("client", (b"", "close_notify")),
    ]


@pytest.mark.parametrize("method", ["close", "abort"])
@pytest.mark.parametrize("where", ["connection_made", "data_received", "eof_received"])
def test_close_or_abort_in_a_callback(
    loop_factory: LoopFactory, kind: str, method: str, where: str
) -> None:
    """connection_lost is never called inside the call that causes it."""

    async def script(world: TlsWorld) -> None:
        def end(protocol: Any, *_: Any) -> None:
            protocol.transport.write(b"last words")
            getattr(protocol.transport, method)()
            world.note("returned", protocol.transport.is_closing())

        await world.serve(lambda: TlsRecorder(world, {where: end}))
        client = await world.join()
        if where == "data_received":
            await client.send(b"x")
        elif where == "eof_received":
            await client.notify()
            await world.until("connection_lost")
        rest = await client.rest()
        if where != "eof_received":
            with contextlib.suppress(OSError):
                await client.notify()
        await world.until("connection_lost")
        world.note("client", rest[0])

    log = same_tls(script, loop_factory, kind=kind)
    assert ("returned", True) in log


def test_call_soon_in_connection_made_comes_before_input(
    loop_factory: LoopFactory, kind: str
) -> None:
    """This holds for input that comes later."""

    async def script(world: TlsWorld) -> None:
        hooks: dict[str, Hook] = {
            "connection_made": lambda p, t: world.loop.call_soon(world.note, "soon"),
        }
        await world.serve(lambda: TlsRecorder(world, hooks))
        client, _ = await world.made()
        await world.until("soon")
        await client.send(b"x")
        await world.until("data_received")

    same_tls(script, loop_factory, kind=kind)


def test_eof_received_returns_true(
    loop_factory: LoopFactory, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """asyncio has no half-open connections over TLS: it warns, and the connection ends."""

    async def script(world: TlsWorld) -> None:
        await world.serve(lambda: TlsRecorder(world, {"eof_received": lambda p: True}))
        client, _ = await world.made()
        await client.notify()
        await world.until("connection_lost")
        world.note("warnings", [record.getMessage() for record in caplog.records])
        caplog.clear()
        world.note("client", await client.rest())

    caplog.set_level(logging.WARNING, "asyncio")
    log = same_tls(script, loop_factory, kind=kind)
    assert "has no effect when using ssl" in str(log)


def test_stream_program(loop_factory: LoopFactory, kind: str) -> None:
    """A protocol of asyncio's streams, as asyncio.start_server makes it."""

    async def script(world: TlsWorld) -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            world.note("version", writer.get_extra_info("ssl_object").version())
            writer.write(b"hello\r\n")
            while line := await reader.readline():
                writer.writelines([b"<", line.strip(), b">\r\n"])
                await writer.drain()
            world.note("eof", reader.at_eof(), writer.can_write_eof())
            writer.close()
            await writer.wait_closed()
            world.note("closed")

        def factory() -> asyncio.StreamReaderProtocol:
            reader = asyncio.StreamReader(loop=world.loop)
            return asyncio.StreamReaderProtocol(reader, serve, loop=world.loop)

        await world.serve(factory)
        client = await world.join()
        world.note("client", await client.receive(7))
        await client.send(b"one\r\ntwo\r\nth")
        await client.send(b"ree\r\n")
        world.note("client", await client.receive(19))
        await client.notify()
        await world.until("closed")
        world.note("client", await client.rest())
        await world.nothing_left()

    log = same_tls(script, loop_factory, kind=kind)
    assert ("client", b"<one>\r\n<two>\r\n<three>"[:19]) in log
